"""The event log's port: the only truth of the server.

One mutation is one record. A record belongs to one *subject*, a path of tokens joined by dots
(``resource.<workflow>.<resource>``); :func:`subject` builds it and escapes what a token may not hold.
Offsets start at 1 and grow; holes are legal. An implementation must pass ``tests/conformance``.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import NamedTuple, Protocol, final

import msgspec

from circuit_breaker_server.log.heartbeats import Heartbeats

__all__ = [
    "MAX_DATA_BYTES",
    "MAX_GUARDS",
    "AppendOutcomeUnknown",
    "EventLog",
    "ExpectationFailed",
    "Guards",
    "LogClosedError",
    "LogCorruptError",
    "LogError",
    "LogPage",
    "LogWriteError",
    "NewRecord",
    "Record",
    "ServingLog",
    "Snapshot",
    "SnapshotEntry",
    "matches",
    "subject",
]

MAX_DATA_BYTES = 4 * 1024 * 1024
"""The largest body of a record; a message broker under the port has to be set up for as much."""

_is_plain = re.compile(r"[A-Za-z0-9_-]*").fullmatch
_ESCAPED = str.maketrans({c: f"%{ord(c):02X}" for c in ".*>% \t\r\n\x00/"})


def subject(*tokens: str) -> str:
    """Join tokens to a subject; dots, wildcards and blanks inside a token are percent-encoded.

    :raises ValueError: a token is empty.
    """
    if not all(tokens):
        raise ValueError(f"a subject has no empty tokens: {tokens!r}")
    return ".".join([token if _is_plain(token) else token.translate(_ESCAPED) for token in tokens])


def matches(pattern: str, name: str) -> bool:
    """Tell whether a subject fits a pattern: ``*`` stands for one token, a last ``>`` for one or more."""
    wanted, given = pattern.split("."), name.split(".")
    for i, part in enumerate(wanted):
        if part == ">" and i == len(wanted) - 1:
            return len(given) > i
        if i >= len(given) or part not in ("*", given[i]):
            return False
    return len(wanted) == len(given)


@final
class Guards(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Further conditions of an append: rules about more than its own subject.

    A mark is a name and the place in the log where it was last marked. Deleting a rule and naming it in a
    workflow exclude each other in this way: each marks what the other one checks.

    :ivar decided_at: the offset of the state that the writer decided on: all records up to it, and no other.
    :ivar unmarked: names that must not have been marked above ``decided_at``.
    :ivar marks: names that are marked with the record, or not at all where it is refused.
    """

    decided_at: int
    unmarked: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()

    def pairs(self) -> list[tuple[str | None, str | None]]:
        """Return checks and marks in pairs, a name that is both in one; ``None`` where one is missing."""
        both = [name for name in self.unmarked if name in self.marks]
        checks = [*both, *(name for name in self.unmarked if name not in both)]
        marks = [*both, *(name for name in self.marks if name not in both)]
        return list(zip_longest(checks, marks))


MAX_GUARDS = 500
"""The most names that a record checks, and the most that it marks."""


@final
class NewRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record that a writer wants to append.

    :ivar subject: the aggregate it belongs to.
    :ivar id: 32 lower-case hex digits (a UUID without dashes); appending an id again appends nothing. Ids
        that begin with the time make appending to a big SQLite log twice as fast as wholly random ones.
    :ivar data: the encoded body; the log does not look inside.
    :ivar expected: the offset of the subject's last record as the writer knows it, 0 for "none yet",
        ``None`` for no expectation.
    :ivar guards: what else must hold; only together with ``expected``.
    """

    subject: str
    id: str
    data: bytes
    expected: int | None = None
    guards: Guards | None = None


# An array, not a map, where it is encoded: the order of the fields is a storage format. A new field goes to
# the end, with a default.
@final
class Record(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A record as the log holds it. ``time_ms`` is when it was appended, milliseconds since 1970 UTC."""

    offset: int
    subject: str
    id: str
    time_ms: int
    data: bytes

    @property
    def check(self) -> str:
        """The last 8 hex digits of the record's id: what a cursor carries to notice a rewritten log.

        The last, not the first: in an id that begins with the time only the end is random.
        """
        return self.id[-8:]


@final
class LogPage(NamedTuple):
    """A stretch of the log.

    :ivar records: those that match, in order.
    :ivar reached: up to and with this offset, no other one matches.
    """

    records: Sequence[Record]
    reached: int


@final
class SnapshotEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One aggregate's folded state; ``data`` ``None`` removes the aggregate from the snapshot."""

    key: str
    data: bytes | None


@final
class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Folded state up to and including ``offset``; offset 0 and no entries where none was saved."""

    offset: int
    entries: Mapping[str, bytes]


class LogError(Exception):
    """Base of the log's errors."""


class ExpectationFailed(LogError):
    """The subject's last record is not the expected one: someone else wrote first.

    Where a guard failed, ``subject`` is its name, ``expected`` the offset decided at, and ``actual`` that of
    the record that marked it.
    """

    def __init__(self, subject: str, *, expected: int, actual: int) -> None:
        self.subject = subject
        self.expected = expected
        self.actual = actual
        super().__init__(subject, expected, actual)

    def __str__(self) -> str:
        return f"{self.subject}: expected last offset {self.expected}, it is {self.actual}"


class LogWriteError(LogError):
    """The record could not be made durable (disk full, I/O error); it is not in the log.

    The one exception is :class:`AppendOutcomeUnknown`.
    """


class AppendOutcomeUnknown(LogWriteError):
    """The record was handed over, and whether it is in the log is not known (a broker went away).

    It may be in the log, or come to be in it. Appending it again with the same id and the same expectation
    settles it; with another id it may be in the log twice.
    """


class LogCorruptError(LogError):
    """The data on the disk is no log that this version can read. The text names the file and the reason."""


class LogClosedError(LogError):
    """The log was closed."""


class EventLog(Protocol):
    """An append-only log with compare-and-set per subject, and the snapshots of what was folded from it.

    All methods are called on the event loop that opened the log. Reads see every acknowledged append, and no
    record that the tails have not seen yet: a caller that registers a tail and then reads up to
    ``last_offset`` has each record once.
    """

    @property
    def epoch(self) -> str:
        """Names the life of this log: 16 hex digits, made when it was created, kept ever after."""
        ...

    @property
    def first_offset(self) -> int:
        """The offset of the first kept record; ``last_offset + 1`` when none is kept.

        It moves before the records below it go: what a finished read missed because of a trim is below it.
        """
        ...

    @property
    def last_offset(self) -> int:
        """The offset of the last record that the tails have seen, trimmed or not; 0 where none ever was."""
        ...

    async def append(self, record: NewRecord) -> Record:
        """Append one record; when this returns it is durable: synced to the disk that holds the log.

        Appends that wait at the same time are committed in one group; a failed expectation fails alone.
        An id that is already in the log returns the record it has, whatever the rest says; ids are
        remembered at least as long as their record is kept.

        The expectation holds when the subject's last kept record is at ``expected``, or when none is
        kept and ``expected`` is below ``first_offset`` (its records, if any, were trimmed).

        Guards hold as long as the record is appended: they are checked and marked in the same step. A log
        that has forgotten old marks refuses a decision that is so old that it cannot tell.

        Cancelling the caller does not take the append back: it may be in the log or not, whole.

        :raises ValueError: no log can hold it (:func:`.record_validation.validate`).
        :raises ExpectationFailed: someone else wrote to the subject first; nothing was appended.
        :raises LogWriteError: it could not be made durable; nothing was appended, and it may be tried again
            with the same id.
        :raises AppendOutcomeUnknown: it may be in the log or not, whole, and the tails may deliver it later.
            Only the same id may be tried again. A log in another process raises it; a log in a file never.
        :raises LogClosedError: the log is closed.
        """
        ...

    async def read(
        self,
        *,
        after: int,
        subjects: Sequence[str] = (">",),
        limit: int = 1000,
    ) -> list[Record]:
        """Return up to ``limit`` records with an offset above ``after`` that match any pattern, in order.

        An empty list means that nothing that matches is kept above ``after``.
        """
        ...

    async def read_page(
        self, *, after: int, subjects: Sequence[str] = (">",), limit: int, max_bytes: int
    ) -> LogPage:
        """Return the next records as :meth:`read`, bounded in bytes, in one step of the log.

        The page ends with the record at which its bytes, as the log stores them, reach ``max_bytes``. It may
        have no record and yet not be the last: the log looks at so many offsets in one step.
        """
        ...

    def scan(self, *, after: int, upto: int | None = None) -> AsyncIterator[Record]:
        """Yield all records above ``after``, up to and including ``upto``, in order, in bounded memory.

        Ends at the ``last_offset`` of the moment it starts where ``upto`` is ``None`` or beyond it. Records
        that are trimmed while it runs may be missing.
        """
        ...

    async def reaches(self, offset: int) -> bool:
        """Tell whether the log has come to ``offset``; if so, the tails have seen it when this returns.

        Where others write to the log too, the tails may be behind: this asks who knows, and waits for them.
        The caller limits the time.

        :raises LogError: it cannot be asked now.
        """
        ...

    async def check(self, offset: int) -> str | None:
        """Return the check of the record at ``offset``, ``None`` if it is not kept.

        Remembered past trimming for the last record that was removed, since reading on after that one
        misses nothing. Offset 0, the start of a log that was never trimmed, has the check ``00000000``.
        """
        ...

    async def last_removed(self) -> Record | None:
        """Return the last record that was removed by trimming, whole; ``None`` where nothing ever was.

        A reader with a cursor behind its last event has missed nothing; one with an earlier cursor has.
        """
        ...

    async def size_bytes(self, *, after: int, upto: int) -> int:
        """Return the bytes of the kept records above ``after``, up to and including ``upto``, as encoded.

        At least the bytes of their bodies; indexes and snapshots do not count. Cheaper than reading them.
        """
        ...

    def tail(self, callback: Callable[[Sequence[Record]], None]) -> Callable[[], None]:
        """Call back with each committed group, in offset order, before its ``append`` calls return.

        Callbacks are called in the order in which they were registered, on the event loop, and each sees a
        record once. They must not block; one that raises is reported to the loop's exception handler and
        disturbs neither the others nor the appends. Returns a function that ends the tail.
        """
        ...

    async def trim(self, before: int) -> int:
        """Remove the records below ``before``; only what a durable snapshot covers may go.

        Returns the number removed. Cancelled half-way, some of them are gone.

        :raises ValueError: ``before`` reaches above the durable snapshot's offset + 1.
        """
        ...

    async def save_snapshot(self, offset: int, changed: Sequence[SnapshotEntry]) -> None:
        """Make the changed entries durable and move the snapshot to ``offset``, in one step.

        Of two entries with the same key the later one counts.

        :raises ValueError: ``offset`` is below the present snapshot's, or above ``last_offset``, or a key
            holds a NUL character.
        :raises LogWriteError: it could not be made durable; the old snapshot stands.
        """
        ...

    async def load_snapshot(self) -> Snapshot:
        """Return the durable snapshot."""
        ...

    async def aclose(self) -> None:
        """Finish the appends under way, refuse new ones, release files and threads. Idempotent."""
        ...


class ServingLog(EventLog, Protocol):
    """The event log of a running server: the port, and what the server needs to know of it beside."""

    @property
    def heartbeats(self) -> Heartbeats | None:
        """How the nodes that share the log hear of each other; ``None`` where one process has it alone."""
        ...

    def now(self) -> datetime:
        """Return the present moment by the clock that dates the records, in UTC."""
        ...

    @property
    def append_failed(self) -> bool:
        """Whether the last append could not be made durable, and nothing was written since."""
        ...

    @property
    def outage(self) -> str | None:
        """Why the log cannot be reached now, as its broker is away; ``None`` while it can be reached."""
        ...

    async def try_write(self) -> bool:
        """Write what changes nothing, after an append that failed; tell whether that has worked."""
        ...

    def on_end(self, callback: Callable[[LogError], object]) -> None:
        """Call back once if the log ends for good, such as when acknowledged records were lost.

        Nothing can be read from it or appended to it afterwards. A log in a file never ends.
        """
        ...
