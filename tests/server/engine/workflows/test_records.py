"""The bodies of records: bounded, versioned, readable."""

from __future__ import annotations

import msgspec
import pytest

from circuit_breaker_server.engine.command_origin import Origin, with_origin
from circuit_breaker_server.engine.record_bodies import encode_body
from circuit_breaker_server.engine.record_versions import UPCASTERS, VERSION
from circuit_breaker_server.engine.workflows.records import (
    HISTORY_TAIL,
    HISTORY_TAIL_BYTES,
    ActivityExecuted,
    StateCreated,
    decode_body,
    history_tail,
)
from circuit_breaker_server.engine.workflows.streams import derive
from circuit_breaker_server.log.event_log import LogCorruptError, Record
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.worlds import create_resource, create_workflow, execute, running, state_input


def record(data: bytes) -> Record:
    return Record(offset=7, subject="workflow.w", id="0" * 32, time_ms=0, data=data)


async def one_of_each(log: MemoryLog) -> None:
    async with running(log) as engine:
        workflow = await create_workflow(engine)
        await engine.create_state(state_input(workflow, "archived"))
        resource = await create_resource(engine, workflow, data={"title": "t"})
        await execute(engine, resource, "submit", {"by": "ada"})


async def test_a_body_says_its_type_and_version_and_is_read_back_equal() -> None:
    log = MemoryLog()
    await one_of_each(log)
    heads = [msgspec.json.decode(r.data, type=dict[str, object]) for r in log.records]
    assert [(head["type"], head["v"]) for head in heads] == [
        ("workflow_created", VERSION),
        ("state_created", VERSION),
        ("resource_created", VERSION),
        ("activity_executed", VERSION),
    ]
    for each in log.records:
        body = encode_body(decode_body(each))
        assert each.data == with_origin(body, Origin(), node="", term=0)


async def test_a_body_that_could_not_be_read_again_is_not_written() -> None:
    log = MemoryLog()
    await one_of_each(log)
    body = decode_body(log.records[-1])
    assert isinstance(body, ActivityExecuted)
    with pytest.raises(msgspec.ValidationError, match="Expected `str"):
        encode_body(msgspec.structs.replace(body, activity_id=1.5))


async def test_an_older_body_is_brought_up_to_date_for_the_state_and_for_the_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = MemoryLog()
    await one_of_each(log)
    present = log.records[1]
    body = msgspec.json.decode(present.data, type=dict[str, object])
    body["workflow"] = body.pop("workflowId")
    old = record(msgspec.json.encode({**body, "v": VERSION - 1}))

    def rename(given: dict[str, object]) -> dict[str, object]:
        return {**given, "workflowId": given["workflow"]}

    monkeypatch.setitem(UPCASTERS, VERSION - 1, rename)
    upcast = decode_body(old)
    assert isinstance(upcast, StateCreated)
    assert upcast == decode_body(present)
    assert [event.value["eventType"] for event in derive(old)] == ["WORKFLOW_UPDATED"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"type":"state_created","v":99,"state":{}}', "has version 99, this program reads up to"),
        (b'{"type":"something_new","v":99}', "has version 99"),
        (b'{"type":"something_new","v":1}', "cannot be read"),
        (b'{"type":"state_created","v":1}', "cannot be read"),
        (b'{"type":"state_created","v":-5}', "cannot be read"),
        (b'{"type":"state_created"}', "has no version"),
        (b'{"type":"state_created","v":"1"}', "has no version"),
        (b"[]", "cannot be read"),
        (b"\xff\x00", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_a_body_that_cannot_be_read_is_named_with_the_reason(data: bytes, says: str) -> None:
    for read in (decode_body, derive):
        with pytest.raises(LogCorruptError) as raised:
            read(record(data))
        assert says in str(raised.value)
        assert str(raised.value).startswith("record 7 (workflow.w)")


def entries(*sizes: int) -> list[msgspec.Raw]:
    return [msgspec.Raw(b'"' + b"x" * (size - 2) + b'"') for size in sizes]


def test_a_record_holds_the_last_entries_of_a_history() -> None:
    history = entries(*range(10, 60))
    assert history_tail(history) == tuple(history[-HISTORY_TAIL:])
    assert history_tail(history[:3]) == tuple(history[:3])
    assert history_tail([]) == ()


def test_a_record_holds_no_more_bytes_of_a_history_than_the_bound_but_always_the_newest_entry() -> None:
    half = HISTORY_TAIL_BYTES // 2
    fits = entries(10, half, half)
    assert history_tail(fits) == tuple(fits[1:])
    too_much = entries(10, half, half + 1)
    assert history_tail(too_much) == tuple(too_much[2:])
    huge = entries(10, 10, HISTORY_TAIL_BYTES * 3)
    assert history_tail(huge) == tuple(huge[2:])


async def test_a_record_does_not_grow_with_the_number_of_records_before_it() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        resource = await create_resource(engine, await create_workflow(engine))
        for i in range(300):
            await execute(engine, resource, "edit", {"n": i % 10})
    # From here on the offsets in a record's history all have three digits.
    sizes = [len(r.data) for r in log.records if r.offset >= 100 + 1 + HISTORY_TAIL]
    assert len(sizes) > 150
    assert max(sizes) - min(sizes) < 10
