"""One connection against a peer that does exactly what a test says."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import msgspec
import pytest

from circuit_breaker_sdk.config import Timeouts
from circuit_breaker_sdk.connections import Connection, Credentials
from circuit_breaker_sdk.connections.opening import open_connection
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    OperationTimeoutError,
    ProtocolError,
    TransportError,
    UsageError,
)
from circuit_breaker_sdk.transports.websocket import WebSocket
from tests.connections.raw_server import (
    Losses,
    Opening,
    RecordingRoute,
    Script,
    acknowledge,
    opened,
    read_message,
    send_message,
    send_next,
    settings,
    stay,
    subscribe,
)
from tests.transports.peers import CLOSE, TEXT, Peer, frame, serve


async def refusal(script: Script, timeouts: Timeouts | None = None) -> TransportError:
    """Return what opening a connection to a server that runs ``script`` raises."""
    losses = Losses()
    async with serve(script) as port:
        with pytest.raises(TransportError) as caught:
            await open_connection(settings(port, timeouts=timeouts), losses)
    assert losses.errors == [], "a connection that was never returned cannot be lost"
    return caught.value


def closing(code: int, reason: str = "because") -> Script:
    async def script(peer: Peer) -> None:
        # After some codes the client comes again, with the legacy protocol alone, which is not agreed on.
        with suppress(asyncio.IncompleteReadError):
            await peer.accept()
            await read_message(peer)
            peer.send_frame(CLOSE, code.to_bytes(2) + reason.encode())
            await stay(peer)

    return script


# Opening ---------------------------------------------------------------------------------------------------


async def test_credentials_go_into_the_upgrade_and_into_connection_init() -> None:
    openings: list[Opening] = []

    async def script(peer: Peer) -> None:
        openings.append(await acknowledge(peer))
        await stay(peer)

    credentials = Credentials(token="t0ken", headers={"X-Tenant": "acme"}, connection_params={"locale": "en"})
    async with opened(script, credentials=credentials) as connection:
        assert connection.is_usable
    lines = openings[0].head.split("\r\n")
    assert "Authorization: Bearer t0ken" in lines
    assert "X-Tenant: acme" in lines
    assert openings[0].init == {
        "type": "connection_init",
        "payload": {"locale": "en", "Authorization": "Bearer t0ken", "resume": {"version": 1}},
    }


@pytest.mark.parametrize(
    ("payload", "epoch"),
    [
        ({"resume": {"version": 1, "epoch": "e-1"}}, "e-1"),
        ({"resume": {"version": 1}}, ""),
        ({"resume": {"version": 2, "epoch": "e-1"}}, None),
        ({"resume": True}, None),
        ({}, None),
        (None, None),
    ],
)
async def test_resume_is_negotiated_only_by_an_answer_of_our_version(
    payload: dict[str, object] | None, epoch: str | None
) -> None:
    async def script(peer: Peer) -> None:
        await acknowledge(peer, payload)
        await stay(peer)

    async with opened(script) as connection:
        assert connection.resume_epoch == epoch
        assert connection.resume_negotiated is (epoch is not None)


async def test_a_server_that_never_acknowledges_is_a_timeout_that_says_what_was_waited_for() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await stay(peer)

    error = await refusal(script, Timeouts(acknowledge_seconds=0.02))
    assert isinstance(error, OperationTimeoutError)
    assert "connection_ack" in str(error)
    assert error.seconds == 0.02


@pytest.mark.parametrize("code", [4403, 4401, 3000, 3003])
async def test_refused_credentials_are_an_authentication_failure(code: int) -> None:
    error = await refusal(closing(code, "token expired"))
    assert isinstance(error, AuthenticationFailed)
    assert "token expired" in str(error)
    assert str(code) in str(error)


@pytest.mark.parametrize("code", [1002, 1008, 4400, 4406, 4429])
async def test_a_close_code_that_a_new_attempt_would_meet_again_is_a_protocol_error(code: int) -> None:
    error = await refusal(closing(code))
    assert isinstance(error, ProtocolError)
    assert (error.close_code, error.retryable) == (code, False)


@pytest.mark.parametrize("code", [1001, 1011, 1012, 4500, 4999])
async def test_a_close_code_that_may_pass_is_a_failed_connection(code: int) -> None:
    error = await refusal(closing(code, "later"))
    assert isinstance(error, ConnectionFailed)
    assert (error.close_code, error.retryable) == (code, True)
    assert "later" in str(error)


async def test_a_too_big_message_is_answered_with_what_to_change() -> None:
    assert "MessageLimits" in str(await refusal(closing(1009)))


async def test_a_close_right_behind_the_upgrade_is_the_error_of_opening() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(behind=frame(CLOSE, (4403).to_bytes(2), masked=False))
        await stay(peer)

    assert isinstance(await refusal(script), AuthenticationFailed)


@pytest.mark.parametrize("text", [b"junk", b'{"type":"connection_ack"}', b'{"type":"complete","id":"1"}'])
async def test_a_message_right_behind_the_upgrade_is_a_protocol_error(text: bytes) -> None:
    codes: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.accept(behind=frame(TEXT, text, masked=False))
        closed = await peer.read_frame()
        codes.append(closed.close_code)
        peer.send_frame(CLOSE, closed.payload)

    error = await refusal(script)
    assert isinstance(error, ProtocolError)
    assert codes == [error.close_code] == [4400]


async def test_cancelling_the_opening_drops_the_socket() -> None:
    waiting, dropped = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept()
        await read_message(peer)
        waiting.set()
        await stay(peer)
        dropped.set()

    async with serve(script) as port:
        task = asyncio.create_task(open_connection(settings(port), Losses()))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await dropped.wait()


# Operations ------------------------------------------------------------------------------------------------


class AnsweringSocket:
    """Answers a ``subscribe`` while it is still being written: no peer can be faster."""

    is_closing = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send_messages(self, messages: Sequence[bytes]) -> None:
        for data in messages:
            message = msgspec.json.decode(data, type=dict[str, object])
            if message["type"] == "subscribe":
                answer = {"id": message["id"], "type": "next", "payload": {"data": {"tick": 1}}}
                self._connection.on_message(msgspec.json.encode(answer))


async def test_a_route_is_registered_before_subscribe_is_written() -> None:
    connection = Connection("ws://localhost/graphql", Losses())
    connection._socket = cast("WebSocket", AnsweringSocket(connection))
    connection._protocol.send_init()
    connection.on_message(b'{"type":"connection_ack"}')
    route = RecordingRoute()
    connection.subscribe(subscribe("1"), route)
    await asyncio.sleep(0)  # what one turn of the loop has to send is written in the next
    assert route.calls == [("deliver_checked", {"data": {"tick": 1}})]


async def test_a_subscribe_that_cannot_be_written_leaves_no_route_behind() -> None:
    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        send_next(peer, str((await read_message(peer))["id"]), 1)
        await stay(peer)

    async with opened(script) as connection:
        used, refused = RecordingRoute(), RecordingRoute()
        unsendable = msgspec.structs.replace(subscribe("2"), variables={"x": object()})
        with pytest.raises(UsageError):
            connection.subscribe(unsendable, refused)
        connection.subscribe(subscribe("2"), used)
        await used.until(1)
        assert refused.calls == []


async def test_events_are_routed_by_id_and_layout_does_not_matter() -> None:
    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        for _ in range(2):
            await read_message(peer)
        send_next(peer, "1", 1)
        send_next(peer, "2", 2)
        peer.send_frame(TEXT, b'{"payload": {"data": {"tick": 3}}, "type": "next", "id": "1"}')
        peer.send_frame(TEXT, b'{"id":"1","type":"next","payload":{"data":{"tick":4}},"more":{}}')
        send_next(peer, "1", 5)
        await stay(peer)

    async with opened(script) as connection:
        one, two = RecordingRoute(), RecordingRoute()
        connection.subscribe(subscribe("1"), one)
        connection.subscribe(subscribe("2"), two)
        await one.until(4)
        assert two.calls == [("deliver", {"data": {"tick": 2}})]
    assert one.calls[:4] == [
        ("deliver_checked", {"data": {"tick": 1}}),
        ("deliver_checked", {"data": {"tick": 3}}),
        ("deliver_checked", {"data": {"tick": 4}}),
        ("deliver", {"data": {"tick": 5}}),
    ]


async def test_the_servers_end_of_an_operation_is_told_once_and_frees_its_id() -> None:
    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        for _ in range(2):
            await read_message(peer)
        send_message(peer, id="1", type="error", payload=[{"message": "no such field"}])
        send_message(peer, id="2", type="complete")
        for id_ in ("1", "2"):
            send_next(peer, id_, "late")
            send_message(peer, id=id_, type="complete")
        assert (await read_message(peer))["id"] == "1"
        send_next(peer, "1", "new")
        await stay(peer)

    async with opened(script) as connection:
        failed, completed, again = RecordingRoute(), RecordingRoute(), RecordingRoute()
        connection.subscribe(subscribe("1"), failed)
        connection.subscribe(subscribe("2"), completed)
        await completed.until(1)
        connection.subscribe(subscribe("1"), again)
        await again.until(1)
        connection.complete("2", completed)
    assert failed.calls == [("failed", ("no such field",))]
    assert completed.calls == [("completed", None)]
    assert again.calls[0] == ("deliver_checked", {"data": {"tick": "new"}})


@pytest.mark.parametrize("learned", [True, False])
async def test_a_next_that_crosses_our_complete_is_dropped_silently(learned: bool) -> None:
    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        for _ in range(2):
            await read_message(peer)
        if learned:
            send_next(peer, "1", "early")
        send_next(peer, "2", "ready")
        assert await read_message(peer) == {"id": "1", "type": "complete"}
        send_next(peer, "1", "late")
        send_next(peer, "2", "after")
        await stay(peer)

    async with opened(script) as connection:
        ended, other = RecordingRoute(), RecordingRoute()
        connection.subscribe(subscribe("1"), ended)
        connection.subscribe(subscribe("2"), other)
        await other.until(1)
        before = list(ended.calls)
        assert len(before) == learned
        connection.complete("1", ended)
        await other.until(2)
        assert ended.calls == before
        assert connection.is_usable


async def test_completing_with_another_route_ends_nothing() -> None:
    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        await read_message(peer)
        send_next(peer, "1", 1)
        assert await read_message(peer) == {"id": "1", "type": "complete"}
        send_message(peer, type="ping")
        await stay(peer)

    async with opened(script) as connection:
        route = RecordingRoute()
        connection.subscribe(subscribe("1"), route)
        connection.complete("1", RecordingRoute())
        await route.until(1)
        connection.complete("1", route)


async def test_a_live_signal_is_answered_and_told_only_where_resume_was_negotiated() -> None:
    signals: list[dict[str, object]] = [
        {"resume": {"id": "1", "cursor": "c-1"}},
        {"resume": {"id": "unknown", "cursor": "c-2"}},
        {"resume": {"id": "1", "cursor": 3}},
        {"resume": []},
    ]

    def script_with(payload: dict[str, object] | None) -> Script:
        async def script(peer: Peer) -> None:
            await acknowledge(peer, payload)
            await read_message(peer)
            for signal in signals:
                send_message(peer, type="ping", payload=signal)
                assert await read_message(peer) == {"type": "pong", "payload": signal}
            send_next(peer, "1", 1)
            await stay(peer)

        return script

    event = ("deliver_checked", {"data": {"tick": 1}})
    negotiated: dict[str, object] = {"resume": {"version": 1, "epoch": "e"}}
    for payload, calls in ((negotiated, [("positioned", "c-1"), event]), (None, [event])):
        async with opened(script_with(payload)) as connection:
            route = RecordingRoute()
            connection.subscribe(subscribe("1"), route)
            await route.until(len(calls))
            assert route.calls == calls


# The end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"type":"subscribe","id":"1","payload":{"query":"x"}}', b""])
async def test_a_malformed_message_closes_4400_and_is_reported_to_each_route(text: bytes) -> None:
    codes: list[int] = []

    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        for _ in range(2):
            await read_message(peer)
        peer.send_frame(TEXT, text)
        send_next(peer, "1", "what comes after it is not read")
        closed = await peer.read_frame()
        codes.append(closed.close_code)
        peer.send_frame(CLOSE, closed.payload)

    losses = Losses()
    async with opened(script, losses=losses) as connection:
        routes = [RecordingRoute(), RecordingRoute()]
        for i, route in enumerate(routes, start=1):
            connection.subscribe(subscribe(str(i)), route)
        error = await losses.first()
        assert isinstance(error, ProtocolError)
        assert [route.calls for route in routes] == [[("connection_lost", error)]] * 2
        assert not connection.is_usable
        with pytest.raises(ProtocolError) as caught:
            connection.subscribe(subscribe("3"), RecordingRoute())
        assert caught.value is error
    assert losses.errors == [error]
    assert codes == [error.close_code] == [4400]


async def test_a_connection_that_vanishes_is_told_to_each_route_and_once_to_the_owner() -> None:
    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        await read_message(peer)
        peer.vanish()

    losses, route = Losses(), RecordingRoute()
    async with opened(script, losses=losses) as connection:
        connection.subscribe(subscribe("1"), route)
        error = await losses.first()
    assert isinstance(error, ConnectionFailed)
    assert error.close_code == 1006
    assert route.calls == [("connection_lost", error)]
    assert losses.errors == [error]


async def test_closing_says_1000_is_idempotent_and_no_loss_to_the_owner() -> None:
    codes: list[int] = []

    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        closed = await peer.read_frame()
        codes.append(closed.close_code)
        peer.send_frame(CLOSE, closed.payload)

    losses = Losses()
    async with opened(script, losses=losses) as connection:
        await connection.aclose()
        await connection.aclose()
        with pytest.raises(ConnectionFailed, match="closed"):
            connection.subscribe(subscribe("1"), RecordingRoute())
    assert codes == [1000]
    assert losses.errors == []


async def test_no_secret_is_in_a_log_a_message_or_a_repr(caplog: pytest.LogCaptureFixture) -> None:
    secrets = {"t0ken", "query-secret", "header-secret", "param-secret"}
    credentials = Credentials(
        token="t0ken", headers={"X-Key": "header-secret"}, connection_params={"key": "param-secret"}
    )

    async def lose(peer: Peer) -> None:
        await acknowledge(peer)
        peer.send_frame(TEXT, b"junk")
        await stay(peer)

    texts: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for script in (lose, closing(4403), closing(4500)):
            async with serve(script) as port:
                where = settings(port, path="/graphql?key=query-secret", credentials=credentials)
                texts.append(repr(where))
                losses = Losses()
                try:
                    connection = await open_connection(where, losses)
                    texts += [connection.url, repr(connection), str(await losses.first())]
                    await connection.aclose()
                except TransportError as error:
                    texts += [str(error), repr(error)]
    texts += [record.getMessage() + repr(vars(record)) for record in caplog.records]
    assert len(caplog.records) > 4
    encoded = {base64.b64encode(secret.encode()).decode() for secret in secrets}
    assert not [text for text in texts for secret in secrets | encoded if secret in text]


async def test_a_server_that_answers_nothing_to_our_close_does_not_keep_us() -> None:
    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        await peer.read_to_end()

    async with serve(script) as port:
        connection = await open_connection(settings(port, timeouts=Timeouts(close_seconds=0.02)), Losses())
        await connection.aclose()
        assert not connection.is_usable
