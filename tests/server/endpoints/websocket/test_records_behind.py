"""A ping that asks how many records subscriptions are behind, and who is answered."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from circuit_breaker_sdk import Client as SDKClient
from circuit_breaker_server.gateway.records_behind import MAX_PLACES
from tests.server.access.office import MINE, open_office
from tests.server.gateway.worlds import ALL_THINGS, cursor_of
from tests.server.stage import Client, staged
from tests.waiting import until


async def answer(client: Client, asked: Mapping[str, object]) -> object:
    """Ask, and return what the server says; behind the pong of the question."""
    client.send({"type": "ping", "payload": {"resume": {"behind": asked}}})
    assert (await client.receive())["type"] == "pong"
    told = await client.receive()
    assert told["type"] == "ping"
    return told["payload"]


async def test_a_cursor_of_a_stopped_operation_is_behind_by_the_records_after_it() -> None:
    async with staged() as stage:
        for n in range(5):
            stage.log.thing("a", n)
        client = await stage.open()
        asked = {"a": cursor_of(stage.log, 2, 0), "b": cursor_of(stage.log, 5, 0)}
        assert await answer(client, asked) == {"resume": {"behind": {"a": 3, "b": 0}}}


async def test_a_running_operation_that_was_sent_everything_is_behind_by_nothing() -> None:
    async with staged() as stage:
        stage.log.thing("a", 0)
        client = await stage.open()
        client.subscribe("1", ALL_THINGS)
        after = await client.live("1")
        stage.log.thing("a", 1)
        await client.next_of("1")
        # What the client knew when it asked does not count: what was sent is before the answer.
        assert await answer(client, {"1": after}) == {"resume": {"behind": {"1": 0}}}


@pytest.mark.parametrize("text", ["", "x", 7, None, ["x"], "ffff.1.0.00000000"])
async def test_what_is_no_cursor_of_this_log_has_no_answer(text: object) -> None:
    async with staged() as stage:
        client = await stage.open()
        assert await answer(client, {"1": text}) == {"resume": {"behind": {}}}


async def test_so_many_subscriptions_are_answered_at_most() -> None:
    async with staged() as stage:
        stage.log.thing("a", 0)
        client = await stage.open()
        cursor = cursor_of(stage.log, 1, 0)
        asked = {str(n): cursor for n in range(MAX_PLACES + 10)}
        assert await answer(client, asked) == {"resume": {"behind": {str(n): 0 for n in range(MAX_PLACES)}}}


@pytest.mark.parametrize("payload", [{"resume": {"behind": 7}}, {"resume": 7}, {"n": 1}, None])
async def test_a_ping_that_asks_nothing_is_a_ping(payload: object) -> None:
    async with staged() as stage:
        client = await stage.open()
        client.send({"type": "ping", "payload": payload} if payload else {"type": "ping"})
        assert (await client.receive())["type"] == "pong"
        await client.answers()


async def test_who_has_not_negotiated_resume_is_not_answered() -> None:
    async with staged() as stage:
        client = await stage.open(resume=False)
        client.send({"type": "ping", "payload": {"resume": {"behind": {}}}})
        assert (await client.receive())["type"] == "pong"
        await client.answers()


async def test_a_caller_without_every_right_is_not_told_how_much_others_write(tmp_path: Path) -> None:
    """Sealed cursors hide it from them, and so does the server."""
    async with open_office(tmp_path, some=("acme", MINE)) as office:
        for who, is_told in (("boss", True), ("some", False)):
            async with office.client(who) as client:
                _kept = await client.subscriptions.resource_updates().subscribe()
                client.health()
                connection = client._parts.manager.members[0].supervisor.present
                assert connection is not None
                assert connection.tells_behind is is_told
                if is_told:
                    await until(partial(is_level, client))


def is_level(client: SDKClient) -> bool:
    return client.health().worst[0].records_behind == 0
