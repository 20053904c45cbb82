"""Copy an event log from one place to another, with its offsets, ids, times and epoch.

Cursors that clients hold stay valid. A copy that was cut off is gone on with where it ended, and nothing
serves it before it is whole and was read back.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol, final

import msgspec

from circuit_breaker_server.log.contents import LogContents, contents_of
from circuit_breaker_server.log.event_log import EventLog, LogError, Record, Snapshot
from circuit_breaker_server.log.heartbeats import Heartbeats
from circuit_breaker_server.log.reader import Reader, Selector, open_reader
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.log.sqlite_copy import SqliteCopy
from circuit_breaker_server.settings.cluster import ClusterSettings

__all__ = [
    "Copied",
    "CopyTarget",
    "LogPlace",
    "LogRecords",
    "copy_log",
    "copy_records",
    "opened_heartbeats",
    "opened_log",
    "read_log",
]

_GROUP: Final = 1000
_GROUP_BYTES: Final = 8 * 1024 * 1024


class CopyTarget(Protocol):
    """A log that is being copied; it is not served yet."""

    @property
    def last_offset(self) -> int:
        """The offset up to which it is copied."""
        ...

    async def put(self, records: Sequence[Record]) -> None:
        """Append records as they are."""
        ...

    async def complete(self, last_offset: int) -> LogContents:
        """End the records at an offset, and read them back."""
        ...

    async def finish(self, snapshot: Snapshot, removed: Record | None) -> None:
        """Put the snapshot beside the records, and let the log be served."""
        ...


@final
class LogPlace(msgspec.Struct, frozen=True):
    """A data directory, or streams on brokers.

    :ivar directory: ``None`` for streams.
    :ivar cluster: the brokers; without URLs for a directory.
    """

    directory: Path | None
    cluster: ClusterSettings

    def __str__(self) -> str:
        if self.directory is not None:
            return str(self.directory)
        return f"{','.join(self.cluster.urls)}, stream {self.cluster.stream}"


@final
class LogRecords(NamedTuple):
    """A log that is read from its first kept record to the last one that it had when that began."""

    epoch: str
    first_offset: int
    records: AsyncIterator[Record]


@final
class Copied(msgspec.Struct, frozen=True):
    """A copy that was made.

    :ivar snapshot_offset: the offset of the snapshot that was copied too; 0 for none.
    """

    contents: LogContents
    snapshot_offset: int


async def copy_log(source: LogPlace, target: LogPlace) -> Copied:
    """Copy a log to a place that has none.

    :raises LogError: a directory is in use, the target has a log, or a log cannot be read or written.
    """
    async with opened_log(source) as log, _target(target, log) as copy:
        return await copy_records(log, copy, where=str(target))


async def copy_records(log: EventLog, target: CopyTarget, *, where: str) -> Copied:
    """Copy what is missing in the target, compare both, and finish the target.

    :raises LogError: the copy differs, the source was written meanwhile, or one cannot be read or written.
    """
    last_offset = log.last_offset
    group: list[Record] = []
    size = 0
    async for record in log.scan(after=max(target.last_offset, log.first_offset - 1), upto=last_offset):
        group.append(record)
        size += len(record.data)
        if len(group) >= _GROUP or size >= _GROUP_BYTES:
            await target.put(group)
            group, size = [], 0
    if group:
        await target.put(group)
    copied, wanted = await target.complete(last_offset), await contents_of(log)
    if log.last_offset != last_offset:
        raise LogError("the log was written while it was copied; stop its server and run the copy again")
    if (copied.epoch, copied.records, copied.digest) != (wanted.epoch, wanted.records, wanted.digest):
        raise LogError(
            f"{where}: the copy has {copied.records} records and the digest {copied.digest[:16]}, the log "
            f"{wanted.records} and {wanted.digest[:16]}; remove what was copied and begin again"
        )
    snapshot = await log.load_snapshot()
    await target.finish(snapshot, await log.last_removed())
    return Copied(wanted, snapshot.offset)


@contextlib.asynccontextmanager
async def read_log(place: LogPlace) -> AsyncIterator[LogRecords]:
    """Read the log of a place for the block, also while a server uses it.

    :raises LogError: there is none, it cannot be read, or the brokers cannot be used.
    """
    if place.directory is None:
        async with opened_log(place) as log:
            yield LogRecords(log.epoch, log.first_offset, log.scan(after=0, upto=log.last_offset))
        return
    path = _database(place.directory)
    reader = open_reader(path)
    try:
        epoch, first, last = reader.bounds()
        yield LogRecords(epoch, first, _records(reader, last))
    finally:
        reader.close()


async def _records(reader: Reader, last: int) -> AsyncIterator[Record]:
    everything, after = Selector((">",)), 0
    while after < last:
        (found, after), _ = reader.batch(everything, after=after, upto=last, limit=_GROUP)
        for record in found:
            yield record


def _database(directory: Path) -> Path:
    path = directory / "events.db"
    if not path.exists():
        raise LogError(f"{directory}: has no event log; name a server's data directory")
    return path


@contextlib.asynccontextmanager
async def opened_log(place: LogPlace) -> AsyncIterator[EventLog]:
    """Open the log of a place for the block; none is made.

    :raises LogError: there is none, a directory is in use, or the brokers cannot be used.
    """
    log: EventLog
    if place.directory is not None:
        _database(place.directory)
        log = await SqliteEventLog.open(place.directory)
    else:
        # Here, not above: it needs the extra cluster.
        from circuit_breaker_server.log.jetstream import (  # noqa: PLC0415 (see the line above)
            JetStreamEventLog,
            read_credentials,
        )

        log = await JetStreamEventLog.open(
            ",".join(place.cluster.urls),
            name=place.cluster.stream,
            open_seconds=place.cluster.connect_seconds,
            monitoring_url=place.cluster.monitoring_url,
            credentials=read_credentials(place.cluster),
            makes_streams=False,
        )
    try:
        yield log
    finally:
        await log.aclose()


@contextlib.asynccontextmanager
async def opened_heartbeats(cluster: ClusterSettings) -> AsyncIterator[Heartbeats]:
    """Connect to the heartbeats of the nodes that serve a log on brokers; there need not be a log.

    :raises LogError: the brokers cannot be used.
    """
    # Here, not above: it needs the extra cluster.
    from circuit_breaker_server.log.jetstream import read_credentials  # noqa: PLC0415 (see the line above)
    from circuit_breaker_server.log.jetstream.broker import Broker  # noqa: PLC0415 (as above)
    from circuit_breaker_server.log.jetstream.heartbeats import NatsHeartbeats  # noqa: PLC0415 (as above)

    broker = await Broker.open(
        ",".join(cluster.urls), timeout_seconds=cluster.connect_seconds, credentials=read_credentials(cluster)
    )
    try:
        yield NatsHeartbeats(broker, cluster.stream)
    finally:
        await broker.aclose()


@contextlib.asynccontextmanager
async def _target(place: LogPlace, log: EventLog) -> AsyncIterator[CopyTarget]:
    if place.directory is not None:
        in_file = SqliteCopy(place.directory, epoch=log.epoch, first_offset=log.first_offset)
        try:
            yield in_file
        finally:
            await in_file.aclose()
        return
    # Here, not above: it needs the extra cluster.
    from circuit_breaker_server.log.jetstream import (  # noqa: PLC0415 (see the line above)
        JetStreamCopy,
        read_credentials,
    )

    in_streams = await JetStreamCopy.open(
        ",".join(place.cluster.urls),
        name=place.cluster.stream,
        epoch=log.epoch,
        first_offset=log.first_offset,
        replicas=place.cluster.replicas,
        open_seconds=place.cluster.connect_seconds,
        credentials=read_credentials(place.cluster),
    )
    try:
        yield in_streams
    finally:
        await in_streams.aclose()
