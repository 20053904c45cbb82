"""Retention, on real files: what goes by age, size and number; what stays; and that a failure is survived."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import structlog.testing

from circuit_breaker_server import logs
from circuit_breaker_server.engine import retention as module
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.retention import Limits, Retention
from circuit_breaker_server.log.event_log import LogWriteError, NewRecord, Record, SnapshotEntry
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.worlds import (
    clock,
    create_resource,
    create_workflow,
    engine_in,
    everything,
    execute,
    part,
    running_engine,
)
from tests.waiting import until


class World:
    """A log, and a retention that saves an empty state."""

    def __init__(self, log: SqliteEventLog) -> None:
        self.log = log
        self.calls: list[str] = []
        self.is_full = False

    def retention(
        self, limits: Limits, *, now_seconds: float = 0.0, every_seconds: float = 60.0
    ) -> Retention:
        return Retention(
            self.log,
            limits,
            self._make_durable,
            lambda: self.calls.append("before trim"),
            every_seconds=every_seconds,
            now=lambda: now_seconds,
        )

    async def _make_durable(self, offset: int) -> None:
        self.calls.append(f"save {offset}")
        if self.is_full:
            raise LogWriteError("events.db: no space left")
        await self.log.save_snapshot(self.log.last_offset, [])

    async def fill(self, count: int, *, size_bytes: int = 2) -> list[Record]:
        new = [NewRecord(subject="a", id=uuid.uuid4().hex, data=b"x" * size_bytes) for _ in range(count)]
        return list(await asyncio.gather(*map(self.log.append, new)))


@contextlib.asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    log = await SqliteEventLog.open(directory)
    try:
        yield World(log)
    finally:
        await log.aclose()


async def test_the_oldest_go_where_there_are_too_many(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        records = await here.fill(20)
        retention = here.retention(Limits(records=5))
        assert await retention.look() == 15
        assert await here.log.read(after=0) == records[15:]
        assert here.calls == ["save 15", "before trim"]
        assert await retention.look() == 0
        assert len(here.calls) == 2, "nothing goes: nothing is saved"


async def test_what_came_since_the_look_before_stays(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.fill(3)
        retention = here.retention(Limits(records=1))
        await here.fill(4)
        assert await retention.look() == 3
        assert here.log.first_offset == 4
        await here.fill(2)
        assert await retention.look() == 4
        assert await retention.look() == 1
        assert here.log.first_offset == here.log.last_offset == 9


@pytest.mark.parametrize("block_records", [1, 4, 4096])
async def test_the_oldest_go_where_they_take_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_records: int
) -> None:
    monkeypatch.setattr(module, "BLOCK_RECORDS", block_records)
    limit = 100_000
    async with world(tmp_path) as here:
        log = here.log
        await here.fill(3, size_bytes=1_000)
        retention = here.retention(Limits(size_bytes=limit))
        for count, size_bytes in ((2, 1_000), (7, 20_000), (5, 100), (1, 150_000), (30, 9_000), (1, 10)):
            await here.fill(count, size_bytes=size_bytes)
            await retention.look()  # takes what came before as seen
            first = log.first_offset
            await retention.look()
            assert await log.size_bytes(after=log.first_offset - 1, upto=log.last_offset) <= limit
            if log.first_offset > first:
                kept_one_more = await log.size_bytes(after=log.first_offset - 2, upto=log.last_offset)
                removed = await log.last_removed()
                assert removed is not None
                assert kept_one_more + len(removed.data) > limit, "no more goes than has to"


async def test_a_record_over_the_limit_goes_alone_when_the_next_look_comes(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.fill(1, size_bytes=5_000)
        assert await here.retention(Limits(size_bytes=1_000)).look() == 1
        assert (here.log.first_offset, here.log.last_offset) == (2, 1)


@pytest.mark.parametrize("youngest_gone", [0, 1, 60, 150, 299])
async def test_what_is_too_old_goes(tmp_path: Path, youngest_gone: int) -> None:
    async with world(tmp_path) as here:
        records: list[Record] = []
        for _ in range(3):
            records += await here.fill(100)
        horizon_ms = records[youngest_gone].time_ms + 1
        young = [record for record in records if record.time_ms >= horizon_ms]
        retention = here.retention(Limits(seconds=10.0), now_seconds=horizon_ms / 1000 + 10)
        await retention.look()
        assert await here.log.read(after=0) == young


async def test_what_is_young_stays(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        (record, *_) = await here.fill(9)
        retention = here.retention(Limits(seconds=10.0), now_seconds=record.time_ms / 1000 + 9)
        assert await retention.look() == 0
        assert here.calls == []


async def test_any_limit_is_enough_and_none_keeps_all(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        (record, *_) = await here.fill(50)
        now_seconds = record.time_ms / 1000
        assert await here.retention(Limits()).look() == 0
        limits = Limits(seconds=1e6, size_bytes=10**9, records=10)
        assert await here.retention(limits, now_seconds=now_seconds).look() == 40


async def test_a_full_disk_is_told_in_the_log_and_the_next_look_tries_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("warning")
    async with world(tmp_path) as here:
        await here.fill(9)
        here.is_full = True
        retention = here.retention(Limits(records=2), every_seconds=0.001)
        retention.start()
        await until(lambda: here.calls.count("save 7") >= 2)
        assert here.log.first_offset == 1
        here.is_full = False
        await until(lambda: here.log.first_offset == 8)
        await retention.aclose()
        await retention.aclose()
    assert "not_trimmed" in capsys.readouterr().err


async def test_a_fault_of_its_own_ends_nothing(tmp_path: Path) -> None:
    logs.configure("critical")
    async with world(tmp_path) as here:
        await here.fill(9)
        failures: list[int] = []

        async def fail(offset: int) -> None:
            failures.append(offset)
            raise RuntimeError("a bug")

        retention = Retention(here.log, Limits(records=2), fail, lambda: None, every_seconds=0.001)
        retention.start()
        await until(lambda: len(failures) >= 3)
        await retention.aclose()
        assert here.log.first_offset == 1


async def test_it_trims_while_others_append(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.fill(1500)
        retention = here.retention(Limits(records=100))
        look = asyncio.create_task(retention.look())
        records = await here.fill(200)
        assert await look == 1500 - 100 or here.log.first_offset <= records[0].offset
        await retention.look()
        await retention.look()
        assert here.log.first_offset == here.log.last_offset - 99
        assert await here.log.read(after=0) == records[100:]


# --- the state -------------------------------------------------------------------------------------


async def test_the_state_outlives_its_records_and_a_restart(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path)
    engine = Engine(log, now=clock())
    await engine.start()
    workflow = await create_workflow(engine.workflows)
    resource = await create_resource(engine.workflows, workflow, data={"title": "é"})
    retention = Retention(log, Limits(records=3), engine.make_durable, lambda: None)
    for i in range(200):
        await execute(engine.workflows, resource, "edit", {"i": i})
        if i % 20 == 0:
            await retention.look()
    await retention.look()
    await retention.look()
    assert log.last_offset - log.first_offset + 1 == 3
    before = everything(engine.workflows)
    await log.aclose()  # as if the process had died: what follows cannot save anything
    await engine.aclose()
    async with engine_in(tmp_path) as (again, log_again):
        assert everything(again) == before
        assert log_again.last_offset - log_again.first_offset + 1 == 3
        done = await execute(again, resource, "submit")
        assert len(part(done, "history", list)) == 201


async def test_a_state_that_is_saved_already_is_not_saved_again() -> None:
    log = MemoryLog()
    async with running_engine(log) as engine:
        await create_workflow(engine.workflows)
        await engine.make_durable(1)
        assert log.snapshots_saved.qsize() == 1
        await engine.make_durable(1)
        assert log.snapshots_saved.qsize() == 1


async def test_what_one_saving_fails_to_save_is_in_the_next_one_though_it_began_meanwhile() -> None:
    class Slow(MemoryLog):
        failures = 1

        async def save_snapshot(self, offset: int, changed: Sequence[SnapshotEntry]) -> None:
            self.snapshot_fails, self.failures = self.failures > 0, self.failures - 1
            await asyncio.sleep(0)
            await super().save_snapshot(offset, changed)

    log = Slow()
    async with running_engine(log) as engine:
        await create_workflow(engine.workflows)
        first = asyncio.create_task(engine.make_durable(1))
        await asyncio.sleep(0)
        await create_workflow(engine.workflows)
        second = asyncio.create_task(engine.make_durable(2))
        with pytest.raises(LogWriteError):
            await first
        await second
        before = everything(engine.workflows)
        saved = log.snapshot
    again = MemoryLog()
    again.records, again.snapshot = log.records[:2], saved
    assert saved.offset == 2
    async with running_engine(again) as engine:
        assert everything(engine.workflows) == before


class Clocks:
    """The system's clock and one that is never set, both moved by hand."""

    def __init__(self, now_seconds: float) -> None:
        self.now_seconds = now_seconds
        self.monotonic_seconds = 5.0

    def go_on(self, seconds: float) -> None:
        self.now_seconds += seconds
        self.monotonic_seconds += seconds

    def retention(self, here: World) -> Retention:
        return Retention(
            here.log,
            Limits(seconds=3600.0),
            here._make_durable,
            lambda: None,
            now=lambda: self.now_seconds,
            monotonic=lambda: self.monotonic_seconds,
        )


YEAR_SECONDS = 365 * 86_400.0


async def test_a_clock_that_jumps_forward_trims_nothing_and_is_reported(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        records = await here.fill(10)
        clocks = Clocks(records[-1].time_ms / 1000)
        retention = clocks.retention(here)
        assert await retention.look() == 0
        clocks.now_seconds += YEAR_SECONDS
        with structlog.testing.capture_logs() as logged:
            for _ in range(3):  # without later records, however often it is looked
                clocks.go_on(60)
                assert await retention.look() == 0
        (report,) = logged
        assert report["event"] == "clock_jumped"
        assert report["seconds"] == pytest.approx(YEAR_SECONDS, abs=5)
        clocks.now_seconds -= YEAR_SECONDS  # somebody has set it right
        clocks.go_on(60)
        assert await retention.look() == 0
        assert await here.log.read(after=0) == records


async def test_a_jump_that_later_records_confirm_counts(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        records = await here.fill(10)
        clocks = Clocks(records[-1].time_ms / 1000)
        retention = clocks.retention(here)
        await retention.look()
        clocks.now_seconds += YEAR_SECONDS
        gone = []
        for _ in range(4):
            clocks.go_on(60)
            gone.append(await retention.look())
            await here.fill(1)
        assert gone[:2] == [0, 0]
        assert sum(gone) >= 10


async def test_the_time_in_which_no_server_ran_has_to_be_confirmed_too(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        records = await here.fill(3)
        clocks = Clocks(records[-1].time_ms / 1000 + YEAR_SECONDS)
        assert await clocks.retention(here).look() == 0


async def test_hours_that_pass_are_no_jump(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        records = await here.fill(3)
        clocks = Clocks(records[-1].time_ms / 1000)
        retention = clocks.retention(here)
        await retention.look()
        clocks.go_on(7200)
        assert await retention.look() == 3
