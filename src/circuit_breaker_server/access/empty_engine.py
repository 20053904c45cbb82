"""An empty engine, which answers for hidden objects with the same texts as for missing ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import NoReturn, final

from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.log.event_log import (
    LogClosedError,
    LogPage,
    NewRecord,
    Record,
    Snapshot,
    SnapshotEntry,
)

__all__ = ["engine_of_nothing"]


def engine_of_nothing(epoch: str) -> Engine:
    """Make an engine that has no state and takes no record. It needs neither start nor end."""
    return Engine(_NoLog(epoch))


@final
class _NoLog:
    """A log in which nothing is, and into which nothing goes."""

    first_offset = 1
    last_offset = 0

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch

    async def append(self, record: NewRecord) -> NoReturn:
        raise LogClosedError(f"nothing is written here, not even {record.subject}")

    async def read(
        self,
        *,
        after: int,
        subjects: Sequence[str] = (">",),
        limit: int = 1000,
    ) -> list[Record]:
        del after, subjects, limit
        return []

    async def reaches(self, offset: int) -> bool:
        return offset <= self.last_offset

    async def read_page(
        self, *, after: int, subjects: Sequence[str] = (">",), limit: int, max_bytes: int
    ) -> LogPage:
        del subjects, limit, max_bytes
        return LogPage((), after)

    async def scan(self, *, after: int, upto: int | None = None) -> AsyncIterator[Record]:
        for record in await self.read(after=upto or after):
            yield record

    async def check(self, offset: int) -> str | None:
        del offset
        return None

    async def last_removed(self) -> Record | None:
        return None

    async def size_bytes(self, *, after: int, upto: int) -> int:
        del after, upto
        return 0

    def tail(self, callback: Callable[[Sequence[Record]], None]) -> Callable[[], None]:
        del callback
        return lambda: None

    async def trim(self, before: int) -> int:
        del before
        return 0

    async def save_snapshot(self, offset: int, changed: Sequence[SnapshotEntry]) -> None:
        del offset, changed

    async def load_snapshot(self) -> Snapshot:
        return Snapshot(offset=0, entries={})

    async def aclose(self) -> None:
        return
