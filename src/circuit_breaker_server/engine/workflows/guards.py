"""Check whether an activity may be executed on a resource now."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.rules import conditions as rules
from circuit_breaker_server.engine.workflows.definitions import ActivityDefinition
from circuit_breaker_server.engine.workflows.state import Resource
from circuit_breaker_server.engine.workflows.workflow import Workflow

__all__ = ["decode_object", "failed_condition", "require_allowed"]


def decode_object(raw: msgspec.Raw) -> dict[str, object]:
    """Read a JSON object."""
    return msgspec.json.decode(raw, type=dict[str, object])


def failed_condition(
    activity: ActivityDefinition,
    resource: Resource,
    workflow: Workflow,
    find_rule: Callable[[str], rules.Rule | None],
) -> str | None:
    """Return the first condition of an activity that does not hold for the resource as it is.

    :param find_rule: finds a stored rule by its id; a condition on one that is not there does not hold,
        negated or not.
    """
    if not activity.conditions:
        return None
    data, metadata = decode_object(resource.data), decode_object(resource.metadata)
    for text, condition in zip(activity.conditions, workflow.conditions_of(activity), strict=True):
        rule = rules.resolved(condition, find_rule)
        if rule is None or not rules.holds(rule, data=data, metadata=metadata):
            return text
    return None


def require_allowed(
    activity: ActivityDefinition,
    resource: Resource,
    workflow: Workflow,
    find_rule: Callable[[str], rules.Rule | None],
) -> None:
    """Refuse an activity that the resource's state or a condition forbids.

    :raises EngineError: ``ACTIVITY_NOT_ALLOWED``.
    """
    what = f"activity {shown(activity.id)} is not allowed"
    if resource.state not in activity.from_states:
        starts = ", ".join(map(shown, activity.from_states))
        raise EngineError(
            ErrorCode.ACTIVITY_NOT_ALLOWED,
            f"{what}: resource {shown(resource.id)} is in state {shown(resource.state)}, "
            f"the activity starts from {starts}",
            state=resource.state,
            fromStates=list(activity.from_states),
        )
    failed = failed_condition(activity, resource, workflow, find_rule)
    if failed is not None:
        raise EngineError(
            ErrorCode.ACTIVITY_NOT_ALLOWED,
            f"{what}: condition {shown(failed)} does not hold for resource {shown(resource.id)}",
            state=resource.state,
            condition=failed,
        )
