"""The commands and queries on stored rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, final

import msgspec

from circuit_breaker_server.engine.command import Appender, Committed, Value
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.log_guards import ending
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
from circuit_breaker_server.engine.rules.evaluation import evaluate, nested_id
from circuit_breaker_server.engine.rules.inputs import EvaluationInput, RuleInput
from circuit_breaker_server.engine.rules.records import (
    RuleCreated,
    RuleDeleted,
    RuleImage,
    RuleUpdated,
    rule_subject,
)
from circuit_breaker_server.engine.rules.state import RuleEntry, RuleState
from circuit_breaker_server.engine.rules.validation import check_rule
from circuit_breaker_server.engine.validation import json_object

__all__ = ["Rules"]

MAX_DATA_BYTES: Final = 256 * 1024

_CHANGED = "the rule was changed by another operation first; read it, and try again if it fits"
_CHANGED_OR_NAMED = (
    "the rule was changed, or a workflow came to name it, first; read it, and try again if it fits"
)


@final
class Rules:
    """Stored rules: named by the conditions of activities, evaluated on demand.

    Example::

        condition = ConditionInput(condition_type="FieldExists", field="title")
        made = await engine.rules.create_rule(RuleInput(name="titled", description="", condition=condition))
    """

    def __init__(self, state: RuleState, appender: Appender) -> None:
        self._state = state
        self._appender = appender

    # --- queries ---

    def rule(self, rule_id: str) -> Value | None:
        """Return a rule as ``RuleGQL``, ``None`` if there is none."""
        entry = self._state.rules.get(rule_id)
        return None if entry is None else _value(entry.rule)

    def rules(self, tags: Iterable[str] = ()) -> Iterator[Value | None]:
        """Yield the rules that have all the tags, in the order of their creation; ``None`` for each other."""
        wanted = frozenset(tags)
        return (
            _value(entry.rule) if wanted <= frozenset(entry.rule.tags) else None
            for entry in self._state.rules.values()
        )

    def ids(self) -> list[str]:
        """Return the ids of all rules, in the order of their creation."""
        return list(self._state.rules)

    def named(self, rule_ids: Iterable[str]) -> list[Value]:
        """Return the rules of these ids, as ``RuleGQL``."""
        return [value for value in map(self.rule, rule_ids) if value is not None]

    def find(self, rule_id: str) -> Rule | None:
        """Return the condition of a rule as it is now, ``None`` if there is none of that id."""
        return self._state.find(rule_id)

    def evaluate(self, given: EvaluationInput) -> Value:
        """Evaluate a rule on data and metadata; returns ``RuleEvaluationResultGQL``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``: the data or the metadata is no object.
        """
        rule = self._entry(given.rule_id).rule
        data = json_object(given.data, "data", max_bytes=MAX_DATA_BYTES)
        metadata = json_object(given.metadata, "metadata", max_bytes=MAX_DATA_BYTES)
        return evaluate(rule.id, rule.condition, data=data, metadata=metadata)

    # --- commands ---

    async def create_rule(self, given: RuleInput) -> Committed[Value]:
        """Store a new rule; answers ``RuleGQL``.

        :raises EngineError: ``INVALID_INPUT``, ``RATE_LIMITED``, ``UNAVAILABLE``.
        """
        self._appender.count_creation()
        condition = check_rule(given)
        at = self._appender.at()
        rule = RuleImage(
            id=self._appender.new_id(),
            name=given.name,
            description=given.description,
            condition=condition,
            version=1,
            created_at=at,
            updated_at=at,
            tags=given.tags or (),
        )
        record = await self._appender.append_own(
            rule_subject(rule.id),
            RuleCreated(rule=rule),
            expected=0,
            conflict=_CHANGED,
            effect=Effect.of(_value(rule)),
        )
        return self._appender.committed(_value(rule), record)

    async def update_rule(self, rule_id: str, given: RuleInput) -> Committed[Value]:
        """Replace a rule by another of the same id, a version later; answers ``RuleGQL``.

        Decided on the rule as it is when this is called: if any other change of it comes first, this one is
        refused. Activities that name the rule are held to it as it now is.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``CONFLICT``, ``UNAVAILABLE``.
        """
        old = self._entry(rule_id)
        rule = RuleImage(
            id=rule_id,
            name=given.name,
            description=given.description,
            condition=check_rule(given),
            version=old.rule.version + 1,
            created_at=old.rule.created_at,
            updated_at=self._appender.at(),
            tags=given.tags or (),
        )
        record = await self._appender.append_own(
            rule_subject(rule_id),
            RuleUpdated(rule=rule),
            expected=old.last,
            conflict=_CHANGED,
            effect=Effect.of(_value(rule)),
        )
        return self._appender.committed(_value(rule), record)

    async def delete_rule(self, rule_id: str) -> Committed[bool]:
        """Delete a rule that no workflow names; answers true.

        :raises EngineError: ``NOT_FOUND``; ``CONFLICT``: a workflow names it, or it was changed first;
            ``UNAVAILABLE``.
        """
        old = self._entry(rule_id)
        workflow_id = self._state.workflow_naming(rule_id)
        if workflow_id is not None:
            raise EngineError(
                ErrorCode.CONFLICT,
                f"rule {shown(rule_id)} cannot be deleted: workflow {shown(workflow_id)} names it",
                workflowId=workflow_id,
            )
        record = await self._appender.append_own(
            rule_subject(rule_id),
            RuleDeleted(id=rule_id, at=self._appender.at()),
            expected=old.last,
            conflict=_CHANGED_OR_NAMED,
            effect=Effect.of(True),
            guards=ending("rule", rule_id, decided_at=self._appender.decided_at()),
        )
        return self._appender.committed(True, record)

    def _entry(self, rule_id: str) -> RuleEntry:
        entry = self._state.rules.get(rule_id)
        if entry is None:
            raise EngineError(ErrorCode.NOT_FOUND, f"there is no rule {shown(rule_id)}")
        return entry


def _value(rule: RuleImage) -> Value:
    return {
        "id": rule.id,
        "name": rule.name,
        "description": rule.description,
        "condition": lambda: _condition_value(rule),
        "version": rule.version,
        "createdAt": rule.created_at,
        "updatedAt": rule.updated_at,
        "createdBy": None,
        "tags": list(rule.tags),
    }


def _nested_value(parent: RuleImage, index: int, condition: Rule) -> Value:
    """Return what is nested in a rule as a rule of its own, without a name."""
    id_ = nested_id(parent.id, index)
    return _value(
        msgspec.structs.replace(parent, id=id_, name="", description="", condition=condition, tags=())
    )


def _condition_value(rule: RuleImage) -> Value:
    value: Value = dict.fromkeys(("field", "value", "substring", "rules", "rule", "script"))
    value["conditionType"] = type(rule.condition).__name__
    match rule.condition:
        case And(nested) | Or(nested):
            value["rules"] = [_nested_value(rule, i, each) for i, each in enumerate(nested)]
        case Not(negated):
            value["rule"] = _nested_value(rule, 0, negated)
        case FieldExists(field):
            value["field"] = field
        case FieldEquals(field, operand) | FieldGreaterThan(field, operand) | FieldLessThan(field, operand):
            value |= {"field": field, "value": operand}
        case FieldContains(field, substring):
            value |= {"field": field, "substring": substring}
    return value
