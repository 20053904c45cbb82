"""The parts of the bodies of records that the streams of workflows read, and no more."""

from __future__ import annotations

from typing import final

import msgspec

from circuit_breaker_server.engine.record_bodies import VersionedBody

__all__ = [
    "VIEWS",
    "ActivityExecutedView",
    "ResourceChangedView",
    "ResourceCreatedView",
    "ResourceView",
    "StateCreatedView",
    "StateUpdatedView",
    "StateView",
    "View",
    "WorkflowCreatedView",
    "json_or_none",
]


def json_or_none(raw: msgspec.Raw) -> msgspec.Raw | None:
    """Return JSON as it was written; null is ``None``, which the schema may forbid."""
    return None if raw == _NULL else raw


@final
class WorkflowCreatedView(VersionedBody, frozen=True, gc=False, kw_only=True, tag="workflow_created"):
    """A workflow that was created: its stream tells of states only."""


@final
class StateView(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The part of a state that a stream tells."""

    id: str
    updated_at: str


@final
class StateCreatedView(VersionedBody, frozen=True, gc=False, kw_only=True, tag="state_created"):
    """A state that was created."""

    workflow_id: str
    state: StateView


@final
class StateUpdatedView(VersionedBody, frozen=True, gc=False, kw_only=True, tag="state_updated"):
    """A state that was changed."""

    workflow_id: str
    state: StateView


@final
class ResourceView(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A resource, its JSON as it was written."""

    id: str
    workflow_id: str
    state: str
    state_definition: msgspec.Raw
    data: msgspec.Raw
    metadata: msgspec.Raw
    created_at: str
    updated_at: str
    history: msgspec.Raw

    def value(self, history: object = None) -> dict[str, object]:
        """Return it as ``ResourceGQL``; ``history`` in place of its own."""
        return {
            "id": self.id,
            "workflowId": self.workflow_id,
            "state": self.state,
            "stateDefinition": self.state_definition,
            "data": json_or_none(self.data),
            "metadata": json_or_none(self.metadata),
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
            "history": history or self.history,
        }

    def entries(self, last_offset: int | None = None) -> list[dict[str, object]]:
        """Read the end of its history; ``last_offset``: of the last entry, which cannot say it."""
        entries = _HISTORY.decode(self.history)
        if last_offset is not None:
            entries[-1]["natsSequence"] = str(last_offset)
        return entries


@final
class ResourceCreatedView(VersionedBody, frozen=True, gc=False, kw_only=True, tag="resource_created"):
    """A resource that was created."""

    resource: ResourceView
    triggered_by: str | None = None


@final
class ResourceChangedView(VersionedBody, frozen=True, gc=False, kw_only=True, tag="resource_changed"):
    """A resource whose data was changed."""

    resource: ResourceView


@final
class ActivityExecutedView(VersionedBody, frozen=True, gc=False, kw_only=True, tag="activity_executed"):
    """A resource that an activity has moved."""

    activity_id: str
    from_state: str
    to_state: str
    resource: ResourceView
    triggered_by: str | None = None


View = (
    WorkflowCreatedView
    | StateCreatedView
    | StateUpdatedView
    | ResourceCreatedView
    | ResourceChangedView
    | ActivityExecutedView
)
VIEWS: msgspec.json.Decoder[View] = msgspec.json.Decoder(View)
"""Reads what a body holds for the streams, and skips the rest."""
_HISTORY: msgspec.json.Decoder[list[dict[str, object]]] = msgspec.json.Decoder(list[dict[str, object]])
_NULL = msgspec.Raw(b"null")
