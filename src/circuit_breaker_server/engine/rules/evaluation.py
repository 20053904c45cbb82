"""A rule evaluated with reasons: what :func:`~.conditions.holds` decides, told for people."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_breaker_server.engine.command import Value
from circuit_breaker_server.engine.errors import shown
from circuit_breaker_server.engine.json_values import encode
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
    place_of,
)

__all__ = ["evaluate", "nested_id"]

_SHOWN_BYTES = 80

_Field = FieldExists | FieldEquals | FieldGreaterThan | FieldLessThan | FieldContains


def nested_id(parent: str, index: int) -> str:
    """Make the id of a rule nested in another."""
    return f"{parent}.{index}"


def evaluate(
    rule_id: str, rule: Rule, *, data: Mapping[str, object], metadata: Mapping[str, object]
) -> Value:
    """Evaluate a rule and every rule nested in it; return ``RuleEvaluationResultGQL``.

    ``passed`` is what :func:`~.conditions.holds` says. The values found are in ``reason`` only, cut short:
    the size of the answer depends on the rule, not on the data.
    """
    match rule:
        case And(rules) | Or(rules):
            nested = rules
        case Not(negated):
            nested = (negated,)
        case _:
            return _evaluate_field(rule_id, rule, data, metadata)
    results = [
        evaluate(nested_id(rule_id, i), each, data=data, metadata=metadata) for i, each in enumerate(nested)
    ]
    met = [bool(result["passed"]) for result in results]
    passed, reason = _combined(rule, rule_id, met)
    details: Value = {"conditionType": type(rule).__name__, "passed": sum(met), "of": len(met)}
    return _result(rule_id, passed, reason, details, results)


def _combined(rule: And | Or | Not, rule_id: str, met: list[bool]) -> tuple[bool, str]:
    match rule:
        case And():
            if all(met):
                return True, f"all of {len(met)} rules pass" if met else "there is no rule that could fail"
            return (
                False,
                f"{met.count(False)} of {len(met)} rules fail, the first is {_first(rule_id, met, False)}",
            )
        case Or():
            if any(met):
                return True, f"rule {_first(rule_id, met, True)} passes"
            return False, f"none of {len(met)} rules passes" if met else "there is no rule that could pass"
        case Not():
            (inner,) = met
            return not inner, f"rule {nested_id(rule_id, 0)} {'passes' if inner else 'fails'}, and is negated"


def _first(rule_id: str, met: list[bool], wanted: bool) -> str:
    return nested_id(rule_id, met.index(wanted))


def _evaluate_field(
    rule_id: str, rule: _Field, data: Mapping[str, object], metadata: Mapping[str, object]
) -> Value:
    passed = holds(rule, data=data, metadata=metadata)
    place = place_of(rule.field, data=data, metadata=metadata)
    name = None if place is None else "metadata" if place is metadata else "data"
    key = shown(rule.field)
    if place is None:
        reason = f"neither the metadata nor the data has the key {key}"
    elif isinstance(rule, FieldExists):
        reason = f"the {name} has the key {key}"
    else:
        if passed and isinstance(rule, FieldEquals) and not holds(rule, data={}, metadata=metadata):
            place, name = data, "data"  # the metadata has another value; either place is enough
        reason = f"{key} of the {name} is {_short(place[rule.field])}, which {_relation(rule, passed)}"
    details: Value = {"conditionType": type(rule).__name__, "field": rule.field, "foundIn": name}
    return _result(rule_id, passed, reason, details, [])


def _relation(rule: FieldEquals | FieldGreaterThan | FieldLessThan | FieldContains, passed: bool) -> str:
    verb = "is" if passed else "is not"
    match rule:
        case FieldEquals(_, value):
            return f"{verb} equal to {_short(value)}"
        case FieldGreaterThan(_, value):
            return f"{verb} a number greater than {_short(value)}"
        case FieldLessThan(_, value):
            return f"{verb} a number less than {_short(value)}"
        case FieldContains(_, substring):
            return f"{verb} a text that contains {_short(substring)}"


def _short(value: object) -> str:
    text = bytes(encode(value)).decode()
    return text if len(text) <= _SHOWN_BYTES else text[:_SHOWN_BYTES] + "…"


def _result(rule_id: str, passed: bool, reason: str, details: Value, results: list[Value]) -> Value:
    return {
        "ruleId": rule_id,
        "passed": passed,
        "reason": reason,
        "details": details,
        "subResults": results,
    }
