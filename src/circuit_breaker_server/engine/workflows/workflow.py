"""A workflow ready for use: looked up by id, its conditions read, its answers prepared."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import final

import msgspec

from circuit_breaker_server.engine.json_values import as_json, encode
from circuit_breaker_server.engine.rules import conditions as rules
from circuit_breaker_server.engine.workflows.definitions import (
    ActivityDefinition,
    StateDefinition,
    WorkflowDefinition,
)

__all__ = ["Workflow"]


@final
class Workflow:
    """A workflow at one moment; never changed: :meth:`with_state` makes another.

    :ivar definition: what it is made of.
    :ivar created: the offset of the record that created it.
    :ivar last: the offset of the last record of its subject.
    :ivar states: by id, in the order of their definition.
    :ivar activities: by id, in the order of their definition.

    Example::

        Workflow(definition, created=1, last=1).state_value("draft")["availableActivities"]
    """

    def __init__(self, definition: WorkflowDefinition, *, created: int, last: int) -> None:
        self.definition = definition
        self.created = created
        self.last = last
        self.states = {state.id: state for state in definition.states}
        self.activities = {activity.id: activity for activity in definition.activities}
        self._values: dict[str, dict[str, object]] = {}
        self._encoded: dict[str, msgspec.Raw] = {}
        self._conditions: dict[str, tuple[rules.Condition, ...]] = {}

    def with_state(self, state: StateDefinition, *, last: int) -> Workflow:
        """Return the workflow with a state added or replaced."""
        states = tuple({**self.states, state.id: state}.values())
        definition = msgspec.structs.replace(self.definition, states=states, updated_at=state.updated_at)
        return Workflow(definition, created=self.created, last=last)

    def activities_from(self, state_id: str) -> Iterable[ActivityDefinition]:
        """Return the activities that start in a state, whatever their conditions."""
        return self._from.get(state_id, ())

    def conditions_of(self, activity: ActivityDefinition) -> tuple[rules.Condition, ...]:
        """Return the conditions of one of the workflow's activities, read."""
        found = self._conditions.get(activity.id)
        if found is None:
            found = self._conditions[activity.id] = tuple(map(rules.parse, activity.conditions))
        return found

    @functools.cached_property
    def rule_ids(self) -> tuple[str, ...]:
        """The stored rules that the activities name, each once, in the order of the activities."""
        named = (
            condition.id
            for activity in self.definition.activities
            for condition in self.conditions_of(activity)
            if isinstance(condition, rules.RuleNamed)
        )
        return tuple(dict.fromkeys(named))

    def state_value(self, state_id: str) -> dict[str, object]:
        """Return a state in the shape of ``StateGQL``."""
        value = self._values.get(state_id)
        if value is None:
            activities = list(self.activities_from(state_id))
            value = as_json(self.states[state_id])
            value["allowedTransitions"] = list(dict.fromkeys(each.to_state for each in activities))
            value["availableActivities"] = list(map(as_json, activities))
            self._values[state_id] = value
        return value

    def state_encoded(self, state_id: str) -> msgspec.Raw:
        """Return a state in the shape of ``StateGQL``, as JSON."""
        found = self._encoded.get(state_id)
        if found is None:
            found = self._encoded[state_id] = encode(self.state_value(state_id))
        return found

    def value(self) -> dict[str, object]:
        """Return the workflow in the shape of ``WorkflowGQL``."""
        definition = self.definition
        return {
            "id": definition.id,
            "name": definition.name,
            "description": definition.description,
            "states": [self.state_value(state_id) for state_id in self.states],
            "activities": list(map(as_json, definition.activities)),
            "initialState": definition.initial_state,
            "createdAt": definition.created_at,
            "updatedAt": definition.updated_at,
        }

    @functools.cached_property
    def _from(self) -> dict[str, list[ActivityDefinition]]:
        found: dict[str, list[ActivityDefinition]] = {}
        for activity in self.definition.activities:
            for state_id in activity.from_states:
                found.setdefault(state_id, []).append(activity)
        return found
