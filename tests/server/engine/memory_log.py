"""An event log in memory, for tests of what stands on a log; it can be told to fail and to wait."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence

from circuit_breaker_server.log.event_log import (
    AppendOutcomeUnknown,
    ExpectationFailed,
    LogClosedError,
    LogPage,
    LogWriteError,
    NewRecord,
    Record,
    Snapshot,
    SnapshotEntry,
    matches,
)
from circuit_breaker_server.log.marks import Marks


class MemoryLog:
    """Holds records in a list.

    :ivar gate: appends wait here before they are decided, in the order of their calls.
    :ivar full: appends fail, as on a disk that is full.
    :ivar is_away: appends have an unknown outcome, as where a broker went away; they are stored later, by
        :meth:`come_back`, or when its id comes again.
    :ivar snapshot_fails: saving a snapshot fails.
    :ivar snapshots_saved: the offset of each snapshot, -1 for one that failed.
    :ivar before_append: called before an append is decided; for someone who writes in between.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._marks = Marks(began_at=0)
        self.snapshot = Snapshot(offset=0, entries={})
        self.gate = asyncio.Event()
        self.gate.set()
        self.full = False
        self.is_away = False
        self._unanswered: dict[str, NewRecord] = {}
        self.snapshot_fails = False
        self.closed = False
        self.before_append: Callable[[NewRecord], None] | None = None
        self.snapshots_saved: asyncio.Queue[int] = asyncio.Queue()
        self._news = asyncio.Event()
        self._tails: list[Callable[[Sequence[Record]], None]] = []

    epoch = "00000000deadbeef"
    time_ms = 0

    @property
    def first_offset(self) -> int:
        return 1

    @property
    def last_offset(self) -> int:
        return len(self.records)

    async def append(self, record: NewRecord) -> Record:
        await self.gate.wait()
        if self.before_append is not None:
            self.before_append(record)
        if self.is_away:
            self._unanswered.setdefault(record.id, record)
            raise AppendOutcomeUnknown("memory: the broker is away")
        return self.put(self._unanswered.pop(record.id, record))

    def come_back(self) -> None:
        """Store what was appended while the broker was away."""
        self.is_away = False
        for record in self._unanswered.values():
            with contextlib.suppress(ExpectationFailed):
                self.put(record)
        self._unanswered.clear()

    def put(self, record: NewRecord) -> Record:
        """Append at once."""
        if self.closed:
            raise LogClosedError("the log is closed")
        again = next((r for r in self.records if r.id == record.id), None)
        if again is not None:
            return again
        last = next((r.offset for r in reversed(self.records) if r.subject == record.subject), 0)
        if record.expected not in (None, last):
            raise ExpectationFailed(record.subject, expected=record.expected or 0, actual=last)
        if record.guards is not None:
            refusal = self._marks.refusal(record.guards, {})
            if refusal is not None:
                raise refusal
        if self.full:
            raise LogWriteError("memory.db: no space left")
        stored = Record(
            offset=len(self.records) + 1,
            subject=record.subject,
            id=record.id,
            time_ms=self.time_ms,
            data=record.data,
        )
        self.records.append(stored)
        if record.guards is not None:
            self._marks.put(dict.fromkeys(record.guards.marks, stored.offset))
        for callback in self._tails:
            callback([stored])
        self._news.set()
        return stored

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so; it is looked at whenever a record was appended."""
        async with asyncio.timeout(5):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def read(
        self,
        *,
        after: int,
        subjects: Sequence[str] = (">",),
        limit: int = 1000,
    ) -> list[Record]:
        return self._found(after, subjects)[:limit]

    async def read_page(
        self, *, after: int, subjects: Sequence[str] = (">",), limit: int, max_bytes: int
    ) -> LogPage:
        return page_of(self._found(after, subjects), limit, max_bytes, last_offset=self.last_offset)

    def _found(self, after: int, subjects: Sequence[str]) -> list[Record]:
        return [r for r in self.records[after:] if any(matches(s, r.subject) for s in subjects)]

    async def scan(self, *, after: int, upto: int | None = None) -> AsyncIterator[Record]:
        for record in self.records[after:upto]:
            yield record

    async def reaches(self, offset: int) -> bool:
        return offset <= len(self.records)

    async def check(self, offset: int) -> str | None:
        return "00000000" if offset == 0 else self.records[offset - 1].check

    async def last_removed(self) -> Record | None:
        return None

    async def size_bytes(self, *, after: int, upto: int) -> int:
        return sum(len(record.data) for record in self.records[after:upto])

    def tail(self, callback: Callable[[Sequence[Record]], None]) -> Callable[[], None]:
        self._tails.append(callback)
        return lambda: self._tails.remove(callback)

    async def trim(self, before: int) -> int:
        raise NotImplementedError("not needed here")

    async def save_snapshot(self, offset: int, changed: Sequence[SnapshotEntry]) -> None:
        if self.snapshot_fails:
            self.snapshots_saved.put_nowait(-1)
            raise LogWriteError("memory.db: no space left")
        merged = dict(self.snapshot.entries) | {entry.key: entry.data for entry in changed}
        entries = {key: data for key, data in merged.items() if data is not None}
        self.snapshot = Snapshot(offset=offset, entries=entries)
        self.snapshots_saved.put_nowait(offset)

    async def load_snapshot(self) -> Snapshot:
        return self.snapshot

    async def aclose(self) -> None:
        self.closed = True


def page_of(found: Sequence[Record], limit: int, max_bytes: int, *, last_offset: int) -> LogPage:
    """Cut what was found as a log does: at the limit, and where the bytes reach ``max_bytes``."""
    sizes = itertools.accumulate(len(record.data) for record in found)
    count = min(limit, 1 + sum(1 for size in sizes if size < max_bytes))
    page = found[:count]
    return LogPage(page, page[-1].offset if count < len(found) else last_offset)
