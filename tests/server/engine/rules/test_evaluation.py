"""Evaluations: they decide as conditions do, and say why."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.rules.conditions import (
    And,
    FieldContains,
    FieldEquals,
    FieldExists,
    FieldGreaterThan,
    FieldLessThan,
    Not,
    Or,
    Rule,
    holds,
)
from circuit_breaker_server.engine.rules.evaluation import evaluate
from circuit_breaker_server.engine.rules.inputs import ConditionInput, EvaluationInput, RuleInput
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.worlds import part, running_engine

KEYS = st.sampled_from("abc")
VALUES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "ab"])
OBJECTS = st.dictionaries(KEYS, VALUES)
FIELDS: st.SearchStrategy[Rule] = st.one_of(
    st.builds(FieldExists, KEYS),
    st.builds(FieldEquals, KEYS, VALUES),
    st.builds(FieldGreaterThan, KEYS, st.integers(-2, 2)),
    st.builds(FieldLessThan, KEYS, st.integers(-2, 2)),
    st.builds(FieldContains, KEYS, st.sampled_from(["", "a"])),
)
RULES: st.SearchStrategy[Rule] = st.recursive(
    FIELDS,
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=8,
)

M = "metadata"
OVER = FieldGreaterThan("m", 4)


@given(RULES, OBJECTS, OBJECTS)
def test_an_evaluation_decides_as_the_conditions_of_activities_do(
    rule: Rule, data: dict[str, object], metadata: dict[str, object]
) -> None:
    result = evaluate("r", rule, data=data, metadata=metadata)
    assert result["passed"] is holds(rule, data=data, metadata=metadata)
    assert result["reason"]


@given(RULES)
def test_a_stored_rule_is_read_as_it_was_written(rule: Rule) -> None:
    written = msgspec.json.encode(rule)
    assert msgspec.json.encode(msgspec.json.decode(written, type=Rule)) == written
    assert msgspec.json.decode(written, type=Rule) == rule


@pytest.mark.parametrize(
    ("rule", "passed", "reason", "place"),
    [
        (FieldExists("m"), True, "the metadata has the key 'm'", "metadata"),
        (FieldExists("d"), True, "the data has the key 'd'", "data"),
        (FieldExists("x"), False, "neither the metadata nor the data has the key 'x'", None),
        (FieldGreaterThan("d", 4), True, "'d' of the data is 5, which is a number greater than 4", "data"),
        (
            FieldGreaterThan("m", 4),
            False,
            "'m' of the metadata is \"a\", which is not a number greater than 4",
            M,
        ),
        (FieldLessThan("d", 5), False, "'d' of the data is 5, which is not a number less than 5", "data"),
        (FieldContains("m", "a"), True, '\'m\' of the metadata is "a", which is a text that contains "a"', M),
        (FieldEquals("both", 1), True, "'both' of the metadata is 1, which is equal to 1", "metadata"),
        (FieldEquals("both", 2), True, "'both' of the data is 2, which is equal to 2", "data"),
        (FieldEquals("both", 3), False, "'both' of the metadata is 1, which is not equal to 3", "metadata"),
    ],
)
def test_a_reason_says_what_was_found_and_where(rule: Rule, passed: bool, reason: str, place: object) -> None:
    result = evaluate("r", rule, data={"d": 5, "both": 2}, metadata={"m": "a", "both": 1})
    assert (result["passed"], result["reason"]) == (passed, reason)
    kind = type(rule).__name__
    details = part(result, "details", dict)
    assert (details["conditionType"], details["foundIn"]) == (kind, place)


def test_nested_rules_are_all_evaluated_under_ids_of_their_own() -> None:
    rule = Or((FieldExists("no"), And(()), Not(FieldExists("yes")), Or(())))
    result = evaluate("r", rule, data={"yes": 1}, metadata={})
    assert (result["ruleId"], result["reason"]) == ("r", "rule r.1 passes")
    assert result["details"] == {"conditionType": "Or", "passed": 1, "of": 4}
    inner = part(result, "subResults", list)
    assert [(each["ruleId"], each["passed"]) for each in inner] == [
        ("r.0", False),
        ("r.1", True),
        ("r.2", False),
        ("r.3", False),
    ]
    assert [each["reason"] for each in inner[1:]] == [
        "there is no rule that could fail",
        "rule r.2.0 passes, and is negated",
        "there is no rule that could pass",
    ]
    assert inner[2]["subResults"][0]["ruleId"] == "r.2.0"


def test_a_failed_and_names_the_first_that_fails_and_a_failed_or_how_many() -> None:
    yes, no = FieldExists("yes"), FieldExists("no")
    results = [
        evaluate("r", rule, data={"yes": 1}, metadata={}) for rule in (And((yes, no, no)), Or((no, no)))
    ]
    assert [result["reason"] for result in results] == [
        "2 of 3 rules fail, the first is r.1",
        "none of 2 rules passes",
    ]
    assert evaluate("r", And((yes, yes)), data={"yes": 1}, metadata={})["reason"] == "all of 2 rules pass"


def test_a_long_value_is_cut_in_a_reason() -> None:
    result = evaluate("r", FieldEquals("k", "b" * 1000), data={"k": "a" * 100_000}, metadata={})
    assert len(part(result, "reason", str)) < 300


async def evaluated(engine: Engine, data: object, metadata: object) -> object:
    condition = ConditionInput(condition_type="FieldExists", field="k")
    made = await engine.rules.create_rule(RuleInput(name="n", description="", condition=condition))
    given = EvaluationInput(rule_id=str(made.value["id"]), data=data, metadata=metadata)
    return engine.rules.evaluate(given)["passed"]


async def test_a_rule_is_evaluated_on_objects_only() -> None:
    async with running_engine(MemoryLog()) as engine:
        assert await evaluated(engine, {}, {"k": None}) is True
        assert await evaluated(engine, {"k": 1}, None) is True
        for data, metadata, text in (
            ([], None, "data must be an object"),
            ({}, "x", "metadata must be an object"),
        ):
            with pytest.raises(EngineError, match=text) as raised:
                await evaluated(engine, data, metadata)
            assert raised.value.code is ErrorCode.INVALID_INPUT
