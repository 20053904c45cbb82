"""Conditions of activities: how they are written, and when they hold for a resource.

Written: ``field_exists:KEY``, ``field_equals:KEY=JSON``, ``field_greater_than:KEY=NUMBER``,
``field_less_than:KEY=NUMBER``, ``field_contains:KEY=TEXT``, ``rule:ID``, and ``not:`` before any of them.
``KEY`` is a key of the resource's metadata or of its data, at the top level; it ends at the first ``=``.
``ID`` names a stored rule.

A stored rule is written as these structures are; the names of the kinds are part of the storage format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import msgspec

from circuit_breaker_server.engine.json_values import InvalidJSON, check_json, json_equal

__all__ = [
    "And",
    "Condition",
    "FieldContains",
    "FieldEquals",
    "FieldExists",
    "FieldGreaterThan",
    "FieldLessThan",
    "InvalidCondition",
    "Not",
    "Or",
    "Rule",
    "RuleNamed",
    "holds",
    "parse",
    "place_of",
    "resolved",
]

JSONObject = Mapping[str, object]


class InvalidCondition(ValueError):
    """A condition cannot be read; the text says why and how conditions are written."""


@final
class FieldExists(msgspec.Struct, frozen=True, tag=True):
    """The metadata or the data has the key; its value may be null."""

    field: str


@final
class FieldEquals(msgspec.Struct, frozen=True, tag=True):
    """The metadata or the data has the key with a value equal to this, as JSON compares."""

    field: str
    value: object


@final
class FieldGreaterThan(msgspec.Struct, frozen=True, tag=True):
    """The key's value, in the metadata or else in the data, is a number above this one."""

    field: str
    value: int | float


@final
class FieldLessThan(msgspec.Struct, frozen=True, tag=True):
    """The key's value, in the metadata or else in the data, is a number below this one."""

    field: str
    value: int | float


@final
class FieldContains(msgspec.Struct, frozen=True, tag=True):
    """The key's value, in the metadata or else in the data, is a text with this part."""

    field: str
    substring: str


@final
class And(msgspec.Struct, frozen=True, tag=True):
    """All hold; true of none."""

    rules: tuple[Rule, ...]


@final
class Or(msgspec.Struct, frozen=True, tag=True):
    """One holds; false of none."""

    rules: tuple[Rule, ...]


@final
class Not(msgspec.Struct, frozen=True, tag=True):
    """The rule does not hold."""

    rule: Rule


Rule = FieldExists | FieldEquals | FieldGreaterThan | FieldLessThan | FieldContains | And | Or | Not


@final
class RuleNamed(msgspec.Struct, frozen=True):
    """A stored rule, as it is when the condition is evaluated."""

    id: str
    negated: bool = False


Condition = Rule | RuleNamed
"""A condition of an activity: a rule, or the name of a stored one."""


def resolved(condition: Condition, find: Callable[[str], Rule | None]) -> Rule | None:
    """Put the stored rule in the place of its name; ``None`` if there is none of that id."""
    if not isinstance(condition, RuleNamed):
        return condition
    rule = find(condition.id)
    return Not(rule) if condition.negated and rule is not None else rule


def holds(rule: Rule, *, data: JSONObject, metadata: JSONObject) -> bool:
    """Tell whether a rule holds for a resource with this data and metadata."""
    match rule:
        case And(rules):
            return all(holds(each, data=data, metadata=metadata) for each in rules)
        case Or(rules):
            return any(holds(each, data=data, metadata=metadata) for each in rules)
        case Not(negated):
            return not holds(negated, data=data, metadata=metadata)
        case _:
            return _field_holds(rule, data, metadata)


def _field_holds(
    rule: FieldExists | FieldEquals | FieldGreaterThan | FieldLessThan | FieldContains,
    data: JSONObject,
    metadata: JSONObject,
) -> bool:
    match rule:
        case FieldExists(field):
            return field in metadata or field in data
        case FieldEquals(field, value):
            return any(field in place and json_equal(place[field], value) for place in (metadata, data))
        case FieldGreaterThan(field, value):
            number = _number(field, data, metadata)
            return number is not None and number > value
        case FieldLessThan(field, value):
            number = _number(field, data, metadata)
            return number is not None and number < value
        case FieldContains(field, substring):
            text = _lookup(field, data, metadata)
            return isinstance(text, str) and substring in text


def place_of(field: str, *, data: JSONObject, metadata: JSONObject) -> JSONObject | None:
    """Return where a key is looked up: the metadata, else the data; ``None`` if neither has it."""
    return next((place for place in (metadata, data) if field in place), None)


def _lookup(field: str, data: JSONObject, metadata: JSONObject) -> object:
    place = place_of(field, data=data, metadata=metadata)
    return None if place is None else place[field]


def _number(field: str, data: JSONObject, metadata: JSONObject) -> float | None:
    value = _lookup(field, data, metadata)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def parse(condition: str) -> Condition:
    """Read a condition.

    :raises InvalidCondition: its kind is unknown, or what follows does not fit the kind.
    """
    kind, _, rest = condition.partition(":")
    match kind:
        case "not" if rest:
            negated = parse(rest)
            if isinstance(negated, RuleNamed):
                return RuleNamed(negated.id, not negated.negated)
            return Not(negated)
        case "rule" if rest:
            return RuleNamed(rest)
    return _parse_field(condition)


def _parse_field(condition: str) -> Rule:
    kind, _, rest = condition.partition(":")
    key, equals, text = rest.partition("=")
    match kind:
        case "field_exists" if rest:
            return FieldExists(rest)
        case "field_equals" if key and equals:
            return FieldEquals(key, _json(condition, text))
        case "field_greater_than" if key and equals:
            return FieldGreaterThan(key, _as_number(condition, text))
        case "field_less_than" if key and equals:
            return FieldLessThan(key, _as_number(condition, text))
        case "field_contains" if key and equals:
            return FieldContains(key, text)
    raise InvalidCondition(
        f"unknown condition {condition[:80]!r}; a condition is field_exists:KEY, field_equals:KEY=JSON, "
        "field_greater_than:KEY=NUMBER, field_less_than:KEY=NUMBER, field_contains:KEY=TEXT, rule:ID, "
        "or not: and one of these"
    )


def _json(condition: str, text: str) -> object:
    try:
        value = msgspec.json.decode(text)
        check_json(value)
    except (msgspec.DecodeError, InvalidJSON, RecursionError) as error:
        raise InvalidCondition(
            f"condition {condition[:80]!r}: what follows '=' is not a JSON value ({error}); "
            'a text is written in quotes, as in field_equals:owner="ada"'
        ) from error
    return value


def _as_number(condition: str, text: str) -> int | float:
    value = _json(condition, text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidCondition(f"condition {condition[:80]!r}: what follows '=' is not a number")
    return value
