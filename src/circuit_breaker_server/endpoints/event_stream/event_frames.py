"""Write GraphQL results as server-sent events: sans I/O, for both modes of graphql-sse.

On a stream with one operation the cursors of a feed's events become their ``id``; for a client that did not
ask for the resume extension, it is cut off again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, final

import msgspec

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.gateway.peer import Frame
from circuit_breaker_server.graphql.execute import error_value

__all__ = ["KEEP_ALIVE", "DistinctFrames", "EventFrames", "SharedFrames"]

KEEP_ALIVE: Final = b":\n\n"
"""A comment: it tells both sides, and what is between them, that the connection lives."""

_COMPLETE: Final = b"event: complete\ndata:\n\n"
_NEXT: Final = b"event: next\ndata: "
_WITH_ID: Final = b"event: next\nid: "
_EXTENSIONS: Final = b',"extensions":{"resume":{"cursor":"'

_encode: Final = msgspec.json.Encoder().encode


class EventFrames(Protocol):
    """The interface of the two ways to write events: one operation on a stream, or many."""

    @property
    def frame(self) -> Frame:
        """The framing of a feed's events, one function for all streams of a kind: they share the bytes."""
        ...

    @property
    def with_cursors(self) -> bool:
        """Whether a feed's payloads must have the resume extension."""
        ...

    def prefix(self, operation_id: str) -> bytes:
        """Return what stands in front of each payload of an operation."""
        ...

    def signal(self, operation_id: str, cursor: str) -> bytes:
        """Return the live signal: from this cursor on nothing is missed."""
        ...

    def result(self, operation_id: str, payload: bytes) -> bytes:
        """Return the ``next`` of a query or mutation."""
        ...

    def errors(self, operation_id: str, errors: Sequence[GraphQLError]) -> bytes:
        """Return the ``next`` that tells why an operation ends."""
        ...

    def complete(self, operation_id: str) -> bytes:
        """Return the end of an operation."""
        ...


def _cursor_at(payload: bytes) -> tuple[int, int]:
    """Return where the resume extension of a feed's payload begins, and where its cursor ends."""
    begin = payload.rindex(_EXTENSIONS)
    return begin, payload.index(b'"', begin + len(_EXTENSIONS))


def _resumable_events(_prefix_bytes: int, payloads: Sequence[bytes]) -> Sequence[bytes]:
    pieces: list[bytes] = []
    for payload in payloads:
        begin, end = _cursor_at(payload)
        pieces += (_WITH_ID, payload[begin + len(_EXTENSIONS) : end], b"\ndata: ", payload, b"\n\n")
    return (b"".join(pieces),)


def _plain_events(_prefix_bytes: int, payloads: Sequence[bytes]) -> Sequence[bytes]:
    pieces: list[bytes] = []
    for payload in payloads:
        begin, end = _cursor_at(payload)
        cursor = payload[begin + len(_EXTENSIONS) : end]
        pieces += (_WITH_ID, cursor, b"\ndata: ", payload[:begin], b"}\n\n")
    return (b"".join(pieces),)


def _shared_events(_prefix_bytes: int, payloads: Sequence[bytes]) -> Sequence[bytes]:
    pieces = [_NEXT, *(payload + b"}\n\n" + _NEXT for payload in payloads)]
    pieces[-1] = payloads[-1] + b"}\n\n"
    return pieces


@final
class DistinctFrames:
    """The events of a stream with one operation.

    :param resume: whether the payloads keep the resume extension.

    Example::

        DistinctFrames(resume=False).complete("")  # b"event: complete\\ndata:\\n\\n"
    """

    __slots__ = ("frame", "with_cursors")

    def __init__(self, *, resume: bool) -> None:
        self.with_cursors = True  # each is the id of its event
        self.frame: Frame = _resumable_events if resume else _plain_events

    def prefix(self, _operation_id: str) -> bytes:
        return b""

    def signal(self, _operation_id: str, cursor: str) -> bytes:
        return b"id: %b\n\n" % cursor.encode()

    def result(self, _operation_id: str, payload: bytes) -> bytes:
        return b"%b%b\n\n" % (_NEXT, payload)

    def errors(self, _operation_id: str, errors: Sequence[GraphQLError]) -> bytes:
        # An EventSource comes again by itself: with the cursor that was refused it would be refused for ever.
        forget = b"id:\n" if any((e.extensions or {}).get("code") == "RESUME_GAP" for e in errors) else b""
        return forget + self.result("", _encode({"errors": [error_value(each) for each in errors]}))

    def complete(self, _operation_id: str) -> bytes:
        return _COMPLETE


@final
class SharedFrames:
    """The events of a stream with many operations, each with the id of its own.

    :param resume: whether the payloads have the resume extension; without it there are no live signals.

    Example::

        SharedFrames(resume=False).complete("1")  # b'event: complete\\ndata: {"id":"1"}\\n\\n'
    """

    __slots__ = ("frame", "with_cursors")

    def __init__(self, *, resume: bool) -> None:
        self.with_cursors = resume
        self.frame: Frame = _shared_events

    def prefix(self, operation_id: str) -> bytes:
        return b'{"id":%b,"payload":' % _encode(operation_id)

    def signal(self, operation_id: str, cursor: str) -> bytes:
        # An operation's id has no line ends in it.
        return b"id: %b %b\n\n" % (cursor.encode(), operation_id.encode())

    def result(self, operation_id: str, payload: bytes) -> bytes:
        return b"%b%b%b}\n\n" % (_NEXT, self.prefix(operation_id), payload)

    def errors(self, operation_id: str, errors: Sequence[GraphQLError]) -> bytes:
        return self.result(operation_id, _encode({"errors": [error_value(each) for each in errors]}))

    def complete(self, operation_id: str) -> bytes:
        return b'event: complete\ndata: {"id":%b}\n\n' % _encode(operation_id)
