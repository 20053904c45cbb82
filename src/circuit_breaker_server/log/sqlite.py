"""The event log in one SQLite file: the default, for one process on one machine.

Two threads serve the event loop. The *writer* commits in groups: whatever was appended while it was busy
with one group is the next one, written by one statement and made durable by one sync. The *reader* has a
connection of its own and never waits for the writer (write-ahead logging). All state that callers see moves
on the loop: a group's records reach the tails, then its ``append`` calls return, in offset order.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar, final

from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.log.append_queue import AppendQueue, WaitingAppend
from circuit_breaker_server.log.database import connect, open_database, open_error
from circuit_breaker_server.log.directory_lock import DirectoryLock
from circuit_breaker_server.log.event_log import (
    ExpectationFailed,
    LogClosedError,
    LogError,
    LogPage,
    LogWriteError,
    NewRecord,
    Record,
    Snapshot,
    SnapshotEntry,
    validate,
)
from circuit_breaker_server.log.heartbeats import Heartbeats
from circuit_breaker_server.log.reader import Reader, Selector
from circuit_breaker_server.log.writer import Writer
from circuit_breaker_server.storage.private_files import make_private_directory

__all__ = ["SqliteEventLog"]

_MAX_IN_FLIGHT = 1024
# A read by wildcard walks over all records: in windows of this many offsets, so that other reads get through.
_WINDOW_OFFSETS = 50_000
_SCAN_MIN, _SCAN_MAX = 64, 4096
_SCAN_BYTES = 4 * 1024 * 1024

P = ParamSpec("P")
T = TypeVar("T")


@final
class _Files:
    """The resources of an open log: the directory lock, and one SQLite connection for each thread."""

    def __init__(self, directory: Path, *, busy_timeout_seconds: float) -> None:
        try:
            make_private_directory(directory)
        except OSError as error:
            raise LogError(
                f"{directory}: cannot be made a data directory ({error.strerror}); choose another one"
            ) from error
        path = directory / "events.db"
        with contextlib.ExitStack() as opened:
            self.lock = DirectoryLock(directory)
            opened.callback(self.lock.release)
            writing = open_database(path, busy_timeout_seconds=busy_timeout_seconds)
            opened.callback(writing.close)
            try:
                self.writer = Writer(writing, path)
                reading = connect(path, busy_timeout_seconds=busy_timeout_seconds)
                opened.callback(reading.close)
                self.reader = Reader(reading, path)
            except sqlite3.Error as error:
                raise open_error(path, error) from error
            opened.pop_all()

    def close(self) -> None:
        with contextlib.ExitStack() as closing:  # in reverse order, whatever fails on the way
            closing.callback(self.lock.release)
            closing.callback(self.writer.close)
            closing.callback(self.reader.close)


@final
class SqliteEventLog:
    """An :class:`~circuit_breaker_server.log.event_log.EventLog` in ``events.db`` of a directory.

    Durable means: in SQLite's write-ahead file, synced (``synchronous=FULL``). At most 1,024 appends are in
    flight; further ones wait. Disk full and I/O errors refuse a group with ``LogWriteError``; the next
    group is tried afresh, so the log works again as soon as the disk does.

    Example::

        log = await SqliteEventLog.open(Path("data"))
        record = await log.append(NewRecord(subject="resource.w.r", id=uuid4().hex, data=b"{}", expected=0))
        await log.aclose()
    """

    def __init__(
        self, files: _Files, writing: ThreadPoolExecutor, *, instruments: Instruments | None = None
    ) -> None:
        """Serve from open files; use :meth:`open`."""
        self._loop = asyncio.get_running_loop()
        self._files = files
        self._writer = files.writer
        self._reader = files.reader
        self._writing = writing
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="event-log-reader")
        self._last_offset = files.writer.last_offset
        self._tails: list[Callable[[Sequence[Record]], None]] = []
        self._slots = asyncio.Semaphore(_MAX_IN_FLIGHT)
        self._waiting = AppendQueue()
        self._group_is_due = False
        self._append_failed = False
        self._instruments = instruments or Instruments()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, directory: Path, *, busy_timeout_seconds: float = 5.0, instruments: Instruments | None = None
    ) -> SqliteEventLog:
        """Open the log in ``directory``, making both where there is none.

        ``busy_timeout_seconds`` is how long a write waits for another program that holds the file.

        :raises LogCorruptError: the file there is not a log that this version can read.
        :raises LogError: another process has it open, or it cannot be written.
        """
        writing = ThreadPoolExecutor(1, thread_name_prefix="event-log-writer")
        opening = writing.submit(_Files, directory, busy_timeout_seconds=busy_timeout_seconds)
        try:
            return cls(await asyncio.wrap_future(opening), writing, instruments=instruments)
        except BaseException:
            # A cancelled caller does not stop the thread: what it opens after all is closed there.
            opening.add_done_callback(_close_if_open)
            writing.shutdown(wait=opening.done())
            raise

    @property
    def epoch(self) -> str:
        """See the port."""
        return self._writer.epoch

    @property
    def first_offset(self) -> int:
        """See the port."""
        return self._writer.first_offset

    @property
    def last_offset(self) -> int:
        """See the port."""
        return self._last_offset

    @property
    def append_failed(self) -> bool:
        """Whether the last group of appends could not be made durable, and nothing was written since."""
        return self._append_failed

    @property
    def heartbeats(self) -> Heartbeats | None:
        """See the port: a directory has one process."""
        return None

    @property
    def outage(self) -> str | None:
        """See the port: a file is never away."""
        return None

    def on_end(self, callback: Callable[[LogError], object]) -> None:
        """See the port: this log never ends, and calls nothing back."""

    async def try_write(self) -> bool:
        """Write what changes nothing, after an append that failed; tell whether that has worked."""
        try:
            await self._write(self._writer.touch)
        except LogError:
            return False
        self._append_failed = False
        return True

    async def append(self, record: NewRecord) -> Record:
        """See the port."""
        validate(record)
        self._refuse_if_closed()
        await self._slots.acquire()
        answer: asyncio.Future[Record] = self._loop.create_future()
        self._waiting.put(record, answer)
        self._schedule_group()
        return await answer

    def _schedule_group(self) -> None:
        if not self._group_is_due:
            self._group_is_due = True
            # Not at once: what else is appended in this turn of the loop belongs to the same group.
            self._loop.call_soon(self._start_group)

    def _start_group(self) -> None:
        self._writing.submit(self._commit_waiting)

    def _commit_waiting(self) -> None:
        # On the writer thread. The flag goes down before the first look: what is appended after the last look
        # finds it down and starts another group.
        self._group_is_due = False
        group = self._waiting.take_group()
        if not group:
            return
        outcomes: list[Record | ExpectationFailed] | Exception
        began = time.perf_counter()
        try:
            outcomes = self._writer.append([record for record, _ in group])
        except Exception as error:  # noqa: BLE001 (each caller of the group is told)
            outcomes = error
        self._loop.call_soon_threadsafe(self._deliver, group, outcomes, time.perf_counter() - began)

    def _deliver(
        self,
        group: list[WaitingAppend],
        outcomes: list[Record | ExpectationFailed] | Exception,
        seconds: float,
    ) -> None:
        counts = self._instruments
        counts.appended(seconds, len(group))
        for _ in group:
            self._slots.release()
        if self._waiting:
            self._schedule_group()
        self._append_failed = isinstance(outcomes, Exception)
        if isinstance(outcomes, Exception):
            counts.append_failures += 1
            for _, answer in group:
                _settle(answer, _refusal(outcomes))
            return
        # A repeated id's record has been to the tails before, or comes twice in this group.
        new: list[Record] = []
        for outcome in outcomes:
            if isinstance(outcome, Record) and outcome.offset > self._last_offset:
                self._last_offset = outcome.offset
                new.append(outcome)
        if new:
            self._call_tails(new)
        for (_, answer), outcome in zip(group, outcomes, strict=True):
            _settle(answer, outcome)

    def _call_tails(self, records: Sequence[Record]) -> None:
        for tail in tuple(self._tails):
            try:
                tail(records)
            except Exception as error:  # noqa: BLE001 -- one tail must not starve the others or the appends
                self._loop.call_exception_handler(
                    {"message": "a tail of the event log raised", "exception": error}
                )

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

    async def reaches(self, offset: int) -> bool:
        """See the port."""
        return offset <= self._last_offset

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

    def tail(self, callback: Callable[[Sequence[Record]], None]) -> Callable[[], None]:
        """See the port."""
        self._tails.append(callback)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._tails.remove(callback)

        return end

    async def trim(self, before: int) -> int:
        """See the port. It goes in steps: cancelled half-way, the records of the steps done are gone."""
        removed = 0
        while step := await self._write(self._writer.trim, before):
            removed += step
        return removed

    async def save_snapshot(self, offset: int, changed: Sequence[SnapshotEntry]) -> None:
        """See the port."""
        if offset > self._last_offset:
            raise ValueError(f"the log ends at {self._last_offset}: no snapshot at {offset}")
        began = time.perf_counter()
        await self._write(self._writer.save_snapshot, offset, changed)
        self._instruments.slow.snapshot(time.perf_counter() - began, entries=len(changed), offset=offset)

    async def load_snapshot(self) -> Snapshot:
        """See the port."""
        return await self._read(self._reader.snapshot)

    async def aclose(self) -> None:
        """See the port."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        # Slots are given in order: with all of them here, every append before this has been answered.
        for _ in range(_MAX_IN_FLIGHT):
            await self._slots.acquire()
        await self._loop.run_in_executor(self._reading, self._reader.close)
        await self._loop.run_in_executor(self._writing, self._files.close)
        self._reading.shutdown()
        self._writing.shutdown()

    def _refuse_if_closed(self) -> None:
        if self._closing is not None:
            raise LogClosedError("the event log is closed")

    async def _write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._refuse_if_closed()
        return await self._loop.run_in_executor(self._writing, partial(function, *args, **kwargs))

    async def _read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._refuse_if_closed()
        return await self._loop.run_in_executor(self._reading, partial(function, *args, **kwargs))


def _settle(answer: asyncio.Future[Record], outcome: Record | BaseException) -> None:
    if answer.done():  # its caller was cancelled
        return
    if isinstance(outcome, BaseException):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def _refusal(error: BaseException) -> LogError:
    # One for each caller: a traceback grows on the exception that is raised.
    kind = type(error) if isinstance(error, LogError) else LogWriteError
    refusal = kind(str(error))
    refusal.__cause__ = error
    return refusal


def _close_if_open(opening: Future[_Files]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
