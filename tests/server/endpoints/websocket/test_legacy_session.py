"""Sockets of the legacy protocol: the same feeds, limits and permissions, in its words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit_breaker_sdk.protocol.messages import LEGACY_SUBPROTOCOL
from circuit_breaker_server import logs
from circuit_breaker_server.config import RateSettings
from circuit_breaker_server.endpoints.websocket.frame_headers import text_frames
from circuit_breaker_server.graphql.documents import Document
from circuit_breaker_server.security.rate_limits import Rates
from tests.server.gateway.worlds import ALL_THINGS, ONE_THING, cursor_of
from tests.server.stage import Client, Message, Stage, staged
from tests.server.tokens import authenticator, token
from tests.transports.peers import TEXT

NOTHING = "{ nothing }"
KA: Message = {"type": "ka"}
INVALID = {"message": "Invalid message type!"}


@pytest.fixture(autouse=True)
def quiet_logs(default_log_level: None) -> None:
    logs.configure("critical")


@asynccontextmanager
async def legacy(**given: Any) -> AsyncIterator[Stage]:  # Any: what a stage takes
    async with staged(subprotocol=LEGACY_SUBPROTOCOL, **given) as stage:
        yield stage


async def opened(stage: Stage, payload: dict[str, object] | None = None) -> Client:
    """Open a socket that is acknowledged."""
    client = await stage.open(init=False)
    client.send({"type": "connection_init", "payload": payload})
    ack = await client.receive()
    assert ack["type"] == "connection_ack"
    assert await client.receive() == KA
    return client


def start(client: Client, id_: str, query: str = ALL_THINGS, **payload: object) -> None:
    client.send({"id": id_, "type": "start", "payload": {"query": query, **payload}})


async def data_of(client: Client, id_: str) -> dict[str, Any]:
    message = await client.receive()
    assert (message["id"], message["type"]) == (id_, "data"), message
    return msgspec.convert(message["payload"], dict[str, Any])


async def error_of(client: Client, id_: str) -> dict[str, Any]:
    message = await client.receive()
    assert (message["id"], message["type"]) == (id_, "error"), message
    return msgspec.convert(message["payload"], dict[str, Any])


async def test_events_come_as_data_and_no_live_signal_before_them() -> None:
    async with legacy() as stage:
        client = await opened(stage)
        start(client, "1")
        start(client, "2", ONE_THING, variables={"id": "b"})
        await stage.until(lambda: stage.gateway.channels == 2)
        for n, thing in enumerate("ab"):
            stage.log.thing(thing, n)
        received = [await client.receive_bytes() for _ in range(3)]
        things = [
            b'{"id":"1","type":"data","payload":{"data":{"things":{"id":"a","n":0}}}}',
            b'{"id":"1","type":"data","payload":{"data":{"things":{"id":"b","n":1}}}}',
            b'{"id":"2","type":"data","payload":{"data":{"things":{"id":"b","n":1}}}}',
        ]
        assert sorted(received) == things


async def test_a_modern_and_a_legacy_socket_have_the_same_events() -> None:
    async with staged() as stage:
        modern = await stage.open(resume=False)
        for socket in stage.sockets:
            assert socket.subprotocol != LEGACY_SUBPROTOCOL
        modern.subscribe("1", ALL_THINGS)
        await stage.until(lambda: stage.gateway.channels == 1)
        stage.log.thing("a", 0)
        expected = await modern.result_of("1")
    async with legacy() as stage:
        client = await opened(stage)
        start(client, "1")
        await stage.until(lambda: stage.gateway.channels == 1)
        stage.log.thing("a", 0)
        assert await data_of(client, "1") == expected


async def test_an_init_and_a_start_in_one_read_are_served_in_their_order() -> None:
    # The reference's client does not wait for the acknowledgement.
    async with legacy() as stage:
        client = await stage.open(init=False)
        client.send({"type": "connection_init", "payload": {}})
        start(client, "1", NOTHING)
        assert [(await client.receive())["type"] for _ in range(4)] == [
            "connection_ack",
            "ka",
            "data",
            "complete",
        ]


async def test_it_begins_after_a_cursor_that_the_start_names() -> None:
    async with legacy() as stage:
        for n in range(3):
            stage.log.thing("a", n)
        client = await opened(stage, {"resume": {"version": 1}})
        after = cursor_of(stage.log, 1, 0)
        start(client, "1", extensions={"resume": {"after": after}})
        events = [await data_of(client, "1") for _ in range(2)]
        assert [event["data"]["things"]["n"] for event in events] == [1, 2]
        assert events[0]["extensions"]["resume"]["prev"] == after


async def test_a_stop_is_answered_with_complete_and_its_neighbour_goes_on() -> None:
    async with legacy() as stage:
        client = await opened(stage)
        start(client, "1")
        start(client, "2")
        client.send({"id": "1", "type": "stop"})
        client.send({"id": "unknown", "type": "stop"})
        assert await client.receive() == {"id": "1", "type": "complete"}
        stage.log.thing("a", 0)
        await data_of(client, "2")
        client.send({"id": "2", "type": "stop"})
        assert await client.receive() == {"id": "2", "type": "complete"}
        await stage.until(lambda: not stage.gateway.channels)


async def test_an_id_that_is_started_again_has_the_second_operation_only() -> None:
    async with legacy() as stage:
        client = await opened(stage)
        start(client, "1")
        start(client, "1", ONE_THING, variables={"id": "b"})
        await stage.until(lambda: stage.gateway.channels)
        stage.log.thing("a", 0)
        stage.log.thing("b", 1)
        assert (await data_of(client, "1"))["data"]["things"]["id"] == "b"


async def test_a_query_that_is_stopped_is_cancelled() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def execute(_document: Document, *_given: object, **_more: object) -> bytes:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    async with legacy(execute=execute) as stage:
        client = await opened(stage)
        start(client, "1", NOTHING)
        await asyncio.wait_for(started.wait(), 5)
        client.send({"id": "1", "type": "stop"})
        assert await client.receive() == {"id": "1", "type": "complete"}
        await asyncio.wait_for(cancelled.wait(), 5)


@pytest.mark.parametrize(
    ("query", "text"), [("subscription {", "Syntax Error"), ("subscription { nonsense }", "nonsense")]
)
async def test_a_document_that_is_refused_is_an_error_of_one_object(query: str, text: str) -> None:
    async with legacy() as stage:
        client = await opened(stage)
        start(client, "1")
        start(client, "2", query)
        assert text in (await error_of(client, "2"))["message"]
        stage.log.thing("a", 0)
        await data_of(client, "1")


@pytest.mark.parametrize("payload", [None, {}, {"query": 7}, {"query": NOTHING, "variables": []}])
async def test_a_start_that_cannot_be_read_fails_alone(payload: object) -> None:
    async with legacy() as stage:
        client = await opened(stage)
        client.send({"id": "1", "type": "start", **({} if payload is None else {"payload": payload})})
        assert (await error_of(client, "1"))["extensions"] == {"code": "BAD_REQUEST"}
        start(client, "1", NOTHING)
        await data_of(client, "1")


async def test_an_unknown_message_is_an_error_and_the_socket_lives() -> None:
    async with legacy() as stage:
        client = await opened(stage)
        client.send({"id": "1", "type": "subscribe", "payload": {"query": NOTHING}})
        assert await error_of(client, "1") == INVALID
        client.send({"type": "ping"})
        assert await client.receive() == {"type": "error", "payload": INVALID}
        start(client, "1", NOTHING)
        await data_of(client, "1")


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([{"id": "1", "type": "start", "payload": {"query": NOTHING}}], 4401),
        ([{"type": "connection_init"}, {"type": "connection_init"}], 4429),
        ([{"type": "connection_init"}, {"type": "connection_terminate"}], 1000),
        ([{"type": "connection_terminate"}], 1000),
        ([{"type": "connection_init"}, {"id": "x" * 129, "type": "start", "payload": {"query": "q"}}], 4400),
        ([{"no": "type"}], 4400),
    ],
)
async def test_what_ends_a_socket(messages: list[Message], code: int) -> None:
    async with legacy() as stage:
        client = await stage.open(init=False)
        for message in messages:
            client.send(message)
        assert await client.close_code() == code
        await client.leave()
        await stage.until(lambda: not len(stage.sessions))
        assert stage.gateway.channels == 0


async def test_whoever_does_not_introduce_himself_in_time_is_closed_with_4408() -> None:
    async with legacy(init_timeout_seconds=0.01) as stage:
        client = await stage.open(init=False)
        assert await client.close_code() == 4408


async def test_a_refused_token_is_a_connection_error_and_a_close_a_little_later() -> None:
    async with legacy(authenticator=authenticator()) as stage:
        client = await stage.open(init=False)
        client.send({"type": "connection_init", "payload": {}})
        start(client, "1", NOTHING)
        error = await client.receive()
        told = time.monotonic()
        assert error == {"type": "connection_error", "payload": {"message": "token missing"}}
        assert await client.closed() == (4403, "token missing")
        assert time.monotonic() - told >= 0.005
        good = await opened(stage, {"Authorization": f"Bearer {token()}"})
        start(good, "1", NOTHING)
        await data_of(good, "1")


async def test_rates_are_asked_and_told_in_an_error() -> None:
    rates = Rates(RateSettings(subscribes_per_second=1))
    async with legacy(rates=rates) as stage:
        client = await opened(stage)
        start(client, "1")
        start(client, "2")
        assert (await error_of(client, "2"))["extensions"]["code"] == "RATE_LIMITED"


async def test_operations_are_limited() -> None:
    async with legacy(max_operations=1) as stage:
        client = await opened(stage)
        start(client, "1")
        start(client, "2")
        assert (await error_of(client, "2"))["extensions"] == {"code": "TOO_MANY_OPERATIONS"}


async def test_ka_come_by_themselves_and_nobody_has_to_answer() -> None:
    async with legacy(ping_seconds=0.01, pong_seconds=0.01) as stage:
        client = await opened(stage)
        for _ in range(10):
            assert await client.receive() == KA
        assert len(stage.sessions) == 1


async def test_a_peer_that_takes_nothing_is_dropped() -> None:
    async with legacy(ping_seconds=0.01, stall_seconds=0.1) as stage:
        await opened(stage)
        (socket,) = stage.sockets
        chunk = b"x".join(text_frames(1, [b"y" * 60_000]))
        while socket.write_buffer_bytes < 500_000:
            socket.write(chunk)
        await stage.until(lambda: not len(stage.sessions))


async def test_the_end_of_the_server_is_a_close_with_1012() -> None:
    async with legacy() as stage:
        client = await opened(stage)
        for close in stage.sessions.closers():
            close()
        assert await client.close_code() == 1012


_messages = st.sampled_from(
    [
        b'{"type":"connection_init"}',
        b'{"id":"1","type":"start","payload":{"query":"{ nothing }"}}',
        b'{"id":"1","type":"start","payload":{"query":"subscription { things { id } }"}}',
        b'{"id":"1","type":"stop"}',
        b'{"type":"connection_terminate"}',
        b'{"type":"connection_error"}',
        b'{"id":"\\ud83d","type":"start","payload":{"query":"{ nothing }"}}',
    ]
)


@settings(max_examples=25, deadline=None)
@given(messages=st.lists(_messages | st.binary(max_size=20), max_size=8))
def test_a_session_survives_any_messages(messages: list[bytes]) -> None:
    async def survive() -> None:
        async with legacy() as stage:
            client = await opened(stage)
            for data in messages:
                client.peer.send_frame(TEXT, data)
            other = await opened(stage)
            start(other, "1", NOTHING)
            await data_of(other, "1")

    asyncio.run(survive())
