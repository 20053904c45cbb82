"""A log is copied to a broker and back, with what cursors depend on; a copy that was cut off goes on."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import final

import pytest

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.events import ActivityInput, StateInput
from circuit_breaker_server import ClusterSettings, Server, ServerSettings
from circuit_breaker_server.log.contents import LogContents, contents_of
from circuit_breaker_server.log.copying import LogPlace, copy_log, copy_records
from circuit_breaker_server.log.event_log import EventLog, LogError, NewRecord, Record, SnapshotEntry
from circuit_breaker_server.log.jetstream import JetStreamCopy, JetStreamEventLog
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.log.sqlite_copy import SqliteCopy
from tests.conformance.nats_server import NatsServer
from tests.server.log.jetstream.log_stage import api, connected

RECORDS, TRIMMED = 2_000, 300


@pytest.fixture(name="broker", scope="module")
def _broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("nats")).running() as broker:
        yield broker


def streams(broker: NatsServer) -> LogPlace:
    return LogPlace(None, ClusterSettings(urls=(broker.url,), stream=f"s{uuid.uuid4().hex[:8]}"))


def directory(path: Path) -> LogPlace:
    return LogPlace(path, ClusterSettings())


async def opened(place: LogPlace) -> EventLog:
    if place.directory is not None:
        return await SqliteEventLog.open(place.directory)
    return await JetStreamEventLog.open(place.cluster.urls[0], name=place.cluster.stream)


async def fill(place: LogPlace, count: int = RECORDS, *, trimmed: int = TRIMMED) -> None:
    """Make a log with records, a snapshot, and some of its records trimmed."""
    log = await opened(place)
    await asyncio.gather(
        *(
            log.append(
                NewRecord(subject=f"resource.w.r{i % 7}", id=uuid.uuid4().hex, data=b"%d" % i * (i % 50))
            )
            for i in range(count)
        )
    )
    if trimmed:
        entries = [SnapshotEntry(key=f"workflow/{i}", data=b"%d" % i) for i in range(100)]
        await log.save_snapshot(count // 2, entries)
        await log.trim(trimmed + 1)
    await log.aclose()


async def looked_at(place: LogPlace) -> tuple[object, ...]:
    """Return all of a log that a cursor or a start depends on."""
    log = await opened(place)
    try:
        offsets = (0, TRIMMED - 1, TRIMMED, TRIMMED + 1, log.last_offset, log.last_offset + 1)
        return (
            await contents_of(log),
            log.first_offset,
            log.last_offset,
            [await log.check(offset) for offset in offsets],
            await log.last_removed(),
            await log.load_snapshot(),
            [record async for record in log.scan(after=0)],
        )
    finally:
        await log.aclose()


async def test_a_log_is_the_same_on_a_broker_and_back_in_a_directory(
    tmp_path: Path, broker: NatsServer
) -> None:
    first, there, back = directory(tmp_path / "a"), streams(broker), directory(tmp_path / "b")
    await fill(first)
    original = await looked_at(first)
    copied = await copy_log(first, there)
    assert copied.contents == original[0]
    assert (copied.contents.records, copied.snapshot_offset) == (RECORDS - TRIMMED, RECORDS // 2)
    assert await looked_at(there) == original
    again = await copy_log(there, back)
    assert again == copied
    assert await looked_at(back) == original
    log = await opened(there)
    record = await log.append(
        NewRecord(subject="resource.w.r0", id=uuid.uuid4().hex, data=b"", expected=None)
    )
    assert record.offset == RECORDS + 1
    await log.aclose()


async def test_an_empty_log_and_one_whose_records_are_all_trimmed_are_copied(
    tmp_path: Path, broker: NatsServer
) -> None:
    for name, count in (("empty", 0), ("trimmed", 5)):
        first, there = directory(tmp_path / name), streams(broker)
        log = await opened(first)
        for i in range(count):
            await log.append(NewRecord(subject="a", id=uuid.uuid4().hex, data=b"%d" % i))
        await log.save_snapshot(count, [])
        await log.trim(count + 1)
        await log.aclose()
        original = await looked_at(first)
        await copy_log(first, there)
        assert await looked_at(there) == original
        await copy_log(there, directory(tmp_path / f"{name}-back"))
        assert await looked_at(directory(tmp_path / f"{name}-back")) == original


async def test_holes_are_copied_as_holes(tmp_path: Path, broker: NatsServer) -> None:
    first, back, there = streams(broker), directory(tmp_path / "a"), streams(broker)
    await fill(first, 20, trimmed=0)
    async with connected(broker.url) as client:
        for offset in (5, 6, 11):
            await api(client, f"STREAM.MSG.DELETE.{first.cluster.stream}", {"seq": offset})
    original = await looked_at(first)
    await copy_log(first, back)
    assert await looked_at(back) == original
    await copy_log(back, there)
    assert await looked_at(there) == original


@final
class CutOff:
    """A target whose copy ends half-way, as with a crash; ``end`` is where."""

    def __init__(self, target: SqliteCopy | JetStreamCopy, end: int) -> None:
        self._target = target
        self._end = end

    @property
    def last_offset(self) -> int:
        return self._target.last_offset

    async def put(self, records: Sequence[Record]) -> None:
        await self._target.put([record for record in records if record.offset <= self._end])
        raise ConnectionResetError

    async def complete(self, last_offset: int) -> LogContents:
        raise AssertionError(last_offset)

    async def finish(self, *_given: object) -> None:
        raise AssertionError


@contextlib.asynccontextmanager
async def target_of(place: LogPlace, log: EventLog) -> AsyncIterator[SqliteCopy | JetStreamCopy]:
    target: SqliteCopy | JetStreamCopy
    if place.directory is not None:
        target = SqliteCopy(place.directory, epoch=log.epoch, first_offset=log.first_offset)
    else:
        url, name = place.cluster.urls[0], place.cluster.stream
        target = await JetStreamCopy.open(url, name=name, epoch=log.epoch, first_offset=log.first_offset)
    try:
        yield target
    finally:
        await target.aclose()


@pytest.mark.parametrize("to_broker", [True, False])
async def test_a_copy_that_was_cut_off_is_not_served_and_goes_on(
    tmp_path: Path, broker: NatsServer, *, to_broker: bool
) -> None:
    first, other = directory(tmp_path / "a"), directory(tmp_path / "other")
    target = streams(broker) if to_broker else directory(tmp_path / "b")
    await fill(first)
    await fill(other, 3, trimmed=0)
    log = await opened(first)
    async with target_of(target, log) as copy:
        with pytest.raises(ConnectionResetError):
            await copy_records(log, CutOff(copy, TRIMMED + 450), where="there")
    await log.aclose()
    if to_broker:
        with pytest.raises(LogError, match="a copy into it is not finished"):
            await opened(target)
    else:
        assert not (tmp_path / "b" / "events.db").exists()
    with pytest.raises(LogError, match=r"copy of (another|this) log"):
        await copy_log(other, target)
    await copy_log(first, target)
    assert await looked_at(target) == await looked_at(first)


async def test_a_directory_in_use_and_a_log_that_is_there_are_refused(
    tmp_path: Path, broker: NatsServer
) -> None:
    first, second, there = directory(tmp_path / "a"), directory(tmp_path / "b"), streams(broker)
    await fill(first, 3, trimmed=0)
    await fill(second, 3, trimmed=0)
    with pytest.raises(LogError, match="has an event log already"):
        await copy_log(first, second)
    log = await opened(first)
    with pytest.raises(LogError, match="in use by another process"):
        await copy_log(first, there)
    await log.aclose()
    with pytest.raises(LogError, match="has no event log"):
        await copy_log(directory(tmp_path / "none"), there)
    with pytest.raises(LogError, match="has no stream"):
        await copy_log(there, directory(tmp_path / "c"))
    log = await opened(there)  # an empty log is replaced
    await log.aclose()
    await copy_log(first, there)
    with pytest.raises(LogError, match="is not empty"):
        await copy_log(second, there)
    with pytest.raises(LogError, match="is not empty"):
        await copy_log(first, there)


async def test_a_source_that_is_written_meanwhile_is_not_taken_for_copied(
    tmp_path: Path, broker: NatsServer
) -> None:
    first = streams(broker)
    await fill(first, 30, trimmed=0)
    log = await opened(first)
    async with target_of(directory(tmp_path / "b"), log) as copy:
        put = copy.put

        async def write_and_put(records: Sequence[Record]) -> None:
            await log.append(NewRecord(subject="a", id=uuid.uuid4().hex, data=b""))
            await put(records)

        copy.put = write_and_put  # type: ignore[method-assign]
        with pytest.raises(LogError, match="was written while it was copied"):
            await copy_records(log, copy, where="there")
    await log.aclose()
    await copy_log(first, directory(tmp_path / "b"))
    assert await looked_at(directory(tmp_path / "b")) == await looked_at(first)


async def test_a_client_resumes_on_the_copy_with_its_cursor(tmp_path: Path, broker: NatsServer) -> None:
    there = streams(broker)

    def server(data: str, cluster: ClusterSettings) -> Server:
        settings = ServerSettings(
            data_dir=tmp_path / data, port=0, log_level="critical", snapshot_every=3, cluster=cluster
        )
        return Server(settings)

    async with server("a", ClusterSettings()) as first, Client(first.url) as client:
        workflow = await client.workflows.create_workflow(
            name="w",
            initial_state="a",
            states=[StateInput(id="a", name="A")],
            activities=[ActivityInput(id="go", from_states=["a"], to_state="a")],
        )
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow.id).subscribe()
        made = [(await client.workflows.create_resource(workflow_id=workflow.id)).id for _ in range(4)]
        assert [(await anext(updates)).id for _ in range(2)] == made[:2]
        cursor = str(updates.cursor)  # behind the first one: the second one is being handled
    await copy_log(directory(tmp_path / "a"), there)
    for data, cluster in (("a", there.cluster), ("b", ClusterSettings())):
        if data == "b":
            await copy_log(there, directory(tmp_path / "b"))
        async with server(data, cluster) as moved, Client(moved.url) as client:
            updates_of = client.workflows.subscribe_resource_updates
            late = await updates_of(workflow_id=workflow.id).after(cursor).subscribe()
            assert late.continuity.value == "ok"
            made.append((await client.workflows.create_resource(workflow_id=workflow.id)).id)
            assert [(await anext(late)).id for _ in made[1:]] == made[1:]
