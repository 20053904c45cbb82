"""Put an event into words, for a table's cell."""

from __future__ import annotations

from circuit_breaker_sdk.cli.runtime import one_line
from circuit_breaker_sdk.events import Resource, WorkflowEvent

__all__ = ["words_of_resource", "words_of_workflow_event"]

_SHOWN = 8


def words_of_resource(resource: Resource) -> str:
    """Say what a resource became, and by which activity: ``1f0c… in_review → approved (approve)``."""
    subject = _short(resource.id)
    if not resource.history:
        return one_line(f"{subject} created as {resource.state}")
    last = resource.history[-1]
    return one_line(f"{subject} {last.from_state} → {last.to_state} ({last.activity})")


def words_of_workflow_event(event: WorkflowEvent) -> str:
    """Say what happened, with the ids cut to what tells them apart on a screen."""
    message = event.message
    for id_ in filter(None, (event.resource_id, event.workflow_id)):
        message = message.replace(id_, _short(id_))
    return one_line(message)


def _short(id_: str) -> str:
    return id_ if len(id_) <= _SHOWN else f"{id_[:_SHOWN]}…"
