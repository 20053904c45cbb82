"""The end of the process that writes: it appends for its workers, and tells them what was committed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Final, cast, final

from circuit_breaker_server.log.event_log import LogError, Record
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
    Request,
    SaveSnapshot,
    Told,
    Trim,
    TryWrite,
    encode_frame,
    read_requests,
    refused,
)
from circuit_breaker_server.log.sqlite import SqliteEventLog

__all__ = ["LogServer"]

_MAX_UNREAD_BYTES: Final = 256 * 1024 * 1024
"""The most bytes that a worker leaves unread; above it its socket is closed, and it is started again."""


@final
class LogServer:
    """Serves one SQLite log to the processes of this machine, each over a pair of sockets.

    Example::

        server = LogServer(log)
        ours, theirs = socket.socketpair()
        await server.serve(ours)  # the other one is the worker's
        await server.aclose()
    """

    def __init__(self, log: SqliteEventLog) -> None:
        self._shared = _Shared(log)
        self._end_tail = log.tail(self._shared.tell_records)

    async def serve(self, connected: socket.socket) -> None:
        """Serve the process at the other end of a socket, until it closes it."""
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: _Worker(self._shared), sock=connected)

    async def aclose(self) -> None:
        """Close all sockets. The log stays open: its owner closes it."""
        self._end_tail()
        for worker in tuple(self._shared.workers):
            worker.close()


@final
class _Shared:
    """The state that all sockets share.

    :ivar newest: the first offset of the group that was told last.
    """

    def __init__(self, log: SqliteEventLog) -> None:
        self.log = log
        self.workers: set[_Worker] = set()
        self.newest = log.last_offset + 1

    def tell_records(self, records: Sequence[Record]) -> None:
        self.newest = records[0].offset
        self.tell(Group(tuple(records)))

    def tell(self, message: Told) -> None:
        for worker in self.workers:
            worker.tell(message)


@final
class _Worker(asyncio.Protocol):
    """One worker's socket."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._log = shared.log
        self._frames = Frames()
        self._told: list[Told] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # In one step: a group that is committed after this is told, one before is in the file.
        log = self._log
        self.tell(Beginning(log.epoch, log.first_offset, log.last_offset))
        self._shared.workers.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._shared.workers.discard(self)
        self._transport = None

    def close(self) -> None:
        """Close the socket behind what was told."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def tell(self, message: Told) -> None:
        """Tell something, in one frame with all else of this turn of the loop."""
        if not self._told:
            self._loop.call_soon(self._flush)
        self._told.append(message)

    def appended(self, number: int, record: Record) -> None:
        """Tell that a record is in the log: it is in the group before, unless its id was there already."""
        is_new = record.offset >= self._shared.newest
        self.tell(Appended(number, record.offset) if is_new else Found(number, record))

    def _flush(self) -> None:
        told, self._told = self._told, []
        transport = self._transport
        if not told or transport is None:
            return
        transport.write(encode_frame(told))
        if transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            for request in read_requests(frame):
                self._do(request)

    def _do(self, request: Request) -> None:
        match request:
            case Append(number, record):
                self._log.begin_append(record, _Reply(self, number))
            case Beat():
                self._shared.tell(request)
            case Reach(number):
                self.tell(Answer(number, self._log.last_offset))
            case _:
                task = self._loop.create_task(self._answer(request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: SaveSnapshot | Trim | TryWrite) -> None:
        value = 0
        try:
            match request:
                case SaveSnapshot(_, offset, changed):
                    await self._log.save_snapshot(offset, changed)
                case Trim(_, before):
                    try:
                        value = await self._log.trim(before)
                    finally:
                        self._shared.tell(FirstOffset(self._log.first_offset))
                case TryWrite():
                    value = int(await self._log.try_write())
        except (LogError, ValueError) as error:
            self.tell(refused(request.number, error))
        else:
            self.tell(Answer(request.number, value))


@final
class _Reply:
    """The receiver of the outcome of a worker's append."""

    __slots__ = ("_number", "_worker")

    def __init__(self, worker: _Worker, number: int) -> None:
        self._worker = worker
        self._number = number

    def done(self) -> bool:
        return False

    def set_result(self, record: Record) -> None:
        self._worker.appended(self._number, record)

    def set_exception(self, error: BaseException) -> None:
        self._worker.tell(refused(self._number, error))
