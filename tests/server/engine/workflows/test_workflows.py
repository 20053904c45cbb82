"""The commands: what they do, what they refuse, and that a refusal changes nothing."""

from __future__ import annotations

import asyncio
import re
import uuid

import msgspec
import pytest

from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.record_bodies import encode_body
from circuit_breaker_server.engine.workflows.inputs import CreateResource, ExecuteActivity, StateUpdate
from circuit_breaker_server.engine.workflows.records import StateCreated
from circuit_breaker_server.engine.workflows.streams import derive
from circuit_breaker_server.engine.workflows.subjects import workflow_subject
from circuit_breaker_server.engine.workflows.workflows import Workflows
from circuit_breaker_server.log.event_log import NewRecord
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.worlds import (
    activity,
    create_resource,
    create_workflow,
    everything,
    execute,
    part,
    plain,
    review,
    running,
    state,
    state_input,
    workflow_input,
)


async def refusal(engine: Workflows, resource: str, activity_id: str, data: object = None) -> EngineError:
    with pytest.raises(EngineError) as raised:
        await execute(engine, resource, activity_id, data)
    return raised.value


# --- workflows ---


async def test_a_workflow_has_an_id_of_the_servers_and_the_time_of_its_creation() -> None:
    async with running(MemoryLog()) as engine:
        made = plain((await engine.create_workflow(workflow_input())).value)
        assert uuid.UUID(part(made, "id", str)).version == 4
        assert made["createdAt"] == made["updatedAt"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", part(made, "createdAt", str))
        assert engine.workflow(part(made, "id", str)) == made
        assert list(engine.workflows()) == [made]


async def test_a_refused_workflow_leaves_no_record() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        with pytest.raises(EngineError):
            await create_workflow(engine, review(initialState="nowhere"))
        assert log.records == []
        assert list(engine.workflows()) == []


async def test_states_may_not_name_an_existing_workflow_when_a_workflow_is_created() -> None:
    async with running(MemoryLog()) as engine:
        first = await create_workflow(engine)
        with pytest.raises(EngineError, match="is another workflow; use createState"):
            await create_workflow(engine, review(states=[state("draft", workflowId=first)]))


# --- resources ---


async def test_a_resource_keeps_what_it_was_created_with() -> None:
    async with running(MemoryLog()) as engine:
        workflow = await create_workflow(engine)
        data, metadata = {"title": "t", "deep": [{"x": None}]}, {"owner": "ada"}
        given = CreateResource(workflow_id=workflow, initial_state="review", data=data, metadata=metadata)
        made = plain((await engine.create_resource(given)).value)
        assert uuid.UUID(part(made, "id", str)).version == 4
        assert (made["data"], made["metadata"], made["state"]) == (data, metadata, "review")
        assert (made["workflowId"], made["history"]) == (workflow, [])
        assert made["createdAt"] == made["updatedAt"]
        assert part(made, "stateDefinition", dict)["name"] == "Review"
        assert plain(engine.resource(part(made, "id", str))) == made


async def test_a_resource_begins_in_the_initial_state_with_nothing_if_nothing_is_said() -> None:
    async with running(MemoryLog()) as engine:
        resource = await create_resource(engine, await create_workflow(engine))
        made = plain(engine.resource(resource))
        assert (made["state"], made["data"], made["metadata"]) == ("draft", {}, {})


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"workflow_id": "nothing"}, ErrorCode.NOT_FOUND, "there is no workflow 'nothing'"),
        ({"workflow_id": ""}, ErrorCode.NOT_FOUND, "there is no workflow ''"),
        ({"initial_state": "nowhere"}, ErrorCode.INVALID_INPUT, "has no state 'nowhere'"),
        ({"initial_state": ""}, ErrorCode.INVALID_INPUT, "has no state ''"),
        ({"data": [1]}, ErrorCode.INVALID_INPUT, "data must be an object, not a list"),
        ({"metadata": "m"}, ErrorCode.INVALID_INPUT, "metadata must be an object, not a text"),
        ({"data": {"x": "y" * 300_000}}, ErrorCode.INVALID_INPUT, "data takes 300008 bytes"),
        ({"metadata": {"x": "y" * 70_000}}, ErrorCode.INVALID_INPUT, "metadata takes 70008 bytes"),
    ],
)
async def test_a_resource_that_does_not_fit_is_refused(
    changes: dict[str, object], code: ErrorCode, says: str
) -> None:
    log = MemoryLog()
    async with running(log) as engine:
        given = msgspec.structs.replace(CreateResource(workflow_id=await create_workflow(engine)), **changes)
        with pytest.raises(EngineError) as raised:
            await engine.create_resource(given)
        assert raised.value.code is code
        assert says in str(raised.value)
        assert len(log.records) == 1


# --- activities ---


async def test_an_activity_moves_the_resource_merges_its_data_and_is_kept_in_the_history() -> None:
    async with running(MemoryLog()) as engine:
        resource = await create_resource(
            engine, await create_workflow(engine), data={"title": "t", "n": {"a": 1}}, metadata={"m": 1}
        )
        created = plain(engine.resource(resource))
        done = await execute(engine, resource, "submit", {"n": {"b": 2}, "by": None})
        assert done["state"] == "review"
        assert done["data"] == {"title": "t", "n": {"b": 2}, "by": None}
        assert done["metadata"] == {"m": 1}
        assert done["createdAt"] == created["createdAt"]
        assert part(done, "updatedAt", str) > part(created, "updatedAt", str)
        assert done["history"] == [
            {
                "timestamp": done["updatedAt"],
                "activity": "submit",
                "fromState": "draft",
                "toState": "review",
                "data": {"n": {"b": 2}, "by": None},
                "natsSequence": "3",
            }
        ]
        assert plain(engine.resource(resource)) == done


async def test_an_activity_without_data_leaves_the_data_as_it_is() -> None:
    async with running(MemoryLog()) as engine:
        resource = await create_resource(engine, await create_workflow(engine), data={"a": 1})
        inputs: list[object] = [None, {}]
        for given in inputs:
            done = await execute(engine, resource, "edit", given)
            assert done["data"] == {"a": 1}
            assert part(done, "history", list)[-1]["data"] == given


async def test_an_activity_is_not_allowed_from_another_state_and_the_refusal_says_which() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        resource = await create_resource(engine, await create_workflow(engine), data={"title": "t"})
        before, records = everything(engine), len(log.records)
        error = await refusal(engine, resource, "approve", {"x": 1})
        assert error.code is ErrorCode.ACTIVITY_NOT_ALLOWED
        assert error.extensions == {
            "code": "ACTIVITY_NOT_ALLOWED",
            "state": "draft",
            "fromStates": ["review"],
        }
        assert "is in state 'draft', the activity starts from 'review'" in str(error)
        assert (everything(engine), len(log.records)) == (before, records)


async def test_conditions_are_of_the_resource_before_the_activity() -> None:
    async with running(MemoryLog()) as engine:
        workflow = await create_workflow(engine)
        resource = await create_resource(engine, workflow)
        error = await refusal(engine, resource, "submit", {"title": "comes too late"})
        assert error.code is ErrorCode.ACTIVITY_NOT_ALLOWED
        assert error.facts == {"state": "draft", "condition": "field_exists:title"}
        assert "condition 'field_exists:title' does not hold" in str(error)
        await execute(engine, resource, "edit", {"title": "now"})
        await execute(engine, resource, "submit", {"blocked": True})
        assert (await refusal(engine, resource, "approve")).facts[
            "condition"
        ] == "not:field_equals:blocked=true"


async def test_available_activities_are_those_that_would_be_allowed() -> None:
    async with running(MemoryLog()) as engine:
        resource = await create_resource(engine, await create_workflow(engine))

        def available() -> list[object]:
            return [each["id"] for each in engine.available_activities(resource)]

        assert available() == ["edit"]
        await execute(engine, resource, "edit", {"title": "t"})
        assert available() == ["edit", "submit"]
        await execute(engine, resource, "submit", {"blocked": True})
        assert available() == ["reject"]
        with pytest.raises(EngineError, match="there is no resource 'x'"):
            engine.available_activities("x")


async def test_every_kind_of_condition_decides() -> None:
    conditions = [
        'field_equals:owner="ada"',
        "field_greater_than:score=5",
        "field_less_than:age=10",
        "field_contains:text=wine",
        "not:field_exists:hold",
    ]
    given = review(activities=[activity("go", ["draft"], "review", *conditions)])
    good = {"owner": "ada", "score": 6, "age": 9, "text": "red wine"}
    async with running(MemoryLog()) as engine:
        workflow = await create_workflow(engine, given)
        for change, failed in (
            ({"owner": "bob"}, 0),
            ({"score": 5}, 1),
            ({"age": 10}, 2),
            ({"text": "beer"}, 3),
            ({"hold": None}, 4),
        ):
            resource = await create_resource(engine, workflow, data={**good, **change})
            assert (await refusal(engine, resource, "go")).facts["condition"] == conditions[failed]
        resource = await create_resource(engine, workflow, data=good)
        assert (await execute(engine, resource, "go"))["state"] == "review"


@pytest.mark.parametrize(
    ("resource", "activity_id", "data", "code", "says"),
    [
        ("nothing", "edit", None, ErrorCode.NOT_FOUND, "there is no resource 'nothing'"),
        ("", "edit", None, ErrorCode.NOT_FOUND, "there is no resource ''"),
        (None, "nothing", None, ErrorCode.NOT_FOUND, "has no activity 'nothing'"),
        (None, "a" * 5000, None, ErrorCode.NOT_FOUND, "has no activity 'aaa"),
        (None, "edit", [], ErrorCode.INVALID_INPUT, "data must be an object, not a list"),
        (None, "edit", False, ErrorCode.INVALID_INPUT, "data must be an object, not a boolean"),
        (None, "edit", {"x": float("nan")}, ErrorCode.INVALID_INPUT, "data.x: not a finite number"),
        (None, "edit", {"x": "y" * 300_000}, ErrorCode.INVALID_INPUT, "data takes 300008 bytes"),
    ],
)
async def test_an_activity_that_cannot_be_is_refused(
    resource: str | None, activity_id: str, data: object, code: ErrorCode, says: str
) -> None:
    async with running(MemoryLog()) as engine:
        made = await create_resource(engine, await create_workflow(engine))
        error = await refusal(engine, made if resource is None else resource, activity_id, data)
        assert error.code is code
        assert says in str(error)
        assert len(str(error)) < 500


async def test_the_data_of_a_resource_has_a_bound_however_it_grows() -> None:
    async with running(MemoryLog()) as engine:
        resource = await create_resource(engine, await create_workflow(engine), data={"a": "x" * 200_000})
        error = await refusal(engine, resource, "edit", {"b": "y" * 100_000})
        assert error.code is ErrorCode.INVALID_INPUT
        assert "data of the resource takes" in str(error)
        await execute(engine, resource, "edit", {"a": "y" * 100_000})


async def test_a_resource_in_a_terminal_state_moves_on_only_where_an_activity_says_so() -> None:
    activities = [activity("finish", ["draft"], "done"), activity("reopen", ["done"], "draft")]
    given = review(states=[state("draft"), state("done", stateType="TERMINAL")], activities=activities)
    async with running(MemoryLog()) as engine:
        resource = await create_resource(engine, await create_workflow(engine, given))
        assert (await execute(engine, resource, "finish"))["state"] == "done"
        assert (await refusal(engine, resource, "finish")).code is ErrorCode.ACTIVITY_NOT_ALLOWED
        assert (await execute(engine, resource, "reopen"))["state"] == "draft"


async def test_of_activities_decided_on_the_same_resource_one_wins_and_the_others_conflict() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        resource = await create_resource(engine, await create_workflow(engine))
        log.gate.clear()
        given = ExecuteActivity(resource_id=resource, activity_id="edit")
        tasks = [asyncio.create_task(engine.execute_activity(given)) for _ in range(5)]
        await asyncio.sleep(0)
        log.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        codes = [r.code for r in results if isinstance(r, EngineError)]
        assert codes == [ErrorCode.CONFLICT] * 4
        assert len(part(plain(engine.resource(resource)), "history", list)) == 1


async def test_the_answer_is_the_resource_after_its_own_change_even_if_the_next_one_is_there_already() -> (
    None
):
    log = MemoryLog()
    async with running(log) as engine:
        resource = await create_resource(engine, await create_workflow(engine))
        first = await engine.execute_activity(
            ExecuteActivity(resource_id=resource, activity_id="edit", data={"n": 1})
        )
        await execute(engine, resource, "edit", {"n": 2})
        answer = plain(first.value)
        assert answer["data"] == {"n": 1}
        assert len(part(answer, "history", list)) == 1


async def test_a_query_after_the_answer_sees_the_change_and_so_does_whoever_follows_the_log() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        seen: list[object] = []
        end = log.tail(
            lambda records: seen.extend(
                plain(engine.resource(str(e.whole["id"])))["state"]
                for r in records
                for e in derive(r)
                if e.stream == "resourceUpdates"
            )
        )
        resource = await create_resource(engine, await create_workflow(engine), data={"title": 1})
        await execute(engine, resource, "submit")
        assert seen == ["draft", "review"]
        end()


# --- states ---


async def test_a_state_can_be_added_and_resources_be_created_in_it() -> None:
    async with running(MemoryLog()) as engine:
        workflow = await create_workflow(engine)
        made = await engine.create_state(state_input(workflow, "archived", stateType="WAITING"))
        assert made.value["stateType"] == "WAITING"
        assert engine.state(workflow, "archived") == made.value
        assert [s["id"] for s in engine.workflow_states(workflow)][-1] == "archived"
        assert plain(engine.workflow(workflow))["updatedAt"] == made.value["updatedAt"]
        given = CreateResource(workflow_id=workflow, initial_state="archived")
        assert (await engine.create_resource(given)).value["state"] == "archived"


async def test_a_state_can_be_changed() -> None:
    async with running(MemoryLog()) as engine:
        workflow = await create_workflow(engine)
        update = StateUpdate(name="Reading", description="someone reads")
        made = await engine.update_state(workflow, "review", update)
        assert engine.state(workflow, "review") == made.value
        assert (made.value["name"], made.value["description"]) == ("Reading", "someone reads")
        assert [s["id"] for s in engine.workflow_states(workflow)] == ["draft", "review", "approved"]


async def test_states_of_what_is_not_there_are_not_found() -> None:
    async with running(MemoryLog()) as engine:
        workflow = await create_workflow(engine)
        update = StateUpdate(name="x")
        for attempt in (
            engine.create_state(state_input("nothing", "x")),
            engine.create_state(state_input("", "x")),
            engine.update_state("nothing", "review", update),
            engine.update_state(workflow, "nothing", update),
        ):
            with pytest.raises(EngineError) as raised:
                await attempt
            assert raised.value.code is ErrorCode.NOT_FOUND


async def test_changes_of_one_workflow_at_the_same_time_are_all_made() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        workflow = await create_workflow(engine)
        log.gate.clear()
        tasks = [asyncio.create_task(engine.create_state(state_input(workflow, f"s{i}"))) for i in range(8)]
        tasks.append(asyncio.create_task(engine.update_state(workflow, "review", StateUpdate(name="R"))))
        await asyncio.sleep(0)
        log.gate.set()
        await asyncio.gather(*tasks)
        assert len(engine.workflow_states(workflow)) == 11
        assert len(log.records) == 10


async def test_of_two_additions_of_the_same_state_one_is_refused() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        workflow = await create_workflow(engine)
        log.gate.clear()
        tasks = [asyncio.create_task(engine.create_state(state_input(workflow, "x"))) for _ in range(2)]
        await asyncio.sleep(0)
        log.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(r) for r in results if isinstance(r, EngineError)] == [
            f"id: workflow '{workflow}' already has a state 'x'"
        ]


async def test_a_workflow_that_is_changed_by_others_again_and_again_is_a_conflict_in_the_end() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        workflow = await create_workflow(engine)
        one_more = iter(range(1000))

        def someone_else(record: NewRecord) -> None:
            added = msgspec.structs.replace(
                engine._workflow(workflow).states["draft"], id=f"other {next(one_more)}", is_initial=False
            )
            body = StateCreated(workflow_id=workflow, state=added)
            subject = workflow_subject(workflow)
            log.put(NewRecord(subject=subject, id=uuid.uuid4().hex, data=encode_body(body)))

        log.before_append = someone_else
        with pytest.raises(EngineError, match="being changed by others") as raised:
            await engine.create_state(state_input(workflow, "x"))
        assert raised.value.code is ErrorCode.CONFLICT


# --- queries of what is not there ---


async def test_what_is_not_there_is_none_and_the_states_of_an_unknown_workflow_are_an_error() -> None:
    async with running(MemoryLog()) as engine:
        workflow = await create_workflow(engine)
        assert engine.workflow("x") is None
        assert engine.resource("x") is None
        assert engine.state(workflow, "x") is None
        assert list(engine.resources(workflow)) == []
        for attempt in (
            lambda: engine.state("x", "draft"),
            lambda: engine.workflow_states("x"),
            lambda: engine.resources("x"),
        ):
            with pytest.raises(EngineError) as raised:
                attempt()
            assert raised.value.code is ErrorCode.NOT_FOUND


async def test_resources_are_listed_by_workflow_or_all_in_the_order_of_their_creation() -> None:
    async with running(MemoryLog()) as engine:
        one, two = await create_workflow(engine), await create_workflow(engine)
        made = [await create_resource(engine, w) for w in (one, two, one)]
        assert [r["id"] for r in engine.resources()] == made
        assert [r["id"] for r in engine.resources(one)] == [made[0], made[2]]


# --- the log ---


async def test_the_cursor_of_a_command_is_the_place_after_its_last_event() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        workflow = await engine.create_workflow(workflow_input())
        id_ = part(workflow.value, "id", str)
        resource = await engine.create_resource(CreateResource(workflow_id=id_, data={"title": "t"}))
        given = ExecuteActivity(resource_id=part(resource.value, "id", str), activity_id="submit")
        for made, events in ((workflow, 0), (resource, 3), (await engine.execute_activity(given), 4)):
            assert len(derive(made.record)) == events
            assert made.cursor.epoch == log.epoch
            assert made.cursor.offset == made.record.offset
            assert made.cursor.index == max(events - 1, 0)
            assert made.cursor.check == made.record.check


async def test_ids_of_records_begin_with_the_time() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        await create_resource(engine, await create_workflow(engine))
    assert [r.id[:12] for r in log.records] == sorted(r.id[:12] for r in log.records)
    assert all(re.fullmatch("[0-9a-f]{32}", r.id) for r in log.records)


async def test_a_log_that_cannot_be_written_is_unavailable_and_works_again_afterwards() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        workflow = await create_workflow(engine)
        resource = await create_resource(engine, workflow)
        before = everything(engine)
        log.full = True
        error = await refusal(engine, resource, "edit")
        assert error.code is ErrorCode.UNAVAILABLE
        assert "memory.db: no space left" in str(error)
        with pytest.raises(EngineError, match="nothing was changed"):
            await engine.create_state(state_input(workflow, "x"))
        assert everything(engine) == before
        log.full = False
        await execute(engine, resource, "edit")


async def test_commands_before_the_start_after_the_end_or_on_a_closed_log_are_unavailable() -> None:
    log = MemoryLog()
    engine = Engine(log)
    with pytest.raises(EngineError) as raised:
        await create_workflow(engine.workflows)
    assert raised.value.code is ErrorCode.UNAVAILABLE
    await engine.aclose()
    await engine.start()
    workflow = await create_workflow(engine.workflows)
    await log.aclose()
    with pytest.raises(EngineError, match="the server is stopping") as raised:
        await create_workflow(engine.workflows)
    assert raised.value.code is ErrorCode.UNAVAILABLE
    await engine.aclose()
    await engine.aclose()
    with pytest.raises(EngineError, match="not running"):
        await create_workflow(engine.workflows)
    assert engine.workflows.workflow(workflow) is not None


# --- snapshots ---


async def test_the_state_is_saved_after_so_many_records_and_at_the_end() -> None:
    log = MemoryLog()
    async with running(log, snapshot_every=5) as engine:
        workflow = await create_workflow(engine)
        for _ in range(4):
            await create_resource(engine, workflow)
        assert await asyncio.wait_for(log.snapshots_saved.get(), 5) == 5
        await create_resource(engine, workflow)
        assert log.snapshots_saved.empty()
    assert log.snapshots_saved.get_nowait() == 6


async def test_a_snapshot_that_cannot_be_saved_is_tried_again_and_nothing_is_lost() -> None:
    log = MemoryLog()
    async with running(log, snapshot_every=3) as engine:
        workflow = await create_workflow(engine)
        resource = await create_resource(engine, workflow)
        await execute(engine, resource, "edit", {"n": 1})
        assert await asyncio.wait_for(log.snapshots_saved.get(), 5) == 3
        await execute(engine, resource, "edit", {"n": 2})
        await execute(engine, resource, "edit", {"n": 3})
        log.snapshot_fails = True
        await execute(engine, resource, "edit", {"n": 4})
        assert await asyncio.wait_for(log.snapshots_saved.get(), 5) == -1
        log.snapshot_fails = False
        before = everything(engine)
    assert log.snapshot.offset == 6
    log.records.clear()
    async with running(log) as engine:
        assert everything(engine) == before


async def test_a_start_does_not_save_what_did_not_change() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        await create_workflow(engine)
    assert log.snapshots_saved.get_nowait() == 1
    async with running(log):
        pass
    assert log.snapshots_saved.empty()
