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
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar, final

from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.log.append_queue import Answer, AppendQueue, WaitingAppend
from circuit_breaker_server.log.database import connect, open_database, open_error
from circuit_breaker_server.log.directory_lock import DirectoryLock
from circuit_breaker_server.log.event_log import (
    ExpectationFailed,
    LogError,
    LogWriteError,
    NewRecord,
    Record,
    SnapshotEntry,
)
from circuit_breaker_server.log.file_log import FileLog
from circuit_breaker_server.log.heartbeats import Heartbeats
from circuit_breaker_server.log.reader import Reader
from circuit_breaker_server.log.record_validation import validate
from circuit_breaker_server.log.writer import Writer
from circuit_breaker_server.storage.private_files import make_private_directory

__all__ = ["SqliteEventLog"]

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
class SqliteEventLog(FileLog):
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
        super().__init__(files.reader, last_offset=files.writer.last_offset)
        self._files = files
        self._writer = files.writer
        self._writing = writing
        self._waiting = AppendQueue()
        self._in_flight = 0
        self._group_is_due = False
        self._append_failed = False
        self._instruments = instruments or Instruments()

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
        async with self._slots:
            answer: asyncio.Future[Record] = self._loop.create_future()
            self.begin_append(record, answer)
            return await answer

    def begin_append(self, record: NewRecord, answer: Answer) -> None:
        """Append one record as :meth:`append` does, without waiting: ``answer`` is given the outcome.

        The record is one that :func:`validate` has passed, and the caller bounds how many it begins.
        """
        self._in_flight += 1
        self._idle.clear()
        self._waiting.put(record, answer)
        self._schedule_group()

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
        self._in_flight -= len(group)
        if not self._in_flight:
            self._idle.set()
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
            self._tails.call(new)
        for (_, answer), outcome in zip(group, outcomes, strict=True):
            _settle(answer, outcome)

    async def reaches(self, offset: int) -> bool:
        """See the port."""
        return offset <= self._last_offset

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

    async def _close_writer(self) -> None:
        await self._loop.run_in_executor(self._writing, self._files.close)
        self._writing.shutdown()

    async def _write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._refuse_if_closed()
        return await self._loop.run_in_executor(self._writing, partial(function, *args, **kwargs))


def _settle(answer: Answer, outcome: Record | BaseException) -> None:
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
