"""From the arguments of the two streams of workflows to the records that they read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.events import Selection
from circuit_breaker_server.engine.workflows.subjects import resource_subject, workflow_subject
from circuit_breaker_server.log.event_log import subject

__all__ = ["Directory", "select_resource_updates", "select_workflow_events"]


class Directory(Protocol):
    """Look-ups that turn arguments into subjects; the engine provides them."""

    def workflow_of(self, resource_id: str) -> str:
        """Return the id of a resource's workflow, or raise ``NOT_FOUND``."""
        ...

    def state_ids(self, workflow_id: str) -> Collection[str]:
        """Return the ids of a workflow's states, or raise ``NOT_FOUND``."""
        ...


def select_resource_updates(directory: Directory, arguments: Mapping[str, object]) -> Selection:
    """Tell what ``resourceUpdates`` reads.

    :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``.
    """
    resource_id, workflow_id = _text(arguments, "resourceId"), _text(arguments, "workflowId")
    state = _text(arguments, "state")
    if resource_id is not None:
        owner = directory.workflow_of(resource_id)
        if workflow_id is not None and workflow_id != owner:
            raise EngineError(
                ErrorCode.NOT_FOUND, f"workflow {shown(workflow_id)} has no resource {shown(resource_id)}"
            )
        workflow_id = owner
        subjects = (resource_subject(owner, resource_id),)
    elif workflow_id is not None:
        directory.state_ids(workflow_id)
        subjects = (f"{subject('resource', workflow_id)}.*",)
    else:
        subjects = ("resource.*.*",)
    if state is None:
        return Selection(subjects)
    if workflow_id is not None and state not in directory.state_ids(workflow_id):
        raise EngineError(
            ErrorCode.INVALID_INPUT,
            f"workflow {shown(workflow_id)} has no state {shown(state)}: no event could ever match",
        )
    return Selection(subjects, lambda value: value["state"] == state)


def select_workflow_events(directory: Directory, arguments: Mapping[str, object]) -> Selection:
    """Tell what ``workflowEvents`` reads.

    :raises EngineError: ``NOT_FOUND``.
    """
    workflow_id = str(arguments["workflowId"])
    directory.state_ids(workflow_id)
    own = (f"{subject(token, workflow_id)}.*" for token in ("resource", "trigger"))
    return Selection((workflow_subject(workflow_id), *own))


def _text(arguments: Mapping[str, object], name: str) -> str | None:
    value = arguments.get(name)
    return None if value is None else str(value)
