"""When the state is saved: after so many records, or sooner where they changed many entries."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from circuit_breaker_server.engine import state_projector
from circuit_breaker_server.engine.workflows.workflows import Workflows
from circuit_breaker_server.log.event_log import EventLog
from tests.server.engine.worlds import create_resource, create_workflow, engine_in


async def saved(log: EventLog) -> int:
    for _ in range(10):
        await asyncio.sleep(0)  # the saver has its turn
    await log.trim(0)  # removes nothing, after what the saver has begun
    return (await log.load_snapshot()).offset


async def add(engine: Workflows, resource: str, count: int) -> None:
    for number in range(count):
        await engine.add_data(resource, {"number": number})


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_projector, "_MANY_CHANGES", 10)


async def test_records_that_change_the_same_entries_are_saved_after_snapshot_every(tmp_path: Path) -> None:
    async with engine_in(tmp_path, snapshot_every=40) as (engine, log):
        resource = await create_resource(engine, await create_workflow(engine))
        await add(engine, resource, 37)
        assert await saved(log) == 0
        await add(engine, resource, 1)
        assert await saved(log) == 40
        await add(engine, resource, 39)
        assert await saved(log) == 40
        await add(engine, resource, 1)
        assert await saved(log) == 80


async def test_many_changed_entries_are_saved_before(tmp_path: Path) -> None:
    async with engine_in(tmp_path, snapshot_every=10_000) as (engine, log):
        workflow = await create_workflow(engine)
        for _ in range(8):
            await create_resource(engine, workflow)
        assert await saved(log) == 0
        await create_resource(engine, workflow)
        assert await saved(log) == 10
        for _ in range(10):
            await create_resource(engine, workflow)
        assert await saved(log) == 20


async def test_a_snapshot_counts_its_entries_from_the_one_before(tmp_path: Path) -> None:
    async with engine_in(tmp_path, snapshot_every=10_000) as (engine, log):
        workflow = await create_workflow(engine)
        resources = [await create_resource(engine, workflow) for _ in range(9)]
        assert await saved(log) == 10
        await add(engine, resources[0], 30)
        assert await saved(log) == 10
