"""picows' protocol object, watched where it decides alone.

picows answers a broken frame by itself: it writes a close frame and disconnects a moment later, without a
word to the listener. :class:`FrameProtocol` tells the listener, stops reading what follows, and keeps what an
opening handshake needs to explain a failure: the first bytes of the peer and the reason of a lost connection.

``WSProtocol`` is not part of picows' public interface; the range of its versions is therefore narrow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, MutableMapping
from time import perf_counter
from typing import TYPE_CHECKING, Final, cast, final

from picows import WSAutoPingStrategy, WSListener, WSTransport

from circuit_breaker_sdk.transports.lingering_close import LingeringTransport

__all__ = ["FrameListener", "FrameProtocol", "ServerFrameProtocol", "frame_protocol_arguments"]

if TYPE_CHECKING:
    _LoggerAdapter = logging.LoggerAdapter[logging.Logger]

    class _PicowsProtocol(asyncio.BufferedProtocol):
        """The typed face of ``picows.picows.WSProtocol``, which has no stub."""

        transport: WSTransport
        listener: FrameListener | None  # as frame_protocol_arguments takes it

        def __init__(self, *arguments: object) -> None: ...
        async def wait_until_handshake_complete(self) -> None: ...
        def get_buffer(self, sizehint: int) -> memoryview: ...
        def buffer_updated(self, nbytes: int) -> None: ...

else:
    try:
        from picows.picows import WSProtocol as _PicowsProtocol
    except ImportError as error:
        raise ImportError(
            "circuit_breaker_sdk needs picows' protocol object, which this version does not have: "
            "pip install 'picows>=2.3.1,<2.4'",
            name="picows",
        ) from error

    _LoggerAdapter = logging.LoggerAdapter

# Without `super()`, which makes an object at each read.
_get_buffer: Final = _PicowsProtocol.get_buffer
_buffer_updated: Final = _PicowsProtocol.buffer_updated

_HEAD_BYTES: Final = 256
_HTTP: Final = b"HTTP/1."
_NOTHING: Final = memoryview(b"")
# What a client reads of one socket in a row, once a read has brought much. picows doubles its buffer, for
# good, when a read has filled it: one read would then bring megabytes, whose first events have left the
# processor's cache when their turn comes.
_MOST_AT_ONCE_BYTES: Final = 64 * 1024
_MUCH_BYTES: Final = 32 * 1024
# What may well be several messages.
_SEVERAL_BYTES: Final = 4 * 1024
_NO_HEADER: Final = b"\0"
# What a server reads of one peer in a row.
_MOST_AT_ONCE_OF_A_PEER_BYTES: Final = 16 * 1024
_READ_BUFFER_BYTES: Final = {"client": 16 * 1024, "server": 2 * 1024}


class FrameListener(WSListener):
    """A listener that also hears what picows does without asking it.

    :ivar backwards: what one read of a client has brought, its last byte first, between two bytes that are
        none of it; for reads of several messages only.
    :ivar behind: bytes of that read behind the last frame, which is where the next header begins in
        ``backwards``; 0: there are none, or it is not known. The listener keeps it.
    :ivar closing: this side has begun to close, or has answered the peer's close.
    """

    # A server has one for each of its connections.
    __slots__ = ("backwards", "behind", "closing")

    def __init__(self) -> None:
        self.closing: bool = False
        self.backwards: memoryview = _NOTHING
        self.behind: int = 0

    def on_read_end(self) -> None:
        """Hear that all frames of one read were handed on."""

    def on_broken(self) -> None:
        """Hear that picows refused what was received: its close frame is written, nothing more is read."""

    def on_end_of_stream(self) -> None:
        """Hear that the peer will send nothing more; the transport closes once its buffer is flushed."""


@final
class _DebugLogger(_LoggerAdapter):
    """Write picows' log at level DEBUG: what matters in it reaches the caller as an error or a close code."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 (the standard library's name)
        # Below DEBUG picows writes whole requests, credentials with them.
        return level >= logging.DEBUG and self.logger.isEnabledFor(logging.DEBUG)

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        exc_info = bool(kwargs.get("exc_info"))
        if self.logger.isEnabledFor(logging.DEBUG):
            self.logger.log(min(level, logging.DEBUG), msg, *args, exc_info=exc_info)

    def process(
        self, msg: object, kwargs: MutableMapping[str, object]
    ) -> tuple[object, MutableMapping[str, object]]:
        return msg, kwargs


_LOGGER: Final = _DebugLogger(logging.getLogger("circuit_breaker_sdk.transports.picows"), {})


class FrameProtocol(_PicowsProtocol):
    """One socket's reading side: picows' parser and what this package needs to know beside its frames."""

    __slots__ = (
        "_hearing",
        "_is_broken",
        "_reads_into_all",
        "_reads_much",
        "_view",
        "head",
        "lost_with",
        "received_at",
    )

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.head: bytes = b""
        """The first bytes of the peer's answer; empty in the server's role."""
        self.lost_with: Exception | None = None
        """Why the connection was lost, where the transport said so."""
        self.received_at: float = perf_counter()
        """When something was read last, or this was made, by the clock of ``time.perf_counter``."""
        self._view = _NOTHING
        # The listener, while it is to hear what comes.
        self._hearing: FrameListener | None = None
        self._is_broken = False
        self._reads_much = False
        # The buffer is handed on as it is: so it is at most reads.
        self._reads_into_all = False

    @property
    def speaks_http(self) -> bool:
        """False as soon as the first bytes cannot be the beginning of an HTTP/1 answer."""
        return _HTTP.startswith(self.head[: len(_HTTP)]) or self.head.startswith(_HTTP)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._reads_into_all:
            return _get_buffer(self, sizehint)
        buffer = _get_buffer(self, sizehint)
        if self.listener is None:
            # Until the handshake is answered: what arrives is looked at before picows has it.
            self._view = buffer
            return buffer
        self._reads_into_all = not self._reads_much
        return buffer[:_MOST_AT_ONCE_BYTES] if self._reads_much else buffer

    def buffer_updated(self, nbytes: int) -> None:
        listener = self._hearing
        if listener is None:
            self._receive_unheard(nbytes)
            return
        if nbytes > _SEVERAL_BYTES and self.transport.is_client_side:
            self._reads_much = self._reads_much or nbytes > _MUCH_BYTES
            self._reads_into_all = not self._reads_much
            # The same buffer again: picows has not moved on in it yet.
            read = _get_buffer(self, nbytes)[:nbytes]
            listener.backwards = memoryview(b"".join((_NO_HEADER, read, _NO_HEADER)))[::-1]
            listener.behind = nbytes + 1
        # Once a read, before its events are handled.
        self.received_at = perf_counter()
        _buffer_updated(self, nbytes)
        listener.on_read_end()
        if self.transport.is_close_frame_sent and not listener.closing:
            self._end_hearing(listener)

    def _receive_unheard(self, nbytes: int) -> None:
        """Take what comes before the handshake is answered, or behind a broken frame."""
        if self._is_broken:
            self.dropped()
            return
        if self.listener is None and self.transport.is_client_side and not self._receive_head(nbytes):
            return
        self.received_at = perf_counter()
        _buffer_updated(self, nbytes)
        self._hearing = listener = self.listener
        if listener is not None:
            if not self.transport.is_client_side:
                # picows keeps both as long as the connection.
                self.transport.request.headers.clear()
                self.transport.response.headers.clear()
            listener.on_read_end()
            if self.transport.is_close_frame_sent and not listener.closing:
                self._end_hearing(listener)

    def _end_hearing(self, listener: FrameListener) -> None:
        # picows would go on parsing until its delayed disconnect.
        self._hearing, self._is_broken = None, True
        self.linger()
        listener.on_broken()

    def linger(self) -> None:
        """Hear that the connection will be closed over a broken frame, which may have more behind it."""

    def dropped(self) -> None:
        """Hear that what came behind the broken frame was dropped."""

    def eof_received(self) -> bool:
        if self.listener is not None:
            self.listener.on_end_of_stream()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost_with = exc
        self._view, self._hearing = _NOTHING, None
        super().connection_lost(exc)
        # picows keeps its own exception in a future. It is done by now, so that this coroutine ends without
        # waiting; unread, asyncio would report it as lost.
        with contextlib.suppress(StopIteration, Exception):
            self.transport.wait_disconnected().send(None)

    def _receive_head(self, nbytes: int) -> bool:
        if len(self.head) < _HEAD_BYTES:
            self.head += bytes(self._view[: min(nbytes, _HEAD_BYTES - len(self.head))])
        self._view = _NOTHING
        if self.speaks_http:
            return True
        # Waiting for the end of a header that never comes would only end in a timeout.
        self.transport.disconnect(graceful=False)
        return False


class ServerFrameProtocol(FrameProtocol):
    """The reading side of a server's socket.

    What it takes of one peer in a row stays small, and a peer that sends too much still learns so.
    """

    __slots__ = ("_transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = LingeringTransport(cast(asyncio.Transport, transport))
        super().connection_made(cast(asyncio.BaseTransport, self._transport))

    def linger(self) -> None:
        self._transport.linger()

    def dropped(self) -> None:
        self._transport.received()

    def get_buffer(self, sizehint: int) -> memoryview:
        buffer = super().get_buffer(sizehint)
        # picows doubles its buffer, for good, when a read has filled it. For a long message that is needed,
        # and still happens; with a flood of short ones ever more would be taken in one turn.
        return buffer[: min(len(buffer) + 1 >> 1, _MOST_AT_ONCE_OF_A_PEER_BYTES)]


def frame_protocol_arguments(
    listener_factory: Callable[..., object],
    *,
    max_frame_bytes: int,
    request: tuple[str, str, Mapping[str, str]] | None = None,
    handshake_seconds: float | None = None,
) -> tuple[object, ...]:
    """Return the arguments of :class:`FrameProtocol`, which takes them by position.

    :param listener_factory: called with the upgrade request, in the client's role also with the answer.
    :param request: host with port, path with query, and headers of a client's request; ``None`` is a server.
    :param handshake_seconds: how long the opening handshake may last; ``None`` where the caller keeps time.
    """
    host, path, headers = request or (None, None, None)
    return (
        host,
        path,
        request is not None,
        listener_factory,
        _LOGGER,
        True,  # an exception that leaves the listener closes the socket with 1011
        handshake_seconds,
        False,  # pings are the application protocol's, not picows'
        20,
        20,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # the listener answers pings: it checks their reserved bits, and drops pongs nobody reads
        max_frame_bytes,
        headers,
        _READ_BUFFER_BYTES["server" if request is None else "client"],
    )
