# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""Types of rules: results, events and inputs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from circuit_breaker_sdk.events.base import JSON, Event, Input, JSONInput

__all__ = [
    "Rule",
    "RuleCondition",
    "RuleConditionInput",
    "RuleEvaluationResult",
]

_NULL = msgspec.Raw(b"null")


class RuleCondition(Event, frozen=True, kw_only=True):
    """Condition of a rule; only the fields of its type are not null.

    See RuleConditionInput (``RuleConditionGQL``).

    :ivar rules: Of And and Or: what is nested, as rules without a name of their own.
    :ivar rule: Of Not: what is nested, as a rule without a name of its own.
    :ivar script: Always null: this server runs no scripts.
    """

    condition_type: str
    field: str | None = None
    _value: msgspec.Raw = msgspec.field(name="value", default=_NULL)
    substring: str | None = None
    rules: tuple[Rule, ...] | None = None
    rule: Rule | None = None
    script: str | None = None

    @property
    def value(self) -> JSON:
        """The ``value``, decoded on first access."""
        return self._json("_value")


class Rule(Event, frozen=True, kw_only=True):
    """Something that can be true of a resource (``RuleGQL``).

    :ivar id: Made by the server. Of a rule nested in another: the other's id, a dot, and its place there from
        0.
    :ivar name: Empty in a nested rule.
    :ivar description: Empty in a nested rule.
    :ivar version: 1 for a new rule, and one more with each update. A nested rule has that of the stored rule
        it is part of.
    :ivar created_by: Null: this server does not know its callers yet.
    :ivar tags: None in a nested rule.
    """

    id: str
    name: str
    description: str
    condition: RuleCondition
    version: int
    created_at: datetime
    updated_at: datetime
    created_by: str | None = None
    tags: tuple[str, ...] = ()


class RuleEvaluationResult(Event, frozen=True, kw_only=True):
    """Result of a rule, or of a rule nested in it (``RuleEvaluationResultGQL``).

    :ivar rule_id: The rule's id; see RuleGQL for those of nested rules.
    :ivar reason: A sentence that says why; long values are cut short in it.
    :ivar details: Of a condition on a field: {conditionType, field, foundIn}, where foundIn is metadata, data
        or null. Of And, Or, Not: {conditionType, passed, of}: how many of the nested rules pass.
    :ivar sub_results: Of And, Or, Not: all nested rules, in their order, whether or not they decide.
    """

    rule_id: str
    passed: bool
    reason: str
    _details: msgspec.Raw = msgspec.field(name="details", default=_NULL)
    sub_results: tuple[RuleEvaluationResult, ...] = ()

    @property
    def details(self) -> JSON:
        """Of a condition on a field: {conditionType, field, foundIn}, where foundIn is metadata, data or
        null.

        Of And, Or, Not: {conditionType, passed, of}: how many of the nested rules pass.
        """
        return self._json("_details")


class RuleConditionInput(Input, frozen=True, kw_only=True):
    """One of these types, with exactly the fields named.

    A key is one of the metadata or of the data, at the top level. - FieldExists (field): the metadata or the
    data has the key; its value may be null. - FieldEquals (field, value): the key's value in either equals
    the value, as JSON; null is a value. - FieldGreaterThan, FieldLessThan (field, value): the key's value is
    a number above or below the value. - FieldContains (field, substring): the key's value is a text that
    contains the substring. - And, Or (rules): all, or at least one, of the conditions hold. And of none
    holds, Or of none does not. - Not (rule): the condition does not hold. Where the metadata has the key,
    FieldGreaterThan, FieldLessThan and FieldContains do not look into the data. At most 16 levels deep, 500
    conditions in all, 64 KiB as JSON (``RuleConditionInput``).

    :ivar field: 1 to 256 characters.
    :ivar script: Refused unless null: this server runs no scripts.
    """

    condition_type: str
    field: str | UnsetType | None = UNSET
    value: JSONInput | UnsetType = UNSET
    substring: str | UnsetType | None = UNSET
    rules: Sequence[RuleConditionInput] | UnsetType | None = UNSET
    rule: RuleConditionInput | UnsetType | None = UNSET
    script: str | UnsetType | None = UNSET
