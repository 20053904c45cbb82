"""The messages between the process that writes an SQLite log and its workers, on a socket each.

A frame is the number of its bytes (4, big-endian) and a list of messages in MessagePack. Both ends run the
same version of this program: they are started together.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias, TypeVar, final

import msgspec

from circuit_breaker_server.log.event_log import (
    ExpectationFailed,
    LogClosedError,
    LogCorruptError,
    LogError,
    LogWriteError,
    NewRecord,
    Record,
    SnapshotEntry,
)

__all__ = [
    "Answer",
    "Append",
    "Appended",
    "Beat",
    "Beginning",
    "FirstOffset",
    "Found",
    "Frames",
    "Group",
    "Reach",
    "Refusal",
    "Request",
    "SaveSnapshot",
    "Told",
    "Trim",
    "TryWrite",
    "encode_frame",
    "read_requests",
    "read_told",
    "refusal_of",
    "refused",
]


# --- what a worker asks -------------------------------------------------------------------------------------


@final
class Append(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """Append a record. ``number`` stands in the answer, as in all that a worker asks."""

    number: int
    record: NewRecord


@final
class SaveSnapshot(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """Save a snapshot."""

    number: int
    offset: int
    changed: tuple[SnapshotEntry, ...]


@final
class Trim(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """Remove records; the answer is how many."""

    number: int
    before: int


@final
class TryWrite(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """Write what changes nothing; the answer is 1 where that worked."""

    number: int


@final
class Reach(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """Answer behind all that is in the log now."""

    number: int


@final
class Beat(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """A heartbeat, for all workers."""

    data: bytes


Request: TypeAlias = "Append | SaveSnapshot | Trim | TryWrite | Reach | Beat"
"""A message from a worker."""


# --- what it is told ----------------------------------------------------------------------------------------


@final
class Beginning(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=11):
    """The log as it is when a worker comes: all records up to ``last_offset`` are in the file."""

    epoch: str
    first_offset: int
    last_offset: int


@final
class Group(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=12):
    """Records that were committed, whoever appended them."""

    records: tuple[Record, ...]


@final
class Appended(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=13):
    """A record of this worker's is in the log, in a group that it was told of before."""

    number: int
    offset: int


@final
class Found(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=14):
    """The id of a record that was to be appended is in the log already; this is the record that it has."""

    number: int
    record: Record


@final
class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=15):
    """The answer to another request."""

    number: int
    value: int


@final
class Refusal(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=16):
    """Why a request was refused.

    :ivar kind: the name of the exception.
    :ivar text: its text; the subject where an expectation failed.
    """

    number: int
    kind: str
    text: str
    expected: int = 0
    actual: int = 0


@final
class FirstOffset(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=17):
    """Records below this offset were removed."""

    offset: int


Told: TypeAlias = "Beginning | Group | Appended | Found | Answer | Refusal | FirstOffset | Beat"
"""A message to a worker."""

_KINDS: Final[dict[str, type[Exception]]] = {
    kind.__name__: kind for kind in (LogWriteError, LogCorruptError, LogClosedError, LogError, ValueError)
}


def refused(number: int, error: BaseException) -> Refusal:
    """Return what is told of a request that failed."""
    if isinstance(error, ExpectationFailed):
        return Refusal(number, "ExpectationFailed", error.subject, error.expected, error.actual)
    kind = next((name for name, kind in _KINDS.items() if isinstance(error, kind)), "LogWriteError")
    return Refusal(number, kind, str(error))


def refusal_of(told: Refusal) -> Exception:
    """Return the exception that a request failed with."""
    if told.kind == "ExpectationFailed":
        return ExpectationFailed(told.text, expected=told.expected, actual=told.actual)
    return _KINDS.get(told.kind, LogError)(told.text)


# --- frames -------------------------------------------------------------------------------------------------

_LENGTH: Final = struct.Struct("!I")
_encode: Final = msgspec.msgpack.Encoder().encode
_M = TypeVar("_M")
_requests: Final = msgspec.msgpack.Decoder(list[Append | SaveSnapshot | Trim | TryWrite | Reach | Beat])
_told: Final = msgspec.msgpack.Decoder(
    list[Beginning | Group | Appended | Found | Answer | Refusal | FirstOffset | Beat]
)


def encode_frame(messages: Sequence[Request] | Sequence[Told]) -> bytes:
    """Return the bytes of a frame."""
    body = _encode(messages)
    return _LENGTH.pack(len(body)) + body


def read_requests(frame: bytes | memoryview) -> Sequence[Request]:
    """Read the messages of a worker's frame."""
    return _requests.decode(frame)


def read_told(frame: bytes | memoryview) -> Sequence[Told]:
    """Read the messages of a frame for a worker."""
    return _told.decode(frame)


@final
class Frames:
    """Cuts bytes that arrive into frames.

    Example::

        for body in frames.feed(data): ...
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bodies of the frames that are whole."""
        rest = self._rest
        rest += data
        at = 0
        while len(rest) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(rest, at)
            end = at + _LENGTH.size + length
            if end > len(rest):
                break
            yield bytes(rest[at + _LENGTH.size : end])
            at = end
        del rest[:at]
