"""``Idempotency-Key``: a mutation that is sent again happens once, and is answered as it was."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import msgspec
import pytest

from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.engine.idempotency import IdempotencyState
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.server.keyed import KeyLog, send, serving, unanswering
from tests.waiting import until

GRAPHQL_JSON = "application/graphql-response+json"
CREATE_WORKFLOW = "mutation($input: WorkflowDefinitionInput!) { createWorkflow(input: $input) { id name } }"
CREATE_RESOURCE = "mutation($input: ResourceCreateInput!) { createResource(input: $input) { id data } }"
EXECUTE = """mutation($input: ActivityExecuteInput!) {
    executeActivity(input: $input) { id state history { data } } }"""
WORKFLOW: dict[str, object] = {
    "name": "Ping-pong",
    "initialState": "left",
    "states": [
        {"id": name, "name": name, "workflowId": "", "stateType": "NORMAL"} for name in ("left", "right")
    ],
    "activities": [
        {"id": "ping", "fromStates": ["left"], "toState": "right", "conditions": []},
        {"id": "pong", "fromStates": ["right"], "toState": "left", "conditions": []},
    ],
}


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> KeyLog:
    return KeyLog.watch(monkeypatch)


async def make_resource(url: str) -> object:
    workflow = (await send(url, CREATE_WORKFLOW, {"input": WORKFLOW})).data["createWorkflow"]["id"]
    made = await send(url, CREATE_RESOURCE, {"input": {"workflowId": workflow}})
    return made.data["createResource"]["id"]


async def resources(url: str) -> list[object]:
    return msgspec.convert((await send(url, "{ resources { id } }")).json["data"], dict[str, list[object]])[
        "resources"
    ]


# --- again, and once -------------------------------------------------------------------------------


async def test_the_same_key_and_request_get_the_same_bytes(tmp_path: Path, log: KeyLog) -> None:
    async with serving(tmp_path) as url:
        resource = await make_resource(url)
        ping = {"input": {"resourceId": resource, "activityId": "ping", "data": {"é": [1, 1.0, None]}}}
        first = await send(url, EXECUTE, ping, key="k")
        again = await send(url, EXECUTE, ping, key="k")
        assert (first.status, first.replayed) == (200, False)
        assert (again.status, again.body, again.replayed) == (200, first.body, True)
        assert first.data["executeActivity"]["state"] == "right"
        (record,) = log.records
        assert first.cursor == Cursor(
            first.cursor.epoch, record.offset, len(derive(record)) - 1, record.check
        )
        # Other keys are other mutations: this one is not allowed twice.
        assert (await send(url, EXECUTE, ping, key="l")).code == "ACTIVITY_NOT_ALLOWED"
        # The answer is that of then, whatever has happened since.
        pong = {"input": {"resourceId": resource, "activityId": "pong"}}
        await send(url, EXECUTE, pong)
        assert (await send(url, EXECUTE, ping, key="k")).body == first.body


async def test_an_answer_under_a_key_is_that_without_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as url:
        resource = await make_resource(url)
        replies = [
            await send(url, EXECUTE, {"input": {"resourceId": resource, "activityId": activity}}, key=key)
            for activity, key in (("ping", None), ("pong", None), ("ping", "a"), ("pong", "b"))
        ]
        for plain, keyed in zip(replies[:2], replies[2:], strict=True):
            assert plain.body.partition(b'"history"')[0] == keyed.body.partition(b'"history"')[0]
            assert list(plain.json) == list(keyed.json)


async def test_blanks_and_the_order_of_keys_make_no_other_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as url:
        first = await send(url, f"{CREATE_WORKFLOW} # one", {"input": WORKFLOW}, key="k")
        turned = dict(reversed(WORKFLOW.items()))
        again = await send(url, CREATE_WORKFLOW.replace(" ", "\n  "), {"input": turned}, key="k")
        assert (again.body, again.replayed) == (first.body, True)


@pytest.mark.parametrize("accept", ["application/json", GRAPHQL_JSON])
async def test_the_same_key_with_another_request_is_refused(tmp_path: Path, log: KeyLog, accept: str) -> None:
    names = "".join(CREATE_WORKFLOW.replace("mutation", f"mutation {name}") for name in "AB")
    async with serving(tmp_path) as url:
        await send(url, names, {"input": WORKFLOW}, key="k", operationName="A")
        for query, variables, name in (
            (names, {"input": WORKFLOW}, "B"),
            (names, {"input": {**WORKFLOW, "name": "x"}}, "A"),
            (names.replace("id name", "id"), {"input": WORKFLOW}, "A"),
        ):
            refused = await send(url, query, variables, key="k", operationName=name, accept=accept)
            assert (refused.status, refused.code) == (422, "IDEMPOTENCY_KEY_REUSED")
            assert "data" not in refused.json
            assert not refused.replayed
        assert len(log.records) == 1


# --- what is a key, and of what --------------------------------------------------------------------


@pytest.mark.parametrize("accept", ["application/json", GRAPHQL_JSON])
@pytest.mark.parametrize("key", ["", "x" * 129, "a b", "é", "a\tb"])
async def test_what_is_no_key_is_refused(tmp_path: Path, log: KeyLog, key: str, accept: str) -> None:
    async with serving(tmp_path) as url:
        refused = await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key=key, accept=accept)
        assert (refused.status, refused.code) == (400, "IDEMPOTENCY_KEY_INVALID")
        assert not log.records
        data = (await send(url, "{ workflows { id } }", key=key)).json["data"]
        assert data == {"workflows": []}, "on a query it is ignored, and nothing was executed"


async def test_the_longest_and_oddest_key_is_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as url:
        for key in ("x" * 128, "!", "~/..%2F\"'\\{}"):
            first = await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key=key)
            assert first.status == 200
            assert (await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key=key)).body == first.body


async def test_two_keys_in_one_request_are_none(tmp_path: Path) -> None:
    async with serving(tmp_path) as url, aiohttp.ClientSession() as http:
        headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        body = {"query": CREATE_WORKFLOW, "variables": {"input": WORKFLOW}}
        async with http.post(url, json=body, headers=headers) as answer:
            assert answer.status == 400


async def test_a_key_is_for_one_root_field(tmp_path: Path, log: KeyLog) -> None:
    query = """mutation($i: WorkflowDefinitionInput!, $no: Boolean! = false, $yes: Boolean!) {
        a: createWorkflow(input: $i) { id }
        ...F @include(if: $no)
        ... on Mutation @skip(if: $yes) { c: createWorkflow(input: $i) { id } }
        a: createWorkflow(input: $i) { name }
        d: createWorkflow(input: $i) @include(if: false) { id }
        __typename
    }
    fragment F on Mutation { b: createWorkflow(input: $i) { id } }"""
    async with serving(tmp_path) as url:
        for more in ({"no": True, "yes": True}, {"yes": False}):
            refused = await send(url, query, {"i": WORKFLOW, **more}, key="k")
            assert (refused.status, refused.code) == (400, "IDEMPOTENCY_KEY_INVALID")
        assert not log.records
        first = await send(url, query, {"i": WORKFLOW, "yes": True}, key="k")
        assert set(msgspec.convert(first.json["data"], dict[str, object])) == {"a", "__typename"}
        assert (await send(url, query, {"i": WORKFLOW, "yes": True}, key="k")).body == first.body
        assert len(log.records) == 1


async def test_a_refused_mutation_leaves_the_key_free(tmp_path: Path) -> None:
    async with serving(tmp_path) as url:
        resource = await make_resource(url)
        pong = {"input": {"resourceId": resource, "activityId": "pong"}}
        assert (await send(url, EXECUTE, pong, key="k")).code == "ACTIVITY_NOT_ALLOWED"
        assert (await send(url, EXECUTE, {"input": 1}, key="k")).code == "INVALID_INPUT"
        await send(url, EXECUTE, {"input": {"resourceId": resource, "activityId": "ping"}})
        done = await send(url, EXECUTE, pong, key="k")
        assert (done.data["executeActivity"]["state"], done.replayed) == ("left", False)


# --- restarts --------------------------------------------------------------------------------------


async def test_a_key_outlives_restarts_snapshots_and_the_trimming_of_the_log(tmp_path: Path) -> None:
    async with serving(tmp_path) as url:
        first = await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="a/b")
    async with serving(tmp_path) as url:  # from the snapshot of the first's end
        again = await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="a/b")
        assert (again.body, again.replayed) == (first.body, True)
    log = await SqliteEventLog.open(tmp_path)
    assert await log.trim(log.last_offset + 1) > 0
    await log.aclose()
    async with serving(tmp_path) as url:
        assert (await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="a/b")).body == first.body
        reused = await send(url, CREATE_WORKFLOW, {"input": {**WORKFLOW, "name": "x"}}, key="a/b")
        assert reused.code == "IDEMPOTENCY_KEY_REUSED"


async def test_after_a_kill_between_record_and_answer_the_answer_is_there(tmp_path: Path) -> None:
    async with unanswering(tmp_path) as url:
        resource = await make_resource(url)
        ping = {"input": {"resourceId": resource, "activityId": "ping"}}
        with pytest.raises(aiohttp.ClientError):
            await send(url, EXECUTE, ping, key="k")
    async with serving(tmp_path) as url:
        replies = [await send(url, EXECUTE, ping, key="k") for _ in range(2)]
        assert replies[0] == replies[1]
        assert replies[0].replayed
        assert replies[0].data["executeActivity"]["state"] == "right"
        assert replies[0].data["executeActivity"]["history"] == [{"data": None}]
        assert replies[0].cursor.offset == 3


# --- at the same time ------------------------------------------------------------------------------


async def test_of_two_at_the_same_time_the_second_waits_for_the_first(tmp_path: Path, log: KeyLog) -> None:
    async with serving(tmp_path) as url:
        log.gate.clear()
        first, *others = [
            asyncio.create_task(send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="k")) for _ in range(5)
        ]
        await until(lambda: log.appending)
        reused = await send(url, CREATE_WORKFLOW, {"input": {**WORKFLOW, "name": "x"}}, key="k")
        assert reused.code == "IDEMPOTENCY_KEY_REUSED"
        log.gate.set()
        replies = await asyncio.gather(first, *others)
        assert len({reply.body for reply in replies}) == 1
        assert sorted(reply.replayed for reply in replies) == [False, True, True, True, True]
        assert len(log.records) == 1


async def test_a_mutation_that_outlives_its_time_limit_is_covered_by_its_key(
    tmp_path: Path, log: KeyLog
) -> None:
    async with serving(tmp_path, execute_seconds=0.5) as url:
        log.gate.clear()
        late = await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="k")
        later = await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="k")
        assert (late.code, later.code) == ("TIMEOUT", "TIMEOUT")
        assert not later.replayed
        log.gate.set()
        await until(lambda: log.records)
        found = await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="k")
        assert found.replayed
        assert found.cursor.offset == log.records[0].offset
        assert len(log.records) == 1


async def test_a_mutation_that_is_stopped_with_the_server_before_its_record_leaves_the_key_free(
    tmp_path: Path, log: KeyLog
) -> None:
    async with serving(tmp_path, execute_seconds=0.5) as url:
        log.gate.clear()
        await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="k")
    log.gate.set()
    async with serving(tmp_path) as url:
        done = await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="k")
        assert (done.status, done.replayed, len(log.records)) == (200, False, 1)


# --- limits ----------------------------------------------------------------------------------------


async def test_an_answer_that_is_too_large_is_given_once(tmp_path: Path, log: KeyLog) -> None:
    query = CREATE_RESOURCE.replace("data", "data again: data")
    async with serving(tmp_path) as url:
        workflow = (await send(url, CREATE_WORKFLOW, {"input": WORKFLOW})).data["createWorkflow"]["id"]
        given = {"input": {"workflowId": workflow, "data": {"a": "x" * 140_000}}}
        first = await send(url, query, given, key="k")
        assert len(first.body) > 280_000
        again = await send(url, query, given, key="k")
        assert (again.status, again.code) == (409, "IDEMPOTENCY_ANSWER_TOO_LARGE")
        assert not again.replayed
        assert "happened" in again.body.decode()
        assert len(log.records) == 1
        assert len(log.records[0].data) < 150_000


async def test_a_key_is_free_again_after_its_time(
    tmp_path: Path, log: KeyLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [datetime.now(UTC)]
    states: list[IdempotencyState] = []

    def engine(*given: object, **more: object) -> Engine:
        more["now"] = lambda: now[0]
        made = Engine(*given, **more)  # type: ignore[arg-type]  # passed on as it came
        states.append(made.idempotency)
        return made

    monkeypatch.setattr("circuit_breaker_server.server_parts.Engine", engine)
    fake = SimpleNamespace(time_ns=lambda: int(now[0].timestamp() * 1e9))
    monkeypatch.setattr("circuit_breaker_server.log.writer.time", fake)
    async with serving(tmp_path) as url:
        first = await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="k")
        now[0] += timedelta(seconds=86_399)
        assert (await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="k")).body == first.body
        now[0] += timedelta(seconds=2)
        other = {"input": {**WORKFLOW, "name": "Other"}}
        second = await send(url, CREATE_WORKFLOW, other, key="k")
        assert second.data["createWorkflow"]["name"] == "Other"
        assert not second.replayed
        assert (await send(url, CREATE_WORKFLOW, other, key="k")).body == second.body
        await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="l")
        assert len(states[-1]) == 2
        now[0] += timedelta(days=2)
        await send(url, CREATE_WORKFLOW, {"input": WORKFLOW})
        assert len(states[-1]) == 0, "a newer record, with a key or not, ends what is too old"
    async with serving(tmp_path) as url:
        assert len(states[-1]) == 0
        assert not (await send(url, CREATE_WORKFLOW, other, key="k")).replayed
    async with serving(tmp_path / "short", idempotency_seconds=1.5) as url:
        await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="k")
        now[0] += timedelta(seconds=1.4)
        assert (await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="k")).replayed
        now[0] += timedelta(seconds=0.2)
        assert not (await send(url, CREATE_WORKFLOW, {"input": WORKFLOW}, key="k")).replayed
