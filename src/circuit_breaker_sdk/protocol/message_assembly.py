"""From WebSocket frames to text messages (RFC 6455, section 5), without a socket.

The transport hands over frames and checks little; everything a strict peer must refuse is refused here.
"""

from __future__ import annotations

from typing import Final, final

from circuit_breaker_sdk.protocol.close_codes import CloseCode, is_sendable

__all__ = [
    "FIN_AND_TEXT",
    "FrameError",
    "MessageAssembler",
    "masked_text_frame",
    "parse_close",
    "text_frame_header",
]

_CONTINUATION: Final = 0x0
_TEXT: Final = 0x1
_BINARY: Final = 0x2

FIN_AND_TEXT: Final = 0x81
"""The first byte of a whole text message, without reserved bits."""
_SMALL_HEADERS: Final = tuple(bytes((FIN_AND_TEXT, length)) for length in range(126))
_MAX_CONTROL_BYTES: Final = 125


class FrameError(Exception):
    """A frame breaks RFC 6455 or a limit: close the connection with :attr:`close_code`.

    :ivar close_code: 1002, 1003, 1007 or 1009.
    :ivar reason: a short text for the close frame.
    """

    def __init__(self, close_code: CloseCode, reason: str) -> None:
        self.close_code = close_code
        self.reason = reason
        super().__init__(f"{reason} (close code {close_code:d})")


@final
class MessageAssembler:
    """Put frames together to whole text messages, within limits.

    After a :class:`FrameError` the connection is to be closed: later frames are not to be given here.

    :param max_message_bytes: the largest message accepted, all fragments together.
    :param max_fragments: the most frames one message may be cut into; empty ones count too.

    Example::

        assembler = MessageAssembler(max_message_bytes=65_536, max_fragments=64)
        assembler.receive_frame(1, b'{"type":', fin=False, rsv=False)   # None: more to come
        assembler.receive_frame(0, b'"ping"}', fin=True, rsv=False)     # b'{"type":"ping"}'
    """

    __slots__ = ("_fragments", "_max_fragments", "_max_message_bytes", "_received_bytes")

    def __init__(self, *, max_message_bytes: int, max_fragments: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._max_fragments = max_fragments
        self._fragments: list[bytes] = []
        self._received_bytes = 0

    def receive_frame(self, opcode: int, payload: bytes, *, fin: bool, rsv: bool) -> bytes | None:
        """Take one data frame (opcode 0, 1 or 2); return the message it completes, else ``None``.

        :param rsv: whether any reserved bit is set; we negotiate no extension that could use one.
        :raises FrameError: 1002 for a broken sequence of frames or a reserved bit, 1003 for binary,
            1007 for text that is not UTF-8, 1009 for a message over a limit.
        """
        if opcode == _TEXT and fin and not rsv and not self._fragments:
            if len(payload) > self._max_message_bytes:
                raise self._too_big()
            return payload if payload.isascii() else _utf8(payload)
        return self._receive_fragment(opcode, payload, fin=fin, rsv=rsv)

    def check_control(self, rsv: bool, *, fin: bool = True, length: int = 0) -> None:
        """Refuse a control frame with a reserved bit, a fragmented one, or one over 125 bytes.

        A control frame may come between the fragments of a message and changes nothing about them.

        :raises FrameError: 1002 (RFC 6455, sections 5.2 and 5.5).
        """
        if rsv:
            raise _reserved_bit()
        if not fin:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "a control frame must not be fragmented")
        if length > _MAX_CONTROL_BYTES:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "a control frame carries at most 125 bytes")

    def _receive_fragment(self, opcode: int, payload: bytes, *, fin: bool, rsv: bool) -> bytes | None:
        fragments = self._fragments
        if rsv:
            raise _reserved_bit()
        if opcode == _CONTINUATION:
            if not fragments:
                raise FrameError(CloseCode.PROTOCOL_ERROR, "continuation frame without a start")
        elif fragments:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "new message inside a fragmented one")
        elif opcode == _BINARY:
            raise FrameError(CloseCode.UNSUPPORTED_DATA, "binary messages are not supported")
        elif opcode != _TEXT:
            raise FrameError(CloseCode.PROTOCOL_ERROR, f"unknown opcode {opcode}")
        self._received_bytes += len(payload)
        if self._received_bytes > self._max_message_bytes:
            raise self._too_big()
        if len(fragments) >= self._max_fragments:
            raise FrameError(CloseCode.MESSAGE_TOO_BIG, f"more than {self._max_fragments} fragments")
        fragments.append(payload)
        if not fin:
            return None
        message = b"".join(fragments)
        fragments.clear()
        self._received_bytes = 0
        # A character may be cut in two by a fragment's end: only the whole can be judged.
        return _utf8(message)

    def _too_big(self) -> FrameError:
        return FrameError(CloseCode.MESSAGE_TOO_BIG, f"message over {self._max_message_bytes} bytes")


def parse_close(payload: bytes) -> tuple[int, str]:
    """Read a received close frame: its code (1005 where it has none) and its reason.

    :raises FrameError: 1002 for half a code or one that must not be sent, 1007 for a reason that is not
        UTF-8 (RFC 6455, sections 5.5.1 and 7.4).
    """
    if not payload:
        return CloseCode.NO_STATUS, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not is_sendable(code):
        raise FrameError(CloseCode.PROTOCOL_ERROR, "invalid close code")
    return code, _utf8(payload[2:]).decode()


def text_frame_header(length: int) -> bytes:
    """Build the header of a whole, unmasked text frame (a server's) for a payload of ``length`` bytes."""
    if length < 126:
        return _SMALL_HEADERS[length]
    if length < 65_536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


def masked_text_frame(data: bytes, key: bytes) -> bytes:
    """Build a whole, masked text frame (a client's); ``key`` is four unpredictable bytes.

    RFC 6455, section 5.3.
    """
    length = len(data)
    header = bytearray(text_frame_header(length))
    header[1] |= 0x80
    repeated = (key * (length // 4 + 1))[:length]
    masked = int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")
    return bytes(header) + key + masked.to_bytes(length, "big")


def _utf8(data: bytes) -> bytes:
    try:
        data.decode()
    except UnicodeDecodeError:
        raise FrameError(CloseCode.INVALID_TEXT, "text is not valid UTF-8") from None
    return data


def _reserved_bit() -> FrameError:
    return FrameError(CloseCode.PROTOCOL_ERROR, "reserved bit set, but no extension was negotiated")
