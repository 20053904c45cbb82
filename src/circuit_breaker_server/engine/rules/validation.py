"""From inputs to rules: everything that can be wrong with a rule is found here."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from circuit_breaker_server.engine.errors import shown
from circuit_breaker_server.engine.json_values import InvalidJSON, check_json, encode
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
)
from circuit_breaker_server.engine.rules.inputs import ConditionInput, RuleInput
from circuit_breaker_server.engine.validation import (
    check_count,
    check_description,
    check_name,
    check_unique,
    json_kind,
    refuse,
)

__all__ = ["check_rule", "read_condition"]

MAX_DEPTH = 16
MAX_NODES = 500
MAX_TAGS = 50
MAX_RULE_BYTES = 64 * 1024
MAX_KEY = 256

_FIELDS_OF: Final = {
    "FieldExists": ("field",),
    "FieldEquals": ("field", "value"),
    "FieldGreaterThan": ("field", "value"),
    "FieldLessThan": ("field", "value"),
    "FieldContains": ("field", "substring"),
    "And": ("rules",),
    "Or": ("rules",),
    "Not": ("rule",),
}
"""By type of condition: the fields it has, all of which it needs."""

_ALL_FIELDS = ("field", "value", "substring", "rules", "rule")


def check_rule(given: RuleInput) -> Rule:
    """Refuse a rule that cannot be kept; return its condition."""
    check_name(given.name, "name")
    check_description(given.description, "description")
    tags = given.tags or ()
    check_count(tags, MAX_TAGS, "tags")
    for i, tag in enumerate(tags):
        check_name(tag, f"tags[{i}]")
    check_unique(tags, "tags")
    condition = read_condition(given.condition)
    size = len(bytes(encode(condition)))
    if size > MAX_RULE_BYTES:
        refuse(f"condition: it takes {size} bytes as JSON; at most {MAX_RULE_BYTES} are allowed")
    return condition


def read_condition(given: ConditionInput) -> Rule:
    """Read a condition with all that is nested in it.

    :raises EngineError: ``INVALID_INPUT``: names the place, such as ``condition.rules[1].field``.
    """
    nodes = [0]  # counted over the whole tree
    return _read(given, "condition", MAX_DEPTH, nodes)


def _read(given: ConditionInput, where: str, levels: int, nodes: list[int]) -> Rule:
    if levels == 0:
        refuse(f"{where}: conditions nest at most {MAX_DEPTH} levels deep")
    nodes[0] += 1
    if nodes[0] > MAX_NODES:
        refuse(f"{where}: a rule has at most {MAX_NODES} conditions, those nested in it included")
    kind = given.condition_type
    _check_fields(given, where)
    match kind:
        case "And" | "Or":
            rules = tuple(
                _read(each, f"{where}.rules[{i}]", levels - 1, nodes)
                for i, each in enumerate(given.rules or ())
            )
            return And(rules) if kind == "And" else Or(rules)
        case "Not" if given.rule is not None:
            return Not(_read(given.rule, f"{where}.rule", levels - 1, nodes))
    return _read_field(given, where)


def _read_field(given: ConditionInput, where: str) -> Rule:
    key = given.field or ""
    if not 0 < len(key) <= MAX_KEY:
        refuse(f"{where}.field: {len(key)} characters; 1 to {MAX_KEY} are allowed")
    match given.condition_type:
        case "FieldExists":
            return FieldExists(key)
        case "FieldEquals":
            try:
                check_json(given.value)
            except InvalidJSON as error:
                refuse(f"{where}.value: {error}")
            return FieldEquals(key, given.value)
        case "FieldGreaterThan":
            return FieldGreaterThan(key, _number(given, where))
        case "FieldLessThan":
            return FieldLessThan(key, _number(given, where))
        case _:
            return FieldContains(key, given.substring or "")


def _check_fields(given: ConditionInput, where: str) -> None:
    kind = given.condition_type
    if given.script is not None:
        refuse(f"{where}.script: this server runs no scripts; a rule is made of {', '.join(_FIELDS_OF)}")
    needed = _FIELDS_OF.get(kind)
    if needed is None:
        refuse(f"{where}.conditionType: unknown type {shown(kind)}; the types are {', '.join(_FIELDS_OF)}")
    for name in _ALL_FIELDS:
        there = _is_given(given, name)
        if name in needed and not there:
            refuse(f"{where}.{name}: {kind} needs it")
        if name not in needed and there:
            refuse(f"{where}.{name}: {kind} has no {name}")


def _is_given(given: ConditionInput, name: str) -> bool:
    """Tell whether a field is there; null stands for nothing, except as what FieldEquals compares with."""
    value: object = getattr(given, name)
    if name == "value" and value is None:
        return given.condition_type == "FieldEquals"
    return value is not None and value is not UNSET


def _number(given: ConditionInput, where: str) -> int | float:
    value = given.value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        refuse(f"{where}.value: must be a number, not {json_kind(value)}")
    try:
        check_json(value)
    except InvalidJSON as error:
        refuse(f"{where}.value: {error}")
    return value
