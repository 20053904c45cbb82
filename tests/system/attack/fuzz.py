"""Fuzz both protocol classes with hostile messages, and a server with frames.

Each fuzzer gives a :class:`FuzzResult`; equal seeds give equal inputs; a finding names those it came from.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, final
from urllib.parse import urlsplit

import msgspec

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol.close_codes import MAX_REASON_BYTES, is_sendable
from circuit_breaker_sdk.protocol.codec import InvalidMessage, decode_message
from circuit_breaker_sdk.protocol.message_assembly import FrameError, MessageAssembler, parse_close
from circuit_breaker_sdk.protocol.messages import (
    SUBPROTOCOL,
    Complete,
    ConnectionInit,
    Error,
    Next,
    Subscribe,
)
from circuit_breaker_sdk.protocol.next_prefix import PrefixRoutes
from circuit_breaker_sdk.protocol.transport_ws import ClientProtocol, ClientState, ServerProtocol
from tests.system.attack.mutations import CLIENT_MESSAGES, SERVER_MESSAGES, Mutator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["FuzzResult", "fuzz_client_protocol", "fuzz_server_protocol", "fuzz_server_socket"]

_MAX_SEQUENCE: Final = 20
_MAX_OPERATIONS: Final = 4
_MAX_MESSAGE_BYTES: Final = 32_768
_MAX_FRAGMENTS: Final = 8
_MAX_FINDINGS: Final = 20
_SERVER_CLOSES: Final = frozenset({4400, 4401, 4409, 4429})
_CLIENT_CLOSES: Final = frozenset({4400})
_FRAME_CLOSES: Final = frozenset({1002, 1003, 1007, 1009})
_CODES: Final = (0, 1, 999, 1000, 1004, 1005, 1006, 1015, 2999, 3000, 4999, 5000, 65_535)
_AFTER_THE_CLOSE: Final = 2  # messages that a closed protocol is still given
_PATIENCE_SECONDS: Final = 15.0
_CHECK_EVERY: Final = 25


@final
class FuzzResult(msgspec.Struct, kw_only=True):
    """What a fuzzer saw.

    :ivar messages: inputs given; of the socket: pieces of bytes written.
    :ivar connections: sequences of up to 20 of them, each on a protocol or a socket of its own.
    :ivar closes: how often a connection ended with each close code; 0 for one that ended without.
    :ivar findings: what must not be, with the inputs that led there; the first 20.
    :ivar failures: how many there were.
    """

    fuzzer: str
    seed: int
    messages: int = 0
    connections: int = 0
    closes: dict[int, int] = msgspec.field(default_factory=dict)
    findings: list[str] = msgspec.field(default_factory=list)
    failures: int = 0

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.failures

    def closed(self, code: int) -> None:
        """Count the end of a connection."""
        self.closes[code] = self.closes.get(code, 0) + 1

    def found(self, what: str, inputs: Sequence[bytes]) -> None:
        """Note a finding and how to repeat it."""
        self.failures += 1
        if len(self.findings) < _MAX_FINDINGS:
            shown = [data if len(data) <= 400 else data[:400] + b"..." for data in inputs[-4:]]
            self.findings.append(f"{what} (connection {self.connections}, last inputs {shown!r})")

    def line(self) -> str:
        """Return one line for people."""
        closes = " ".join(f"{code}:{count}" for code, count in sorted(self.closes.items()))
        verdict = "passed" if self.passed else f"FAILED ({self.failures})"
        return (
            f"{self.fuzzer:<16} seed {self.seed:<10} {self.messages:>8} messages "
            f"{self.connections:>7} connections  closes {closes}  {verdict}"
        )


class _Broken(Exception):
    """An invariant does not hold."""


def _require(condition: object, otherwise: str) -> None:
    if not condition:
        raise _Broken(otherwise)


def fuzz_server_protocol(seed: int, count: int) -> FuzzResult:
    """Give ``count`` hostile messages to fresh :class:`ServerProtocol` objects, some of them in frames.

    Example::

        assert fuzz_server_protocol(1, 2_000).passed
    """
    return _fuzz(
        "server protocol", seed, count, Mutator(seed, (*CLIENT_MESSAGES, *SERVER_MESSAGES[:2])), _server
    )


def fuzz_client_protocol(seed: int, count: int) -> FuzzResult:
    """Give ``count`` hostile messages to fresh :class:`ClientProtocol` objects, by way of the prefix routes.

    Example::

        assert fuzz_client_protocol(1, 2_000).passed
    """
    return _fuzz(
        "client protocol", seed, count, Mutator(seed, (*SERVER_MESSAGES, *CLIENT_MESSAGES[:2])), _client
    )


Judge = Callable[[bytes], int | None]
"""Takes one message; returns the close code once the connection has ended, and raises for a finding."""


def _fuzz(name: str, seed: int, count: int, mutator: Mutator, new: Callable[[Mutator], Judge]) -> FuzzResult:
    result = FuzzResult(fuzzer=name, seed=seed)
    while result.messages < count:
        result.connections += 1
        inputs: list[bytes] = []
        judge = new(mutator)
        code: int | None = None
        left = _AFTER_THE_CLOSE
        for data in _sequence(mutator, count - result.messages):
            if code is not None:
                left -= 1
                if left < 0:
                    break
            inputs.append(data)
            result.messages += 1
            try:
                code = judge(data)
            except Exception as error:  # noqa: BLE001 (any exception is what is looked for)
                result.found(f"{type(error).__name__}: {error}"[:300], inputs)
                break
        result.closed(code or 0)
    return result


def _sequence(mutator: Mutator, at_most: int) -> Iterator[bytes]:
    for _ in range(min(at_most, mutator.random.randint(1, _MAX_SEQUENCE))):
        yield mutator.message()


def _server(mutator: Mutator) -> Judge:
    """A server that acknowledges, answers and ends operations at random."""
    protocol = ServerProtocol(max_operations=_MAX_OPERATIONS)
    assembler = MessageAssembler(max_message_bytes=_MAX_MESSAGE_BYTES, max_fragments=_MAX_FRAGMENTS)
    chance = mutator.random
    in_frames = chance.random() < 0.5
    if chance.random() < 0.7:
        protocol.receive_message(b'{"type":"connection_init"}')
        protocol.send_ack()
        protocol.events_received()
        protocol.data_to_send()
    broken = False

    def judge(data: bytes) -> int | None:
        nonlocal broken
        was_closed = protocol.close is not None
        if in_frames and not broken:
            for message in _through_frames(assembler, data, mutator, protocol):
                protocol.receive_message(message)
            broken = protocol.close is not None and protocol.close.code in _FRAME_CLOSES
        else:
            protocol.receive_message(data)
        for event in protocol.events_received():
            _require(not was_closed, f"an event after the close: {event!r:.80}")
            if isinstance(event, ConnectionInit) and protocol.close is None:
                protocol.send_ack({"resume": {"version": 1, "epoch": "e"}})
            elif isinstance(event, Subscribe) and chance.random() < 0.5:
                protocol.send_next(event.id, b'{"data":{"tick":1}}')
                if chance.random() < 0.5:
                    protocol.send_error(event.id, (GraphQLError(message="m"),))
                else:
                    protocol.send_complete(event.id)
        return _judge_role(protocol, data, _SERVER_CLOSES | _FRAME_CLOSES, was_closed=was_closed)

    return judge


def _through_frames(
    assembler: MessageAssembler, data: bytes, mutator: Mutator, protocol: ServerProtocol
) -> Iterator[bytes]:
    """Cut a message into frames, most of them as they should be."""
    chance = mutator.random
    pieces = chance.choice((1, 1, 1, 2, 3, _MAX_FRAGMENTS + 2))
    ends = [*sorted(chance.randrange(len(data) + 1) for _ in range(pieces - 1)), len(data)]
    start = 0
    for number, end in enumerate(ends):
        opcode = 1 if number == 0 else 0
        if chance.random() < 0.02:
            opcode = chance.randrange(8)
        fin = (number == pieces - 1) is not (chance.random() < 0.02)
        try:
            if chance.random() < 0.1:
                assembler.check_control(
                    chance.random() < 0.02, fin=chance.random() > 0.02, length=chance.choice((0, 5, 125))
                )
            if chance.random() < 0.02:
                code, _ = parse_close(data[start:end])
                _require(is_sendable(code) or code == 1005, f"close code {code} was taken")
            message = assembler.receive_frame(opcode, data[start:end], fin=fin, rsv=chance.random() < 0.01)
        except FrameError as error:
            _require(error.close_code in _FRAME_CLOSES, f"a frame ended in {error.close_code}")
            protocol.send_close(error.close_code, error.reason)
            return
        start = end
        if message is not None:
            _require(len(message) <= _MAX_MESSAGE_BYTES, "a message over the limit")
            message.decode()
            yield message


def _client(mutator: Mutator) -> Judge:
    """A client with two operations whose ids the messages know, that routes as a connection does."""
    protocol = ClientProtocol()
    routes: PrefixRoutes[str] = PrefixRoutes()
    chance = mutator.random
    if chance.random() < 0.9:
        protocol.send_init({"resume": {"version": 1}})
    if protocol.state is ClientState.AWAITING_ACK and chance.random() < 0.8:
        protocol.receive_message(b'{"type":"connection_ack"}')
        for id_ in ("00000001", "00000002"):
            protocol.send_subscribe(Subscribe(id_, "subscription { tick }"))
            routes.add(id_, id_)
    protocol.events_received()
    protocol.data_to_send()

    def judge(data: bytes) -> int | None:
        was_closed = protocol.close is not None
        _judge_prefix(routes, data)
        protocol.receive_message(data)
        for event in protocol.events_received():
            _require(not was_closed, f"an event after the close: {event!r:.80}")
            if isinstance(event, Next):
                _require(event.id in protocol.operations, f"next for {event.id!r:.40}, never subscribed")
                routes.learn(data, event)
            elif isinstance(event, Error | Complete):
                routes.remove(event.id, event.id)
                _require(event.id not in protocol.operations, "an operation that has ended is active")
                if protocol.close is None and chance.random() < 0.8:
                    protocol.send_subscribe(Subscribe(event.id, "subscription { tick }"))
                    routes.add(event.id, event.id)
        _require(len(protocol.operations) <= 2, "a server made an operation")
        return _judge_role(protocol, data, _CLIENT_CLOSES, was_closed=was_closed)

    return judge


def _judge_prefix(routes: PrefixRoutes[str], data: bytes) -> None:
    """What the fast route takes must be what the codec would have made of it."""
    length = routes.prefix_length
    route = routes.by_prefix.get(data[:length])
    if route is None or not data.endswith(b"}"):
        return
    payload = data[length:-1]
    try:
        msgspec.json.decode(payload, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    try:
        message = decode_message(data)
    except InvalidMessage as error:
        raise _Broken(f"the fast route took what the codec refuses: {error.reason}") from error
    _require(message == Next(route, payload), f"the fast route and the codec differ: {message!r:.100}")


def _judge_role(
    protocol: ServerProtocol | ClientProtocol, data: bytes, legal: frozenset[int], *, was_closed: bool
) -> int | None:
    written = protocol.data_to_send()
    _require(not (was_closed and written), "an answer after the close")
    # A number may become longer when it is written again: 1e15 is 1000000000000000.0.
    _require(sum(map(len, written)) <= 8 * len(data) + 1_024, f"{sum(map(len, written))} bytes of answer")
    for answer in written:
        msgspec.json.decode(answer)
        _require(decode_message(answer) is not None, "an answer is no message")
    _require(len(protocol.operations) <= _MAX_OPERATIONS, f"{len(protocol.operations)} operations")
    close = protocol.close
    _require((close is not None) == (str(protocol.state) == "closed"), "close and state differ")
    if close is None:
        return None
    _require(close.code in legal, f"close code {close.code}")
    _require(len(close.reason.encode()) <= MAX_REASON_BYTES, "a close reason over 123 bytes")
    return close.code


# A running server ------------------------------------------------------------------------------------------


async def fuzz_server_socket(
    url: str, seed: int, count: int, *, headers: Mapping[str, str] | None = None
) -> FuzzResult:
    """Write ``count`` pieces of malformed frames to a running server, behind real handshakes.

    A finding is: a connection that is not ended in time, a close code that must not be sent, bytes that are
    no frames, or a server that does not answer ``GET /health`` and a ping of a control client any more.

    :param url: ``http://`` or ``ws://``, with the path of the WebSocket.
    :param headers: of every handshake, for example ``Authorization``.
    :raises OSError: the server cannot be reached at the beginning.
    :raises RuntimeError: it refuses the handshake.

    Example::

        assert (await fuzz_server_socket("http://127.0.0.1:4000/graphql", 1, 500)).passed
    """
    result = FuzzResult(fuzzer="server socket", seed=seed)
    mutator = Mutator(seed, CLIENT_MESSAGES)
    place = _Place(url, headers or {})
    async with place.open() as (control_reader, control):
        control.write(_frame(0x81, b'{"type":"connection_init"}'))
        while result.messages < count:
            result.connections += 1
            pieces = [
                piece
                for data in _sequence(mutator, count - result.messages)
                for piece in [_malformed(mutator, data)]
            ]
            result.messages += len(pieces)
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    result.closed(await _one_connection(place, pieces))
            except (_Broken, TimeoutError, OSError, RuntimeError) as error:
                result.found(f"{type(error).__name__}: {error}", pieces)
            if result.connections % _CHECK_EVERY == 0 or result.messages >= count:
                try:
                    async with asyncio.timeout(_PATIENCE_SECONDS):
                        await place.health()
                        await _ping(control_reader, control, result.connections)
                except (_Broken, TimeoutError, OSError, asyncio.IncompleteReadError) as error:
                    result.found(f"the server is not well: {type(error).__name__}: {error}", pieces)
                    return result
    return result


_TOO_OFTEN: Final = b" 429 "


@final
class _Place:
    """Where the server is."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or 80
        self._path = parts.path or "/graphql"
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Shake hands, as soon as the rate of connects allows it, and drop the connection in the end.

        :raises RuntimeError: refused.
        """
        head = _TOO_OFTEN
        while _TOO_OFTEN in head.partition(b"\r\n")[0]:
            reader, writer = await asyncio.open_connection(self._host, self._port)
            try:
                head = await self._shake_hands(reader, writer)
            finally:
                if b" 101 " not in head.partition(b"\r\n")[0]:
                    writer.transport.abort()
            if _TOO_OFTEN in head:
                await asyncio.sleep(0.2)
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(f"the handshake was refused: {head[:60]!r}")
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def _shake_hands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(
            (
                f"GET {self._path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
                f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n{self._headers}\r\n"
            ).encode()
        )
        return await reader.readuntil(b"\r\n\r\n")

    async def health(self) -> None:
        """Ask for ``/health``."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(f"GET /health HTTP/1.1\r\nHost: {self._host}\r\nConnection: close\r\n\r\n".encode())
            status = await reader.readline()
            _require(b" 200 " in status, f"GET /health: {status!r}")
        finally:
            writer.transport.abort()


async def _one_connection(place: _Place, pieces: Sequence[bytes]) -> int:
    """Write the pieces, then a close frame and the end; return with what the server closes."""
    async with place.open() as (reader, writer):
        writer.write(_frame(0x81, b'{"type":"connection_init"}'))
        with suppress(OSError):  # the server may have closed before all is written
            for piece in pieces:
                writer.write(piece)
            writer.write(_frame(0x88, (1000).to_bytes(2)))
            await writer.drain()
            writer.write_eof()
        received = b""
        with suppress(OSError):  # reset, or too late for our own end
            while chunk := await reader.read(65_536):
                received += chunk
                _require(len(received) < 4 * 1024 * 1024, "the server writes without end")
    return _judge_frames(received)


def _judge_frames(data: bytes) -> int:
    code = 0
    for opcode, payload in _frames(data):
        _require(not code, f"opcode {opcode} with {payload[:60]!r} behind the close {code}")
        _require(opcode in {1, 8, 9, 10}, f"the server sent opcode {opcode}")
        if opcode == 1:
            msgspec.json.decode(payload)
        elif opcode == 8:
            try:
                code = int(parse_close(payload)[0])
            except FrameError as error:
                raise _Broken(f"the server's close is broken: {error}") from error
    return code


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Read a server's frames; the last may be cut by a reset."""
    at = 0
    while at + 2 <= len(data):
        first, length = data[at], data[at + 1]
        _require(first & 0xF0 == 0x80, f"the server sent a first byte of {first:#x}")
        _require(length < 128, "the server masks")
        start = at + 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length = int.from_bytes(data[start : start + size])
            start += size
        if start + length > len(data):
            return
        yield first & 0x0F, data[start : start + length]
        at = start + length


async def _ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    writer.write(_frame(0x81, b'{"type":"ping","payload":{"number":%d}}' % number))
    while True:
        first, length = await reader.readexactly(2)
        if length >= 126:
            length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
        payload = await reader.readexactly(length)
        _require(first != 0x88, f"the control client was closed: {payload!r}")
        if first == 0x81 and b'"pong"' in payload and b'"number":%d}' % number in payload:
            return


def _frame(first: int, payload: bytes, *, second: int = 0x80, lie: int | None = None) -> bytes:
    """Build a frame; ``lie`` is a length to announce instead, ``second`` without 0x80 leaves out the mask."""
    length = len(payload) if lie is None else lie
    if length < 126:
        head = bytes((first, second | length))
    elif length < 65_536:
        head = bytes((first, second | 126)) + length.to_bytes(2)
    else:
        head = bytes((first, second | 127)) + length.to_bytes(8)
    if not second & 0x80:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def _malformed(mutator: Mutator, data: bytes) -> bytes:
    """Return bytes that are almost a frame, or one with a hostile message in it."""
    chance = mutator.random
    data = data[:4_096]
    kind = chance.randrange(12)
    lengths = (0, 1, 125, 126, 65_535, 65_536, 2**31, 2**62, 2**64 - 1)
    makers: Sequence[Callable[[], bytes]] = (
        lambda: _frame(chance.randrange(256), data),
        lambda: _frame(0x81, data, second=0),
        lambda: _frame(0x81, data, lie=chance.choice(lengths)),
        lambda: _frame(0x88, chance.choice(_CODES).to_bytes(2) + data[: chance.randrange(200)]),
        lambda: _frame(
            chance.choice((0x88, 0x89, 0x8A, 0x08, 0x09)),
            data[:300],
            lie=chance.choice((None, None, 126, 70_000, 2**62)),
        ),
        lambda: b"".join(
            _frame(chance.choice((0x01, 0x00, 0x80)), data[at : at + 3]) for at in range(0, 30, 3)
        ),
        lambda: _frame(0x81, data)[: chance.randrange(12)] + chance.randbytes(chance.randrange(16)),
    )
    return makers[kind - 5]() if kind >= 5 else _frame(0x81, data)


def main() -> int:
    """Run the fuzzers; 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.attack.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="messages for each fuzzer")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--url", help="a running server, whose socket is fuzzed too")
    parser.add_argument("--token", help="for its handshakes")
    arguments = parser.parse_args()
    failed = False

    def tell(result: FuzzResult) -> None:
        nonlocal failed
        failed |= not result.passed
        sys.stdout.write(result.line() + "\n")
        sys.stdout.flush()
        sys.stderr.writelines(f"found: {finding}\n" for finding in result.findings)

    tell(fuzz_server_protocol(arguments.seed, arguments.count))
    tell(fuzz_client_protocol(arguments.seed, arguments.count))
    if arguments.url:
        headers = {"Authorization": f"Bearer {arguments.token}"} if arguments.token else None
        tell(asyncio.run(fuzz_server_socket(arguments.url, arguments.seed, arguments.count, headers=headers)))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
