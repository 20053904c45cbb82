"""A record that no engine can apply: it changes a resource that does not exist."""

from __future__ import annotations

from circuit_breaker_server.log.event_log import NewRecord

__all__ = ["ghost"]


def ghost() -> NewRecord:
    """Make a record that changes a resource that no record made."""
    data = (
        b'{"type":"resource_changed","v":1,"resource":{"id":"r","workflowId":"w","state":"a",'
        b'"stateDefinition":{},"data":{},"metadata":{},"createdAt":"x","updatedAt":"x","history":[]},'
        b'"origin":{"release":"9.9.9"}}'
    )
    return NewRecord(subject="resource.w.r", id="f" * 32, data=data, expected=0)
