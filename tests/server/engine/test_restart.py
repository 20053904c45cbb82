"""What a restart finds, on the real log: all that was acknowledged, whatever happened before."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.engine.workflows.inputs import StateUpdate
from circuit_breaker_server.engine.workflows.state import CHUNK_ENTRIES
from circuit_breaker_server.engine.workflows.workflows import Workflows
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.server.engine.worlds import (
    clock,
    create_resource,
    create_workflow,
    engine_in,
    everything,
    execute,
    part,
    plain,
    state_input,
)

ROOT = Path(__file__).parents[3]


async def busy(engine: Workflows, edits: int) -> str:
    """Change a bit of everything; return a resource with a long history."""
    one, two = await create_workflow(engine), await create_workflow(engine)
    resources = [await create_resource(engine, w, data={"title": "é"}) for w in (two, one, two)]
    await engine.create_state(state_input(one, "archived"))
    for i in range(edits):
        await execute(engine, resources[0], "edit", {"i": i})
    await engine.update_state(two, "review", StateUpdate(name="Reading"))
    for resource in resources:
        await execute(engine, resource, "submit", {"by": "ada"})
    return resources[0]


async def test_a_restart_finds_the_state_as_it_was(tmp_path: Path) -> None:
    async with engine_in(tmp_path, snapshot_every=50) as (engine, _):
        await busy(engine, edits=2 * CHUNK_ENTRIES + 10)
        before = everything(engine)
    async with engine_in(tmp_path) as (engine, _):
        assert everything(engine) == before
        await busy(engine, edits=3)
        before = everything(engine)
    async with engine_in(tmp_path) as (engine, _):
        assert everything(engine) == before


async def test_a_restart_without_a_last_snapshot_folds_the_records_after_the_one_before(
    tmp_path: Path,
) -> None:
    log = await SqliteEventLog.open(tmp_path)
    engine = Engine(log, now=clock(), snapshot_every=60)
    await engine.start()
    await busy(engine.workflows, edits=CHUNK_ENTRIES + 20)
    before = everything(engine.workflows)
    await log.aclose()  # as if the process had died: what follows cannot save anything
    await engine.aclose()
    async with engine_in(tmp_path) as (again, log_again):
        snapshot = await log_again.load_snapshot()
        assert 0 < snapshot.offset < log_again.last_offset
        assert everything(again) == before


async def test_trimming_below_the_snapshot_loses_no_state_and_the_next_activity_still_fits(
    tmp_path: Path,
) -> None:
    async with engine_in(tmp_path) as (engine, _):
        resource = await busy(engine, edits=CHUNK_ENTRIES + 5)
        before = everything(engine)
    log = await SqliteEventLog.open(tmp_path)
    assert await log.trim(log.last_offset + 1) > 0
    await log.aclose()
    async with engine_in(tmp_path) as (engine, log_again):
        assert log_again.first_offset == log_again.last_offset + 1
        assert everything(engine) == before
        done = await execute(engine, resource, "approve")
        assert len(part(done, "history", list)) == CHUNK_ENTRIES + 7


def told(events: list[tuple[StreamEvent, ...]]) -> bytes:
    return msgspec.json.encode([[(event.stream, event.whole) for event in each] for each in events])


async def test_a_replay_says_what_the_live_stream_said_byte_for_byte(tmp_path: Path) -> None:
    live: list[tuple[StreamEvent, ...]] = []

    async with engine_in(tmp_path) as (engine, log):
        end = log.tail(lambda records: live.extend(derive(record) for record in records))
        await busy(engine, edits=CHUNK_ENTRIES + 20)
        end()
        replayed = [derive(record) async for record in log.scan(after=0)]
        read = [derive(record) for record in await log.read(after=0, subjects=[">"])]
    assert len(live) > CHUNK_ENTRIES
    assert told(replayed) == told(live) == told(read)
    async with engine_in(tmp_path) as (_, log):
        again = [derive(record) async for record in log.scan(after=0)]
    assert told(again) == told(live)


async def test_after_a_kill_all_that_was_answered_is_there_and_nothing_that_was_refused(
    tmp_path: Path,
) -> None:
    answered: dict[str, dict[int, int]] = {}
    offsets: list[int] = []
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.server.engine.kill_worker",
            str(tmp_path),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        assert process.stdout is not None
        lines = [await asyncio.wait_for(process.stdout.readline(), 30) for _ in range(400)]
        process.kill()
        lines += (await process.stdout.read()).split(b"\n")[:-1]
        await process.wait()
        for line in lines:
            said = msgspec.json.decode(line, type=dict[str, object])
            if "refused" not in said:
                offset, resource = part(said, "offset", int), part(said, "resource", str)
                offsets.append(offset)
                answered.setdefault(resource, {})[part(said, "n", int)] = offset

    assert len(offsets) == len(set(offsets)), "no offset is used twice"
    async with engine_in(tmp_path) as (engine, log):
        kept = {record.offset: record async for record in log.scan(after=0)}
        for resource, numbers in answered.items():
            value = plain(engine.resource(resource))
            history = part(value, "history", list)
            # One that was cut off in the middle may be there: whole, and as the next one.
            assert len(history) - max(numbers) in (0, 1)
            assert [entry["data"] for entry in history] == [{"n": i + 1} for i in range(len(history))]
            assert all(offset in kept for offset in numbers.values())
            if history:
                assert part(value, "data", dict)["n"] == len(history)
            assert value["state"] == "draft"
        assert not any(b"refused" in record.data for record in kept.values())
        known = {str(value["id"]) for value in engine.resources()}
        assert set(answered) <= known
        events = [event for record in kept.values() for event in derive(record)]
        assert {str(e.whole["id"]) for e in events if e.stream == "resourceUpdates"} == known
