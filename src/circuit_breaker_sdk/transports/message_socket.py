"""Messages over one WebSocket, in either role: RFC 6455 above the single frame.

picows parses frames and leaves to us what makes them messages: fragments, UTF-8, reserved bits, pings and the
closing handshake. What it reads is handed on inside its callback: no task, queue or copy per message.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
from collections.abc import Callable, Sequence
from typing import Final, Protocol, final

from multidict import CIMultiDict
from picows import WSCloseCode, WSFrame, WSMsgType, WSTransport

from circuit_breaker_sdk.config import MessageLimits
from circuit_breaker_sdk.protocol.close_codes import CloseCode, close_reason, is_sendable
from circuit_breaker_sdk.protocol.frames import (
    FrameError,
    MessageAssembler,
    masked_text_frame,
    parse_close,
    text_frame_header,
)
from circuit_breaker_sdk.transports.frame_protocol import FrameListener
from circuit_breaker_sdk.transports.pace import Pace, Pacing

__all__ = [
    "ClientListener",
    "ClientSink",
    "MessageListener",
    "MessageSink",
    "ServerListener",
    "SocketState",
    "WebSocket",
]

_logger: Final = logging.getLogger("circuit_breaker_sdk.transports")
_NO_HEADERS: Final[CIMultiDict[str]] = CIMultiDict()

_TEXT: Final = WSMsgType.TEXT
_CONTINUATION: Final = WSMsgType.CONTINUATION
_BINARY: Final = WSMsgType.BINARY
_PING: Final = WSMsgType.PING
_CLOSE: Final = WSMsgType.CLOSE
_TOGETHER: Final = 32
"""Messages that are handed on together at most: what they become stays in the processor's cache."""


class MessageSink(Protocol):
    """Who receives what a :class:`WebSocket` reads. All calls come from the socket's event loop.

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


class SocketState(enum.Enum):
    """OPEN → CLOSING → CLOSED; from OPEN straight to CLOSED where the connection is lost."""

    OPEN = enum.auto()
    CLOSING = enum.auto()
    CLOSED = enum.auto()


@final
class WebSocket:
    """One open WebSocket that carries text messages. Made by ``connect()`` or by a :class:`ServerListener`.

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
        "_listener",
        "_loop",
        "_state",
        "_timer",
        "_transport",
        "_underlying",
        "remote",
        "subprotocol",
        "url",
    )

    def __init__(
        self,
        listener: MessageListener,
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
        self._underlying = transport.underlying_transport
        self._close_seconds = close_seconds
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._closed_with: tuple[int, str] | None = None
        self._state = SocketState.OPEN
        self._timer: asyncio.TimerHandle | None = None
        peer = self._underlying.get_extra_info("peername")
        self.remote: str = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""

    def __repr__(self) -> str:
        return f"<WebSocket {self.url} {self._state.name}>"

    @property
    def state(self) -> SocketState:
        """Where the socket is in its life."""
        return self._state

    @property
    def is_closing(self) -> bool:
        """True as soon as a close has begun on either side, or the connection is lost."""
        return self._state is not SocketState.OPEN

    @property
    def write_buffer_bytes(self) -> int:
        """What was written and the operating system has not taken yet."""
        return self._underlying.get_write_buffer_size() if self._state is not SocketState.CLOSED else 0

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
        if self._state is SocketState.OPEN:
            self._begin_close(code, reason)

    def pause_reading(self) -> None:
        """Read nothing until :meth:`resume_reading`; the peer meets a full buffer in the end."""
        if self._state is SocketState.OPEN:
            self._underlying.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._state is SocketState.OPEN:
            self._underlying.resume_reading()

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
            self._begin_close(code, reason)
        self._transport.disconnect()

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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._closed.done():
            self._closed.set_result(None)
        return self._closed_with or (CloseCode.ABNORMAL, "the connection was lost without a close frame")

    def _begin_close(self, code: int, reason: str) -> None:
        self._closing(code, reason)
        self._transport.send_close(WSCloseCode(_on_the_wire(code)), close_reason(reason))

    def _closing(self, code: int, reason: str) -> None:
        self._state = SocketState.CLOSING
        self._listener.begin_close()
        self._closed_with = (code, reason)
        self._start_timer()

    def _start_timer(self) -> None:
        # A peer that does not read would keep even a graceful disconnect waiting for ever.
        if self._timer is None and self._state is not SocketState.CLOSED:
            self._timer = self._loop.call_later(self._close_seconds, self._transport.disconnect, False)


class MessageListener(FrameListener):
    """What picows calls for one socket: frames in, messages and the closing handshake out."""

    __slots__ = ("_assembler", "_is_whole", "_on_message", "_pong", "_sink", "_socket", "_writable")

    def __init__(self, limits: MessageLimits) -> None:
        super().__init__()
        self._assembler = MessageAssembler(
            max_message_bytes=limits.max_message_bytes, max_fragments=limits.max_fragments
        )
        # No fragmented message has begun.
        self._is_whole = True
        self._socket: WebSocket | None = None
        self._sink: MessageSink | None = None
        self._on_message: Callable[[bytes], None] = _ignore
        # What the next pong carries, if one is due.
        self._pong: bytes | None = None
        self._writable = True

    def attach(self, socket: WebSocket, sink: MessageSink) -> None:
        """Join the socket and who receives its messages: from here on the sink is called."""
        self._socket = socket
        self._sink = sink
        # A session may close, or fill the write buffer, while it is still being made.
        if not self.closing:
            self._on_message = sink.on_message
        if not self._writable:
            self._set_writable(False)

    def begin_close(self) -> None:
        """Discard data from here on (RFC 6455, section 5.5.1); control frames are still answered."""
        self.closing = True
        self._on_message = _ignore

    def on_ws_frame(self, _transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        try:
            if kind is _TEXT or kind is _CONTINUATION or kind is _BINARY:
                payload = frame.get_payload_as_bytes()
                # The hot path: what the assembler would answer for a whole ASCII message, without the call.
                # picows has checked the length.
                if (
                    kind is _TEXT
                    and frame.fin
                    and self._is_whole
                    and not (frame.rsv1 or frame.rsv2 or frame.rsv3)
                    and payload.isascii()
                ):
                    self._on_message(payload)
                else:
                    self._receive_data(frame, kind.value, payload)
            else:
                self._receive_control(frame, kind)
        except FrameError as error:
            self._close(error.close_code, error.reason)
        except Exception:
            _logger.exception("receiving a message failed; the socket is closed with 1011")
            self._close(CloseCode.INTERNAL, "internal error")

    def on_ws_disconnected(self, _transport: WSTransport) -> None:
        socket, sink = self._socket, self._sink
        self._socket = self._sink = None
        self._on_message = _ignore
        if socket is None or sink is None:
            return
        code, reason = socket.receive_lost()
        try:
            sink.on_closed(code, reason)
        except Exception:
            _logger.exception("the handler of a closed socket failed")

    def pause_writing(self) -> None:
        self._set_writable(False)

    def resume_writing(self) -> None:
        self._set_writable(True)

    def on_broken(self) -> None:
        if self._socket is not None:
            self._socket.receive_broken()

    def on_end_of_stream(self) -> None:
        if self._socket is not None:
            self._socket.receive_end_of_stream()

    def _receive_data(self, frame: WSFrame, opcode: int, payload: bytes) -> None:
        message = self._assembler.receive_frame(
            opcode, payload, fin=bool(frame.fin), rsv=bool(frame.rsv1 or frame.rsv2 or frame.rsv3)
        )
        self._is_whole = message is not None
        if message is not None:
            self._on_message(message)

    def _receive_control(self, frame: WSFrame, kind: WSMsgType) -> None:
        self._assembler.check_control(bool(frame.rsv1 or frame.rsv2 or frame.rsv3))
        if kind is _CLOSE:
            code, reason = parse_close(frame.get_payload_as_bytes())
            if self._socket is not None:
                self._socket.receive_close(code, reason)
        elif kind is _PING:
            # Only the last ping of a loop turn is answered (RFC 6455, section 5.5.3): a flood of them costs
            # little more than reading it.
            if self._pong is None:
                asyncio.get_running_loop().call_soon(self._send_pong)
            self._pong = frame.get_payload_as_bytes()

    def _send_pong(self) -> None:
        payload, self._pong = self._pong, None
        # A peer that sends pings and reads nothing must not fill the write buffer with pongs.
        if payload is not None and self._writable and self._socket is not None:
            self._socket.send_pong(payload)

    def _close(self, code: int, reason: str) -> None:
        if self._socket is not None:
            self._socket.close(code, reason)

    def _set_writable(self, writable: bool) -> None:
        self._writable = writable
        if self._sink is None:
            return
        try:
            self._sink.on_writable(writable)
        except Exception:
            _logger.exception("the handler of a write buffer's marks failed; the socket is closed with 1011")
            self._close(CloseCode.INTERNAL, "internal error")


class ClientListener(MessageListener):
    """The client's role: the messages of one read are collected, and handed on at its end."""

    __slots__ = ("_on_messages", "_read")

    def __init__(self, limits: MessageLimits) -> None:
        super().__init__(limits)
        self._read: list[bytes] = []
        self._on_messages: Callable[[list[bytes]], None] = _ignore

    def join(self, socket: WebSocket, sink: ClientSink) -> None:
        """Join the socket and who receives its messages, as ``attach``."""
        self.attach(socket, sink)
        if not self.closing:
            self._on_messages = sink.on_messages

    def begin_close(self) -> None:
        super().begin_close()
        self._on_messages = _ignore

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        # The hot path: as in the base, and the message is only put aside.
        if (
            frame.msg_type is _TEXT
            and frame.fin
            and self._is_whole
            and not (frame.rsv1 or frame.rsv2 or frame.rsv3)
        ):
            payload = frame.get_payload_as_bytes()
            if payload.isascii():
                read = self._read
                read.append(payload)
                if len(read) >= _TOGETHER:
                    self.on_read_end()
                return
        # What came before it goes first.
        self.on_read_end()
        super().on_ws_frame(transport, frame)

    def on_read_end(self) -> None:
        messages = self._read
        if messages:
            self._read = []
            try:
                if len(messages) == 1:
                    self._on_message(messages[0])
                else:
                    self._on_messages(messages)
            except Exception:
                _logger.exception("receiving messages failed; the socket is closed with 1011")
                self._close(CloseCode.INTERNAL, "internal error")


@final
class ServerListener(MessageListener):
    """The server's role: makes the :class:`WebSocket` and its sink once the handshake is answered.

    :param open_sink: called once, with the open socket; it may already send and close.
    :param subprotocol: what the handshake's answer named.
    :param pacing: how fast the peer's frames are taken; ``None`` takes them as they come.

    Example::

        ServerListener(open_session, limits=MessageLimits(max_message_bytes=65_536), close_seconds=2.0)
    """

    __slots__ = ("_close_seconds", "_open_sink", "_pace", "_pacing", "_subprotocol")

    def __init__(
        self,
        open_sink: Callable[[WebSocket], MessageSink],
        *,
        limits: MessageLimits,
        close_seconds: float,
        subprotocol: str | None = None,
        pacing: Pacing | None = None,
    ) -> None:
        super().__init__(limits)
        self._pacing = pacing
        self._pace: Pace | None = None
        self._open_sink: Callable[[WebSocket], MessageSink] | None = open_sink
        self._close_seconds = close_seconds
        self._subprotocol = subprotocol

    @property
    def socket(self) -> WebSocket | None:
        """The socket while it is connected."""
        return self._socket

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._pace is not None:
            self._pace.take()
        super().on_ws_frame(transport, frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._pace is not None:
            self._pace.end()
        super().on_ws_disconnected(transport)

    def on_ws_connected(self, transport: WSTransport) -> None:
        path = transport.request.path.decode("latin-1").partition("?")[0]
        socket = WebSocket(
            self, transport, url=path, subprotocol=self._subprotocol, close_seconds=self._close_seconds
        )
        self._socket = socket
        if self._pacing is not None:
            self._pace = Pace(self._pacing, transport.underlying_transport)
        open_sink, self._open_sink = self._open_sink, None
        if open_sink is None:
            raise RuntimeError("a socket connects once")
        try:
            self.attach(socket, open_sink(socket))
        except Exception:
            _logger.exception("opening a session failed; the socket is closed with 1011")
            self.attach(socket, _NoSink())
            socket.close(CloseCode.INTERNAL, "internal error")
        # picows keeps them as long as the socket lives, and nobody asks any more what the handshake said.
        transport.request.headers = transport.response.headers = _NO_HEADERS


class _NoSink:
    """Stands in where no sink could be made."""

    def on_message(self, data: bytes) -> None:
        """Ignore it."""

    def on_closed(self, code: int, reason: str) -> None:
        """Ignore it."""

    def on_writable(self, writable: bool) -> None:
        """Ignore it."""


def _ignore(_data: object) -> None:
    """Drop a message nobody is there for."""


def _on_the_wire(code: int) -> int:
    """Return ``code`` as it may stand in a close frame (RFC 6455, section 7.4)."""
    if is_sendable(code):
        return code
    return CloseCode.NORMAL if code == CloseCode.NO_STATUS else CloseCode.INTERNAL
