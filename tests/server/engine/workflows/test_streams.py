"""From records to events, and from arguments to records."""

from __future__ import annotations

from typing import get_args

import pytest

from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.engine.events import Selection, StreamEvent
from circuit_breaker_server.engine.workflows import streams
from circuit_breaker_server.engine.workflows.inputs import CreateResource, ExecuteActivity, StateUpdate
from circuit_breaker_server.engine.workflows.record_views import View
from circuit_breaker_server.engine.workflows.selections import select_resource_updates, select_workflow_events
from circuit_breaker_server.engine.workflows.workflows import Workflows
from circuit_breaker_server.log.event_log import Record, matches
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.worlds import (
    create_resource,
    create_workflow,
    execute,
    part,
    plain,
    running,
    state_input,
)

SELECT = {"resourceUpdates": select_resource_updates, "workflowEvents": select_workflow_events}


def wanted(selection: Selection, stream: str, records: list[Record]) -> list[StreamEvent]:
    """Select as a reader of the log does."""
    return [
        event
        for record in records
        if any(matches(pattern, record.subject) for pattern in selection.subjects)
        for event in derive(record)
        if event.stream == stream and (selection.matches is None or selection.matches(event.whole))
    ]


def test_every_kind_of_record_says_what_its_events_are() -> None:
    assert set(streams._EVENTS) == set(get_args(View))


async def test_creating_a_workflow_is_no_event() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        await create_workflow(engine)
    assert derive(log.records[0]) == ()


async def test_creating_a_resource_is_an_update_and_an_event() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        workflow = await create_workflow(engine)
        made = await engine.create_resource(
            CreateResource(workflow_id=workflow, data={"a": [1]}, metadata={"m": None})
        )
        update, event, _ = derive(made.record)
        value = plain(made.value)
        assert (update.stream, update.whole) == ("resourceUpdates", value)
        assert event == StreamEvent(
            "workflowEvents",
            {
                "eventType": "RESOURCE_CREATED",
                "workflowId": workflow,
                "resourceId": value["id"],
                "timestamp": value["createdAt"],
                "data": {"state": "draft"},
                "triggeredBy": None,
                "natsSequence": str(made.record.offset),
            },
        )


async def test_an_activity_is_an_update_then_its_execution_then_the_change_of_state() -> None:
    async with running(MemoryLog()) as engine:
        resource = await create_resource(engine, await create_workflow(engine), data={"title": "t"})
        given = ExecuteActivity(resource_id=resource, activity_id="submit", data={"by": "ada"})
        made = await engine.execute_activity(given)
        update, executed, changed, _ = derive(made.record)
        assert update == StreamEvent("resourceUpdates", plain(made.value))
        expected = {"fromState": "draft", "toState": "review", "activityId": "submit"}
        assert (executed.whole["eventType"], executed.whole["data"]) == ("ACTIVITY_EXECUTED", expected)
        assert (changed.whole["eventType"], changed.whole["data"]) == ("RESOURCE_STATE_CHANGED", expected)
        assert executed.whole["timestamp"] == plain(made.value)["updatedAt"]


async def test_an_activity_that_stays_in_its_state_changes_no_state() -> None:
    async with running(MemoryLog()) as engine:
        resource = await create_resource(engine, await create_workflow(engine))
        made = await engine.execute_activity(ExecuteActivity(resource_id=resource, activity_id="edit"))
        types = [
            event.whole["eventType"] for event in derive(made.record) if event.stream == "workflowEvents"
        ]
        assert types == ["ACTIVITY_EXECUTED"]


async def test_a_change_of_the_definition_is_an_event_of_the_workflow_alone() -> None:
    async with running(MemoryLog()) as engine:
        workflow = await create_workflow(engine)
        created = await engine.create_state(state_input(workflow, "archived"))
        updated = await engine.update_state(workflow, "archived", StateUpdate(name="Put away"))
        for made, change in ((created, "STATE_CREATED"), (updated, "STATE_UPDATED")):
            (event,) = derive(made.record)
            assert event.whole == {
                "eventType": "WORKFLOW_UPDATED",
                "workflowId": workflow,
                "resourceId": None,
                "timestamp": made.value["updatedAt"],
                "data": {"stateId": "archived", "change": change},
                "triggeredBy": None,
                "natsSequence": str(made.record.offset),
            }


async def test_an_event_has_the_definition_of_the_state_as_it_was_then() -> None:
    async with running(MemoryLog()) as engine:
        workflow = await create_workflow(engine)
        made = await engine.create_resource(CreateResource(workflow_id=workflow))
        await engine.update_state(workflow, "draft", StateUpdate(name="Sketch"))
        resource = part(made.value, "id", str)
        assert part(derive(made.record)[0].whole, "stateDefinition", dict)["name"] == "Draft"
        assert part(plain(engine.resource(resource)), "stateDefinition", dict)["name"] == "Sketch"
        later = await engine.execute_activity(ExecuteActivity(resource_id=resource, activity_id="edit"))
        assert part(derive(later.record)[0].whole, "stateDefinition", dict)["name"] == "Sketch"


async def test_an_event_carries_the_end_of_the_history_and_a_query_all_of_it() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        resource = await create_resource(engine, await create_workflow(engine))
        for i in range(70):
            answer = await execute(engine, resource, "edit", {"i": i})
            everything = part(answer, "history", list)
            assert [entry["data"]["i"] for entry in everything] == list(range(i + 1))
            sent = part(derive(log.records[-1])[0].whole, "history", list)
            assert sent == everything[-16:]
        assert part(plain(engine.resource(resource)), "history", list) == everything


# --- arguments ----------------------------------------------------------------------------------------


async def two_workflows(engine: Workflows) -> tuple[str, str, str, str]:
    """Make two workflows with a resource each, then move both."""
    one, two = await create_workflow(engine), await create_workflow(engine)
    first = await create_resource(engine, one, data={"title": "t"})
    second = await create_resource(engine, two, data={"title": "t"})
    await execute(engine, first, "submit")
    await execute(engine, second, "submit")
    await execute(engine, second, "reject")
    return one, two, first, second


def ids_and_states(events: list[StreamEvent]) -> list[tuple[object, object]]:
    return [(event.whole["id"], event.whole["state"]) for event in events]


async def test_resource_updates_are_of_one_resource_of_a_workflow_or_of_all() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        one, two, first, second = await two_workflows(engine)
        select = select_resource_updates

        def got(**arguments: object) -> list[tuple[object, object]]:
            return ids_and_states(wanted(select(engine, arguments), "resourceUpdates", log.records))

        of_first = [(first, "draft"), (first, "review")]
        of_second = [(second, "draft"), (second, "review"), (second, "draft")]
        assert got(resourceId=first) == of_first
        assert got(resourceId=first, workflowId=None, state=None) == of_first
        assert got(resourceId=first, workflowId=one) == of_first
        assert got(workflowId=two) == of_second
        assert sorted(map(str, got())) == sorted(map(str, of_first + of_second))
        assert got(state="review") == [(first, "review"), (second, "review")]
        assert got(workflowId=two, state="draft") == [(second, "draft"), (second, "draft")]
        assert got(resourceId=second, state="review") == [(second, "review")]
        assert got(state="no workflow has this yet") == []


async def test_workflow_events_are_of_one_workflow_and_its_resources() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        one, _, first, _ = await two_workflows(engine)
        await engine.create_state(state_input(one, "archived"))
        selection = select_workflow_events(engine, {"workflowId": one})
        events = wanted(selection, "workflowEvents", log.records)
        assert [(e.whole["eventType"], e.whole["resourceId"]) for e in events] == [
            ("RESOURCE_CREATED", first),
            ("ACTIVITY_EXECUTED", first),
            ("RESOURCE_STATE_CHANGED", first),
            ("WORKFLOW_UPDATED", None),
        ]


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("resourceUpdates", {"resourceId": "nothing"}),
        ("resourceUpdates", {"resourceId": ""}),
        ("resourceUpdates", {"workflowId": "nothing"}),
        ("resourceUpdates", {"workflowId": ""}),
        ("resourceUpdates", {"workflowId": ">", "state": "draft"}),
        ("workflowEvents", {"workflowId": "nothing"}),
        ("workflowEvents", {"workflowId": "*"}),
    ],
)
async def test_an_id_that_names_nothing_is_not_found(field: str, arguments: dict[str, object]) -> None:
    async with running(MemoryLog()) as engine:
        await two_workflows(engine)
        with pytest.raises(EngineError) as raised:
            SELECT[field](engine, arguments)
        assert raised.value.code is ErrorCode.NOT_FOUND


async def test_a_resource_of_another_workflow_is_not_found() -> None:
    async with running(MemoryLog()) as engine:
        one, _, _, second = await two_workflows(engine)
        with pytest.raises(EngineError) as raised:
            select_resource_updates(engine, {"workflowId": one, "resourceId": second})
        assert raised.value.code is ErrorCode.NOT_FOUND


async def test_a_state_that_the_workflow_does_not_have_is_refused() -> None:
    async with running(MemoryLog()) as engine:
        one, _, first, _ = await two_workflows(engine)
        for arguments in ({"workflowId": one, "state": "x"}, {"resourceId": first, "state": "x"}):
            with pytest.raises(EngineError, match="no event could ever match") as raised:
                select_resource_updates(engine, arguments)
            assert raised.value.code is ErrorCode.INVALID_INPUT
