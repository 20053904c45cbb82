"""Resources with their place in the log: the same resources, and which record did what."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from circuit_breaker_server.engine.command import Committed, Value
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.engine.events import Selection
from circuit_breaker_server.engine.nats.inputs import CreateInstance, ExecuteWithNats
from circuit_breaker_server.engine.workflows.inputs import CreateResource, ExecuteActivity
from circuit_breaker_server.engine.workflows.records import HISTORY_TAIL
from circuit_breaker_server.engine.workflows.state import CHUNK_ENTRIES
from circuit_breaker_server.log.event_log import Record, matches
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.worlds import create_resource, create_workflow, execute, part, plain, running_engine

STREAM = "natsResourceStream"


async def create(engine: Engine, workflow_id: str, **given: object) -> Committed[Value]:
    return await engine.nats.create_instance(
        msgspec.convert({"workflowId": workflow_id, **given}, CreateInstance)
    )


async def go(
    engine: Engine, resource_id: object, activity_id: str, to: str, **given: object
) -> Committed[Value]:
    given = {"resourceId": resource_id, "activityId": activity_id, "newState": to, **given}
    return await engine.nats.execute_activity(msgspec.convert(given, ExecuteWithNats))


def event_of(record: Record) -> Value:
    """Return the last event of a record, which is that of the stream."""
    *others, last = derive(record)
    assert last.stream == STREAM
    assert STREAM not in {event.stream for event in others}
    return last.whole


def received(selection: Selection, records: list[Record]) -> list[Value]:
    return [
        event.whole
        for record in records
        if any(matches(pattern, record.subject) for pattern in selection.subjects)
        for event in derive(record)
        if event.stream == STREAM and (selection.matches is None or selection.matches(event.whole))
    ]


def ids(values: list[Value | None]) -> list[object]:
    return [value["id"] for value in values if value is not None]


# --- answers -----------------------------------------------------------------------------------------


async def test_a_new_instance_is_answered_with_its_record() -> None:
    async with running_engine(MemoryLog()) as engine:
        workflow = await create_workflow(engine.workflows)
        made = await create(
            engine, workflow, initialData={"title": "t"}, metadata={"m": 1}, triggeredBy="ada"
        )
        value = plain(made.value)
        at = value["createdAt"]
        assert value == {
            "id": value["id"],
            "workflowId": workflow,
            "state": "draft",
            "data": {"title": "t"},
            "metadata": {"m": 1},
            "createdAt": at,
            "updatedAt": at,
            "history": [],
            "natsSequence": str(made.record.offset),
            "natsTimestamp": at,
            "natsSubject": made.record.subject,
            "activityHistory": [],
        }
        assert plain(engine.nats.resource(str(value["id"]))) == value
        created = [e.whole for e in derive(made.record) if e.stream == "workflowEvents"]
        assert [(e["eventType"], e["triggeredBy"]) for e in created] == [("RESOURCE_CREATED", "ada")]


async def test_an_activity_is_answered_with_who_did_it_and_its_record() -> None:
    async with running_engine(MemoryLog()) as engine:
        made = await create(engine, await create_workflow(engine.workflows), initialData={"title": "t"})
        id_ = made.value["id"]
        first = await go(engine, id_, "submit", "review", triggeredBy="ada", data={"n": 1})
        await execute(engine.workflows, str(id_), "reject")
        last = await go(engine, id_, "edit", "draft", triggeredBy="bo")
        value = plain(last.value)
        assert plain(engine.nats.resource(str(id_))) == value
        assert (value["natsSequence"], value["natsTimestamp"]) == (
            str(last.record.offset),
            value["updatedAt"],
        )
        history = part(value, "history", list)
        expected = [
            ("submit", "draft", "review", "ada", first.record.offset, {"n": 1}),
            ("reject", "review", "draft", None, first.record.offset + 1, None),
            ("edit", "draft", "draft", "bo", last.record.offset, None),
        ]
        assert value["activityHistory"] == [
            {
                "activityId": activity,
                "fromState": from_,
                "toState": to,
                "triggeredBy": by,
                "natsSequence": str(offset),
                "metadata": data,
                "timestamp": entry["timestamp"],
            }
            for (activity, from_, to, by, offset, data), entry in zip(expected, history, strict=True)
        ]


async def test_the_whole_activity_history_survives_restarts_and_events_carry_its_end(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path)
    count = CHUNK_ENTRIES + 5
    async with running_engine(log, snapshot_every=10) as engine:
        workflow = await create_workflow(engine.workflows)
        id_ = str((await create(engine, workflow)).value["id"])
        for i in range(count):
            await go(engine, id_, "edit", "draft", triggeredBy=f"user {i}", data={"i": i})
        before = plain(engine.nats.resource(id_))
    await log.aclose()
    log = await SqliteEventLog.open(tmp_path)
    async with running_engine(log) as engine:
        assert plain(engine.nats.resource(id_)) == before
        last = await go(engine, id_, "edit", "draft")
        records = await log.read(after=0)
        whole = part(plain(last.value), "activityHistory", list)
    await log.aclose()
    offsets = [str(r.offset) for r in records if r.subject == last.record.subject][1:]
    assert [entry["natsSequence"] for entry in whole] == offsets
    assert [entry["triggeredBy"] for entry in whole] == [*(f"user {i}" for i in range(count)), None]
    sent = part(event_of(last.record), "resource", dict)["activityHistory"]
    assert sent == whole[-HISTORY_TAIL:]


async def test_resources_are_found_by_state_and_by_workflow() -> None:
    async with running_engine(MemoryLog()) as engine:
        one, two = [await create_workflow(engine.workflows) for _ in range(2)]
        a, b, c = [await create_resource(engine.workflows, w, data={"title": "t"}) for w in (one, one, two)]
        await execute(engine.workflows, b, "submit")
        nats = engine.nats
        assert ids(list(nats.in_state(one, "draft"))) == [a]
        assert ids(list(nats.in_state(one, "review"))) == [b]
        assert ids(list(nats.in_state(one, "approved"))) == []
        assert plain(nats.find(one, b)) == plain(nats.resource(b))
        assert [nats.find(*each) for each in ((one, c), (one, "x"), ("x", a))] == [None] * 3
        assert nats.resource("x") is None
        for workflow, state in (("x", "draft"), (one, "x")):
            with pytest.raises(EngineError) as raised:
                nats.in_state(workflow, state)
            assert raised.value.code is ErrorCode.NOT_FOUND


# --- refused -----------------------------------------------------------------------------------------


async def test_an_activity_that_leads_elsewhere_than_the_caller_expects_is_refused() -> None:
    log = MemoryLog()
    async with running_engine(log) as engine:
        made = await create(engine, await create_workflow(engine.workflows), initialData={"title": "t"})
        for wrong in ("draft", "approved", "nowhere", ""):
            with pytest.raises(EngineError, match="newState: activity 'submit' leads to 'review'") as raised:
                await go(engine, made.value["id"], "submit", wrong)
            assert (raised.value.code, raised.value.facts) == (ErrorCode.INVALID_INPUT, {"toState": "review"})
        assert log.last_offset == made.record.offset


@pytest.mark.parametrize("by", ["", " ", "x" * 257, "a\nb"])
async def test_who_does_it_is_a_name(by: str) -> None:
    log = MemoryLog()
    async with running_engine(log) as engine:
        workflow = await create_workflow(engine.workflows)
        resource = await create_resource(engine.workflows, workflow)
        before = log.last_offset
        for command in (
            create(engine, workflow, triggeredBy=by),
            go(engine, resource, "edit", "draft", triggeredBy=by),
        ):
            with pytest.raises(EngineError, match=r"^triggeredBy: ") as raised:
                await command
            assert raised.value.code is ErrorCode.INVALID_INPUT
        assert log.last_offset == before


async def test_what_the_plain_commands_refuse_is_refused() -> None:
    async with running_engine(MemoryLog()) as engine:
        resource = await create_resource(engine.workflows, await create_workflow(engine.workflows))
        for command, code in (
            (create(engine, "x"), ErrorCode.NOT_FOUND),
            (go(engine, "x", "edit", "draft"), ErrorCode.NOT_FOUND),
            (go(engine, resource, "x", "draft"), ErrorCode.NOT_FOUND),
            (go(engine, resource, "submit", "review"), ErrorCode.ACTIVITY_NOT_ALLOWED),
            (go(engine, resource, "edit", "draft", data=[1]), ErrorCode.INVALID_INPUT),
        ):
            with pytest.raises(EngineError) as raised:
                await command
            assert raised.value.code is code


# --- the stream --------------------------------------------------------------------------------------


async def test_each_record_of_a_resource_is_one_event_after_its_others() -> None:
    async with running_engine(MemoryLog()) as engine:
        workflow = await create_workflow(engine.workflows)
        made = await create(engine, workflow, initialData={"title": "t"}, triggeredBy="ada")
        id_ = str(made.value["id"])
        stayed = await engine.workflows.execute_activity(ExecuteActivity(resource_id=id_, activity_id="edit"))
        moved = await go(engine, id_, "submit", "review", triggeredBy="bo")
        changed = await engine.workflows.add_data(id_, {"by": "an agent"})
        told = []
        for each in (made, stayed, moved, changed):
            event, value = event_of(each.record), plain(each.value)
            resource = part(event, "resource", dict)
            assert (event["subject"], event["sequence"]) == (each.record.subject, str(each.record.offset))
            assert event["timestamp"] == resource["natsTimestamp"] == value["updatedAt"]
            assert {key: resource[key] for key in ("id", "state", "data", "history")} == {
                key: value[key] for key in ("id", "state", "data", "history")
            }
            told.append(tuple(event[k] for k in ("eventType", "previousState", "activity", "metadata")))
        assert told == [
            ("CREATED", None, None, {"triggeredBy": "ada"}),
            ("DATA_UPDATED", "draft", "edit", None),
            ("STATE_CHANGED", "draft", "submit", {"triggeredBy": "bo"}),
            ("DATA_UPDATED", None, None, None),
        ]
        for each in (made, moved):
            assert event_of(each.record)["resource"] == plain(each.value)


async def test_the_stream_is_of_one_workflow_and_may_be_of_what_arrives_in_one_state() -> None:
    log = MemoryLog()
    async with running_engine(log) as engine:
        one, two = [await create_workflow(engine.workflows) for _ in range(2)]
        first, _ = [await create_resource(engine.workflows, w, data={"title": "t"}) for w in (one, two)]
        await execute(engine.workflows, first, "submit")
        await execute(engine.workflows, first, "reject")

        def got(**arguments: object) -> list[object]:
            events = received(engine.select(STREAM, arguments), log.records)
            assert {part(event, "resource", dict)["id"] for event in events} <= {first}
            return [event["eventType"] for event in events]

        assert got(workflowId=one) == ["CREATED", "STATE_CHANGED", "STATE_CHANGED"]
        assert got(workflowId=one, stateId=None) == ["CREATED", "STATE_CHANGED", "STATE_CHANGED"]
        assert got(workflowId=one, stateId="draft") == ["CREATED", "STATE_CHANGED"]
        assert got(workflowId=one, stateId="approved") == []
        for arguments, code in (
            ({"workflowId": "x"}, ErrorCode.NOT_FOUND),
            ({"workflowId": ""}, ErrorCode.NOT_FOUND),
            ({"workflowId": one, "stateId": "x"}, ErrorCode.INVALID_INPUT),
        ):
            with pytest.raises(EngineError) as raised:
                engine.select(STREAM, arguments)
            assert raised.value.code is code


async def test_a_record_of_before_histories_had_sequences_is_still_an_event() -> None:
    async with running_engine(MemoryLog()) as engine:
        workflow = await create_workflow(engine.workflows)
        made = await engine.workflows.create_resource(CreateResource(workflow_id=workflow))
        id_ = part(made.value, "id", str)
        for _ in range(2):
            done = await engine.workflows.execute_activity(
                ExecuteActivity(resource_id=id_, activity_id="edit")
            )
    kept = b',"natsSequence":"3"'
    assert done.record.data.count(kept) == 1
    old = msgspec.structs.replace(done.record, data=done.record.data.replace(kept, b""))
    activities = part(event_of(old), "resource", dict)["activityHistory"]
    assert [entry["natsSequence"] for entry in activities] == [None, str(old.offset)]
