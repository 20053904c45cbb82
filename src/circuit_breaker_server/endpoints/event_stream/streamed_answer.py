"""An answer of HTTP without an end, written to its socket as a WebSocket is: no task and no queue of its own.

The application begins it as any other (so every layer adds its headers); then the connection is handed over
from uvicorn, and what is written goes out as one chunk (RFC 9112, section 7.1), at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, final

__all__ = ["HAND_OVER", "AnswerSink", "HandOver", "StreamedAnswer"]

HAND_OVER: Final = "circuit_breaker.hand_over"
"""The member of an ASGI scope that hands the connection over: a :class:`HandOver`."""

_MAX_IGNORED_BYTES: Final = 64 * 1024
"""More than this behind a request that closes the connection is no mistake."""


class AnswerSink(Protocol):
    """The interface of what writes an answer."""

    def on_writable(self, writable: bool) -> None:
        """Hear that the socket's buffer is full, or has room again."""
        ...

    def on_lost(self) -> None:
        """Hear that the connection is gone; called once."""
        ...

    def shut_down(self) -> None:
        """End the answer, unfinished: the server stops."""
        ...


class HandOver(Protocol):
    """The interface of what hands a connection over."""

    def without_chunks(self) -> None:
        """Write the body as it is, ended by the end of the connection; before its head."""
        ...

    def __call__(self, sink: AnswerSink, /) -> StreamedAnswer | None:
        """Hand the connection over, whose head is written; ``None``: its peer has left."""
        ...


@final
class StreamedAnswer(asyncio.Protocol):
    """The connection of one answer, after its head.

    Example::

        answer = scope[HAND_OVER](sink)
        answer.write(b"event: next\\ndata: {}\\n\\n")
        answer.finish()
    """

    __slots__ = ("_closed", "_connections", "_ignored_bytes", "_is_chunked", "_leave", "_sink", "_transport")

    def __init__(
        self,
        transport: asyncio.Transport,
        sink: AnswerSink,
        *,
        connections: set[object],
        leave: Callable[[], None],
        is_chunked: bool = True,
    ) -> None:
        """Take a transport over.

        :param connections: those that the server waits for when it stops.
        :param leave: called when the connection is gone.
        """
        self._transport = transport
        self._sink: AnswerSink | None = sink
        self._connections = connections
        self._leave = leave
        self._is_chunked = is_chunked
        self._ignored_bytes = 0
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        connections.add(self)

    @property
    def remote(self) -> str:
        """The peer's address and port, as logged."""
        peer = self._transport.get_extra_info("peername")
        return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""

    @property
    def unsent_bytes(self) -> int:
        """Bytes that were written and not taken by the system."""
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Write one chunk; nothing once the answer has ended. ``data`` is not empty."""
        if not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def finish(self) -> None:
        """End the answer, whole, and close."""
        if not self._transport.is_closing():
            if self._is_chunked:
                self._transport.write(b"0\r\n\r\n")
            self._transport.close()

    def close(self) -> None:
        """Close behind what was written; the peer sees that the answer is not whole."""
        self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        await asyncio.shield(self._closed)

    def shutdown(self) -> None:
        """Take part in uvicorn's graceful stop."""
        if self._sink is not None:
            self._sink.shut_down()
        self._transport.close()

    # --- asyncio.Protocol --------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Drop what the peer sends: no other request follows on this connection."""
        self._ignored_bytes += len(data)
        if self._ignored_bytes > _MAX_IGNORED_BYTES:
            self._transport.abort()

    def pause_writing(self) -> None:
        if self._sink is not None:
            self._sink.on_writable(False)

    def resume_writing(self) -> None:
        if self._sink is not None:
            self._sink.on_writable(True)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        sink, self._sink = self._sink, None
        self._connections.discard(self)
        if not self._closed.done():
            self._closed.set_result(None)
        self._leave()
        if sink is not None:
            sink.on_lost()
