"""Bounds for one HTTP request, in bytes, held while it comes in: nothing grows before it is counted.

llhttp takes as many header lines and trailers as a client sends, and httptools joins the pieces of each in
memory. A :class:`RequestMeter` counts what the parser reports, and the bytes that went into the parser
without a report: those are of an item that is not whole yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, final

__all__ = ["PIECE_BYTES", "RequestLimits", "RequestMeter", "RequestTooLarge"]

PIECE_BYTES: Final = 4 * 1024
"""So many bytes go into the parser at once: how far an item that never ends may pass its bound."""

_LINE_BYTES: Final = 4
"""Of a header, besides its name and value: the colon, a blank, the line's end."""

_CHUNK_BYTES: Final = 20
"""Of a chunk, besides its data: 16 digits of its size, and two line ends."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Limit the size of one HTTP request.

    :ivar request_line_bytes: method, target and version, with the blanks between them.
    :ivar header_bytes: name and value of one header.
    :ivar headers_bytes: names and values of all headers.
    :ivar headers: how many headers, trailers among them.
    :ivar trailers_bytes: names and values of all trailers. They are read and dropped.
    :ivar chunk_extensions_bytes: of all chunks of one body.
    :ivar body_bytes: the server stores one byte more of a body, so that its reader sees that it is too big.

    Example::

        RequestLimits(header_bytes=4_096)
    """

    request_line_bytes: int = 8 * 1024
    header_bytes: int = 8 * 1024
    headers_bytes: int = 32 * 1024
    headers: int = 100
    trailers_bytes: int = 8 * 1024
    chunk_extensions_bytes: int = 8 * 1024
    body_bytes: int = 1024 * 1024


class RequestTooLarge(Exception):
    """A request is over one of its bounds.

    :ivar status: of the answer.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status = status
        super().__init__(message)


@final
class RequestMeter:
    """Counts the bytes of one request at a time.

    Every method raises :class:`RequestTooLarge` where a bound is passed. The parser's callbacks report what
    is whole; :meth:`fed` is told after each piece of :data:`PIECE_BYTES` at most.

    Example::

        meter = RequestMeter(RequestLimits())
        meter.begin()
        meter.header(b"Host", b"localhost")
        meter.fed(len(piece))
    """

    __slots__ = (
        "_body",
        "_chunks_in_piece",
        "_count",
        "_extensions",
        "_headers",
        "_in_head",
        "_in_trailers",
        "_is_mixed",
        "_limits",
        "_line",
        "_reported",
        "_silent",
        "_taken_in_piece",
        "_trailers",
    )

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._silent = 0
        self._chunks_in_piece = 0
        self._taken_in_piece = 0
        self.begin()

    def begin(self) -> None:
        """Count a new request."""
        self._in_head = True
        self._in_trailers = False
        self._is_mixed = True
        self._reported = True
        self._line = 0
        self._count = 0
        self._headers = 0
        self._trailers = 0
        self._body = 0
        self._extensions = 0

    def target(self, method: bytes, piece: bytes) -> None:
        """Count a piece of the request's target."""
        self._reported = True
        if not self._line:
            self._line = len(method) + len("  HTTP/1.1")
        self._line += len(piece)
        if self._line > self._limits.request_line_bytes:
            raise _over(HTTPStatus.REQUEST_URI_TOO_LONG, "the request line", self._limits.request_line_bytes)

    def header(self, name: bytes, value: bytes) -> None:
        """Count a header, or after the head a trailer."""
        limits, size = self._limits, len(name) + len(value)
        self._reported = True
        self._count += 1
        if self._count > limits.headers:
            raise RequestTooLarge(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"a request has {limits.headers} headers and trailers at most",
            )
        if not self._in_head:
            self._in_trailers = True
            self._trailers += size
            if self._trailers > limits.trailers_bytes:
                raise self._over_trailers()
            return
        self._headers += size
        if size > limits.header_bytes:
            raise self._over_header()
        if self._headers > limits.headers_bytes:
            raise _over(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "all headers together", limits.headers_bytes
            )

    def head_complete(self) -> None:
        """Count the body from here on."""
        self._in_head = False
        self._is_mixed = True
        self._reported = True

    def chunk_begun(self) -> None:
        """Count the line before a chunk."""
        self._reported = True
        self._in_trailers = True  # unless data follows: the last chunk has none
        self._chunks_in_piece += 1

    def body(self, size: int) -> int:
        """Count data of the body; return how many bytes of it are stored."""
        self._reported = True
        self._in_trailers = False
        room = max(0, self._limits.body_bytes + 1 - self._body)
        self._body += size
        self._taken_in_piece += size
        return min(room, size)

    @property
    def body_is_over(self) -> bool:
        """Whether the body has more bytes than it may."""
        return self._body > self._limits.body_bytes

    def fed(self, size: int) -> None:
        """Count a piece that the parser has taken, after its callbacks."""
        chunks, taken = self._chunks_in_piece, self._taken_in_piece
        is_mixed, self._is_mixed = self._is_mixed, False
        reported, self._reported = self._reported, False
        self._chunks_in_piece = self._taken_in_piece = 0
        # Of a piece with a report in it is not known where the next item began: it is not counted.
        self._silent = 0 if reported else self._silent + size
        if self._in_head:
            if self._silent > self._limits.header_bytes + _LINE_BYTES:
                raise self._over_header()
        elif self._in_trailers:
            if self._silent > self._limits.trailers_bytes + _LINE_BYTES:
                raise self._over_trailers()
        elif not is_mixed:
            self._extensions = max(0, self._extensions + size - taken - _CHUNK_BYTES * chunks)
            if self._extensions > self._limits.chunk_extensions_bytes:
                raise _over(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    "all chunk extensions together",
                    self._limits.chunk_extensions_bytes,
                )

    def _over_header(self) -> RequestTooLarge:
        return _over(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "one header", self._limits.header_bytes)

    def _over_trailers(self) -> RequestTooLarge:
        return _over(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "all trailers together", self._limits.trailers_bytes
        )


def _over(status: HTTPStatus, what: str, limit: int) -> RequestTooLarge:
    return RequestTooLarge(status, f"a request is too large: {what} may have {limit} bytes at most")
