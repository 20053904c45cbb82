"""From frames to messages: what picows calls for one socket, in either role.

picows parses frames and leaves to us what makes them messages: fragments, UTF-8, reserved bits, pings and the
closing handshake. What it reads is handed on inside its callback: no task, queue or copy per message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, final

from multidict import CIMultiDict
from picows import WSFrame, WSMsgType, WSTransport

from circuit_breaker_sdk.config import MessageLimits
from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_sdk.protocol.message_assembly import (
    FIN_AND_TEXT,
    FrameError,
    MessageAssembler,
    parse_close,
)
from circuit_breaker_sdk.transports.frame_pacing import Pace, Pacing
from circuit_breaker_sdk.transports.lingering_close import plain_transport
from circuit_breaker_sdk.transports.message_socket import ClientSink, MessageSink, ServerSink, WebSocket
from circuit_breaker_sdk.transports.picows_protocol import FrameListener

__all__ = ["ClientListener", "MessageListener", "ServerListener"]

_logger: Final = logging.getLogger("circuit_breaker_sdk.transports")
_NO_HEADERS: Final[CIMultiDict[str]] = CIMultiDict()

_TEXT: Final = WSMsgType.TEXT
_CONTINUATION: Final = WSMsgType.CONTINUATION
_BINARY: Final = WSMsgType.BINARY
_PING: Final = WSMsgType.PING
_CLOSE: Final = WSMsgType.CLOSE
_TOGETHER: Final = 32
"""Messages that are handed on together at most: what they become stays in the processor's cache."""


class MessageListener(FrameListener):
    """Listener that picows calls for one socket: frames in, messages and the closing handshake out."""

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
        """Join the socket and its sink: from here on the sink is called."""
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

    @property
    def holds_back(self) -> bool:
        """Whether something that the peer has sent is not read yet, for its own sake."""
        return False

    def hold_back(self, seconds: float) -> None:
        """Read nothing of the peer for so long, where its pace is counted."""

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
                self._receive_close(self._socket, code, reason)
        elif kind is _PING:
            # Only the last ping of a loop turn is answered (RFC 6455, section 5.5.3): a flood of them costs
            # little more than reading it.
            if self._pong is None:
                asyncio.get_running_loop().call_soon(self._send_pong)
            self._pong = frame.get_payload_as_bytes()

    def _receive_close(self, socket: WebSocket, code: int, reason: str) -> None:
        socket.receive_close(code, reason)

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
    """The client's role: the messages of one read are collected, and handed on at its end.

    picows makes an object of each property of a frame that is asked for. Where a read has brought several
    messages, the first byte of a header is looked at instead, which says all of it.
    """

    __slots__ = ("_on_messages", "_read")

    def __init__(self, limits: MessageLimits) -> None:
        super().__init__(limits)
        self.behind: int = 0
        self._read: list[bytes] = []
        self._on_messages: Callable[[list[bytes]], None] = _ignore

    def join(self, socket: WebSocket, sink: ClientSink) -> None:
        """Join the socket and its sink, as ``attach``."""
        self.attach(socket, sink)
        if not self.closing:
            self._on_messages = sink.on_messages

    def begin_close(self) -> None:
        super().begin_close()
        self._on_messages = _ignore

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        # The hot path: as in the base, and the message is only put aside. A header that begins like this,
        # behind a frame that was whole, is that of a whole text message.
        behind = self.behind
        if behind:
            # Of the first frame of a read it is not known where its header is: it is asked as below, where a
            # call, or one question more, would be made for each message that comes alone.
            if self.backwards[behind] == FIN_AND_TEXT or (
                frame.msg_type is _TEXT
                and frame.fin
                and self._is_whole
                and not (frame.rsv1 or frame.rsv2 or frame.rsv3)
            ):
                payload = frame.get_payload_as_bytes()
                if payload.isascii():
                    self.behind = frame.tail_size
                    self._read.append(payload)
                    return
        elif (
            frame.msg_type is _TEXT
            and frame.fin
            and self._is_whole
            and not (frame.rsv1 or frame.rsv2 or frame.rsv3)
        ):
            payload = frame.get_payload_as_bytes()
            if payload.isascii():
                self._read.append(payload)
                return
        # What came before it goes first.
        self.on_read_end()
        super().on_ws_frame(transport, frame)

    def on_read_end(self) -> None:
        if self.behind:
            self.behind = 0
        messages = self._read
        if messages:
            self._read = []
            try:
                first = messages[0]
                # Cheaper than to count them. Two can be one object only where they are shorter than any
                # message may be: over the first the socket is closed, and the others are not looked at.
                if messages[-1] is first:
                    self._on_message(first)
                elif not messages[_TOGETHER:]:
                    self._on_messages(messages)
                else:
                    for start in range(0, len(messages), _TOGETHER):
                        self._on_messages(messages[start : start + _TOGETHER])
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

    __slots__ = ("_close_seconds", "_open_sink", "_pace", "_pacing", "_server_sink", "_subprotocol")

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
        self._server_sink: ServerSink | None = None
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

    @property
    def holds_back(self) -> bool:
        """Whether the peer has sent more than it may, so that its pong may not be read yet."""
        return self._pace is not None and self._pace.holds_back

    def hold_back(self, seconds: float) -> None:
        if self._pace is not None and not self.closing:
            self._pace.hold_back(seconds)

    def begin_close(self) -> None:
        super().begin_close()
        if self._pace is not None:
            self._pace.hurry()  # to the peer's answer, which is behind all that it has sent

    def _receive_close(self, socket: WebSocket, code: int, reason: str) -> None:
        sink = self._server_sink
        if sink is not None and not self.closing and sink.on_peer_closing():
            socket.hold_close(code, reason)
        else:
            socket.receive_close(code, reason)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._server_sink = None
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
            self._pace = Pace(self._pacing, plain_transport(transport))
        open_sink, self._open_sink = self._open_sink, None
        if open_sink is None:
            raise RuntimeError("a socket connects once")
        try:
            sink = open_sink(socket)
            self._server_sink = sink if isinstance(sink, ServerSink) else None
            self.attach(socket, sink)
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
    """Drop a message: no sink is there."""
