"""The subjects of the records of workflows and of their resources."""

from __future__ import annotations

from circuit_breaker_server.log.event_log import subject

__all__ = ["resource_subject", "workflow_subject"]


def workflow_subject(workflow_id: str) -> str:
    """Name the subject of a workflow's own records."""
    return subject("workflow", workflow_id)


def resource_subject(workflow_id: str, resource_id: str) -> str:
    """Name the subject of a resource's records."""
    return subject("resource", workflow_id, resource_id)
