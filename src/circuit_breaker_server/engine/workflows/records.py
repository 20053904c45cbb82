"""The records of workflows and resources: one mutation, one record.

A body of a resource holds the resource after the change, but only the end of its history (at most
:data:`HISTORY_TAIL` entries, and none beyond :data:`HISTORY_TAIL_BYTES`): a record does not grow with
the number of records before it. Its stream events need nothing but the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import msgspec

from circuit_breaker_server.engine.record_bodies import VersionedBody, decode_as
from circuit_breaker_server.engine.workflows.definitions import StateDefinition, WorkflowDefinition
from circuit_breaker_server.log.event_log import Record

__all__ = [
    "HISTORY_TAIL",
    "HISTORY_TAIL_BYTES",
    "ActivityExecuted",
    "Body",
    "ResourceChanged",
    "ResourceCreated",
    "ResourceImage",
    "StateCreated",
    "StateUpdated",
    "WorkflowCreated",
    "decode_body",
    "history_tail",
]

HISTORY_TAIL = 16
HISTORY_TAIL_BYTES = 16 * 1024


@final
class ResourceImage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A resource after a change, in the shape of ``ResourceGQL``; JSON inside it stays as written.

    :ivar history: the end of the history, oldest first: entries in the shape of ``HistoryEventGQL``, with
        ``triggeredBy`` where it is known, and ``natsSequence``, the offset of the entry's record. After an
        activity the last entry is that activity's; its record's offset is not yet known to it.
    """

    id: str
    workflow_id: str
    state: str
    state_definition: msgspec.Raw
    data: msgspec.Raw
    metadata: msgspec.Raw
    created_at: str
    updated_at: str
    history: tuple[msgspec.Raw, ...]


@final
class WorkflowCreated(VersionedBody, frozen=True, kw_only=True, tag="workflow_created"):
    """By ``createWorkflow``."""

    workflow: WorkflowDefinition


@final
class StateCreated(VersionedBody, frozen=True, kw_only=True, tag="state_created"):
    """By ``createState``; ``state.created_at`` is the time of the change."""

    workflow_id: str
    state: StateDefinition


@final
class StateUpdated(VersionedBody, frozen=True, kw_only=True, tag="state_updated"):
    """By ``updateState``; ``state`` is the whole state after the change, ``state.updated_at`` its time."""

    workflow_id: str
    state: StateDefinition


@final
class ResourceCreated(VersionedBody, frozen=True, kw_only=True, tag="resource_created"):
    """By ``createResource``."""

    resource: ResourceImage
    triggered_by: str | None = None


@final
class ResourceChanged(VersionedBody, frozen=True, kw_only=True, tag="resource_changed"):
    """By whatever changes a resource's data outside an activity."""

    resource: ResourceImage


@final
class ActivityExecuted(VersionedBody, frozen=True, kw_only=True, tag="activity_executed"):
    """By ``executeActivity``; the last entry of ``resource.history`` is this change's."""

    activity_id: str
    from_state: str
    to_state: str
    resource: ResourceImage
    triggered_by: str | None = None


Body = WorkflowCreated | StateCreated | StateUpdated | ResourceCreated | ResourceChanged | ActivityExecuted

_DECODER: msgspec.json.Decoder[Body] = msgspec.json.Decoder(Body)


def decode_body(record: Record) -> Body:
    """Read a record's body, brought up to date.

    :raises LogCorruptError: the body is of a newer version, of an unknown type, or no body at all.
    """
    return decode_as(_DECODER, record)


def history_tail(entries: Sequence[msgspec.Raw]) -> tuple[msgspec.Raw, ...]:
    """Return the end of a history that a record may hold; always the last entry, whatever its size."""
    size = 0
    kept: list[msgspec.Raw] = []
    for entry in reversed(entries[-HISTORY_TAIL:]):
        size += memoryview(entry).nbytes
        if kept and size > HISTORY_TAIL_BYTES:
            break
        kept.append(entry)
    return tuple(reversed(kept))
