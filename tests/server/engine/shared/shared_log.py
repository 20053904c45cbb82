"""One log in memory for several engines, each with a tail of its own that may be behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import final

from circuit_breaker_server.log.event_log import (
    ExpectationFailed,
    LogPage,
    NewRecord,
    Record,
    Snapshot,
    SnapshotEntry,
    matches,
)
from tests.server.engine.memory_log import MemoryLog, page_of


@final
class View:
    """The log as one engine sees it: up to what its tail has delivered.

    As with brokers, a writer has the records up to its own, or up to the one that refused it, when its append
    returns; other records come when the schedule says so.

    :ivar pause: awaited before an append is decided, and after it: others get in between.
    :ivar appended: how many records this engine has written.
    """

    def __init__(self, shared: MemoryLog, pause: Callable[[], Awaitable[None]]) -> None:
        self.shared = shared
        self.pause = pause
        self.appended = 0
        self._seen = 0
        self._tails: list[Callable[[Sequence[Record]], None]] = []

    @property
    def epoch(self) -> str:
        return self.shared.epoch

    @property
    def first_offset(self) -> int:
        return 1

    @property
    def last_offset(self) -> int:
        return self._seen

    def deliver(self, upto: int | None = None) -> None:
        """Let the tail deliver what it has not yet, up to an offset or all of it."""
        end = len(self.shared.records) if upto is None else min(upto, len(self.shared.records))
        if end > self._seen:
            records = self.shared.records[self._seen : end]
            self._seen = end
            for tail in tuple(self._tails):
                tail(records)

    async def append(self, record: NewRecord) -> Record:
        await self.pause()
        try:
            stored = self.shared.put(record)
        except ExpectationFailed as error:
            await self.pause()
            self.deliver(error.actual)
            raise
        self.appended += 1
        await self.pause()
        self.deliver(stored.offset)
        return stored

    async def read(self, *, after: int, subjects: Sequence[str] = (">",), limit: int = 1000) -> list[Record]:
        return self._found(after, subjects)[:limit]

    async def read_page(
        self, *, after: int, subjects: Sequence[str] = (">",), limit: int, max_bytes: int
    ) -> LogPage:
        return page_of(self._found(after, subjects), limit, max_bytes, last_offset=self._seen)

    def _found(self, after: int, subjects: Sequence[str]) -> list[Record]:
        seen = self.shared.records[after : self._seen]
        return [record for record in seen if any(matches(s, record.subject) for s in subjects)]

    async def scan(self, *, after: int, upto: int | None = None) -> AsyncIterator[Record]:
        for record in self.shared.records[after : self._seen if upto is None else upto]:
            yield record

    async def reaches(self, offset: int) -> bool:
        self.deliver(offset)
        return offset <= self._seen

    async def check(self, offset: int) -> str | None:
        return await self.shared.check(offset)

    async def last_removed(self) -> Record | None:
        return None

    async def size_bytes(self, *, after: int, upto: int) -> int:
        return await self.shared.size_bytes(after=after, upto=upto)

    def tail(self, callback: Callable[[Sequence[Record]], None]) -> Callable[[], None]:
        self._tails.append(callback)
        return lambda: self._tails.remove(callback)

    async def trim(self, before: int) -> int:
        raise NotImplementedError("not needed here")

    async def save_snapshot(self, offset: int, changed: Sequence[SnapshotEntry]) -> None:
        """Keep nothing: each engine folds the log from its start, unless the shared log has a snapshot."""

    async def load_snapshot(self) -> Snapshot:
        return await self.shared.load_snapshot()

    async def aclose(self) -> None:
        await asyncio.sleep(0)
