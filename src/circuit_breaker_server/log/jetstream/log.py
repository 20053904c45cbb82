"""The event log on NATS JetStream: many server processes share it, and it outlives each of them.

:class:`JetStreamEventLog` joins the parts: the connection (``broker``), the streams and their checks
(``stream``), appending (``appender``), following (``tail``), reading (``kept_records``, ``reads``), trimming
(``trimming``), snapshots (``snapshots``).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Final, final

from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.log.event_log import (
    LogClosedError,
    LogError,
    LogPage,
    LogWriteError,
    NewRecord,
    Record,
    Snapshot,
    SnapshotEntry,
)
from circuit_breaker_server.log.heartbeats import Heartbeats
from circuit_breaker_server.log.jetstream.appender import Appender
from circuit_breaker_server.log.jetstream.broker import Broker
from circuit_breaker_server.log.jetstream.credentials import NO_CREDENTIALS, Credentials
from circuit_breaker_server.log.jetstream.envelope import MAX_SUBJECT_BYTES
from circuit_breaker_server.log.jetstream.heartbeats import NatsHeartbeats
from circuit_breaker_server.log.jetstream.kept_records import KeptRecords
from circuit_breaker_server.log.jetstream.reads import Reader
from circuit_breaker_server.log.jetstream.recent import RecentRecords
from circuit_breaker_server.log.jetstream.sizes import BlockSizes
from circuit_breaker_server.log.jetstream.snapshots import Snapshots
from circuit_breaker_server.log.jetstream.stream import Streams, StreamState
from circuit_breaker_server.log.jetstream.tail import Tail
from circuit_breaker_server.log.jetstream.trimming import Trimming
from circuit_breaker_server.log.log_clock import LogClock
from circuit_breaker_server.log.record_validation import validate
from circuit_breaker_server.log.tail_callbacks import TailCallbacks

__all__ = ["JetStreamEventLog"]

_MAX_IN_FLIGHT: Final = 1024
# An election among three brokers was measured at 4.3 to 7.8 s: 8 s was too little.
_WRITE_PATIENCE_SECONDS: Final = 12.0
_READ_PATIENCE_SECONDS: Final = 30.0
_OPEN_SECONDS: Final = 10.0
_UNLIMITED: Final = sys.maxsize


@final
class JetStreamEventLog:
    """An :class:`~circuit_breaker_server.log.event_log.EventLog` in two streams of NATS JetStream.

    Durable means: acknowledged by the stream. With one replica the server has to run with ``sync_interval:
    always``; with three, a record survives the loss of one server, and not a power cut of two at once.
    While the broker is away, appends wait up to 12 seconds and reads up to 30; the tail goes on by itself.

    Example::

        log = await JetStreamEventLog.open("nats://127.0.0.1:4222", name="events", replicas=3)
        record = await log.append(NewRecord(subject="resource.w.r", id=uuid4().hex, data=b"{}", expected=0))
        await log.aclose()
    """

    def __init__(
        self,
        broker: Broker,
        streams: Streams,
        recent: RecentRecords,
        snapshots: Snapshots,
        *,
        write_patience_seconds: float,
        instruments: Instruments | None = None,
    ) -> None:
        """Serve from an open connection; use :meth:`open`."""
        self._broker = broker
        self._streams = streams
        self._recent = recent
        self._snapshots = snapshots
        self._instruments = instruments or Instruments()
        self._reader = Reader(broker, streams, patience_seconds=_READ_PATIENCE_SECONDS)
        self._sizes = BlockSizes(after=recent.last_offset)
        self._kept = KeptRecords(
            self._reader,
            streams,
            recent,
            snapshots,
            self._sizes,
            patience_seconds=_READ_PATIENCE_SECONDS,
            refuse_if_closed=self._refuse_if_closed,
        )
        self._trimming = Trimming(
            broker,
            streams,
            self._reader,
            recent,
            snapshots,
            kept=self._kept,
            patience_seconds=write_patience_seconds,
        )
        self._tail = Tail(
            broker,
            streams,
            after=recent.last_offset,
            deliver=self._deliver,
            fail=self._fail,
            reader=self._reader,
        )
        self._appender = Appender(
            broker,
            streams,
            recent,
            patience_seconds=write_patience_seconds,
            observe_group=self._instruments.group_records.observe,
            stored=self._tail.expect,
        )
        self._clock = LogClock()
        self._tails = TailCallbacks()
        self._slots = asyncio.Semaphore(_MAX_IN_FLIGHT)
        self._closing: asyncio.Task[None] | None = None
        self._failure: LogError | None = None
        self._append_failed = False
        self._on_end: list[Callable[[LogError], object]] = []

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        name: str = "events",
        replicas: int = 1,
        write_patience_seconds: float = _WRITE_PATIENCE_SECONDS,
        open_seconds: float = _OPEN_SECONDS,
        monitoring_url: str | None = None,
        credentials: Credentials = NO_CREDENTIALS,
        makes_streams: bool = True,
        instruments: Instruments | None = None,
    ) -> JetStreamEventLog:
        """Open the log, making its streams where there are none, unless ``makes_streams`` is false.

        ``url`` names one or more servers, separated by commas. ``replicas`` counts for streams that are made
        now: 1, 3 or 5. ``open_seconds`` is how long it is tried to connect.
        ``monitoring_url`` is the monitoring port of a single server (``http://127.0.0.1:8222``): it is asked
        whether the server syncs what it acknowledges.

        :raises LogCorruptError: the streams hold a log that this version cannot read.
        :raises LogError: no server answers, or JetStream or the streams are not set up as the log needs it.
        """
        broker = await Broker.open(url, timeout_seconds=open_seconds, credentials=credentials)
        try:
            streams = Streams(broker, name)
            state = await streams.prepare(
                replicas=replicas, monitoring_url=monitoring_url, makes_streams=makes_streams
            )
            snapshots = Snapshots(broker, streams, patience_seconds=write_patience_seconds)
            await snapshots.open()
            last = await _last_record(broker, streams, snapshots, state)
            recent = RecentRecords(
                first_offset=min(state.first_offset, last + 1),
                last_offset=state.last_offset,
                last_record=last,
            )
            log = cls(
                broker,
                streams,
                recent,
                snapshots,
                write_patience_seconds=write_patience_seconds,
                instruments=instruments,
            )
        except BaseException:
            await broker.aclose()
            raise
        log._tail.start()
        log._appender.start()
        return log

    @property
    def epoch(self) -> str:
        """See the port."""
        return self._streams.epoch

    @property
    def first_offset(self) -> int:
        """See the port."""
        return self._recent.first_offset

    @property
    def last_offset(self) -> int:
        """See the port."""
        return self._recent.last_record

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to the broker now."""
        return self._broker.is_connected

    @property
    def append_failed(self) -> bool:
        """See :class:`~circuit_breaker_server.log.event_log.ServingLog`."""
        return self._append_failed

    def now(self) -> datetime:
        """See :class:`~circuit_breaker_server.log.event_log.ServingLog`: the brokers' clock counts."""
        return self._clock()

    @property
    def heartbeats(self) -> Heartbeats:
        """See :class:`~circuit_breaker_server.log.event_log.ServingLog`."""
        return NatsHeartbeats(self._broker, self._streams.name)

    @property
    def outage(self) -> str | None:
        """See :class:`~circuit_breaker_server.log.event_log.ServingLog`."""
        if not self._broker.is_connected:
            return "the event log's broker is away"
        if not self._tail.is_following:
            return "the event log's broker does not answer: its stream has no leader, or its network is slow"
        return None

    async def try_write(self) -> bool:
        """See :class:`~circuit_breaker_server.log.event_log.ServingLog`."""
        if self._failure is not None or self._closing is not None or self.outage is not None:
            return False
        if await self._snapshots.try_write():
            self._append_failed = False
        return not self._append_failed

    def on_end(self, callback: Callable[[LogError], object]) -> None:
        """See :class:`~circuit_breaker_server.log.event_log.ServingLog`."""
        self._on_end.append(callback)

    async def append(self, record: NewRecord) -> Record:
        """See the port.

        An id is recognised as long as its record is kept where it comes again with its subject and its
        expectation. Where these differ, or there was no expectation, the newest 65,536 ids are recognised,
        and those of the last two minutes.

        :raises LogError: the stream has lost records that this process has seen, or trimmed some before: the
            server has to start again.
        :raises AppendOutcomeUnknown: the broker went away after the record was sent, and did not come back
            in time; a ``LogWriteError`` otherwise means that the record is not in the log.
        """
        validate(record)
        if len(record.subject.encode()) > MAX_SUBJECT_BYTES:
            raise ValueError(f"a subject has {MAX_SUBJECT_BYTES} bytes at most on NATS")
        self._refuse_if_closed()
        began = time.perf_counter()
        await self._slots.acquire()
        try:
            known = self._recent.offset_of_id(record.id)
            if known is not None:
                there = await self._reader.record_at(known)
                if there is not None and there.id == record.id:
                    return there
            appended = await self._appender.append(record)
        except LogWriteError:
            self._instruments.append_failures += 1
            self._append_failed = True
            raise
        finally:
            self._slots.release()
        self._append_failed = False
        self._instruments.append_seconds.observe(time.perf_counter() - began)
        return appended

    def _fail(self, error: LogError) -> None:
        self._failure = error
        self._appender.fail(error)
        for callback in self._on_end:
            callback(error)

    def _deliver(self, records: Sequence[Record], last_offset: int) -> None:
        self._recent.add(records, last_offset)
        self._sizes.add(records)
        if records:
            self._clock.follow(records)
            self._tails.call(records)
        self._appender.delivered(records)
        self._recent.wake()

    async def read(
        self,
        *,
        after: int,
        subjects: Sequence[str] = (">",),
        limit: int = 1000,
    ) -> list[Record]:
        """See the port."""
        page = await self.read_page(after=after, subjects=subjects, limit=limit, max_bytes=_UNLIMITED)
        return list(page.records)

    async def read_page(
        self, *, after: int, subjects: Sequence[str] = (">",), limit: int, max_bytes: int
    ) -> LogPage:
        """See the port."""
        self._refuse_if_closed()
        return await self._kept.read_page(subjects, after=after, limit=limit, max_bytes=max_bytes)

    def scan(self, *, after: int, upto: int | None = None) -> AsyncIterator[Record]:
        """See the port."""
        return self._kept.scan(after=after, upto=upto)

    async def reaches(self, offset: int) -> bool:
        """See the port."""
        return await self._kept.reaches(offset)

    async def check(self, offset: int) -> str | None:
        """See the port."""
        self._refuse_if_closed()
        return await self._kept.check(offset)

    async def last_removed(self) -> Record | None:
        """See the port."""
        self._refuse_if_closed()
        return await self._snapshots.last_removed()

    async def size_bytes(self, *, after: int, upto: int) -> int:
        """See the port. What was never counted is read once."""
        self._refuse_if_closed()
        return await self._kept.size_bytes(after=after, upto=upto)

    def tail(self, callback: Callable[[Sequence[Record]], None]) -> Callable[[], None]:
        """See the port."""
        return self._tails.add(callback)

    async def trim(self, before: int) -> int:
        """See the port."""
        self._refuse_if_closed()
        return await self._trimming.trim(before)

    async def save_snapshot(self, offset: int, changed: Sequence[SnapshotEntry]) -> None:
        """See the port."""
        self._refuse_if_closed()
        if offset > self._recent.last_record:
            raise ValueError(f"the log ends at {self._recent.last_record}: no snapshot at {offset}")
        if any("\x00" in entry.key for entry in changed):
            raise ValueError("a key of the snapshot has no NUL characters")
        await self._snapshots.save(offset, changed)

    async def load_snapshot(self) -> Snapshot:
        """See the port."""
        self._refuse_if_closed()
        return await self._snapshots.load()

    async def aclose(self) -> None:
        """See the port."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        # Slots are given in order: with all of them here, every append before this has been answered.
        for _ in range(_MAX_IN_FLIGHT):
            await self._slots.acquire()
        await self._appender.finish()
        await self._appender.aclose()
        await self._tail.aclose()
        await self._broker.aclose()

    def _refuse_if_closed(self) -> None:
        if self._closing is not None:
            raise LogClosedError("the event log is closed")
        if self._failure is not None:
            raise type(self._failure)(str(self._failure)) from self._failure


async def _last_record(broker: Broker, streams: Streams, snapshots: Snapshots, state: StreamState) -> int:
    """Return the offset of the last record, kept or removed; messages behind it are foreign or deleted."""
    reader = Reader(broker, streams, patience_seconds=_READ_PATIENCE_SECONDS)
    last = await reader.last_before(state.last_offset + 1, first=state.first_offset)
    if last is None:
        last = await snapshots.last_removed()
    return 0 if last is None else last.offset
