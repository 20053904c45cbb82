"""Many at once, on the real log: the expected offset decides, and nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from circuit_breaker_server.engine.command import Committed
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.workflows.inputs import ExecuteActivity
from tests.server.engine.worlds import (
    create_resource,
    create_workflow,
    engine_in,
    execute,
    part,
    plain,
    state_input,
)


async def test_of_fifty_activities_on_one_resource_at_once_exactly_one_wins_and_the_rest_conflict(
    tmp_path: Path,
) -> None:
    async with engine_in(tmp_path) as (engine, log):
        resource = await create_resource(engine, await create_workflow(engine), data={"title": "t"})
        for activity_id, state in (("submit", "review"), ("reject", "draft"), ("edit", "draft")):
            before = log.last_offset
            given = [
                ExecuteActivity(resource_id=resource, activity_id=activity_id, data={"by": i})
                for i in range(50)
            ]
            results = await asyncio.gather(*map(engine.execute_activity, given), return_exceptions=True)
            won = [r for r in results if isinstance(r, Committed)]
            lost = [r.code for r in results if isinstance(r, EngineError)]
            assert len(won) == 1
            assert lost == [ErrorCode.CONFLICT] * 49
            now = plain(engine.resource(resource))
            assert now["state"] == state
            assert now == plain(won[0].value)
            kept = await log.read(after=before)
            assert [record.offset for record in kept] == [won[0].record.offset]


async def test_whoever_lost_may_try_again_until_all_are_done(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as (engine, _):
        resource = await create_resource(engine, await create_workflow(engine))

        async def insist(n: int) -> None:
            while True:
                try:
                    await execute(engine, resource, "edit", {f"k{n}": n})
                except EngineError as error:
                    if error.code is not ErrorCode.CONFLICT:
                        raise
                else:
                    return

        await asyncio.gather(*map(insist, range(20)))
        value = plain(engine.resource(resource))
        assert value["data"] == {f"k{n}": n for n in range(20)}
        assert len(part(value, "history", list)) == 20


async def test_resources_do_not_hinder_each_other(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as (engine, _):
        workflow = await create_workflow(engine)
        resources = [await create_resource(engine, workflow) for _ in range(50)]
        await asyncio.gather(*(execute(engine, resource, "edit") for resource in resources))
        assert all(len(part(plain(value), "history", list)) == 1 for value in engine.resources())


async def test_states_added_to_one_workflow_at_once_are_all_there(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as (engine, _):
        workflow = await create_workflow(engine)
        await asyncio.gather(*(engine.create_state(state_input(workflow, f"s{i}")) for i in range(50)))
        assert len(engine.workflow_states(workflow)) == 53


async def test_an_activity_whose_caller_is_cancelled_is_done_whole_or_not_at_all(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as (engine, log):
        resource = await create_resource(engine, await create_workflow(engine))
        task = asyncio.create_task(execute(engine, resource, "edit", {"n": 1}))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        while True:  # the next one that wins comes after whatever the cancelled one did
            try:
                done = await execute(engine, resource, "edit", {"m": 2})
            except EngineError as error:
                if error.code is not ErrorCode.CONFLICT:
                    raise
            else:
                break
        assert log.last_offset - 3 == len(part(done, "history", list)) - 1
        assert done["data"] in ({"m": 2}, {"n": 1, "m": 2})
