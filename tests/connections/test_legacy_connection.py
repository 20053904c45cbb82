"""A connection to a server that speaks the legacy protocol only."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from circuit_breaker_sdk.config import Heartbeat
from circuit_breaker_sdk.connections import Credentials
from circuit_breaker_sdk.connections.opening import open_connection
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    HandshakeFailed,
    ProtocolError,
    TransportError,
)
from circuit_breaker_sdk.protocol.messages import LEGACY_SUBPROTOCOL
from tests.connections.raw_server import (
    Losses,
    Opening,
    RecordingRoute,
    Script,
    opened,
    read_message,
    send_message,
    settings,
    stay,
    subscribe,
)
from tests.transports.peers import CLOSE, TEXT, Peer, frame, serve


async def accept(peer: Peer, *, behind: bytes = b"") -> Opening:
    """Answer the upgrade and ``connection_init``."""
    head = await peer.accept(subprotocol=LEGACY_SUBPROTOCOL, behind=behind)
    init = await read_message(peer)
    send_message(peer, type="connection_ack", payload={"resume": {"version": 1, "epoch": "e"}})
    return Opening(head, init)


def send_data(peer: Peer, id_: str, value: object) -> None:
    send_message(peer, id=id_, type="data", payload={"data": {"tick": value}})


async def refusal(script: Script) -> TransportError:
    losses = Losses()
    async with serve(script) as port:
        with pytest.raises(TransportError) as caught:
            await open_connection(settings(port), losses)
    assert losses.errors == []
    return caught.value


async def test_the_modern_protocol_is_offered_first_and_the_answer_decides() -> None:
    openings: list[Opening] = []

    async def script(peer: Peer) -> None:
        openings.append(await accept(peer))
        await stay(peer)

    credentials = Credentials(token="t0ken", connection_params={"locale": "en"})
    async with opened(script, credentials=credentials) as connection:
        assert connection.is_usable
        assert connection.resume_epoch is None, "nothing was asked for, so nothing is negotiated"
    assert "Sec-WebSocket-Protocol: graphql-transport-ws, graphql-ws" in openings[0].head.split("\r\n")
    assert openings[0].init == {
        "type": "connection_init",
        "payload": {"locale": "en", "Authorization": "Bearer t0ken"},
    }


@pytest.mark.parametrize(("answered", "shown"), [(None, "none"), ("soap", "'soap'")])
async def test_a_server_that_speaks_neither_is_told_what_was_offered_and_answered(
    answered: str | None, shown: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(subprotocol=answered)
        await stay(peer)

    error = await refusal(script)
    assert isinstance(error, HandshakeFailed)
    assert f"offered 'graphql-transport-ws', 'graphql-ws', answered {shown}" in str(error)


@pytest.mark.parametrize("code", [1002, 4406])
async def test_a_server_that_names_what_it_does_not_speak_is_offered_the_legacy_one_alone(code: int) -> None:
    offered: list[str] = []

    async def script(peer: Peer) -> None:
        if not offered:
            offered.append(await peer.accept())
            peer.send_frame(CLOSE, code.to_bytes(2))
        else:
            offered.append((await accept(peer)).head)
        await stay(peer)

    losses = Losses()
    async with opened(script, losses=losses) as connection:
        assert connection.is_usable
    assert losses.errors == []
    assert "Protocol: graphql-transport-ws, graphql-ws\r\n" in offered[0]
    assert "Protocol: graphql-ws\r\n" in offered[1]


async def test_where_that_fails_too_the_first_reason_is_told() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        peer.send_frame(CLOSE, (1002).to_bytes(2) + b"because")
        await stay(peer)

    error = await refusal(script)
    assert isinstance(error, ProtocolError)
    assert "because" in str(error)


async def test_operations_begin_are_delivered_and_end() -> None:
    received: list[dict[str, object]] = []

    async def script(peer: Peer) -> None:
        await accept(peer)
        received.extend([await read_message(peer) for _ in range(4)])
        for n in range(3):
            send_data(peer, "1", n)
        send_message(peer, id="2", type="error", payload={"message": "no such field"})
        send_message(peer, type="error", payload={"message": "Invalid message type!"})
        send_message(peer, id="1", type="complete", payload=None)
        received.append(await read_message(peer))
        # No `complete` for the `stop`, as of the reference; what was on its way is dropped.
        send_data(peer, "3", 9)
        send_message(peer, type="ka")
        send_data(peer, "4", 0)
        await stay(peer)

    one, two, three, four = (RecordingRoute() for _ in range(4))
    async with opened(script) as connection:
        for id_, route in (("1", one), ("2", two), ("3", three), ("4", four)):
            connection.subscribe(subscribe(id_), route)
        await one.until(4)
        await two.until(1)
        connection.complete("3", three)
        await four.until(1)  # and so what was sent before it has come
        assert connection.is_usable
    assert one.calls == [
        *(("deliver_checked", {"data": {"tick": n}}) for n in range(3)),
        ("completed", None),
    ]
    assert two.calls == [("failed", ("no such field",))]
    assert three.calls == []
    assert received[0] == {"id": "1", "type": "start", "payload": {"query": "subscription { tick }"}}
    assert received[4] == {"id": "3", "type": "stop"}


async def test_a_connection_error_is_refused_credentials_with_the_servers_text() -> None:
    codes: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.accept(subprotocol=LEGACY_SUBPROTOCOL)
        await read_message(peer)
        send_message(peer, type="connection_error", payload={"message": "Prohibited connection!"})
        closed = await peer.read_frame()
        codes.append(closed.close_code)
        peer.send_frame(CLOSE, closed.payload)

    error = await refusal(script)
    assert isinstance(error, AuthenticationFailed)
    assert "Prohibited connection!" in str(error)
    assert codes == [4403]


async def test_a_connection_error_later_is_a_protocol_error_with_the_servers_text() -> None:
    losses = Losses()

    async def script(peer: Peer) -> None:
        await accept(peer)
        send_message(peer, type="connection_error", payload={"message": "not JSON"})
        await stay(peer)

    async with opened(script, losses=losses):
        error = await losses.first()
    assert isinstance(error, ProtocolError)
    assert "not JSON" in str(error)


@pytest.mark.parametrize(("code", "kind"), [(4403, AuthenticationFailed), (1011, ConnectionFailed)])
async def test_close_codes_mean_what_they_mean_in_the_modern_protocol(
    code: int, kind: type[TransportError]
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(subprotocol=LEGACY_SUBPROTOCOL)
        await read_message(peer)
        peer.send_frame(CLOSE, code.to_bytes(2) + b"because")
        await stay(peer)

    assert isinstance(await refusal(script), kind)


async def test_a_ka_right_behind_the_upgrade_does_no_harm() -> None:
    async def script(peer: Peer) -> None:
        await accept(peer, behind=frame(TEXT, b'{"type":"ka"}', masked=False))
        await stay(peer)

    async with opened(script) as connection:
        assert connection.is_usable


async def test_a_server_whose_ka_cease_is_lost_and_one_without_any_is_not() -> None:
    async def two_and_no_more(peer: Peer) -> None:
        await accept(peer)
        for _ in range(2):
            send_message(peer, type="ka")
            await asyncio.sleep(0.01)  # the pace of the `ka` is what the client learns
        await stay(peer)

    async def none(peer: Peer) -> None:
        await accept(peer)
        await stay(peer)

    beating = Heartbeat(interval_seconds=0.01, timeout_seconds=0.01)
    async with serve(two_and_no_more) as silent, serve(none) as quiet:
        silent_losses, quiet_losses = Losses(), Losses()
        silenced, quietly = [
            await open_connection(msgspec.structs.replace(settings(port), heartbeat=beating), losses)
            for port, losses in ((silent, silent_losses), (quiet, quiet_losses))
        ]
        error = await silent_losses.first()
        assert isinstance(error, ConnectionFailed)
        assert "no ka came" in str(error)
        assert quietly.is_usable
        assert quiet_losses.errors == []
        assert quietly.round_trip_seconds is None
        await quietly.aclose()
        await silenced.aclose()
