"""Peers that do exactly what a test says: real sockets, bytes written by hand."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import final

from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

from circuit_breaker_sdk.config import MessageLimits, Timeouts
from circuit_breaker_sdk.transports.frame_pacing import Pacing
from circuit_breaker_sdk.transports.picows_protocol import ServerFrameProtocol, frame_protocol_arguments
from circuit_breaker_sdk.transports.websocket import (
    ClientSink,
    MessageSink,
    ServerListener,
    WebSocket,
    connect,
)

TEXT, CONTINUATION, BINARY, CLOSE, PING, PONG = 0x1, 0x0, 0x2, 0x8, 0x9, 0xA
SUBPROTOCOL = "graphql-transport-ws"
PATIENCE_SECONDS = 10.0

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@final
@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as it was read: unmasked."""

    opcode: int
    payload: bytes
    fin: bool
    masked: bool

    @property
    def close_code(self) -> int:
        assert self.opcode == CLOSE, f"not a close frame: {self}"
        return int.from_bytes(self.payload[:2])


def frame(opcode: int, payload: bytes = b"", *, masked: bool, fin: bool = True, rsv: int = 0) -> bytes:
    """Build a frame; ``rsv`` is 1, 2 or 3 for one reserved bit."""
    first = opcode | (0x80 if fin else 0) | (0x80 >> rsv if rsv else 0)
    length = len(payload)
    flag = 0x80 if masked else 0
    if length < 126:
        head = bytes((first, flag | length))
    elif length < 65_536:
        head = bytes((first, flag | 126)) + length.to_bytes(2)
    else:
        head = bytes((first, flag | 127)) + length.to_bytes(8)
    if not masked:
        return head + payload
    key = os.urandom(4)
    repeated = (key * (length // 4 + 1))[:length]
    return head + key + (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(length)


@final
class Peer:
    """One end of a raw connection; every wait gives up after ``PATIENCE_SECONDS``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, masks: bool) -> None:
        self.reader = reader
        self.writer = writer
        self.masks = masks

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def send_frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> None:
        self.send(self.frame(opcode, payload, fin=fin, rsv=rsv))

    def frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
        return frame(opcode, payload, masked=self.masks, fin=fin, rsv=rsv)

    async def read(self, length: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(length), PATIENCE_SECONDS)

    async def read_frame(self) -> Frame:
        first, second = await self.read(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(await self.read(2 if length == 126 else 8))
        key = await self.read(4) if second & 0x80 else b""
        payload = await self.read(length)
        if key:
            payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
        return Frame(first & 0x0F, payload, bool(first & 0x80), bool(key))

    async def read_head(self) -> str:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
        return head.decode("latin-1")

    async def read_to_end(self) -> bytes:
        """Return all that is left; a reset connection ends it too."""
        data = bytearray()
        with suppress(ConnectionError):
            while chunk := await asyncio.wait_for(self.reader.read(65_536), PATIENCE_SECONDS):
                data += chunk
        return bytes(data)

    async def accept(
        self, *, subprotocol: str | None = SUBPROTOCOL, more: str = "", behind: bytes = b""
    ) -> str:
        """Answer a WebSocket handshake; return the request's head."""
        head = await self.read_head()
        self.send(handshake_answer(head, subprotocol=subprotocol, more=more) + behind)
        return head

    def vanish(self) -> None:
        """Drop the connection without another word."""
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


def handshake_answer(head: str, *, subprotocol: str | None = SUBPROTOCOL, more: str = "") -> bytes:
    found = re.search(r"sec-websocket-key: *(\S+)", head, re.IGNORECASE)
    assert found, f"no handshake: {head}"
    digest = hashlib.sha1(found[1].encode() + _GUID, usedforsecurity=False).digest()
    accept = base64.b64encode(digest).decode()
    named = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n{named}{more}\r\n"
    ).encode()


@asynccontextmanager
async def serve(
    script: Callable[[Peer], Awaitable[None]], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Run ``script`` with each connection; yield the port. What a script raises fails the test."""
    tasks: list[asyncio.Task[None]] = []

    async def run(peer: Peer) -> None:
        try:
            await script(peer)
        finally:
            await peer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(run(Peer(reader, writer, masks=False))))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


@final
class RecordingSink:
    """Keeps what it is told; events can be waited for."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.closed: list[tuple[int, str]] = []
        self.writable: list[bool] = []
        self._changed = asyncio.Event()

    def on_message(self, data: bytes) -> None:
        self.messages.append(data)
        self._changed.set()

    def on_messages(self, messages: list[bytes]) -> None:
        for data in messages:
            self.on_message(data)

    def on_closed(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))
        self._changed.set()

    def on_writable(self, writable: bool) -> None:
        self.writable.append(writable)
        self._changed.set()

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait until ``condition()`` is true; it is asked again whenever something was recorded."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def close_code(self) -> int:
        await self.wait_until(lambda: self.closed)
        return self.closed[0][0]


@final
@dataclass(slots=True)
class Pair:
    """A socket under test, its sink, and the raw peer at its other end."""

    socket: WebSocket
    sink: RecordingSink
    peer: Peer


LIMITS = MessageLimits(max_message_bytes=65_536, max_fragments=8)


@asynccontextmanager
async def open_pair(
    role: str, *, close_seconds: float = 5.0, limits: MessageLimits = LIMITS, sink: ClientSink | None = None
) -> AsyncIterator[Pair]:
    """Yield a joined pair; ``role`` is what the socket under test plays: ``client`` or ``server``.

    :param sink: stands in for the recording one as the receiver of calls.
    """
    opener = _client_under_test if role == "client" else _server_under_test
    recording = RecordingSink()
    async with opener(sink or recording, recording, close_seconds, limits) as pair:
        try:
            yield pair
        finally:
            pair.socket.abort()
            await pair.socket.wait_closed()


@asynccontextmanager
async def _client_under_test(
    sink: ClientSink, recording: RecordingSink, close_seconds: float, limits: MessageLimits
) -> AsyncIterator[Pair]:
    accepted: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept()
        accepted.set_result(peer)
        await over.wait()

    async with serve(script) as port:
        socket = await connect(
            f"ws://127.0.0.1:{port}/graphql",
            sink,
            subprotocols=[SUBPROTOCOL],
            limits=limits,
            timeouts=Timeouts(close_seconds=close_seconds),
        )
        try:
            yield Pair(socket, recording, await accepted)
        finally:
            over.set()


@asynccontextmanager
async def _server_under_test(
    sink: MessageSink, recording: RecordingSink, close_seconds: float, limits: MessageLimits
) -> AsyncIterator[Pair]:
    opened: asyncio.Future[WebSocket] = asyncio.get_running_loop().create_future()

    def open_sink(socket: WebSocket) -> MessageSink:
        opened.set_result(socket)
        return sink

    async with listen(open_sink, close_seconds=close_seconds, limits=limits) as port:
        peer = await raw_client(port)
        try:
            assert "101" in await peer.read_head()
            yield Pair(await opened, recording, peer)
        finally:
            await peer.close()


@asynccontextmanager
async def listen(
    open_sink: Callable[[WebSocket], MessageSink],
    *,
    close_seconds: float = 5.0,
    limits: MessageLimits = LIMITS,
    pacing: Pacing | None = None,
    tls: ssl.SSLContext | None = None,
    subprotocol: str | None = None,
) -> AsyncIterator[int]:
    """Serve WebSockets with the server's role of this package alone; yield the port."""

    def answer(_request: WSUpgradeRequest) -> WSUpgradeResponseWithListener | ServerListener:
        listener = ServerListener(
            open_sink,
            limits=limits,
            close_seconds=close_seconds,
            pacing=pacing,
            subprotocol=subprotocol,
        )
        if subprotocol is None:
            return listener
        response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": subprotocol})
        return WSUpgradeResponseWithListener(response, listener)

    def new_protocol() -> ServerFrameProtocol:
        return ServerFrameProtocol(
            *frame_protocol_arguments(
                answer,
                max_frame_bytes=limits.max_message_bytes,
                handshake_seconds=PATIENCE_SECONDS,
            )
        )

    server = await asyncio.get_running_loop().create_server(new_protocol, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def raw_client(port: int, *, path: str = "/graphql", more: str = "", behind: bytes = b"") -> Peer:
    """Connect and send a handshake; its answer is not read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    peer = Peer(reader, writer, masks=True)
    peer.send(upgrade_request(path=path, more=more) + behind)
    return peer


def upgrade_request(*, path: str = "/graphql", more: str = "") -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n{more}\r\n"
    ).encode()
