"""Stored rules: kept with versions, refused with the place named, kept while a workflow names them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from pathlib import Path

import msgspec
import pytest

from circuit_breaker_server.engine.command import Committed, Value
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.engine.rules.inputs import EvaluationInput, RuleInput
from circuit_breaker_server.engine.workflows.definition_validation import MAX_NAMED_RULES
from circuit_breaker_server.engine.workflows.inputs import CreateWorkflow
from circuit_breaker_server.log.event_log import LogCorruptError, NewRecord
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.worlds import (
    activity,
    create_resource,
    create_workflow,
    execute,
    part,
    review,
    running_engine,
    workflow_input,
)

TITLED = {"conditionType": "FieldExists", "field": "title"}


def rule_input(condition: Mapping[str, object] = TITLED, /, **more: object) -> RuleInput:
    given = {"name": "titled", "description": "has a title", "condition": condition, **more}
    return msgspec.convert(given, RuleInput)


async def create(engine: Engine, condition: Mapping[str, object] = TITLED, **more: object) -> str:
    made = await engine.rules.create_rule(rule_input(condition, **more))
    return str(made.value["id"])


def whole(value: object) -> object:
    """Ask for everything in an answer."""
    if callable(value):
        return whole(value())
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, list) else value


def nested(depth: int) -> dict[str, object]:
    """Return a condition of so many levels."""
    condition: dict[str, object] = dict(TITLED)
    for _ in range(depth - 1):
        condition = {"conditionType": "Not", "rule": condition}
    return condition


def submitted_by(*conditions: str) -> dict[str, object]:
    """Describe a workflow whose activity ``submit`` has these conditions."""
    return review(activities=[activity("submit", ["draft"], "review", *conditions)])


def passed(engine: Engine, rule_id: str, data: object, metadata: object = None) -> object:
    return engine.rules.evaluate(EvaluationInput(rule_id=rule_id, data=data, metadata=metadata))["passed"]


# --- kept --------------------------------------------------------------------------------------------


async def test_a_rule_is_answered_as_it_was_given_with_nested_rules_as_rules_without_a_name() -> None:
    condition = {
        "conditionType": "And",
        "rules": [
            {"conditionType": "FieldGreaterThan", "field": "score", "value": 5},
            {"conditionType": "Not", "rule": {"conditionType": "FieldEquals", "field": "x", "value": None}},
            {"conditionType": "Or", "rules": []},
            {"conditionType": "FieldContains", "field": "text", "substring": "", "rule": None},
        ],
    }
    async with running_engine(MemoryLog()) as engine:
        made = await engine.rules.create_rule(rule_input(condition, tags=["a", "b"]))
        value = whole(made.value)
        assert value == whole(engine.rules.rule(str(made.value["id"])))
    assert isinstance(value, dict)
    at, id_ = value["createdAt"], value["id"]
    nothing = dict.fromkeys(("field", "value", "substring", "rules", "rule", "script"))

    def inner(path: str, **condition: object) -> dict[str, object]:
        return {
            "id": f"{id_}.{path}",
            "name": "",
            "description": "",
            "condition": {**nothing, **condition},
            "version": 1,
            "createdAt": at,
            "updatedAt": at,
            "createdBy": None,
            "tags": [],
        }

    rules = [
        inner("0", conditionType="FieldGreaterThan", field="score", value=5),
        inner("1", conditionType="Not", rule=inner("1.0", conditionType="FieldEquals", field="x")),
        inner("2", conditionType="Or", rules=[]),
        inner("3", conditionType="FieldContains", field="text", substring=""),
    ]
    assert value == {
        **inner("", conditionType="And", rules=rules),
        "id": id_,
        "name": "titled",
        "description": "has a title",
        "tags": ["a", "b"],
    }


async def test_an_update_replaces_the_rule_and_is_a_version_later() -> None:
    async with running_engine(MemoryLog()) as engine:
        made = await engine.rules.create_rule(rule_input(tags=["a"]))
        id_ = str(made.value["id"])
        new = rule_input({"conditionType": "And", "rules": []}, name="free", description="")
        updated = await engine.rules.update_rule(id_, new)
        assert whole(updated.value) == whole(engine.rules.rule(id_))
        assert (updated.value["version"], updated.value["name"], updated.value["tags"]) == (2, "free", [])
        assert updated.value["createdAt"] == made.value["createdAt"]
        assert str(updated.value["updatedAt"]) > str(made.value["updatedAt"])
        assert passed(engine, id_, {}) is True


async def test_rules_are_found_by_all_of_their_tags() -> None:
    async with running_engine(MemoryLog()) as engine:
        a = await create(engine, tags=["a"])
        ab = await create(engine, tags=["b", "a"])
        none = await create(engine)

        def found(*tags: str) -> list[object]:
            return [value["id"] for value in engine.rules.rules(tags) if value is not None]

        assert found() == [a, ab, none]
        assert found("a") == [a, ab]
        assert found("a", "b") == [ab]
        assert found("a", "c") == []


async def test_a_deleted_rule_is_gone() -> None:
    async with running_engine(MemoryLog()) as engine:
        id_ = await create(engine)
        assert (await engine.rules.delete_rule(id_)).value is True
        assert engine.rules.rule(id_) is None
        for command in (engine.rules.delete_rule(id_), engine.rules.update_rule(id_, rule_input())):
            with pytest.raises(EngineError, match="there is no rule") as raised:
                await command
            assert raised.value.code is ErrorCode.NOT_FOUND
        with pytest.raises(EngineError, match="there is no rule"):
            passed(engine, id_, {})


async def test_a_restart_finds_rules_and_who_names_them(tmp_path: Path) -> None:
    async def look(engine: Engine) -> object:
        with pytest.raises(EngineError, match="names it") as raised:
            await engine.rules.delete_rule(kept)
        return [whole(list(engine.rules.rules())), raised.value.facts]

    log = await SqliteEventLog.open(tmp_path)
    async with running_engine(log, snapshot_every=3) as engine:
        kept, gone, changed = [await create(engine, nested(3)) for _ in range(3)]
        await create_workflow(engine.workflows, submitted_by(f"rule:{kept}"))
        await engine.rules.delete_rule(gone)
        await engine.rules.update_rule(changed, rule_input(tags=["new"]))
        before = await look(engine)
    await log.aclose()
    log = await SqliteEventLog.open(tmp_path)
    async with running_engine(log) as engine:
        assert await look(engine) == before
    await log.aclose()


async def test_the_records_of_rules_are_no_events() -> None:
    log = MemoryLog()
    async with running_engine(log) as engine:
        id_ = await create(engine)
        await engine.rules.update_rule(id_, rule_input())
        await engine.rules.delete_rule(id_)
    assert [derive(record) for record in log.records] == [()] * 3
    with pytest.raises(LogCorruptError):
        derive(msgspec.structs.replace(log.records[0], data=b'{"type":"rule_bent","v":1}'))


# --- refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (
            {"conditionType": "fieldExists", "field": "x"},
            "condition.conditionType: unknown type 'fieldExists'",
        ),
        ({"conditionType": ""}, "condition.conditionType: unknown type ''; the types are FieldExists, "),
        ({"conditionType": "Script", "script": "1"}, "condition.script: this server runs no scripts"),
        ({**TITLED, "script": "1"}, "condition.script: this server runs no scripts"),
        ({"conditionType": "FieldExists"}, "condition.field: FieldExists needs it"),
        ({"conditionType": "FieldExists", "field": ""}, "condition.field: 0 characters"),
        ({"conditionType": "FieldExists", "field": "k" * 257}, "condition.field: 257 characters"),
        ({**TITLED, "value": 1}, "condition.value: FieldExists has no value"),
        ({**TITLED, "substring": ""}, "condition.substring: FieldExists has no substring"),
        ({**TITLED, "rules": []}, "condition.rules: FieldExists has no rules"),
        ({**TITLED, "rule": TITLED}, "condition.rule: FieldExists has no rule"),
        ({"conditionType": "FieldEquals", "field": "x"}, "condition.value: FieldEquals needs it"),
        ({"conditionType": "FieldLessThan", "field": "x", "value": None}, "FieldLessThan needs it"),
        ({"conditionType": "FieldGreaterThan", "field": "x", "value": "5"}, "must be a number, not a text"),
        (
            {"conditionType": "FieldGreaterThan", "field": "x", "value": True},
            "must be a number, not a boolean",
        ),
        (
            {"conditionType": "FieldLessThan", "field": "x", "value": 10**30},
            "an integer of more than 64 bits",
        ),
        ({"conditionType": "FieldContains", "field": "x"}, "condition.substring: FieldContains needs it"),
        ({"conditionType": "And"}, "condition.rules: And needs it"),
        ({"conditionType": "Or", "rules": [], "field": "x"}, "condition.field: Or has no field"),
        ({"conditionType": "Not"}, "condition.rule: Not needs it"),
        (
            {
                "conditionType": "And",
                "rules": [TITLED, {"conditionType": "Not", "rule": {"conditionType": "x"}}],
            },
            "condition.rules[1].rule.conditionType: unknown type 'x'",
        ),
        (nested(17), "condition" + ".rule" * 16 + ": conditions nest at most 16 levels deep"),
        ({"conditionType": "Or", "rules": [TITLED] * 500}, "condition.rules[499]: a rule has at most 500"),
        (
            {"conditionType": "FieldContains", "field": "x", "substring": "s" * 65_536},
            "at most 65536 are allowed",
        ),
    ],
)
async def test_a_condition_that_cannot_be_kept_is_refused_and_its_place_named(
    condition: dict[str, object], text: str
) -> None:
    log = MemoryLog()
    async with running_engine(log) as engine:
        with pytest.raises(EngineError) as raised:
            await create(engine, condition)
    assert raised.value.code is ErrorCode.INVALID_INPUT
    assert text in raised.value.message
    assert log.records == []


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"name": " "}, "name: must not be empty"),
        ({"description": "d" * 10_001}, "description: 10001 characters"),
        ({"tags": ["a", "a"]}, "tags: 'a' is there twice"),
        ({"tags": [""]}, "tags[0]: must not be empty"),
        ({"tags": [str(i) for i in range(51)]}, "tags: 51 of them"),
    ],
)
async def test_a_rule_that_cannot_be_kept_is_refused(more: dict[str, object], text: str) -> None:
    async with running_engine(MemoryLog()) as engine:
        id_ = await create(engine)
        for command in (
            engine.rules.create_rule(rule_input(TITLED, **more)),
            engine.rules.update_rule(id_, rule_input(TITLED, **more)),
        ):
            with pytest.raises(EngineError) as raised:
                await command
            assert text in raised.value.message


async def test_the_most_that_is_allowed_is_kept() -> None:
    async with running_engine(MemoryLog()) as engine:
        deep = await create(engine, nested(16))
        wide = await create(engine, {"conditionType": "And", "rules": [TITLED] * 499})
        for id_, with_title in ((deep, False), (wide, True)):
            assert passed(engine, id_, {"title": 1}) is with_title
            assert passed(engine, id_, {}) is not with_title


async def test_of_twenty_updates_at_once_one_wins_and_the_rest_conflict(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path)
    async with running_engine(log) as engine:
        id_ = await create(engine)
        results = await asyncio.gather(
            *(engine.rules.update_rule(id_, rule_input(name=f"n{i}")) for i in range(20)),
            return_exceptions=True,
        )
        (won,) = [result for result in results if isinstance(result, Committed)]
        lost = [result.code for result in results if isinstance(result, EngineError)]
        assert lost == [ErrorCode.CONFLICT] * 19
        assert whole(won.value) == whole(engine.rules.rule(id_))
        assert won.value["version"] == 2
    await log.aclose()


# --- named by workflows ------------------------------------------------------------------------------


async def test_an_activity_is_held_to_the_rule_it_names_as_it_is_when_it_is_executed() -> None:
    async with running_engine(MemoryLog()) as engine:
        id_ = await create(engine)
        workflow = await create_workflow(engine.workflows, submitted_by(f"rule:{id_}"))
        resource = await create_resource(engine.workflows, workflow, data={"text": "t"})
        assert engine.workflows.available_activities(resource) == []
        with pytest.raises(EngineError, match=f"condition 'rule:{id_}' does not hold") as raised:
            await execute(engine.workflows, resource, "submit")
        assert raised.value.code is ErrorCode.ACTIVITY_NOT_ALLOWED
        assert raised.value.facts["condition"] == f"rule:{id_}"
        await engine.rules.update_rule(id_, rule_input({"conditionType": "FieldExists", "field": "text"}))
        assert [each["id"] for each in engine.workflows.available_activities(resource)] == ["submit"]
        assert (await execute(engine.workflows, resource, "submit"))["state"] == "review"


async def test_every_condition_must_hold_named_rules_negated_rules_and_others() -> None:
    async with running_engine(MemoryLog()) as engine:
        titled = await create(engine)
        blocked = await create(engine, {"conditionType": "FieldEquals", "field": "blocked", "value": True})
        workflow = await create_workflow(
            engine.workflows, submitted_by(f"rule:{titled}", f"not:rule:{blocked}", "field_exists:owner")
        )
        good = {"title": "t", "owner": "ada"}
        for data, allowed in (
            (good, True),
            ({"title": "t"}, False),
            ({"owner": "ada"}, False),
            ({**good, "blocked": True}, False),
            ({**good, "blocked": False}, True),
        ):
            resource = await create_resource(engine.workflows, workflow, data=data)
            assert bool(engine.workflows.available_activities(resource)) is allowed, data


@pytest.mark.parametrize("prefix", ["rule:", "not:rule:", "not:not:rule:"])
async def test_a_workflow_that_names_a_rule_that_is_not_there_is_refused(prefix: str) -> None:
    async with running_engine(MemoryLog()) as engine:
        id_ = await create(engine)
        with pytest.raises(EngineError) as raised:
            await create_workflow(engine.workflows, submitted_by(f"rule:{id_}", prefix + "nothing"))
        assert raised.value.code is ErrorCode.INVALID_INPUT
        assert raised.value.message == "activities[0].conditions[1]: there is no rule 'nothing'"


async def test_a_workflow_names_so_many_rules_at_most() -> None:
    async with running_engine(MemoryLog()) as engine:
        named = [f"rule:{await create(engine)}" for _ in range(MAX_NAMED_RULES + 1)]

        def naming(count: int) -> CreateWorkflow:
            activities = [
                activity(f"a{i}", ["draft"], "review", *named[i : min(i + 40, count)])
                for i in range(0, count, 40)
            ]
            return workflow_input(review(activities=activities))

        await engine.workflows.create_workflow(naming(MAX_NAMED_RULES))
        with pytest.raises(EngineError, match="name 401 rules; a workflow names 400 at most"):
            await engine.workflows.create_workflow(naming(MAX_NAMED_RULES + 1))


async def test_only_activities_name_rules() -> None:
    async with running_engine(MemoryLog()) as engine:
        given = msgspec.to_builtins(workflow_input())
        off = {"enabled": False, "delaySeconds": 1, "targetState": "draft", "conditions": ["rule:x"]}
        given["states"][0]["config"] = {"autoTransition": off}
        with pytest.raises(EngineError, match="only the conditions of activities name rules"):
            await engine.workflows.create_workflow(msgspec.convert(given, CreateWorkflow))


async def test_the_rules_of_a_workflow_are_those_its_activities_name_each_once() -> None:
    async with running_engine(MemoryLog()) as engine:
        first, second, _ = [await create(engine) for _ in range(3)]
        activities = [
            activity("a", ["draft"], "draft", f"not:rule:{second}", "field_exists:x"),
            activity("b", ["draft"], "draft", f"rule:{first}", f"rule:{second}"),
        ]
        workflow = await create_workflow(engine.workflows, review(activities=activities))
        assert engine.workflows.rule_ids(workflow) == (second, first)
        named = engine.rules.named(engine.workflows.rule_ids(workflow))
        assert [value["id"] for value in named] == [second, first]
        with pytest.raises(EngineError, match="there is no workflow"):
            engine.workflows.rule_ids("nothing")


async def test_a_rule_that_a_workflow_names_is_not_deleted_and_the_workflow_is_told() -> None:
    log = MemoryLog()
    async with running_engine(log) as engine:
        id_ = await create(engine)
        workflow = await create_workflow(engine.workflows, submitted_by(f"not:rule:{id_}"))
        before = len(log.records)
        with pytest.raises(EngineError, match=f"workflow '{workflow}' names it") as raised:
            await engine.rules.delete_rule(id_)
        assert (raised.value.code, raised.value.facts) == (ErrorCode.CONFLICT, {"workflowId": workflow})
        assert len(log.records) == before
        assert engine.rules.rule(id_) is not None


async def test_a_rule_is_deleted_before_a_workflow_names_it_or_after_never_in_between() -> None:
    for deletion_first in (False, True):
        log = MemoryLog()
        async with running_engine(log) as engine:
            id_ = await create(engine)
            log.gate.clear()
            commands: list[Coroutine[object, object, object]] = [
                create_workflow(engine.workflows, submitted_by(f"rule:{id_}")),
                engine.rules.delete_rule(id_),
            ]
            if deletion_first:
                commands.reverse()
            tasks = [asyncio.create_task(each) for each in commands]
            asyncio.get_running_loop().call_soon(log.gate.set)  # when both have come as far as they can
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert not isinstance(results[0], BaseException)
            assert isinstance(results[1], EngineError)
            assert (engine.rules.rule(id_) is None) is deletion_first


async def test_a_rule_that_another_writer_takes_away_allows_nothing_negated_or_not() -> None:
    log = MemoryLog()
    async with running_engine(log) as engine:
        id_ = await create(engine)
        workflow = await create_workflow(engine.workflows, submitted_by(f"not:rule:{id_}"))
        resource = await create_resource(engine.workflows, workflow)
        data = msgspec.json.encode(
            {"type": "rule_deleted", "v": 1, "id": id_, "at": "2030-01-01T00:00:00.000Z"}
        )
        log.put(NewRecord(subject=f"rule.{id_}", id="0" * 32, data=data))
        with pytest.raises(EngineError, match="does not hold"):
            await execute(engine.workflows, resource, "submit")


async def test_the_answer_to_an_update_is_a_record_of_the_rule() -> None:
    async with running_engine(MemoryLog()) as engine:
        made: Committed[Value] = await engine.rules.create_rule(rule_input())
        updated = await engine.rules.update_rule(part(made.value, "id", str), rule_input())
        assert updated.record.subject == made.record.subject == f"rule.{made.value['id']}"
        assert updated.cursor.offset == updated.record.offset
