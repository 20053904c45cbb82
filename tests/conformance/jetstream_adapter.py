"""A throwaway event log on NATS JetStream: it exists to show that the port suits a second implementation.

What it taught, and the port now says:

- The server compares the expected sequence *before* it looks at the message id: a repeated append answers as
  a conflict. Who meets a conflict first asks whether the id is in the log already.
- Purging resets a subject's expected sequence to 0. Hence the port's rule that a subject without records
  takes any expected offset below ``first_offset``: it becomes a 0 here without a look at the subject.
- An id is remembered for the stream's duplicate window, trimmed or not, and not beyond it. A trimmed id is
  answered with the sequence of a record that is gone.
- An acknowledgement precedes the disk unless the *server* is set up with ``sync_interval: always``; no client
  can ask for it. The test's server is; a real adapter would have to be told.
- A publish is one record: grouping is the server's affair, and a tail's group has one record here.
- What is acknowledged has not passed through the tail yet: an append waits for its own record to arrive,
  which keeps "the tails saw it" true for reads as well.
- A lost acknowledgement leaves the outcome open; asking again with the same id settles it.
- Snapshot entries and their offset are one message: there is no transaction over several keys. A real adapter
  would split big ones with the server's atomic batches, which nats-py 2.16 can configure but not publish.
- Reading goes message by message with ``next_by_subj``, one request a record: correct for any patterns (the
  filters of a consumer must not overlap) and slow. A real adapter would use consumers or batched direct gets.
- An ordered consumer of nats-py 2.16 leaves two tasks behind when its connection closes. A plain one does
  not; it is enough here, where a lost connection is not made again.
- ``first_offset`` is what this process knows: it does not hear of another one's trimming until it reopens.

It keeps every id in memory, which a real adapter could not afford.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import final

import msgspec
import nats
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RawStreamMsg, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from circuit_breaker_server.log.event_log import (
    ExpectationFailed,
    LogClosedError,
    LogPage,
    LogWriteError,
    NewRecord,
    Record,
    Snapshot,
    SnapshotEntry,
    matches,
    validate,
)

__all__ = ["JetStreamEventLog"]

_WRONG_LAST_SEQUENCE = 10071
_MAX_IN_FLIGHT = 256
_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)

_SavedSnapshot = tuple[int, list[SnapshotEntry]]
_saved_snapshots = msgspec.msgpack.Decoder(_SavedSnapshot)


@final
class JetStreamEventLog:
    """An event log in two streams, ``NAME`` for the records and ``NAME-state`` for what is beside them."""

    def __init__(self, client: NatsClient, name: str) -> None:
        """Serve from an open connection; use :meth:`open`."""
        self._client = client
        self._stream: JetStreamContext = client.jetstream()
        self._name = name
        self._epoch = ""
        self._first_offset = 1
        self._last_offset = 0
        self._removed: Record | None = None
        self._snapshot = Snapshot(offset=0, entries={})
        self._ids: dict[str, int] = {}
        self._tails: list[Callable[[Sequence[Record]], None]] = []
        self._slots = asyncio.Semaphore(_MAX_IN_FLIGHT)
        self._arrived = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str, name: str) -> JetStreamEventLog:
        """Open the log, making its streams where there are none."""
        log = cls(await nats.connect(url, allow_reconnect=False), name)
        await log._prepare()
        return log

    async def _prepare(self) -> None:
        try:
            info = await self._stream.stream_info(self._name)
        except NotFoundError:
            await self._stream.add_stream(
                StreamConfig(name=f"{self._name}-state", subjects=[f"{self._name}-state.>"])
            )
            info = await self._stream.add_stream(
                StreamConfig(
                    name=self._name,
                    subjects=[f"{self._name}.>"],
                    storage=StorageType.FILE,
                    allow_direct=True,
                    duplicate_window=24 * 3600.0,
                    metadata={"epoch": secrets.token_hex(8)},
                )
            )
        self._epoch = (info.config.metadata or {})["epoch"]
        self._last_offset = info.state.last_seq
        self._first_offset = max(1, info.state.first_seq)
        await self._load_state()
        async for record in self.scan(after=0):
            self._ids[record.id] = record.offset
        start = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self._last_offset + 1,
            ack_policy=AckPolicy.NONE,
        )
        await self._stream.subscribe(f"{self._name}.>", config=start, cb=self._on_message, manual_ack=True)

    async def _load_state(self) -> None:
        entries: dict[str, bytes] = {}
        offset, sequence = 0, 1
        while (message := await self._next(f"{self._name}-state", "snapshot", sequence)) is not None:
            offset, changed = _saved_snapshots.decode(message.data or b"")
            _fold(entries, changed)
            sequence = _sequence(message) + 1
        self._snapshot = Snapshot(offset=offset, entries=entries)
        sequence = 1
        while (message := await self._next(f"{self._name}-state", "trimmed", sequence)) is not None:
            self._removed = msgspec.msgpack.decode(message.data or b"", type=Record)
            sequence = _sequence(message) + 1

    async def _next(self, stream: str, pattern: str, sequence: int) -> RawStreamMsg | None:
        """Return the first message at ``sequence`` or later whose subject fits, if there is one."""
        try:
            return await self._stream.get_msg(stream, seq=sequence, subject=f"{stream}.{pattern}", next=True)
        except NotFoundError:
            return None

    @property
    def epoch(self) -> str:
        return self._epoch

    @property
    def first_offset(self) -> int:
        return self._first_offset

    @property
    def last_offset(self) -> int:
        return self._last_offset

    async def append(self, record: NewRecord) -> Record:
        validate(record)
        self._refuse_if_closed()
        await self._slots.acquire()
        try:
            return await self._append(record)
        finally:
            self._slots.release()

    async def _append(self, record: NewRecord) -> Record:
        if (known := self._ids.get(record.id)) is not None:
            return await self._record_at(known)
        headers = {"Nats-Msg-Id": record.id}
        if record.expected is not None:
            expected = record.expected if record.expected >= self._first_offset else 0
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        for _ in range(3):
            try:
                answer = await self._stream.publish(
                    f"{self._name}.{record.subject}", record.data, headers=headers
                )
            except NatsTimeoutError:
                continue
            except APIError as error:
                if error.err_code == _WRONG_LAST_SEQUENCE:
                    return await self._after_conflict(record)
                raise LogWriteError(f"{self._name}: cannot append: {error}") from error
            await self._until(answer.seq)
            return await self._record_at(answer.seq)
        raise LogWriteError(f"{self._name}: cannot append: the server does not answer")

    async def _after_conflict(self, record: NewRecord) -> Record:
        try:
            last = await self._stream.get_last_msg(self._name, f"{self._name}.{record.subject}")
            actual = _sequence(last)
        except NotFoundError:
            actual = 0
        await self._until(actual)
        if (known := self._ids.get(record.id)) is not None:
            return await self._record_at(known)
        raise ExpectationFailed(record.subject, expected=record.expected or 0, actual=actual)

    async def _until(self, offset: int) -> None:
        while self._last_offset < offset:
            self._arrived.clear()
            await self._arrived.wait()

    async def _on_message(self, message: Msg) -> None:
        # The last tokens of an acknowledgement's subject: stream sequence, consumer sequence, time, pending.
        *_, offset, _, time_ns, _ = message.reply.split(".")
        record = Record(
            offset=int(offset),
            subject=message.subject.removeprefix(f"{self._name}."),
            id=(message.headers or {})["Nats-Msg-Id"],
            time_ms=int(time_ns) // 1_000_000,
            data=message.data,
        )
        self._ids[record.id] = record.offset
        self._last_offset = record.offset
        for tail in tuple(self._tails):
            try:
                tail((record,))
            except Exception as error:  # noqa: BLE001 -- one tail must not starve the others or the appends
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a tail of the event log raised", "exception": error}
                )
        self._arrived.set()

    async def _record_at(self, offset: int) -> Record:
        return self._record(await self._stream.get_msg(self._name, seq=offset, direct=True))

    def _record(self, message: RawStreamMsg) -> Record:
        time = message.time or _EPOCH_START
        return Record(
            offset=_sequence(message),
            subject=(message.subject or "").removeprefix(f"{self._name}."),
            id=(message.headers or {})["Nats-Msg-Id"],
            time_ms=(time - _EPOCH_START) // timedelta(milliseconds=1),
            data=message.data or b"",
        )

    async def read(
        self,
        *,
        after: int,
        subjects: Sequence[str] = (">",),
        limit: int = 1000,
    ) -> list[Record]:
        return list((await self.read_page(after=after, subjects=subjects, limit=limit)).records)

    async def read_page(
        self, *, after: int, subjects: Sequence[str] = (">",), limit: int, max_bytes: int = 1 << 40
    ) -> LogPage:
        self._refuse_if_closed()
        last, found, size = self._last_offset, list[Record](), 0
        while after < last and len(found) < limit and size < max_bytes:
            ahead = [await self._next(self._name, pattern, max(1, after + 1)) for pattern in subjects]
            messages = sorted((m for m in ahead if m is not None), key=_sequence)
            if not messages or _sequence(messages[0]) > last:
                after = last
                break
            found.append(self._record(messages[0]))
            assert any(matches(pattern, found[-1].subject) for pattern in subjects)
            after = found[-1].offset
            size += len(found[-1].data)
        return LogPage(found, after)

    async def scan(self, *, after: int, upto: int | None = None) -> AsyncIterator[Record]:
        last = self._last_offset if upto is None else min(upto, self._last_offset)
        while page := await self.read(after=after, limit=100):
            for record in page:
                if record.offset > last:
                    return
                yield record
            after = page[-1].offset

    async def check(self, offset: int) -> str | None:
        self._refuse_if_closed()
        if offset > self._last_offset:
            return None
        if self._removed is None and offset == 0:
            return "00000000"
        if self._removed is not None and offset == self._removed.offset:
            return self._removed.check
        try:
            return (await self._record_at(offset)).check if offset > 0 else None
        except NotFoundError:
            return None

    async def last_removed(self) -> Record | None:
        self._refuse_if_closed()
        return self._removed

    async def size_bytes(self, *, after: int, upto: int) -> int:
        return sum([len(msgspec.msgpack.encode(r)) async for r in self.scan(after=after, upto=upto)])

    def tail(self, callback: Callable[[Sequence[Record]], None]) -> Callable[[], None]:
        self._tails.append(callback)

        def end() -> None:
            if callback in self._tails:
                self._tails.remove(callback)

        return end

    async def trim(self, before: int) -> int:
        self._refuse_if_closed()
        if before > self._snapshot.offset + 1:
            raise ValueError(f"the snapshot covers {self._snapshot.offset}: {before} would trim above it")
        if before <= self._first_offset:
            return 0
        gone = [record async for record in self.scan(after=0, upto=before - 1)]
        # Remembered first: a crash in between leaves records too many, not a cursor nobody can check.
        await self._save_state("trimmed", msgspec.msgpack.encode(gone[-1]))
        self._removed, self._first_offset = gone[-1], before
        await self._stream.purge_stream(self._name, seq=before)
        self._first_offset = (await self._stream.stream_info(self._name)).state.first_seq
        return len(gone)

    async def save_snapshot(self, offset: int, changed: Sequence[SnapshotEntry]) -> None:
        self._refuse_if_closed()
        if not self._snapshot.offset <= offset <= self._last_offset:
            raise ValueError(
                f"no snapshot at {offset}: it is at {self._snapshot.offset}, the log at {self._last_offset}"
            )
        if any("\x00" in entry.key for entry in changed):
            raise ValueError("a key of the snapshot has no NUL characters")
        await self._save_state("snapshot", msgspec.msgpack.encode((offset, list(changed))))
        entries = dict(self._snapshot.entries)
        _fold(entries, changed)
        self._snapshot = Snapshot(offset=offset, entries=entries)

    async def _save_state(self, kind: str, body: bytes) -> None:
        try:
            await self._stream.publish(f"{self._name}-state.{kind}", body)
        except (APIError, NatsTimeoutError) as error:
            raise LogWriteError(f"{self._name}: cannot save the {kind} state: {error}") from error

    async def load_snapshot(self) -> Snapshot:
        self._refuse_if_closed()
        return self._snapshot

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for _ in range(_MAX_IN_FLIGHT):
            await self._slots.acquire()
        await self._client.close()

    def _refuse_if_closed(self) -> None:
        if self._closing is not None:
            raise LogClosedError("the event log is closed")


def _fold(entries: dict[str, bytes], changed: Sequence[SnapshotEntry]) -> None:
    for entry in changed:
        if entry.data is None:
            entries.pop(entry.key, None)
        else:
            entries[entry.key] = entry.data


def _sequence(message: RawStreamMsg) -> int:
    assert message.seq is not None
    return message.seq
