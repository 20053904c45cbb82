"""The load on a client: a process with just enough WebSocket to send events as fast as they are read."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
from multiprocessing.connection import Connection

import msgspec

from benchmarks.event import resource
from circuit_breaker_sdk.protocol.codec import decode_message, encode_message, next_prefix
from circuit_breaker_sdk.protocol.message_assembly import text_frame_header
from circuit_breaker_sdk.protocol.messages import (
    Complete,
    ConnectionAck,
    ConnectionInit,
    Ping,
    Pong,
    Subscribe,
)

__all__ = ["publish"]

_CYCLE = 1000
_FRAMES_PER_WRITE = 64
_TRACED_ONE_IN = 100
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_EPOCH = "9f2c41d07be3a856"


def _cursor(number: int) -> str:
    return f"{_EPOCH}.{100_000 + number}.0.7d3e9a10"


class _Peer:
    """One client's socket, read a message at a time."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._data = b""

    def upgrade(self) -> None:
        while b"\r\n\r\n" not in self._data:
            self._more()
        request, _, self._data = self._data.partition(b"\r\n\r\n")
        headers = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:] if b": " in line)
        key = next(value for name, value in headers.items() if name.lower() == b"sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())
        self._peer.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: graphql-transport-ws\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    def read(self) -> bytes:
        """Read one masked text frame.

        :raises ConnectionError: the client has closed, or is gone.
        """
        first, second = self._take(2)
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(self._take(2), "big")
        mask = self._take(4)
        data = self._take(size)
        key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        data = (int.from_bytes(data, "big") ^ key).to_bytes(size, "big")
        if first & 0x0F == 8:
            raise ConnectionError("the client has closed")
        return data

    def send(self, data: bytes) -> None:
        self._peer.sendall(data)

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            self._more()
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def _more(self) -> None:
        chunk = self._peer.recv(65536)
        if not chunk:
            raise ConnectionError("the client is gone")
        self._data += chunk


def _frame(message: bytes) -> bytes:
    return text_frame_header(len(message)) + message


def _chunks(ids: list[str], *, resume: bool, traces: bool) -> tuple[list[bytes], int]:
    """Return a cycle of writes, cursors chained from its end to its beginning, and how many events it has."""
    # Each subscription has two events in a cycle at least: its chain of cursors must not bite its own tail.
    events = max(_CYCLE, 2 * len(ids))
    per_id = events // len(ids)
    frames = []
    for number in range(events):
        payload: dict[str, object] = {"data": {"resourceUpdates": resource(number)}}
        if resume:
            place = number // len(ids)
            links = {"cursor": _cursor(place), "prev": _cursor((place - 1) % per_id)}
            extensions: dict[str, object] = {"resume": links}
            if traces and number % _TRACED_ONE_IN == 0:
                extensions["traceparent"] = f"00-{number + 1:032x}-{number + 1:016x}-01"
            payload["extensions"] = extensions
        prefix = next_prefix(ids[number % len(ids)])
        frames.append(_frame(prefix + msgspec.json.encode(payload) + b"}"))
    return (
        [b"".join(frames[i : i + _FRAMES_PER_WRITE]) for i in range(0, events, _FRAMES_PER_WRITE)],
        events,
    )


def _begin(peer: _Peer, subscriptions: int) -> tuple[list[str], bool, bool]:
    """Agree on the protocol and take the subscribes; return the ids, whether they resume, and with traces."""
    peer.upgrade()
    init = decode_message(peer.read())
    asked = init.payload.get("resume") if isinstance(init, ConnectionInit) and init.payload else None
    resume = isinstance(asked, dict)
    traces = isinstance(asked, dict) and asked.get("traceparent") is True
    answer: dict[str, object] | None = {"resume": {"version": 1, "epoch": _EPOCH}} if resume else None
    peer.send(_frame(encode_message(ConnectionAck(answer))))
    ids: list[str] = []
    while len(ids) < subscriptions:
        message = decode_message(peer.read())
        if isinstance(message, Subscribe):
            ids.append(message.id)
            if resume:
                # The place before the cycle's first event is that of its last.
                events = max(_CYCLE, 2 * subscriptions)
                start = _cursor(events // subscriptions - 1)
                peer.send(_frame(encode_message(Ping({"resume": {"id": message.id, "cursor": start}}))))
        elif not isinstance(message, Pong):
            raise TypeError(f"a subscribe was expected, not {message!r}")
    return ids, resume, traces


def publish(pipe: Connection, events: int, subscriptions: int = 1) -> None:
    """Serve one client: when it has subscribed and ``go`` was said, send so many events, then ``complete``.

    ``events`` is rounded up to whole cycles; how many it will be is said first, after the port.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cycle = max(_CYCLE, 2 * subscriptions)
        rounds = -(-events // cycle)
        pipe.send(("answer", (listener.getsockname()[1], rounds * cycle)))
        accepted, _ = listener.accept()
        with accepted:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = _Peer(accepted)
            ids, resume, traces = _begin(peer, subscriptions)
            chunks, _count = _chunks(ids, resume=resume, traces=traces)
            pipe.recv()
            for _ in range(rounds):
                for chunk in chunks:
                    peer.send(chunk)
            peer.send(b"".join(_frame(encode_message(Complete(id_))) for id_ in ids))
            with contextlib.suppress(ConnectionError):
                while True:
                    peer.read()
