"""A log that is kept in memory alone: what a server costs without a disk, a database and a second thread."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import final

from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.log.event_log import (
    ExpectationFailed,
    LogClosedError,
    LogError,
    LogPage,
    NewRecord,
    Record,
    Snapshot,
    SnapshotEntry,
    matches,
)
from circuit_breaker_server.log.marks import Marks
from circuit_breaker_server.log.record_validation import validate

__all__ = ["MemoryEventLog"]


@final
class MemoryEventLog:
    """A :class:`~circuit_breaker_server.log.event_log.ServingLog` for measuring: it forgets all when it ends.

    It keeps the port's promises but for durability and trimming: one group is what is appended in one turn
    of the loop, and the tails have it before the appends return.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoch = secrets.token_hex(8)
        self._records: list[Record] = []
        self._by_id: dict[str, Record] = {}
        self._last_of: dict[str, int] = {}
        self._tails: list[Callable[[Sequence[Record]], None]] = []
        self._marks = Marks(began_at=0)
        self._waiting: list[tuple[NewRecord, asyncio.Future[Record]]] = []
        self._snapshot_offset = 0
        self._entries: dict[str, bytes] = {}
        self._closed = False

    @classmethod
    async def open(cls, _directory: Path, *, instruments: Instruments | None = None) -> MemoryEventLog:
        """Make an empty log; nothing is looked for in the directory, and nothing written to it."""
        del instruments  # its appends cost nothing that is worth counting
        return cls()

    def now(self) -> datetime:
        """See the port: records are dated by this machine's clock."""
        return datetime.now(UTC)

    @property
    def append_failed(self) -> bool:
        """See the port: none ever fails."""
        return False

    @property
    def heartbeats(self) -> None:
        """See the port: one process has it alone."""
        return

    @property
    def outage(self) -> str | None:
        """See the port: it is always there."""
        return None

    async def try_write(self) -> bool:
        """See the port."""
        return True

    def on_end(self, callback: Callable[[LogError], object]) -> None:
        """See the port: it never ends."""

    @property
    def epoch(self) -> str:
        """See the port."""
        return self._epoch

    @property
    def first_offset(self) -> int:
        """See the port: nothing is ever trimmed."""
        return 1

    @property
    def last_offset(self) -> int:
        """See the port."""
        return len(self._records)

    async def append(self, record: NewRecord) -> Record:
        """See the port; in memory, not on a disk."""
        validate(record)
        if self._closed:
            raise LogClosedError("the event log is closed")
        answer: asyncio.Future[Record] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._take_group)
        self._waiting.append((record, answer))
        return await answer

    def _take_group(self) -> None:
        group, self._waiting = self._waiting, []
        before, time_ms = len(self._records), time.time_ns() // 1_000_000
        outcomes = [self._decide(wanted, time_ms) for wanted, _ in group]
        new = self._records[before:]
        if new:
            for tail in tuple(self._tails):
                tail(new)
        for (_, answer), outcome in zip(group, outcomes, strict=True):
            if answer.done():  # its caller was cancelled
                continue
            if isinstance(outcome, Record):
                answer.set_result(outcome)
            else:
                answer.set_exception(outcome)

    def _decide(self, wanted: NewRecord, time_ms: int) -> Record | ExpectationFailed:
        if (known := self._by_id.get(wanted.id)) is not None:
            return known
        actual = self._last_of.get(wanted.subject, 0)
        if wanted.expected is not None and wanted.expected != actual:
            return ExpectationFailed(wanted.subject, expected=wanted.expected, actual=actual)
        offset = len(self._records) + 1
        if wanted.guards is not None:
            refusal = self._marks.refusal(wanted.guards, {})
            if refusal is not None:
                return refusal
            self._marks.put(dict.fromkeys(wanted.guards.marks, offset))
        record = Record(
            offset=offset, subject=wanted.subject, id=wanted.id, time_ms=time_ms, data=wanted.data
        )
        self._records.append(record)
        self._by_id[record.id] = record
        self._last_of[record.subject] = offset
        return record

    async def read(self, *, after: int, subjects: Sequence[str] = (">",), limit: int = 1000) -> list[Record]:
        """See the port."""
        page = await self.read_page(after=after, subjects=subjects, limit=limit, max_bytes=1 << 62)
        return list(page.records)

    async def read_page(
        self, *, after: int, subjects: Sequence[str] = (">",), limit: int, max_bytes: int
    ) -> LogPage:
        """See the port."""
        found: list[Record] = []
        size = 0
        for record in self._records[after:]:
            if any(matches(each, record.subject) for each in subjects):
                found.append(record)
                size += len(record.data)
                if len(found) == limit or size >= max_bytes:
                    return LogPage(found, record.offset)
        return LogPage(found, max(after, len(self._records)))

    async def scan(self, *, after: int, upto: int | None = None) -> AsyncIterator[Record]:
        """See the port."""
        for record in self._records[after:upto]:
            yield record

    async def reaches(self, offset: int) -> bool:
        """See the port."""
        return offset <= len(self._records)

    async def check(self, offset: int) -> str | None:
        """See the port."""
        if offset == 0:
            return "00000000"
        return self._records[offset - 1].check if offset <= len(self._records) else None

    async def last_removed(self) -> Record | None:
        """See the port: nothing is ever removed."""
        return None

    async def size_bytes(self, *, after: int, upto: int) -> int:
        """See the port."""
        return sum(len(record.data) for record in self._records[after:upto])

    def tail(self, callback: Callable[[Sequence[Record]], None]) -> Callable[[], None]:
        """See the port."""
        self._tails.append(callback)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._tails.remove(callback)

        return end

    async def trim(self, before: int) -> int:
        """Remove nothing."""
        del before
        return 0

    async def save_snapshot(self, offset: int, changed: Sequence[SnapshotEntry]) -> None:
        """See the port; in memory, not on a disk."""
        for entry in changed:
            if entry.data is None:
                self._entries.pop(entry.key, None)
            else:
                self._entries[entry.key] = entry.data
        self._snapshot_offset = offset

    async def load_snapshot(self) -> Snapshot:
        """See the port."""
        return Snapshot(offset=self._snapshot_offset, entries=dict(self._entries))

    async def aclose(self) -> None:
        """See the port."""
        self._closed = True
