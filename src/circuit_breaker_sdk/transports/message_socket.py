"""Messages over one WebSocket, in either role: RFC 6455 above the single frame.

What goes out, and the closing handshake; what comes in is :mod:`.listeners`.
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Sequence
from typing import Final, Protocol, final, runtime_checkable

from picows import WSCloseCode, WSMsgType, WSTransport

from circuit_breaker_sdk.protocol.close_codes import CloseCode, close_reason, is_sendable
from circuit_breaker_sdk.protocol.message_assembly import masked_text_frame, text_frame_header
from circuit_breaker_sdk.transports.lingering_close import plain_transport

__all__ = ["ClientSink", "MessageSink", "ServerSink", "SocketState", "WebSocket"]

_TEXT: Final = WSMsgType.TEXT


class MessageSink(Protocol):
    """Receiver of the messages of a :class:`WebSocket`. All calls come from the socket's event loop.

    An exception that leaves a method is logged; it closes the socket with 1011.
    """

    def on_message(self, data: bytes) -> None:
        """Receive one whole text message, valid UTF-8; called inside the read callback, so never block."""

    def on_closed(self, code: int, reason: str) -> None:
        """Learn, exactly once, that the socket is gone.

        ``code`` and ``reason`` are those of the close frame that came first, ours or the peer's: 1005 where
        it carried no code, 1006 where the connection was lost without any.
        """

    def on_writable(self, writable: bool) -> None:
        """Learn that the write buffer went over its high-water mark (False) or below the low one (True).

        May be called from within :meth:`WebSocket.send_message` and :meth:`WebSocket.write`.
        """


class ClientSink(MessageSink, Protocol):
    """The client's: many messages that one read has brought are handed on together."""

    def on_messages(self, messages: list[bytes]) -> None:
        """Receive two or more whole text messages, ASCII, in their order; as ``on_message`` for each."""


@runtime_checkable
class ServerSink(MessageSink, Protocol):
    """A sink that may delay the answer to the peer's close frame.

    Answers that are ready, or nearly, are written before it.
    """

    def on_peer_closing(self) -> bool:
        """Write what is ready; return whether answers are still being made.

        Where they are, :meth:`WebSocket.answer_close` is to be called once they are written; the socket calls
        it after ``close_seconds``.
        """


class SocketState(enum.Enum):
    """OPEN → CLOSING → CLOSED; from OPEN straight to CLOSED where the connection is lost."""

    OPEN = enum.auto()
    CLOSING = enum.auto()
    CLOSED = enum.auto()


class _Receiver(Protocol):
    """Interface from a socket to the listener that receives for it (``listeners``)."""

    @property
    def holds_back(self) -> bool:
        """Whether something that the peer has sent is not read yet, for its own sake."""
        ...

    def hold_back(self, seconds: float, /) -> None:
        """Read nothing of the peer for so many seconds, where its pace is counted."""
        ...

    def begin_close(self) -> None:
        """Discard data from here on (RFC 6455, section 5.5.1)."""
        ...


@final
class WebSocket:
    """One open WebSocket that carries text messages. Made by ``connect()``, or by a server's listener.

    Once it closes, sending is silently without effect; a socket is never reopened.

    :ivar url: where it was connected to without query, or in the server's role the requested path.
    :ivar subprotocol: what the handshake agreed on, ``None`` for nothing.
    :ivar remote: the peer's address as ``host:port``, empty where the transport knows none.

    Example::

        socket = await connect("ws://localhost:4000/graphql", sink, subprotocols=["graphql-transport-ws"], …)
        socket.send_message(b'{"type":"connection_init"}')
        socket.close(1000)
        await socket.wait_closed()
    """

    __slots__ = (
        "__weakref__",
        "_close_seconds",
        "_closed",
        "_closed_with",
        "_is_paused",
        "_is_resting",
        "_listener",
        "_loop",
        "_peer_close",
        "_state",
        "_timer",
        "_transport",
        "_underlying",
        "closed_by_peer",
        "remote",
        "subprotocol",
        "url",
    )

    def __init__(
        self,
        listener: _Receiver,
        transport: WSTransport,
        *,
        url: str,
        subprotocol: str | None,
        close_seconds: float,
    ) -> None:
        self.url: str = url
        self.subprotocol: str | None = subprotocol
        self._listener = listener
        self._transport = transport
        self._underlying = plain_transport(transport)
        self._close_seconds = close_seconds
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._closed_with: tuple[int, str] | None = None
        # The peer's close frame while answers are still being made.
        self._peer_close: tuple[int, str] | None = None
        self._state = SocketState.OPEN
        self._is_paused = self._is_resting = False
        self._timer: asyncio.TimerHandle | None = None
        self.closed_by_peer: bool = False
        """Whether the close frame that came first was the peer's."""
        peer = self._underlying.get_extra_info("peername")
        self.remote: str = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""

    def __repr__(self) -> str:
        return f"<WebSocket {self.url} {self._state.name}>"

    @property
    def state(self) -> SocketState:
        """The state of the socket."""
        return self._state

    @property
    def is_closing(self) -> bool:
        """True as soon as a close has begun on either side, or the connection is lost."""
        return self._state is not SocketState.OPEN

    @property
    def received_at(self) -> float | None:
        """When something was read last, by the clock of ``time.perf_counter``; ``None``: not known."""
        # The protocol's own attribute: nothing is handed on at each read.
        received_at: float | None = getattr(self._underlying.get_protocol(), "received_at", None)
        return received_at

    @property
    def write_buffer_bytes(self) -> int:
        """Bytes that were written and that the operating system has not taken yet."""
        return self._underlying.get_write_buffer_size() if self._state is not SocketState.CLOSED else 0

    @property
    def holds_back(self) -> bool:
        """Whether the peer has sent more than it may, so that what it sent last may not be read yet."""
        return self._listener.holds_back

    def hold_back(self, seconds: float) -> None:
        """Read nothing of the peer for so long: it was told to wait. Only a server that paces peers does."""
        self._listener.hold_back(seconds)

    def send_message(self, data: bytes) -> None:
        """Write one text message; ``data`` is UTF-8."""
        # picows looks at the frame behind the one that we are answering: where that is broken, its close
        # frame is written already, and nothing may follow it (RFC 6455, section 5.5.1).
        if self._state is not SocketState.OPEN or self._transport.is_close_frame_sent:
            return
        if self._transport.is_client_side:
            self._transport.send(_TEXT, data)
        else:
            # picows hands a large unmasked message to the transport as a view of a buffer that it uses again
            # for the next one: with uvloop, which keeps the view, that breaks frames under load.
            self._underlying.write(text_frame_header(len(data)) + data)

    def send_messages(self, messages: Sequence[bytes]) -> None:
        """Write text messages, each UTF-8: many in one write, in order, also with :meth:`send_message`."""
        if len(messages) < 2:
            for data in messages:
                self.send_message(data)
        elif self._state is SocketState.OPEN and not self._transport.is_close_frame_sent:
            if self._transport.is_client_side:
                keys = os.urandom(4 * len(messages))
                frames = [masked_text_frame(m, keys[4 * i : 4 * i + 4]) for i, m in enumerate(messages)]
            else:
                frames = [text_frame_header(len(m)) + m for m in messages]
            self._underlying.write(b"".join(frames))

    def write(self, frames: bytes) -> None:
        """Write whole frames built with ``text_frame_header``: one write for many messages.

        In the server's role only: a client's frames are masked. Order with :meth:`send_message` is kept.
        """
        if self._state is SocketState.OPEN and not self._transport.is_close_frame_sent:
            self._underlying.write(frames)

    def send_pong(self, payload: bytes) -> None:
        """Answer a ping; nothing follows a close frame."""
        if self._state is not SocketState.CLOSED and not self._transport.is_close_frame_sent:
            self._transport.send_pong(payload)

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake: write a close frame, wait for the echo at most ``close_seconds``.

        Returns at once and never raises; closing twice keeps the first code. A code that must not be sent
        (1005, 1006, 1015, outside 1000 to 4999) goes out as 1000 for 1005 and as 1011 otherwise; a reason
        longer than 123 bytes is cut (RFC 6455, sections 5.5.1 and 7.4).
        """
        if self._peer_close is not None:
            self.answer_close()
        elif self._state is SocketState.OPEN:
            self._begin_close(code, reason)

    def pause_reading(self) -> None:
        """Read nothing until :meth:`resume_reading`; the peer meets a full buffer in the end."""
        if self._state is SocketState.OPEN:
            self._is_paused = True
            self._underlying.pause_reading()

    def resume_reading(self) -> None:
        """Read on; also where a close has begun, whose answer is to be read."""
        self._is_paused = False
        if self._state is not SocketState.CLOSED and not self._underlying.is_closing():
            self._underlying.resume_reading()

    def rest_reading(self) -> None:
        """Read nothing more in this turn of the event loop."""
        if self._state is SocketState.OPEN and not (self._is_resting or self._is_paused):
            self._is_resting = True
            self._underlying.pause_reading()
            self._loop.call_soon(self._end_rest)

    def _end_rest(self) -> None:
        self._is_resting = False
        if not self._is_paused:
            self.resume_reading()

    def abort(self) -> None:
        """Drop the connection now: no close frame, nothing flushed. The sink learns 1006."""
        if self._state is not SocketState.CLOSED:
            self._listener.begin_close()
            self._state = SocketState.CLOSING
            self._transport.disconnect(graceful=False)

    async def wait_closed(self) -> None:
        """Wait until the connection is gone and the sink knows. Cancelling the wait changes nothing else."""
        await asyncio.shield(self._closed)

    def receive_close(self, code: int, reason: str) -> None:
        """Take the peer's close frame: answer it with its code, then disconnect (RFC 6455, section 5.5.1)."""
        if self._state is SocketState.OPEN:
            self.closed_by_peer = True
            self._begin_close(code, reason)
        self._transport.disconnect()

    def hold_close(self, code: int, reason: str) -> None:
        """Answer the peer's close frame later: by :meth:`answer_close`, or after ``close_seconds``."""
        if self._state is SocketState.OPEN and self._peer_close is None:
            self._peer_close = code, reason
            self._listener.begin_close()
            self._timer = self._loop.call_later(self._close_seconds, self.answer_close)

    def answer_close(self) -> None:
        """Answer the peer's close frame, if it is not answered yet."""
        if self._peer_close is not None and self._state is SocketState.OPEN:
            (code, reason), self._peer_close = self._peer_close, None
            self._end_timer()
            self.receive_close(code, reason)

    def receive_broken(self) -> None:
        """Take note that picows closed the socket over a broken frame."""
        handshake = self._transport.close_handshake
        if self._state is SocketState.OPEN and handshake.sent is not None:
            self._closing(int(handshake.sent.code.value), handshake.sent.reason)

    def receive_end_of_stream(self) -> None:
        """Take note that the peer sends nothing more: what is not flushed yet has ``close_seconds`` left."""
        self._start_timer()

    def receive_lost(self) -> tuple[int, str]:
        """Take note that the connection is gone; return code and reason for the sink."""
        self._state = SocketState.CLOSED
        self._end_timer()
        if not self._closed.done():
            self._closed.set_result(None)
        return (
            self._closed_with
            or self._peer_close
            or (CloseCode.ABNORMAL, "the connection was lost without a close frame")
        )

    def _begin_close(self, code: int, reason: str) -> None:
        self._closing(code, reason)
        self._transport.send_close(WSCloseCode(_on_the_wire(code)), close_reason(reason))

    def _closing(self, code: int, reason: str) -> None:
        self._state = SocketState.CLOSING
        self._listener.begin_close()
        self._closed_with = (code, reason)
        self._start_timer()

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_timer(self) -> None:
        # A peer that does not read would keep even a graceful disconnect waiting for ever.
        if self._timer is None and self._state is not SocketState.CLOSED:
            self._timer = self._loop.call_later(self._close_seconds, self._transport.disconnect, False)


def _on_the_wire(code: int) -> int:
    """Return ``code`` as it may stand in a close frame (RFC 6455, section 7.4)."""
    if is_sendable(code):
        return code
    return CloseCode.NORMAL if code == CloseCode.NO_STATUS else CloseCode.INTERNAL
