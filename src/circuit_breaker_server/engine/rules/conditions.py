"""Conditions of activities: how they are written, and when they hold for a resource.

Written: ``field_exists:KEY``, ``field_equals:KEY=JSON``, ``field_greater_than:KEY=NUMBER``,
``field_less_than:KEY=NUMBER``, ``field_contains:KEY=TEXT``, and ``not:`` before any of them. ``KEY`` is a
key of the resource's metadata or of its data, at the top level; it ends at the first ``=``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import msgspec

from circuit_breaker_server.engine.json_values import InvalidJSON, check_json, json_equal

__all__ = [
    "And",
    "FieldContains",
    "FieldEquals",
    "FieldExists",
    "FieldGreaterThan",
    "FieldLessThan",
    "InvalidCondition",
    "Not",
    "Or",
    "Rule",
    "holds",
    "parse",
]

JSONObject = Mapping[str, object]


class InvalidCondition(ValueError):
    """A condition cannot be read; the text says why and how conditions are written."""


@final
class FieldExists(msgspec.Struct, frozen=True):
    """The metadata or the data has the key; its value may be null."""

    field: str


@final
class FieldEquals(msgspec.Struct, frozen=True):
    """The metadata or the data has the key with a value equal to this, as JSON compares."""

    field: str
    value: object


@final
class FieldGreaterThan(msgspec.Struct, frozen=True):
    """The key's value, in the metadata or else in the data, is a number above this one."""

    field: str
    value: float


@final
class FieldLessThan(msgspec.Struct, frozen=True):
    """The key's value, in the metadata or else in the data, is a number below this one."""

    field: str
    value: float


@final
class FieldContains(msgspec.Struct, frozen=True):
    """The key's value, in the metadata or else in the data, is a text with this part."""

    field: str
    substring: str


@final
class And(msgspec.Struct, frozen=True):
    """All hold; true of none."""

    rules: tuple[Rule, ...]


@final
class Or(msgspec.Struct, frozen=True):
    """One holds; false of none."""

    rules: tuple[Rule, ...]


@final
class Not(msgspec.Struct, frozen=True):
    """The rule does not hold."""

    rule: Rule


Rule = FieldExists | FieldEquals | FieldGreaterThan | FieldLessThan | FieldContains | And | Or | Not


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


def _lookup(field: str, data: JSONObject, metadata: JSONObject) -> object:
    return metadata[field] if field in metadata else data.get(field)


def _number(field: str, data: JSONObject, metadata: JSONObject) -> float | None:
    value = _lookup(field, data, metadata)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def parse(condition: str) -> Rule:
    """Read a condition.

    :raises InvalidCondition: its kind is unknown, or what follows does not fit the kind.
    """
    kind, colon, rest = condition.partition(":")
    key, equals, text = rest.partition("=")
    match kind:
        case "not" if colon:
            return Not(parse(rest))
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
        "field_greater_than:KEY=NUMBER, field_less_than:KEY=NUMBER, field_contains:KEY=TEXT, "
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


def _as_number(condition: str, text: str) -> float:
    value = _json(condition, text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidCondition(f"condition {condition[:80]!r}: what follows '=' is not a number")
    return value
