"""The end of a worker: reads come from the file, appends go to the process that writes it."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, cast, final

from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.log.event_log import (
    AppendOutcomeUnknown,
    LogClosedError,
    LogError,
    LogWriteError,
    NewRecord,
    Record,
    SnapshotEntry,
)
from circuit_breaker_server.log.file_log import FileLog
from circuit_breaker_server.log.heartbeats import Heartbeats
from circuit_breaker_server.log.reader import Reader, open_reader
from circuit_breaker_server.log.record_validation import validate
from circuit_breaker_server.log.shared_file.messages import (
    Answer,
    Append,
    Appended,
    Beat,
    Beginning,
    FirstOffset,
    Found,
    Frames,
    Group,
    Reach,
    Refusal,
    Request,
    SaveSnapshot,
    Told,
    Trim,
    TryWrite,
    encode_frame,
    read_told,
    refusal_of,
)

__all__ = ["WorkerLog"]

_GONE: Final = "the process that writes the event log is gone"

P = ParamSpec("P")
T = TypeVar("T")


@final
class WorkerLog(FileLog):
    """An :class:`~circuit_breaker_server.log.event_log.EventLog` that another process of this machine writes.

    Where that process is gone the log has ended: what was being appended may be in it or not.

    Example::

        log = await WorkerLog.open(Path("data"), connected)
    """

    def __init__(
        self, reader: Reader, connection: _Connection, beginning: Beginning, instruments: Instruments
    ) -> None:
        """Serve over a connection; use :meth:`open`."""
        super().__init__(reader, last_offset=beginning.last_offset)
        self._epoch = beginning.epoch
        self._first_offset = beginning.first_offset
        self._connection = connection
        self._instruments = instruments
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._newest: Sequence[Record] = ()
        self._append_failed = False
        self._ended: LogError | None = None
        self._on_end: list[Callable[[LogError], object]] = []
        self._beats: list[Callable[[bytes], None]] = []

    @classmethod
    async def open(
        cls, directory: Path, connected: socket.socket, *, instruments: Instruments | None = None
    ) -> WorkerLog:
        """Open the log of a directory.

        :param connected: a socket to the process that writes, which :class:`LogServer` serves.
        :raises LogError: that process is gone, or the file cannot be read.
        """
        loop = asyncio.get_running_loop()
        connection = _Connection()
        await loop.create_unix_connection(lambda: connection, sock=connected)
        try:
            beginning = await connection.beginning
            reader = await asyncio.to_thread(open_reader, directory / "events.db")
        except BaseException:
            connection.close()
            raise
        log = cls(reader, connection, beginning, instruments or Instruments())
        connection.start(log._take, log._end)
        return log

    @property
    def epoch(self) -> str:
        """See the port."""
        return self._epoch

    @property
    def first_offset(self) -> int:
        """See the port."""
        return self._first_offset

    @property
    def append_failed(self) -> bool:
        """See the port."""
        return self._append_failed

    @property
    def outage(self) -> str | None:
        """See the port: without the process that writes the log has ended, it is not away."""
        return None

    @property
    def heartbeats(self) -> Heartbeats:
        """See the port."""
        return _Heartbeats(self._connection, self._beats)

    def on_end(self, callback: Callable[[LogError], object]) -> None:
        """See the port."""
        self._on_end.append(callback)
        if self._ended is not None:
            self._loop.call_soon(callback, self._ended)

    async def append(self, record: NewRecord) -> Record:
        """See the port."""
        validate(record)
        self._refuse_if_closed()
        async with self._slots:
            began = time.perf_counter()
            answer: asyncio.Future[Record] = self._loop.create_future()
            self._ask(lambda number: Append(number, record), answer)
            appended = await answer
            self._instruments.appended(time.perf_counter() - began, 1)
            return appended

    async def reaches(self, offset: int) -> bool:
        """See the port."""
        if offset > self._last_offset:
            await self._answer_to(Reach)
        return offset <= self._last_offset

    async def try_write(self) -> bool:
        """See the port."""
        worked = bool(await self._answer_to(TryWrite))
        self._append_failed = self._append_failed and not worked
        return worked

    async def trim(self, before: int) -> int:
        """See the port."""
        return await self._answer_to(partial(Trim, before=before))

    async def save_snapshot(self, offset: int, changed: Sequence[SnapshotEntry]) -> None:
        """See the port."""
        if offset > self._last_offset:
            raise ValueError(f"the log ends at {self._last_offset}: no snapshot at {offset}")
        await self._answer_to(partial(SaveSnapshot, offset=offset, changed=tuple(changed)))

    async def _close_writer(self) -> None:
        self._connection.close()

    def _refuse_if_closed(self) -> None:
        super()._refuse_if_closed()
        if self._ended is not None:
            raise LogClosedError(str(self._ended))

    # --- what is asked --------------------------------------------------------------------------------------

    async def _answer_to(self, request: Callable[[int], Request]) -> int:
        self._refuse_if_closed()
        answer: asyncio.Future[int] = self._loop.create_future()
        self._ask(request, answer)
        return await answer

    def _ask(self, request: Callable[[int], Request], answer: asyncio.Future[Any]) -> None:
        if self._ended is not None:  # while it waited for its turn
            raise LogClosedError(str(self._ended))
        number = next(self._numbers)
        self._answers[number] = answer
        self._idle.clear()
        self._connection.send(request(number))

    async def _read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Read from the file, and then where it begins: another process removes records."""
        self._refuse_if_closed()
        found, first = await self._loop.run_in_executor(
            self._reading, _with_first_offset, self._reader, partial(function, *args, **kwargs)
        )
        self._first_offset = max(self._first_offset, first)
        return found

    # --- what is told ---------------------------------------------------------------------------------------

    def _take(self, told: Told) -> None:
        match told:
            case Group(records):
                self._newest = records
                self._last_offset = records[-1].offset
                self._append_failed = False
                self._tails.call(records)
            case Appended(number, offset):
                self._settle(number, self._newest[offset - self._newest[0].offset])
            case Found(number, record):
                self._settle(number, record)
            case Answer(number, value):
                self._settle(number, value)
            case Refusal(number):
                self._refuse(number, refusal_of(told))
            case FirstOffset(offset):
                self._first_offset = max(self._first_offset, offset)
            case Beat(data):
                for listener in tuple(self._beats):
                    listener(data)
            case Beginning():
                raise AssertionError("a second beginning")

    def _asked(self, number: int) -> asyncio.Future[Any]:
        answer = self._answers.pop(number)
        if not self._answers:
            self._idle.set()
        return answer

    def _settle(self, number: int, value: object) -> None:
        answer = self._asked(number)
        if not answer.done():  # else its caller was cancelled
            answer.set_result(value)

    def _refuse(self, number: int, error: Exception) -> None:
        if isinstance(error, LogWriteError):
            self._append_failed = True
            self._instruments.append_failures += 1
        answer = self._asked(number)
        if not answer.done():
            answer.set_exception(error)

    def _end(self) -> None:
        """Take that the process that writes is gone."""
        answers, self._answers = self._answers, {}
        self._idle.set()
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(AppendOutcomeUnknown(_GONE))
        if self._closing is None:
            self._ended = LogError(_GONE)
            for callback in self._on_end:
                callback(self._ended)


@final
class _Heartbeats:
    """See :class:`~circuit_breaker_server.log.heartbeats.Heartbeats`."""

    def __init__(self, connection: _Connection, listeners: list[Callable[[bytes], None]]) -> None:
        self._connection = connection
        self._listeners = listeners

    async def send(self, beat: bytes) -> None:
        """See the protocol."""
        self._connection.send(Beat(beat))

    async def listen(self, callback: Callable[[bytes], None]) -> None:
        """See the protocol."""
        self._listeners.append(callback)


@final
class _Connection(asyncio.Protocol):
    """The socket to the process that writes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._asked: list[Request] = []
        self._early: list[Told] = []
        self._take: Callable[[Told], None] = self._early.append
        self._end: Callable[[], None] | None = None
        self._transport: asyncio.Transport | None = None
        self.beginning: asyncio.Future[Beginning] = self._loop.create_future()
        """The first that is told."""

    def start(self, take: Callable[[Told], None], end: Callable[[], None]) -> None:
        """Let what is told be taken, also what was told before this."""
        self._take, self._end = take, end
        for told in self._early:
            take(told)
        if self._transport is None:
            end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        if not self.beginning.done():
            self.beginning.set_exception(LogError(_GONE))
        if self._end is not None:
            self._end()

    def data_received(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            for told in read_told(frame):
                if isinstance(told, Beginning):
                    self.beginning.set_result(told)
                else:
                    self._take(told)

    def send(self, request: Request) -> None:
        """Send a request, in one frame with all others of this turn of the loop."""
        if not self._asked:
            self._loop.call_soon(self._flush)
        self._asked.append(request)

    def _flush(self) -> None:
        asked, self._asked = self._asked, []
        if self._transport is not None:
            self._transport.write(encode_frame(asked))

    def close(self) -> None:
        """Close the socket behind what was sent."""
        self._flush()
        if self._transport is not None:
            self._transport.close()


def _with_first_offset(reader: Reader, function: Callable[[], T]) -> tuple[T, int]:
    found = function()
    _, first, _ = reader.bounds()
    return found, first
