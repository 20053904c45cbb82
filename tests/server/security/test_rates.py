"""Rates: counted in a moving window by who asks, told with a time to wait; a stream is slowed, not broken."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from circuit_breaker_sdk import Client, RateLimitExceeded
from circuit_breaker_server import Server, ServerSettings, logs
from circuit_breaker_server.config import RateSettings
from circuit_breaker_server.security.rate_limits import Rates
from tests.server.operations import CREATE_WORKFLOW, WORKFLOW


@pytest.fixture(autouse=True)
def quiet_logs(default_log_level: None) -> None:
    logs.configure("critical")


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_window_moves_and_is_of_one_principal() -> None:
    hand = Hand()
    rates = Rates(RateSettings(polls_per_second=2), monotonic=hand)
    assert [rates.take("polls", "a") for _ in range(2)] == [None, None]
    hand.now += 0.4
    wait = rates.take("polls", "a")
    assert wait == pytest.approx(0.6)
    assert rates.take("polls", "b") is None
    assert rates.take("operations", "a") is None
    hand.now += 0.61
    assert rates.take("polls", "a") is None


def test_a_system_clock_that_is_set_back_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand()
    rates = Rates(RateSettings(operations_per_second=1), monotonic=hand)
    assert rates.take("operations", "a") is None
    monkeypatch.setattr(time, "time", lambda: 0.0)
    hand.now += 1.01
    assert rates.take("operations", "a") is None


def test_the_clock_of_the_system_that_is_set_back_makes_nobody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = Rates(RateSettings(operations_per_second=1))
    assert rates.take("operations", "a") is None
    monkeypatch.setattr(time, "time", lambda: 0.0)
    wait = rates.take("operations", "a")
    assert wait is None or wait <= 1


def test_without_a_limit_everything_is_taken() -> None:
    rates = Rates(RateSettings(operations_per_second=None))
    assert {rates.take("operations", "a") for _ in range(10_000)} == {None}


def test_addresses_without_end_take_no_memory_without_end() -> None:
    hand = Hand()
    rates = Rates(RateSettings(connects_per_second=5), monotonic=hand)
    for number in range(10_000):
        hand.now += 0.01
        assert rates.take("connects", f"address-{number}") is None
    assert rates.keys < 250


@pytest.mark.parametrize("count", [0, -1])
def test_a_rate_that_lets_nothing_through_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="polls_per_second must be greater than 0"):
        RateSettings(polls_per_second=count)


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, rates: RateSettings) -> AsyncIterator[Server]:
    async with Server(ServerSettings(data_dir=tmp_path, port=0, log_level="critical", rates=rates)) as server:
        yield server


async def test_over_http_it_is_429_with_when_to_try_again(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, RateSettings(operations_per_second=2, polls_per_second=1)) as server,
        aiohttp.ClientSession() as http,
    ):
        body = {"query": "{ health }"}
        statuses = []
        for _ in range(3):
            async with http.post(server.url, json=body) as answer:
                statuses.append(answer.status)
                said = await answer.json(content_type=None)
        assert statuses == [200, 200, 429]
        (error,) = said["errors"]
        assert answer.headers["Retry-After"] == "1"
        assert error["extensions"]["code"] == "RATE_LIMITED"
        assert 0 < error["extensions"]["retryAfterSeconds"] <= 1
        async with Client(server.url) as client:
            asked = (client.execute("{ health }", type=dict[str, str]) for _ in range(3))
            answers = await asyncio.gather(*asked, return_exceptions=True)
            (refused,) = [each for each in answers if isinstance(each, RateLimitExceeded)]
            assert refused.retry_after == 1.0


async def test_the_client_obeys_the_rate_of_subscribes(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, RateSettings(subscribes_per_second=3)) as server,
        Client(server.url) as client,
    ):
        all_of_them = [await client.workflows.subscribe_resource_updates().subscribe() for _ in range(5)]
        assert len({each.id for each in all_of_them}) == 5


@pytest.mark.parametrize(("pace", "count", "is_held"), [(1, 20, True), (200, 400, False)])
async def test_a_stream_above_its_pace_is_slowed_and_whole(
    tmp_path: Path, pace: int, count: int, is_held: bool
) -> None:
    async with (
        serving(tmp_path, RateSettings(events_per_second=pace)) as server,
        Client(server.url) as client,
    ):
        made = await client.execute(CREATE_WORKFLOW, {"input": WORKFLOW}, type=dict[str, dict[str, str]])
        ((thing),) = made.values()
        updates = await client.workflows.subscribe_resource_updates().subscribe()
        for number in range(count):
            await client.workflows.create_resource(workflow_id=thing["id"], data={"n": number})
        if is_held:
            assert updates.stats().received < count
        else:
            seen = [(await anext(updates)).data for _ in range(count)]
            assert seen == [{"n": number} for number in range(count)]


async def test_who_asks_again_at_once_is_not_read_for_a_while(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, RateSettings(subscribes_per_second=1)) as server,
        aiohttp.ClientSession() as http,
    ):
        socket = await http.ws_connect(server.url, protocols=["graphql-transport-ws"])
        await socket.send_json({"type": "connection_init"})
        assert (await socket.receive_json())["type"] == "connection_ack"
        query = {"query": "subscription { resourceUpdates { id } }"}
        for id_ in ("served", "refused"):
            await socket.send_json({"type": "subscribe", "id": id_, "payload": query})
        refused = await socket.receive_json()
        assert (refused["type"], refused["id"]) == ("error", "refused")
        wait = refused["payload"][0]["extensions"]["retryAfterSeconds"]
        began = time.monotonic()
        await socket.send_json({"type": "ping"})
        assert (await socket.receive_json(timeout=30))["type"] == "pong"
        assert time.monotonic() - began >= wait - 0.1
        await socket.close()


def test_a_pace_at_which_a_socket_is_hardly_read_is_refused() -> None:
    with pytest.raises(ValueError, match="frames_per_second must be 100 at least, not 99"):
        RateSettings(frames_per_second=99)


async def test_a_peer_that_is_held_back_is_not_taken_for_silent(tmp_path: Path) -> None:
    settings = ServerSettings(
        data_dir=tmp_path,
        port=0,
        log_level="critical",
        rates=RateSettings(frames_per_second=100),
        ping_seconds=0.05,
        pong_seconds=1.5,
    )
    async with Server(settings) as server, aiohttp.ClientSession() as http:
        socket = await http.ws_connect(server.url, protocols=["graphql-transport-ws"])
        await socket.send_json({"type": "connection_init"})
        assert (await socket.receive_json())["type"] == "connection_ack"
        # Three seconds' worth more than may come at once; the pongs wait behind it.
        for number in range(400):
            await socket.send_json({"type": "complete", "id": str(number)})
        await socket.send_json({"type": "ping", "payload": {"is": "last"}})
        while (said := await socket.receive_json(timeout=30))["type"] != "pong":
            assert said["type"] == "ping"
            await socket.send_json({"type": "pong"})
        assert said["payload"] == {"is": "last"}
        await socket.close()
