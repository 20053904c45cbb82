"""Keys of mutations in the log and in the state folded from it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from circuit_breaker_server.access.caller import Caller, Permissions
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.engine.idempotency import IdempotencyState, Kept
from circuit_breaker_server.engine.workflows.inputs import CreateResource
from circuit_breaker_server.engine.workflows.subjects import workflow_subject
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.idempotent_execution import Done, Once
from circuit_breaker_server.graphql.schema import load_schema
from circuit_breaker_server.log.event_log import EventLog, LogCorruptError, NewRecord, Record, Snapshot
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.security.authentication import Principal
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.worlds import review, state

WORKFLOW = "mutation($i: WorkflowDefinitionInput!) { createWorkflow(input: $i) { id name } }"
RESOURCE = "mutation($i: ResourceCreateInput!) { createResource(input: $i) { id data } }"
STATE = "mutation($i: StateDefinitionInput!) { createState(input: $i) { id createdAt } }"
NATS = """mutation($i: CreateWorkflowInstanceInput!) {
    createWorkflowInstance(input: $i) { id data natsSequence natsSubject }
}"""
MOVE = """mutation($i: ExecuteActivityWithNatsInput!) {
    executeActivityWithNats(input: $i) { natsSequence activityHistory { natsSequence activityId } }
}"""


class Run:
    """An engine, and mutations with keys on it."""

    def __init__(self, engine: Engine, once: Once) -> None:
        self.engine = engine
        self.once = once
        self._documents = Documents(load_schema())

    async def send(self, query: str, given: object, key: str, principal: str = "") -> Done:
        document = self._documents.get(query)
        return await self.once.execute(
            document, {"i": given}, None, key=key, caller=Caller(Principal(principal), Permissions())
        )

    async def made(self, query: str, given: object, key: str) -> dict[str, str]:
        answer = msgspec.json.decode((await self.send(query, given, key)).answer, type=dict[str, object])
        (value,) = msgspec.convert(answer["data"], dict[str, dict[str, object]]).values()
        return {name: str(item) for name, item in value.items()}

    def kept(self) -> list[tuple[str, Kept]]:
        return [(name, plain(entry)) for name, entry in self.engine.idempotency._kept.items()]


def plain(entry: Kept) -> Kept:
    return msgspec.json.decode(msgspec.json.encode(entry), type=Kept)


def as_json(kept: list[tuple[str, Kept]]) -> bytes:
    return msgspec.json.encode(kept)


@contextlib.asynccontextmanager
async def running(log: EventLog, *, snapshot_every: int = 10_000) -> AsyncIterator[Run]:
    now = (
        (lambda: datetime.fromtimestamp(0, UTC))
        if isinstance(log, MemoryLog)
        else (lambda: datetime.now(UTC))
    )
    engine = Engine(log, now=now, snapshot_every=snapshot_every)
    await engine.start()
    once = Once(engine, timeout_seconds=10.0)
    try:
        yield Run(engine, once)
    finally:
        await once.aclose()
        await engine.aclose()


async def test_a_replay_knows_what_the_live_state_knew_with_a_snapshot_and_without(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path)
    live: list[tuple[object, ...]] = []
    end = log.tail(lambda records: live.extend(derive(record) for record in records))
    async with running(log, snapshot_every=2) as run:
        workflow = (await run.made(WORKFLOW, review(), "w"))["id"]
        for n in range(5):
            await run.made(RESOURCE, {"workflowId": workflow, "data": {"n": n}}, f"r{n}")
        known = as_json(run.kept())
    end()
    assert len(live) == 6
    async with running(log) as run:
        assert as_json(run.kept()) == known
        again = await run.send(RESOURCE, {"workflowId": workflow, "data": {"n": 3}}, "r3")
        assert again.is_replayed
    state_ = IdempotencyState(frozenset({"workflow", "resource"}), seconds=86_400)
    records = [record async for record in log.scan(after=0)]
    for record in records:
        state_.apply(record)
    assert as_json([(name, plain(entry)) for name, entry in state_._kept.items()]) == known
    assert [derive(record) for record in records] == live
    await log.aclose()


async def test_an_offset_in_an_answer_is_that_of_its_record() -> None:
    log = MemoryLog()
    async with running(log) as run:
        workflow = (await run.made(WORKFLOW, review(), "w"))["id"]
        given = {"workflowId": workflow, "initialData": {"title": "t"}, "triggeredBy": "ada"}
        made = await run.made(NATS, given, "n")
        assert made["natsSequence"] == "2"
        move = {"resourceId": made["id"], "activityId": "submit", "newState": "review"}
        first = await run.send(MOVE, move, "m")
        assert first.answer.count(b'"natsSequence":"3"') == 2
        assert (await run.send(MOVE, move, "m")).answer == first.answer
        assert await run.made(NATS, given, "n") == made


async def test_who_asks_makes_keys_their_own() -> None:
    async with running(MemoryLog()) as run:
        replies = [await run.send(WORKFLOW, review(), "k", principal) for principal in ("", "a", "a/b", "")]
        assert [reply.is_replayed for reply in replies] == [False, False, False, True]
        assert replies[3].answer == replies[0].answer
        assert len({reply.answer for reply in replies}) == 3
        a = await run.send(WORKFLOW, review(), "b/k", "a")
        assert not a.is_replayed, "not mistaken for the key k of a/b"


async def test_a_command_that_decides_anew_has_its_key_in_one_record() -> None:
    log = MemoryLog()
    async with running(log) as run:
        workflow = (await run.made(WORKFLOW, review(), "w"))["id"]

        def write_first(_record: NewRecord) -> None:
            log.before_append = None
            first = log.records[0]
            body = msgspec.json.decode(first.data, type=dict[str, object])
            del body["idempotency"]
            data = msgspec.json.encode(body)
            log.put(NewRecord(subject=workflow_subject(workflow), id="f" * 32, data=data, expected=1))

        log.before_append = write_first
        first = await run.send(STATE, state("held", workflowId=workflow), "k")
        assert len(log.records) == 3
        assert (await run.send(STATE, state("held", workflowId=workflow), "k")).answer == first.answer
        assert sum(b'"idempotency"' in record.data for record in log.records) == 2
        assert len(log.records) == 3


async def test_a_log_that_is_full_leaves_the_key_free() -> None:
    log = MemoryLog()
    async with running(log) as run:
        log.full = True
        failed = await run.send(WORKFLOW, review(), "k")
        assert b'"UNAVAILABLE"' in failed.answer
        log.full = False
        done = await run.send(WORKFLOW, review(), "k")
        assert b'"errors"' not in done.answer
        assert not done.is_replayed


async def test_data_that_looks_like_a_key_is_none() -> None:
    log = MemoryLog()
    async with running(log) as run:
        workflow = (await run.made(WORKFLOW, review(name='"idempotency"'), "w"))["id"]
        data = {"idempotency": {"key": "x", "hash": "y"}, "v": 2}
        given = {"workflowId": workflow, "data": data, "metadata": data}
        await run.engine.workflows.create_resource(msgspec.convert(given, CreateResource))
        assert b'"idempotency"' in log.records[-1].data
        assert len(run.engine.idempotency) == 1


def test_a_key_that_cannot_be_read_stops_the_start() -> None:
    data = b'{"type":"x","v":1,"idempotency":{"key":1}}'
    record = Record(offset=7, subject="workflow.w", id="0" * 32, time_ms=0, data=data)
    with pytest.raises(LogCorruptError, match="record 7"):
        IdempotencyState(frozenset(), seconds=1).apply(record)


def test_only_what_is_too_old_is_forgotten_and_a_snapshot_forgets_it_too() -> None:
    def record(offset: int, time_ms: int, key: str | None) -> Record:
        body = b'{"type":"workflow_created","v":1,%s}'
        workflow = b'"workflow":{"id":"w","name":"n","description":null,"states":[],"activities":[],'
        workflow += b'"initialState":"a","createdAt":"c","updatedAt":"u"}'
        extra = b"" if key is None else b',"idempotency":{"key":"%s","hash":"h","answer":{}}' % key.encode()
        return Record(
            offset=offset, subject="workflow.w", id="0" * 32, time_ms=time_ms, data=body % (workflow + extra)
        )

    state_, saved = IdempotencyState(frozenset(), seconds=10), dict[str, bytes]()

    def save() -> None:
        for change in state_.take_changes()[1]:
            if change.data is None:
                saved.pop(change.key, None)
            else:
                saved[change.key] = change.data

    def known() -> list[str]:
        return [name for name, _ in state_._kept.items()]

    for offset, (time_ms, key) in enumerate([(0, "a"), (5_000, "b"), (6_000, "a"), (9_999, "c")], 1):
        state_.apply(record(offset, time_ms, key))
    assert known() == ["/b", "/a", "/c"], "the later record of a key counts"
    save()
    state_.apply(record(5, 14_999, None))
    assert known() == ["/b", "/a", "/c"]
    state_.apply(record(6, 15_000, None))
    assert known() == ["/a", "/c"]
    save()
    state_ = IdempotencyState(frozenset(), seconds=10)
    state_.restore(Snapshot(offset=6, entries=saved))
    assert known() == ["/a", "/c"]
    state_.apply(record(7, 16_000, None))
    assert known() == ["/c"]
    moment = datetime.fromtimestamp
    assert state_.find("", "c", now=moment(19.998, UTC)) is not None
    assert state_.find("", "c", now=moment(20, UTC)) is None
    assert state_.find("", "d", now=moment(0, UTC)) is None


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_mutation_whose_outcome_is_unknown_happens_once_under_its_key(*, is_late: bool) -> None:
    log = MemoryLog()
    async with running(log) as run:
        log.is_away = True
        lost = await run.send(WORKFLOW, review(), "w")
        assert b'"code":"UNAVAILABLE"' in lost.answer
        assert b'"mayHaveHappened":true' in lost.answer
        assert b"may have happened" in lost.answer
        again = await run.send(WORKFLOW, review(), "w")
        assert b'"mayHaveHappened":true' in again.answer
        if is_late:
            log.is_away = False
        else:
            log.come_back()
        settled = await run.send(WORKFLOW, review(), "w")
        assert settled.is_replayed is not is_late
        log.come_back()
        assert len(log.records) == 1, "of the attempts that come late, the log takes none"
        (entry,) = run.engine.workflows.workflows()
        assert str(entry["id"]).encode() in settled.answer


async def test_the_same_key_for_another_request_does_not_take_over_an_open_outcome() -> None:
    log = MemoryLog()
    async with running(log) as run:
        log.is_away = True
        await run.send(WORKFLOW, review(), "w")
        log.is_away = False
        other = await run.send(WORKFLOW, {**review(), "name": "other"}, "w")
        assert b'"name":"other"' in other.answer
