# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""Types of resources and their place in the log: results, events and inputs."""

from __future__ import annotations

from datetime import datetime

import msgspec

from circuit_breaker_sdk.events.base import JSON, Event, OpenEnum
from circuit_breaker_sdk.events.workflows import HistoryEntry

__all__ = [
    "ActivityRecord",
    "NATSResource",
    "NATSResourceEvent",
    "ResourceEventType",
]

_NULL = msgspec.Raw(b"null")


class ActivityRecord(Event, frozen=True, kw_only=True):
    """One activity in the life of a resource, and its record (``ActivityRecordGQL``).

    :ivar triggered_by: The actor, if it was said: see executeActivityWithNats. Agents name themselves.
    :ivar nats_sequence: The offset of its record, in decimal; null for activities of before this was kept.
    :ivar metadata: The data the activity was executed with.
    """

    from_state: str
    to_state: str
    activity_id: str
    timestamp: datetime
    triggered_by: str | None = None
    nats_sequence: str | None = None
    _metadata: msgspec.Raw = msgspec.field(name="metadata", default=_NULL)

    @property
    def metadata(self) -> JSON:
        """The data the activity was executed with."""
        return self._json("_metadata")


class NATSResource(Event, frozen=True, kw_only=True):
    """A resource, as ResourceGQL has it, with its place in the server's event log.

    The log may be kept by a NATS server or by this one: the fields mean the same (``NatsResourceGQL``).

    :ivar history: As in ResourceGQL: all of it, in an event the end of it.
    :ivar nats_sequence: The offset of the resource's last record, in decimal.
    :ivar nats_timestamp: When that record was made.
    :ivar nats_subject: The subject of the resource's records: resource.<workflowId>.<id>
    :ivar activity_history: The activities of ``history``, with the records that they are.
    """

    id: str
    workflow_id: str
    state: str
    created_at: datetime
    updated_at: datetime
    _data: msgspec.Raw = msgspec.field(name="data", default=_NULL)
    _metadata: msgspec.Raw = msgspec.field(name="metadata", default=_NULL)
    history: tuple[HistoryEntry, ...] = ()
    nats_sequence: str | None = None
    nats_timestamp: datetime | None = None
    nats_subject: str | None = None
    activity_history: tuple[ActivityRecord, ...] = ()

    @property
    def data(self) -> JSON:
        """The ``data``, decoded on first access."""
        return self._json("_data")

    @property
    def metadata(self) -> JSON:
        """The ``metadata``, decoded on first access."""
        return self._json("_metadata")


class ResourceEventType(OpenEnum):
    """Kind of a NatsResourceEventGQL (``ResourceEventType``)."""

    CREATED = "CREATED"
    STATE_CHANGED = "STATE_CHANGED"
    """An activity led to another state."""
    DATA_UPDATED = "DATA_UPDATED"
    """An activity led back to its state, or the data was changed without an activity."""
    METADATA_UPDATED = "METADATA_UPDATED"
    """Never sent: the metadata of a resource does not change."""
    DELETED = "DELETED"
    """Never sent: resources are not deleted."""


class NATSResourceEvent(Event, frozen=True, kw_only=True):
    """A change of a resource: one record of the event log (``NatsResourceEventGQL``).

    :ivar resource: After the change.
    :ivar subject: The record's subject.
    :ivar sequence: The record's offset, in decimal.
    :ivar activity: The activity's id, if an activity made the change.
    :ivar previous_state: The state before the activity, if an activity made the change.
    :ivar metadata: {triggeredBy}, if it was said who did it; else null.
    """

    event_type: ResourceEventType
    resource: NATSResource
    subject: str
    sequence: str
    timestamp: datetime
    activity: str | None = None
    previous_state: str | None = None
    _metadata: msgspec.Raw = msgspec.field(name="metadata", default=_NULL)

    @property
    def metadata(self) -> JSON:
        """{triggeredBy}, if it was said who did it; else null."""
        return self._json("_metadata")
