"""The common half of the logs over an SQLite file: reads on a thread of their own, tails, closing."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import ParamSpec, TypeVar

from circuit_breaker_server.log.event_log import LogClosedError, LogPage, Record, Snapshot
from circuit_breaker_server.log.reader import Reader, Selector
from circuit_breaker_server.log.tail_callbacks import TailCallbacks

__all__ = ["FileLog"]

# A read by wildcard walks over all records: in windows of this many offsets, so that other reads get through.
_WINDOW_OFFSETS = 50_000
_SCAN_MIN, _SCAN_MAX = 64, 4096
_SCAN_BYTES = 4 * 1024 * 1024
_MAX_IN_FLIGHT = 1024

P = ParamSpec("P")
T = TypeVar("T")


class FileLog(ABC):
    """The half of an event log that reads. The other half decides how records get into the file.

    At most 1,024 appends are in flight; further ones wait for their turn (``_slots``). ``_idle`` is set while
    there are none.
    """

    def __init__(self, reader: Reader, *, last_offset: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = reader
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="event-log-reader")
        self._last_offset = last_offset
        self._tails = TailCallbacks()
        self._slots = asyncio.Semaphore(_MAX_IN_FLIGHT)
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing: asyncio.Task[None] | None = None

    @property
    @abstractmethod
    def first_offset(self) -> int:
        """See the port."""

    def now(self) -> datetime:
        """See the port: records are dated by this machine's clock."""
        return datetime.now(UTC)

    @property
    def last_offset(self) -> int:
        """See the port."""
        return self._last_offset

    async def aclose(self) -> None:
        """See the port."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        # Slots are given in order: with all of them here, every append before this has begun.
        for _ in range(_MAX_IN_FLIGHT):
            await self._slots.acquire()
        await self._idle.wait()
        await self._loop.run_in_executor(self._reading, self._reader.close)
        self._reading.shutdown()
        await self._close_writer()

    @abstractmethod
    async def _close_writer(self) -> None:
        """Let go of what brings records into the file."""

    def _refuse_if_closed(self) -> None:
        if self._closing is not None:
            raise LogClosedError("the event log is closed")

    async def read(
        self,
        *,
        after: int,
        subjects: Sequence[str] = (">",),
        limit: int = 1000,
    ) -> list[Record]:
        """See the port."""
        self._refuse_if_closed()
        selector = Selector(subjects)
        last, found = self._last_offset, list[Record]()
        while after < last and len(found) < limit:
            (records, after), _ = await self._batch(selector, after=after, limit=limit - len(found))
            found += records
        return found

    async def read_page(
        self, *, after: int, subjects: Sequence[str] = (">",), limit: int, max_bytes: int
    ) -> LogPage:
        """See the port."""
        self._refuse_if_closed()
        if after >= self._last_offset:
            return LogPage((), after)
        page, _ = await self._batch(Selector(subjects), after=after, limit=limit, max_bytes=max_bytes)
        return page

    async def _batch(
        self, selector: Selector, *, after: int, limit: int, max_bytes: int | None = None
    ) -> tuple[LogPage, int]:
        last = self._last_offset
        direct = selector.takes_all or selector.is_indexed
        upto = last if direct else min(last, max(after, self.first_offset - 1) + _WINDOW_OFFSETS)
        return await self._read(
            self._reader.batch, selector, after=after, upto=upto, limit=limit, max_bytes=max_bytes
        )

    async def scan(self, *, after: int, upto: int | None = None) -> AsyncIterator[Record]:
        """See the port."""
        self._refuse_if_closed()
        last = self._last_offset if upto is None else min(upto, self._last_offset)
        everything, limit = Selector((">",)), _SCAN_MIN
        while after < last:
            (records, after), size = await self._read(
                self._reader.batch, everything, after=after, upto=last, limit=limit
            )
            for record in records:
                yield record
            limit = max(_SCAN_MIN, limit // 2) if size > _SCAN_BYTES else min(_SCAN_MAX, limit * 2)

    async def check(self, offset: int) -> str | None:
        """See the port."""
        self._refuse_if_closed()
        if offset > self._last_offset:
            return None
        return await self._read(self._reader.check, offset)

    async def last_removed(self) -> Record | None:
        """See the port."""
        return await self._read(self._reader.last_removed)

    async def size_bytes(self, *, after: int, upto: int) -> int:
        """See the port. It goes in windows, so that other reads get through."""
        upto, size = min(upto, self._last_offset), 0
        after = max(after, self.first_offset - 1)
        while after < upto:
            end = min(upto, after + _WINDOW_OFFSETS)
            size += await self._read(self._reader.size_bytes, after=after, upto=end)
            after = end
        return size

    async def load_snapshot(self) -> Snapshot:
        """See the port."""
        return await self._read(self._reader.snapshot)

    def tail(self, callback: Callable[[Sequence[Record]], None]) -> Callable[[], None]:
        """See the port."""
        return self._tails.add(callback)

    async def _read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._refuse_if_closed()
        return await self._loop.run_in_executor(self._reading, partial(function, *args, **kwargs))
