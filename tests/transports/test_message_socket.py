"""RFC 6455 above the frame, in both roles, against peers that write bytes by hand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from circuit_breaker_sdk.config import MessageLimits
from circuit_breaker_sdk.protocol.message_assembly import text_frame_header
from circuit_breaker_sdk.transports.message_socket import SocketState
from circuit_breaker_sdk.transports.websocket import WebSocket
from tests.transports.peers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    LIMITS,
    PING,
    PONG,
    TEXT,
    Peer,
    RecordingSink,
    frame,
    listen,
    open_pair,
    raw_client,
)

both_roles = pytest.mark.parametrize("role", ["client", "server"])

FINE = b'{"type":"pong"}'


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return code.to_bytes(2) + reason


# Messages --------------------------------------------------------------------------------------------------


@both_roles
@pytest.mark.parametrize("size", [0, 1, 125, 126, 4_096, 65_535, 65_536])
async def test_a_message_arrives_whole_in_both_directions(role: str, size: int) -> None:
    message = b"x" * size
    async with open_pair(role) as pair:
        pair.peer.send_frame(TEXT, message)
        await pair.sink.wait_until(lambda: pair.sink.messages)
        assert pair.sink.messages == [message]
        pair.socket.send_message(message)
        answer = await pair.peer.read_frame()
        assert (answer.opcode, answer.payload, answer.fin) == (TEXT, message, True)
        assert answer.masked == (role == "client")


@both_roles
async def test_fragments_become_one_message_and_control_frames_may_come_between(role: str) -> None:
    async with open_pair(role) as pair:
        pair.peer.send_frame(TEXT, b'{"a":', fin=False)
        pair.peer.send_frame(PING, b"between")
        pair.peer.send_frame(CONTINUATION, b"", fin=False)
        pair.peer.send_frame(PONG, b"unasked")
        pair.peer.send_frame(CONTINUATION, b"1}")
        pair.peer.send_frame(TEXT, FINE)
        await pair.sink.wait_until(lambda: len(pair.sink.messages) == 2)
        assert pair.sink.messages == [b'{"a":1}', FINE]
        pong = await pair.peer.read_frame()
        assert (pong.opcode, pong.payload) == (PONG, b"between")


@both_roles
async def test_a_character_may_be_cut_in_two_by_fragments(role: str) -> None:
    text = "naïve ☃".encode()
    async with open_pair(role) as pair:
        pair.peer.send_frame(TEXT, text[:3], fin=False)
        pair.peer.send_frame(CONTINUATION, text[3:-1], fin=False)
        pair.peer.send_frame(CONTINUATION, text[-1:])
        await pair.sink.wait_until(lambda: pair.sink.messages)
        assert pair.sink.messages == [text]


@both_roles
async def test_bytes_may_arrive_one_by_one(role: str) -> None:
    async with open_pair(role) as pair:
        for byte in pair.peer.frame(TEXT, FINE):
            pair.peer.send(bytes([byte]))
            await pair.peer.writer.drain()
            await asyncio.sleep(0)
        await pair.sink.wait_until(lambda: pair.sink.messages)
        assert pair.sink.messages == [FINE]


# A peer that breaks the protocol ---------------------------------------------------------------------------

VIOLATIONS: dict[str, tuple[int, Callable[[Peer], bytes]]] = {
    "continuation without a start": (1002, lambda p: p.frame(CONTINUATION, b"x")),
    "new message inside a fragmented one": (
        1002,
        lambda p: p.frame(TEXT, b"x", fin=False) + p.frame(TEXT, b"y"),
    ),
    "first reserved bit": (1002, lambda p: p.frame(TEXT, b"x", rsv=1)),
    "second reserved bit": (1002, lambda p: p.frame(TEXT, b"x", rsv=2)),
    "third reserved bit": (1002, lambda p: p.frame(TEXT, b"x", rsv=3)),
    "reserved bit on a ping": (1002, lambda p: p.frame(PING, b"x", rsv=1)),
    "reserved bit on a close": (1002, lambda p: p.frame(CLOSE, close_payload(1000), rsv=1)),
    "reserved bit on a continuation": (
        1002,
        lambda p: p.frame(TEXT, b"x", fin=False) + p.frame(CONTINUATION, b"y", rsv=2),
    ),
    "binary message": (1003, lambda p: p.frame(BINARY, b"\x00\x01")),
    "text that is not UTF-8": (1007, lambda p: p.frame(TEXT, b'{"\xff":1}')),
    "an encoded surrogate": (1007, lambda p: p.frame(TEXT, b"\xed\xa0\x80")),
    "fragments that are not UTF-8 together": (
        1007,
        lambda p: p.frame(TEXT, b"\xe2", fin=False) + p.frame(CONTINUATION, b"x"),
    ),
    "one frame over the limit": (1009, lambda p: p.frame(TEXT, b"x" * 65_537)),
    "the header alone of a huge frame": (
        1009,
        lambda p: bytes((0x81, 127 | (0x80 if p.masks else 0))) + (1 << 40).to_bytes(8) + b"mask",
    ),
    "fragments over the limit together": (
        1009,
        lambda p: p.frame(TEXT, b"x" * 40_000, fin=False) + p.frame(CONTINUATION, b"x" * 40_000),
    ),
    "too many fragments": (
        1009,
        lambda p: p.frame(TEXT, fin=False) + p.frame(CONTINUATION, fin=False) * LIMITS.max_fragments,
    ),
    "unknown data opcode": (1002, lambda p: p.frame(0x3, b"x")),
    "unknown control opcode": (1002, lambda p: p.frame(0xB, b"x")),
    "fragmented ping": (1002, lambda p: p.frame(PING, b"x", fin=False)),
    "ping over 125 bytes": (1002, lambda p: p.frame(PING, b"x" * 126)),
    "wrong masking": (1002, lambda p: frame(TEXT, b"x", masked=not p.masks)),
    "a longer length field than needed": (
        1002,
        lambda p: bytes((0x81, 126 | (0x80 if p.masks else 0), 0, 5)),
    ),
    "a negative length": (1002, lambda p: bytes((0x81, 127 | (0x80 if p.masks else 0))) + b"\xff" * 8),
    "half a close code": (1002, lambda p: p.frame(CLOSE, b"\x03")),
    "close code 0": (1002, lambda p: p.frame(CLOSE, close_payload(0))),
    "close code 999": (1002, lambda p: p.frame(CLOSE, close_payload(999))),
    "close code 1004": (1002, lambda p: p.frame(CLOSE, close_payload(1004))),
    "close code 1005": (1002, lambda p: p.frame(CLOSE, close_payload(1005))),
    "close code 1006": (1002, lambda p: p.frame(CLOSE, close_payload(1006))),
    "close code 1015": (1002, lambda p: p.frame(CLOSE, close_payload(1015))),
    "close code 2999": (1002, lambda p: p.frame(CLOSE, close_payload(2999))),
    "close code 5000": (1002, lambda p: p.frame(CLOSE, close_payload(5000))),
    "a close reason that is not UTF-8": (1007, lambda p: p.frame(CLOSE, close_payload(1000, b"\xff"))),
}


@both_roles
@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_a_violation_is_closed_with_its_code_and_nothing_behind_it_is_delivered(
    role: str, violation: str
) -> None:
    code, write = VIOLATIONS[violation]
    async with open_pair(role) as pair:
        pair.peer.send(pair.peer.frame(TEXT, FINE) + write(pair.peer) + pair.peer.frame(TEXT, b'"late"'))
        close = await pair.peer.read_frame()
        assert close.close_code == code
        pair.peer.send_frame(TEXT, b'"later"')
        pair.peer.send_frame(CLOSE, close.payload)
        assert await pair.sink.close_code() == code
        assert await pair.peer.read_to_end() == b""
        assert pair.sink.messages == [FINE]
        assert len(pair.sink.closed) == 1
        assert pair.socket.state is SocketState.CLOSED


class _Answering:
    """Answers every message at once."""

    socket: WebSocket

    def on_message(self, _data: bytes) -> None:
        self.socket.send_message(b"one")
        self.socket.send_messages([b"two", b"three"])
        self.socket.write(frame(TEXT, b"four", masked=False))

    def on_messages(self, messages: list[bytes]) -> None:
        for data in messages:
            self.on_message(data)

    def on_closed(self, code: int, reason: str) -> None:
        pass

    def on_writable(self, writable: bool) -> None:
        pass


@both_roles
async def test_no_answer_follows_the_close_that_a_broken_frame_behind_the_message_has_caused(
    role: str,
) -> None:
    sink = _Answering()
    async with open_pair(role, sink=sink) as pair:
        sink.socket = pair.socket
        # In one read: the message, and behind it a frame with an opcode that does not exist.
        pair.peer.send(pair.peer.frame(TEXT, b"{}") + pair.peer.frame(0x3, b"x"))
        assert (await pair.peer.read_frame()).close_code == 1002
        assert await pair.peer.read_to_end() == b""


@both_roles
async def test_is_closing_is_true_before_the_socket_is_gone_after_a_broken_frame(role: str) -> None:
    async with open_pair(role) as pair:
        pair.peer.send(pair.peer.frame(0x3, b"x"))
        assert (await pair.peer.read_frame()).close_code == 1002
        assert pair.socket.is_closing
        pair.socket.send_message(b"dropped")
        assert await pair.sink.close_code() == 1002


# Closing ---------------------------------------------------------------------------------------------------


@both_roles
@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1014, 3000, 4400, 4403, 4999])
async def test_the_peers_close_is_answered_with_its_code(role: str, code: int) -> None:
    async with open_pair(role) as pair:
        pair.peer.send_frame(CLOSE, close_payload(code, "schön".encode()))
        assert (await pair.peer.read_frame()).close_code == code
        assert await pair.peer.read_to_end() == b""
        await pair.socket.wait_closed()
        assert pair.sink.closed == [(code, "schön")]


@both_roles
async def test_a_close_without_a_code_is_reported_as_1005_and_answered_with_1000(role: str) -> None:
    async with open_pair(role) as pair:
        pair.peer.send_frame(CLOSE)
        assert (await pair.peer.read_frame()).close_code == 1000
        await pair.socket.wait_closed()
        assert pair.sink.closed == [(1005, "")]


@both_roles
@pytest.mark.parametrize("code", [1000, 1002, 1003, 1013, 4400, 4401, 4406, 4429, 4500])
async def test_our_close_carries_code_and_reason_and_waits_for_the_echo(role: str, code: int) -> None:
    async with open_pair(role) as pair:
        pair.socket.send_message(b'"last"')
        pair.socket.close(code, "because")
        assert pair.socket.state is SocketState.CLOSING
        assert (await pair.peer.read_frame()).payload == b'"last"'
        close = await pair.peer.read_frame()
        assert (close.close_code, close.payload[2:]) == (code, b"because")
        assert pair.sink.closed == []
        pair.peer.send_frame(TEXT, b'"crossing"')
        pair.peer.send_frame(CLOSE, close.payload)
        await pair.socket.wait_closed()
        assert pair.sink.closed == [(code, "because")]
        assert pair.sink.messages == []


@both_roles
async def test_closing_twice_keeps_the_first_code_and_sending_afterwards_has_no_effect(role: str) -> None:
    async with open_pair(role) as pair:
        pair.socket.close(4400, "first")
        pair.socket.close(1000, "second")
        pair.socket.send_message(b"dropped")
        pair.socket.write(b"dropped")
        close = await pair.peer.read_frame()
        assert close.close_code == 4400
        pair.peer.send_frame(CLOSE, close.payload)
        assert await pair.peer.read_to_end() == b""
        await pair.socket.wait_closed()
        pair.socket.close(1000)
        pair.socket.abort()
        pair.socket.send_message(b"dropped")
        assert pair.socket.write_buffer_bytes == 0
        assert pair.sink.closed == [(4400, "first")]


@both_roles
@pytest.mark.parametrize(
    ("code", "sent"), [(1005, 1000), (1006, 1011), (0, 1011), (1015, 1011), (70_000, 1011)]
)
async def test_a_code_that_must_not_be_sent_never_is(role: str, code: int, sent: int) -> None:
    async with open_pair(role) as pair:
        pair.socket.close(code)
        assert (await pair.peer.read_frame()).close_code == sent


@both_roles
async def test_a_long_reason_is_cut_at_a_character(role: str) -> None:
    async with open_pair(role) as pair:
        pair.socket.close(4400, "ü" * 100)
        close = await pair.peer.read_frame()
        assert close.payload[2:].decode() == "ü" * 61


@both_roles
async def test_a_peer_that_never_answers_the_close_is_dropped(role: str) -> None:
    async with open_pair(role, close_seconds=0.05) as pair:
        pair.socket.close(4408, "too late")
        assert (await pair.peer.read_frame()).close_code == 4408
        assert await pair.sink.close_code() == 4408
        assert await pair.peer.read_to_end() == b""


@both_roles
@pytest.mark.parametrize("closer", ["us", "peer", "end of stream", "broken frame"])
async def test_a_peer_that_does_not_read_cannot_keep_a_closing_socket_open(role: str, closer: str) -> None:
    async with open_pair(role, close_seconds=0.05) as pair:
        while pair.socket.write_buffer_bytes < 1_000_000:
            pair.socket.send_message(b"x" * 65_536)
        if closer == "us":
            pair.socket.close(1000)
        elif closer == "peer":
            pair.peer.send_frame(CLOSE, close_payload(1000))
        elif closer == "broken frame":
            pair.peer.send_frame(0x3)
        else:
            pair.peer.writer.write_eof()
        expected = {"us": 1000, "peer": 1000, "end of stream": 1006, "broken frame": 1002}
        assert await pair.sink.close_code() == expected[closer]


@both_roles
async def test_crossing_closes_end_with_our_code(role: str) -> None:
    async with open_pair(role) as pair:
        pair.socket.close(4400)
        pair.peer.send_frame(CLOSE, close_payload(1001))
        assert (await pair.peer.read_frame()).close_code == 4400
        assert await pair.peer.read_to_end() == b""
        assert await pair.sink.close_code() == 4400


# A peer that vanishes --------------------------------------------------------------------------------------


@both_roles
async def test_a_peer_that_vanishes_is_1006(role: str) -> None:
    async with open_pair(role) as pair:
        pair.peer.vanish()
        assert await pair.sink.close_code() == 1006
        await pair.socket.wait_closed()
        assert len(pair.sink.closed) == 1


@both_roles
async def test_an_end_of_stream_without_a_close_frame_is_1006(role: str) -> None:
    async with open_pair(role) as pair:
        pair.peer.send_frame(TEXT, FINE)
        pair.peer.writer.write_eof()
        assert await pair.sink.close_code() == 1006
        assert pair.sink.messages == [FINE]


@both_roles
@pytest.mark.parametrize("length", [1, 2, 5, 100])
async def test_a_frame_cut_in_half_is_not_delivered(role: str, length: int) -> None:
    async with open_pair(role) as pair:
        pair.peer.send(pair.peer.frame(TEXT, b"x" * 300)[:length])
        pair.peer.writer.write_eof()
        assert await pair.sink.close_code() == 1006
        assert pair.sink.messages == []


@both_roles
async def test_abort_drops_the_connection_without_a_close_frame(role: str) -> None:
    async with open_pair(role) as pair:
        pair.peer.send_frame(TEXT, FINE)
        pair.socket.abort()
        assert await pair.peer.read_to_end() == b""
        await pair.socket.wait_closed()
        assert pair.sink.closed[0][0] == 1006
        assert pair.sink.messages == []


@both_roles
async def test_many_may_wait_for_the_end_and_one_cancelled_changes_nothing(role: str) -> None:
    async with open_pair(role) as pair:
        first = asyncio.create_task(pair.socket.wait_closed())
        second = asyncio.create_task(pair.socket.wait_closed())
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not second.done()
        pair.peer.vanish()
        await asyncio.wait_for(second, 10)
        await asyncio.wait_for(pair.socket.wait_closed(), 10)


# Writing ---------------------------------------------------------------------------------------------------


async def test_write_and_send_message_keep_their_order_even_when_the_buffer_is_full() -> None:
    async with open_pair("server") as pair:
        expected = []
        for number in range(600):
            message = b"%d:" % number + b"x" * (number * 37 % 20_000)
            expected.append(message)
            if number % 3:
                pair.socket.write(text_frame_header(len(message)) + message)
            else:
                pair.socket.send_message(message)
        pair.socket.close(1012)
        for message in expected:
            assert (await pair.peer.read_frame()).payload == message
        assert (await pair.peer.read_frame()).close_code == 1012


@both_roles
async def test_many_messages_are_written_whole_and_in_order_between_single_ones(role: str) -> None:
    async with open_pair(role) as pair:
        expected = [b"%d:" % number + b"x" * (number * 97 % 70_000) for number in range(1, 120)]
        for start in range(0, len(expected), 7):
            pair.socket.send_messages(expected[start : start + 6])
            for single in expected[start + 6 : start + 7]:
                pair.socket.send_message(single)
        pair.socket.send_messages([])
        pair.socket.close(1000)
        pair.socket.send_messages([b"dropped", b"dropped"])
        for message in expected:
            frame = await pair.peer.read_frame()
            assert (frame.opcode, frame.payload, frame.masked) == (TEXT, message, role == "client")
        assert (await pair.peer.read_frame()).close_code == 1000


@both_roles
async def test_the_marks_of_the_write_buffer_are_told(role: str) -> None:
    async with open_pair(role) as pair:
        sent = 0
        while not pair.sink.writable:
            pair.socket.send_message(b"x" * 65_536)
            sent += 1
        assert pair.sink.writable == [False]
        assert pair.socket.write_buffer_bytes > 0
        for _ in range(sent):
            await pair.peer.read_frame()
        await pair.sink.wait_until(lambda: len(pair.sink.writable) == 2)
        assert pair.sink.writable == [False, True]


@both_roles
async def test_pings_of_a_peer_that_reads_nothing_do_not_fill_the_buffer(role: str) -> None:
    async with open_pair(role) as pair:
        while not pair.sink.writable:
            pair.socket.send_message(b"x" * 65_536)
        before = pair.socket.write_buffer_bytes
        for _ in range(1_000):
            pair.peer.send_frame(PING, b"x" * 125)
        pair.peer.send_frame(TEXT, FINE)
        await pair.sink.wait_until(lambda: pair.sink.messages)
        assert pair.socket.write_buffer_bytes <= before


@both_roles
async def test_a_ping_is_answered_with_its_payload(role: str) -> None:
    async with open_pair(role) as pair:
        for payload in (b"", b"x" * 125):
            pair.peer.send_frame(PING, payload)
            pong = await pair.peer.read_frame()
            assert (pong.opcode, pong.payload) == (PONG, payload)


# A sink that fails -----------------------------------------------------------------------------------------


class FailingSink:
    """Raises wherever it is called, after recording the call."""

    def __init__(self) -> None:
        self.seen = RecordingSink()

    def on_message(self, data: bytes) -> None:
        self.seen.on_message(data)
        raise RuntimeError("the message handler is broken")

    def on_messages(self, messages: list[bytes]) -> None:
        self.on_message(messages[0])

    def on_closed(self, code: int, reason: str) -> None:
        self.seen.on_closed(code, reason)
        raise RuntimeError("the close handler is broken")

    def on_writable(self, writable: bool) -> None:
        self.seen.on_writable(writable)
        raise RuntimeError("the marks' handler is broken")


@both_roles
async def test_a_sink_that_raises_closes_with_1011_and_is_logged(
    role: str, caplog: pytest.LogCaptureFixture
) -> None:
    sink = FailingSink()
    async with open_pair(role, sink=sink) as pair:
        pair.peer.send(pair.peer.frame(TEXT, FINE) * 2)
        close = await pair.peer.read_frame()
        assert (close.close_code, close.payload[2:]) == (1011, b"internal error")
        pair.peer.send_frame(CLOSE, close.payload)
        assert await sink.seen.close_code() == 1011
        assert sink.seen.messages == [FINE]
    assert "the message handler is broken" in caplog.text
    assert "the close handler is broken" in caplog.text


@both_roles
async def test_a_sink_that_raises_about_the_buffer_closes_with_1011(
    role: str, caplog: pytest.LogCaptureFixture
) -> None:
    sink = FailingSink()
    async with open_pair(role, sink=sink, close_seconds=0.05) as pair:
        while not sink.seen.writable:
            pair.socket.send_message(b"x" * 65_536)
        assert pair.socket.is_closing
        assert await sink.seen.close_code() == 1011
    assert "the marks' handler is broken" in caplog.text


async def test_a_session_that_cannot_be_opened_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    def open_sink(_socket: WebSocket) -> RecordingSink:
        raise RuntimeError("no session")

    async with listen(open_sink) as port:
        peer = await raw_client(port)
        assert "101" in await peer.read_head()
        peer.send_frame(TEXT, FINE)
        close = await peer.read_frame()
        assert (close.close_code, close.payload[2:]) == (1011, b"internal error")
        peer.send_frame(CLOSE, close.payload)
        assert await peer.read_to_end() == b""
        await peer.close()
    assert "no session" in caplog.text


async def test_a_session_may_close_at_once() -> None:
    sink = RecordingSink()

    def open_sink(socket: WebSocket) -> RecordingSink:
        socket.send_message(b'"hello"')
        socket.close(4406, "Subprotocol not acceptable")
        return sink

    async with listen(open_sink) as port:
        peer = await raw_client(port)
        await peer.read_head()
        assert (await peer.read_frame()).payload == b'"hello"'
        close = await peer.read_frame()
        assert (close.close_code, close.payload[2:]) == (4406, b"Subprotocol not acceptable")
        peer.send(peer.frame(TEXT, FINE) + peer.frame(CLOSE, close.payload))
        assert await sink.close_code() == 4406
        assert sink.messages == []
        await peer.close()


@both_roles
async def test_a_peers_rubbish_is_not_logged_above_debug(role: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(1)
    async with open_pair(role) as pair:
        pair.peer.send(b"\xff" * 100)
        assert await pair.sink.close_code() == 1002
    loud = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert loud == []


async def test_a_larger_limit_lets_larger_messages_through() -> None:
    message = b"x" * 3_000_000
    async with open_pair("client", limits=MessageLimits(max_message_bytes=3_000_000)) as pair:
        pair.peer.send_frame(TEXT, message)
        await pair.sink.wait_until(lambda: pair.sink.messages)
        assert pair.sink.messages == [message]


@both_roles
async def test_a_socket_knows_where_it_is_connected(role: str) -> None:
    async with open_pair(role) as pair:
        assert pair.socket.remote.startswith("127.0.0.1:")
        assert pair.socket.url.endswith("/graphql")
        assert repr(pair.socket) == f"<WebSocket {pair.socket.url} OPEN>"
        assert not pair.socket.is_closing
