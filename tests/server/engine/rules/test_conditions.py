"""When conditions hold, and how they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_server.engine.rules.conditions import (
    And,
    Condition,
    FieldContains,
    FieldEquals,
    FieldExists,
    FieldGreaterThan,
    FieldLessThan,
    InvalidCondition,
    Not,
    Or,
    Rule,
    RuleNamed,
    holds,
    parse,
    resolved,
)

YES, NO = FieldExists("yes"), FieldExists("no")
DATA = {"yes": None, "n": 5, "text": "red wine", "flag": True, "both": "data", "list": ["wine"], "one": 1}
METADATA = {"m": 7.5, "both": "metadata", "words": "12"}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (FieldExists("yes"), True),
        (FieldExists("m"), True),
        (FieldExists("no"), False),
        (FieldEquals("n", 5), True),
        (FieldEquals("n", 5.0), True),
        (FieldEquals("n", "5"), False),
        (FieldEquals("flag", 1), False),
        (FieldEquals("one", True), False),
        (FieldEquals("yes", None), True),
        (FieldEquals("no", None), False),
        (FieldEquals("both", "data"), True),
        (FieldEquals("both", "metadata"), True),
        (FieldEquals("list", ["wine"]), True),
        (FieldGreaterThan("n", 4.99), True),
        (FieldGreaterThan("n", 5), False),
        (FieldGreaterThan("m", 7), True),
        (FieldGreaterThan("words", 1), False),
        (FieldGreaterThan("flag", 0), False),
        (FieldGreaterThan("no", 0), False),
        (FieldLessThan("n", 5.01), True),
        (FieldLessThan("n", 5), False),
        (FieldLessThan("no", 1), False),
        (FieldLessThan("flag", 2), False),
        (FieldContains("text", "d w"), True),
        (FieldContains("text", "white"), False),
        (FieldContains("list", "wine"), False),
        (FieldContains("n", "5"), False),
        (And((YES, YES)), True),
        (And((YES, NO)), False),
        (And(()), True),
        (Or((NO, YES)), True),
        (Or((NO, NO)), False),
        (Or(()), False),
        (Not(NO), True),
        (Not(And((YES, Or((NO, YES))))), False),
    ],
)
def test_a_rule_holds_as_stated(rule: Rule, expected: bool) -> None:
    assert holds(rule, data=DATA, metadata=METADATA) is expected


def test_numbers_and_texts_are_read_from_the_metadata_first() -> None:
    data, metadata = {"x": 1, "t": "data"}, {"x": 100, "t": "metadata"}
    assert holds(FieldGreaterThan("x", 50), data=data, metadata=metadata)
    assert not holds(FieldLessThan("x", 50), data=data, metadata=metadata)
    assert holds(FieldContains("t", "meta"), data=data, metadata=metadata)
    assert not holds(FieldGreaterThan("x", 0), data=data, metadata={"x": "no number"})


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("field_exists:title", FieldExists("title")),
        ("field_exists:a=b:c", FieldExists("a=b:c")),
        ('field_equals:owner="ada"', FieldEquals("owner", "ada")),
        ("field_equals:tags=[1,null]", FieldEquals("tags", [1, None])),
        ("field_equals:a:b=true", FieldEquals("a:b", True)),
        ("field_greater_than:score=4.5", FieldGreaterThan("score", 4.5)),
        ("field_less_than:score=-1e3", FieldLessThan("score", -1000.0)),
        ("field_contains:text=a=b", FieldContains("text", "a=b")),
        ("field_contains:text=", FieldContains("text", "")),
        ("not:field_exists:x", Not(FieldExists("x"))),
        ("not:not:field_exists:x", Not(Not(FieldExists("x")))),
        ("rule:some-id", RuleNamed("some-id")),
        ("not:rule:a:b", RuleNamed("a:b", negated=True)),
        ("not:not:rule:x", RuleNamed("x")),
    ],
)
def test_a_condition_is_read_as_written(text: str, rule: Condition) -> None:
    assert parse(text) == rule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "approved",
        "field_exists",
        "field_exists:",
        "Field_exists:x",
        "field_equals:x",
        "field_equals:=1",
        "field_contains:x",
        "not",
        "not:",
        "not:nonsense",
        "rule",
        "rule:",
        "not:rule:",
        "script:print(1)",
    ],
)
def test_an_unknown_condition_is_an_error_that_says_how_conditions_are_written(text: str) -> None:
    with pytest.raises(InvalidCondition, match="field_equals:KEY=JSON"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "field_equals:x=ada",
        "field_equals:x=NaN",
        "field_equals:x=1e999",
        "field_equals:x=" + "9" * 30,
        "field_equals:x=" + "[" * 5000,
        "field_greater_than:x=abc",
        'field_greater_than:x="5"',
        "field_greater_than:x=true",
        "field_less_than:x=",
        "field_less_than:x=Infinity",
    ],
)
def test_a_value_that_does_not_fit_the_condition_is_an_error(text: str) -> None:
    with pytest.raises(InvalidCondition, match="what follows '='"):
        parse(text)


@given(st.text(max_size=40))
def test_reading_a_condition_ends_with_a_rule_or_the_one_error(text: str) -> None:
    for prefix in ("", "not:", "rule:", "field_equals:k=", "field_greater_than:k="):
        try:
            rule = resolved(parse(prefix + text), lambda _: YES)
        except InvalidCondition:
            continue
        assert rule is not None
        assert holds(rule, data={"k": text}, metadata={}) is not holds(
            Not(rule), data={"k": text}, metadata={}
        )


def test_a_named_rule_is_the_stored_one_and_may_be_negated() -> None:
    stored = {"y": YES}
    assert resolved(RuleNamed("y"), stored.get) == YES
    assert resolved(RuleNamed("y", negated=True), stored.get) == Not(YES)
    assert resolved(NO, stored.get) == NO


@pytest.mark.parametrize("negated", [False, True])
def test_a_named_rule_that_is_not_there_is_nothing_negated_or_not(negated: bool) -> None:
    assert resolved(RuleNamed("gone", negated), lambda _: None) is None
