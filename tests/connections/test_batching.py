"""Messages to the server wait for each other as long as they were told to, and go out in one write."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from circuit_breaker_sdk import Client, MessageBatching, UsageError
from circuit_breaker_sdk.connections import Connection
from circuit_breaker_sdk.transports.websocket import WebSocket
from tests.connections.raw_server import Losses, RecordingRoute, subscribe
from tests.integration.strawberry_server import TickEvent, strawberry_server
from tests.waiting import until


class CountingSocket:
    """Notes how many messages each write has."""

    is_closing = False

    def __init__(self) -> None:
        self.writes: list[int] = []

    def send_messages(self, messages: Sequence[bytes]) -> None:
        if messages:
            self.writes.append(len(messages))


def connected(batching: MessageBatching | None) -> tuple[Connection, CountingSocket]:
    connection = Connection("ws://localhost/graphql", Losses(), batching)
    socket = CountingSocket()
    connection._socket = cast("WebSocket", socket)
    connection._protocol.send_init()
    connection.on_message(b'{"type":"connection_ack"}')
    connection._flush()
    socket.writes.clear()
    return connection, socket


async def test_a_thousand_subscribes_of_one_turn_are_one_write() -> None:
    connection, socket = connected(None)
    for number in range(1_000):
        connection.subscribe(subscribe(str(number)), RecordingRoute())
    await asyncio.sleep(0)
    assert socket.writes == [1_000]


async def test_as_many_messages_as_a_batch_has_do_not_wait_for_the_turn() -> None:
    connection, socket = connected(MessageBatching(batch_size=4))
    for number in range(9):
        connection.subscribe(subscribe(str(number)), RecordingRoute())
    assert socket.writes == [4, 4]
    await asyncio.sleep(0)
    assert socket.writes == [4, 4, 1]


async def test_messages_of_many_turns_wait_for_each_other_where_they_may() -> None:
    connection, socket = connected(MessageBatching(flush_interval=0.05))
    for number in range(5):
        connection.subscribe(subscribe(str(number)), RecordingRoute())
        await asyncio.sleep(0)
        assert socket.writes == []
    await until(lambda: socket.writes)
    assert socket.writes == [5]


async def test_a_subscription_is_live_when_its_message_was_written_and_not_before() -> None:
    writes: list[int] = []
    write = WebSocket.send_messages

    def counting(socket: WebSocket, messages: Sequence[bytes]) -> None:
        writes.append(len(messages))
        write(socket, messages)

    batching = MessageBatching(flush_interval=0.05)
    async with strawberry_server() as url, Client(url, batching=batching) as client:
        first = await client.subscribe("subscription { ticks(upto: 1) { number label } }", type=TickEvent)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WebSocket, "send_messages", counting)
            await client.subscribe("subscription { ticks(upto: 1) { number label } }", type=TickEvent)
            assert writes == [1], f"{first} is held, so nothing else is to be said"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"batch_size": 0}, "batch_size must be greater than 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"flush_interval": -1.0}, "flush_interval must be greater than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings: dict[str, float], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        MessageBatching(**settings)  # type: ignore[arg-type]  # that is the point
