"""Many WebSockets in one thread that count what arrives and do nothing else: the load on a server."""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, final

__all__ = ["Sockets", "frame", "read_until", "upgrade"]

_MARK = b'"next"'
_SSE_MARK = b"event: next"
_READ_BYTES = 1 << 18
_DISCARD = socket.MSG_TRUNC if sys.platform == "linux" else 0
"""On Linux, TCP counts what is read so, and copies nothing."""


def frame(text: str) -> bytes:
    """Make a text frame of a client; it is masked with zeros: legal, and nothing to compute."""
    data = text.encode()
    if len(data) < 126:
        head = bytes((0x81, 0x80 | len(data)))
    elif len(data) < 65536:
        head = b"\x81\xfe" + len(data).to_bytes(2, "big")
    else:
        head = b"\x81\xff" + len(data).to_bytes(8, "big")
    return head + b"\x00\x00\x00\x00" + data


@final
class Sockets:
    """So many connections with one subscription each, and each with an operation id of its own."""

    def __init__(
        self,
        port: int,
        count: int,
        *,
        resume: bool = False,
        bare: bool = False,
        sse: bool = False,
        token: str | None = None,
        traces: bool = False,
        mark: bytes | None = None,
    ) -> None:
        """``resume``: negotiate cursors. ``bare``: no protocol at all, bytes that are counted.

        ``mark``: the bytes that each event has once, where they are not those of ``next``.
        ``traces``: ask for those of mutations as well. ``sse``: a request for server-sent events each,
        instead of a WebSocket.
        """
        self._sse = sse
        self._mark = mark if mark is not None else _SSE_MARK if sse else _MARK
        self._token = token
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        self._ends: list[bytes] = []
        self._resume = resume
        self._traces = traces
        for number in range(count):
            opened = socket.create_connection(("127.0.0.1", port))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not bare and not sse:
                self._initialise(opened)
            self._sockets.append(opened)
            self._ends.append(b"")
            self._selector.register(opened, selectors.EVENT_READ, number)

    def _initialise(self, opened: socket.socket) -> None:
        upgrade(opened, "/graphql", "graphql-transport-ws")
        init: dict[str, object] = {"type": "connection_init"}
        if self._resume:
            init["payload"] = {"resume": {"version": 1, "traceparent": self._traces}}
        if self._token is not None:
            init["payload"] = {**(init.get("payload") or {}), "Authorization": f"Bearer {self._token}"}  # type: ignore[dict-item]  # of our making
        opened.sendall(frame(json.dumps(init)))
        read_until(opened, b"connection_ack")

    def subscribe(
        self, document: str, variables: Callable[[int], Mapping[str, object]] | None = None
    ) -> None:
        """Subscribe once on each; where resume was negotiated wait until each is live."""
        for number, opened in enumerate(self._sockets):
            payload: dict[str, object] = {"query": document}
            if variables is not None:
                payload["variables"] = variables(number)
            if self._sse:
                _request_events(opened, payload)
                continue
            message = {"id": f"{number:08x}", "type": "subscribe", "payload": payload}
            opened.sendall(frame(json.dumps(message)))
            if self._resume:
                read_until(opened, b'"cursor"')
        if not self._resume and not self._sse:
            time.sleep(0.5)  # nothing says when such a server is ready

    def subscribe_more(
        self, document: str, each: Callable[[int, int], Mapping[str, object]], count: int, *, first: int = 0
    ) -> None:
        """Subscribe so many times on each, with variables by socket and number; ``first`` keeps ids apart."""
        for number, opened in enumerate(self._sockets):
            for k in range(count):
                payload = {"query": document, "variables": each(number, k)}
                message = {
                    "id": f"{first * 0x1000000 + number * count + k:08x}",
                    "type": "subscribe",
                    "payload": payload,
                }
                opened.sendall(frame(json.dumps(message)))
            if self._resume:
                _read_count(opened, b'"cursor"', count)
        if not self._resume:
            time.sleep(1.0)  # nothing says when such a server is ready

    def count(self, events: int, *, seconds: float = 120.0, every: float = 0.0) -> float:
        """Read until so many events have arrived in all; return the seconds from now until then.

        ``every``: rest so many seconds between two looks at all sockets, and so read more at once, with less
        of the processor.

        :raises RuntimeError: they do not come.
        """
        started = time.perf_counter()
        mark = self._mark
        seen, ends, keep = 0, self._ends, len(mark) - 1
        while seen < events:
            if every:
                time.sleep(every)
            ready = self._selector.select(timeout=5.0)
            if not ready and time.perf_counter() - started > seconds:
                raise RuntimeError(f"{seen} of {events} events arrived")
            for key, _ in ready:
                number: int = key.data
                data = key.fileobj.recv(_READ_BYTES)  # type: ignore[union-attr]  # a socket
                if not data:
                    raise RuntimeError(f"socket {number} was closed after {seen} of {events} events")
                data = ends[number] + data
                seen += data.count(mark)
                # A mark may be cut in two; one that is whole is not counted again: it is longer.
                ends[number] = data[-keep:]
        return time.perf_counter() - started

    def count_alike(self, events: int, *, seconds: float = 120.0, every: float = 0.0) -> float:
        """Read until so many events have arrived on each; return the seconds from now until then.

        All are sent the same, but for operation ids of one length. So events are counted on the first one,
        and the others are read until they have as many bytes: that takes a tenth of the processor. ``every``
        as for :meth:`count`.

        :raises RuntimeError: they do not come, or another one has more bytes than the first.
        """
        started = time.perf_counter()
        first, scratch = self._sockets[0], bytearray(_READ_BYTES)
        got = dict.fromkeys(self._sockets, 0)
        seen, end, keep = 0, b"", len(self._mark) - 1
        while seen < events or min(got.values()) < got[first]:
            if every:
                time.sleep(every)
            ready = self._selector.select(timeout=5.0)
            if not ready and time.perf_counter() - started > seconds:
                raise RuntimeError(f"{seen} of {events} events arrived on the first of them")
            for key, _ in ready:
                opened: socket.socket = key.fileobj  # type: ignore[assignment]  # those that were registered
                if opened is first:
                    data = opened.recv(_READ_BYTES)
                    seen += (end + data).count(self._mark)
                    end, size = (end + data)[-keep:], len(data)
                else:
                    size = opened.recv_into(scratch, _READ_BYTES, _DISCARD)
                if not size:
                    raise RuntimeError(f"a socket was closed after {got[opened]} bytes")
                got[opened] += size
        if max(got.values()) > got[first]:
            raise RuntimeError("they were not sent the same")
        return time.perf_counter() - started

    @property
    def opened(self) -> list[socket.socket]:
        """All of them."""
        return self._sockets

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._selector.close()
        for opened in self._sockets:
            opened.close()


def _request_events(opened: socket.socket, payload: Mapping[str, object]) -> None:
    """Ask for a stream, and wait until it is live."""
    body = json.dumps(payload).encode()
    opened.sendall(
        b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\nResume-Version: 1\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    read_until(opened, b"\nid: ")


def upgrade(opened: socket.socket, path: str, subprotocol: str | None = None) -> None:
    """Open a WebSocket on a connection.

    :raises RuntimeError: the server closed the connection.
    """
    offered = "" if subprotocol is None else f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    opened.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"{offered}\r\n".encode()
    )
    read_until(opened, b"\r\n\r\n")


def read_until(opened: socket.socket, mark: bytes) -> None:
    """Read until these bytes have arrived; what comes after them in the same read is dropped.

    :raises RuntimeError: the server closed the connection.
    """
    _read_count(opened, mark, 1)


def _read_count(opened: socket.socket, mark: bytes, count: int) -> None:
    data = b""
    opened.settimeout(60)  # an answer that is a refusal is not the mark that is waited for
    while data.count(mark) < count:
        more = opened.recv(65536)
        if not more:
            raise RuntimeError(f"the server closed the connection: {data[-200:]!r}")
        data += more
