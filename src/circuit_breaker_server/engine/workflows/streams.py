"""From the records of workflows to the events of their two streams.

:func:`derive` is a pure function of the record: a replay says what the live stream said, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from circuit_breaker_server.engine.event_fields import EventFields, FieldSource, always, offset
from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.engine.nats.serializers import (
    NATS_RESOURCE_STREAM,
    activity_records,
    nats_event,
    nats_value,
)
from circuit_breaker_server.engine.record_bodies import decode_as
from circuit_breaker_server.engine.workflows.record_views import (
    VIEWS,
    ActivityExecutedView,
    ResourceChangedView,
    ResourceCreatedView,
    ResourceView,
    StateCreatedView,
    StateUpdatedView,
    StateView,
    View,
    WorkflowCreatedView,
)
from circuit_breaker_server.log.event_log import Record

__all__ = [
    "EVENT_FIELDS",
    "RESOURCE_UPDATES",
    "WORKFLOW_EVENTS",
    "derive",
    "read_body",
]

RESOURCE_UPDATES = "resourceUpdates"
WORKFLOW_EVENTS = "workflowEvents"


# --- records to events -----------------------------------------------------------------------------


def derive(record: Record) -> tuple[StreamEvent, ...]:
    """Return the events of a record; an event's place in the tuple is its cursor's index.

    :raises LogCorruptError: the record cannot be read.
    """
    body = decode_as(VIEWS, record)
    return _EVENTS[type(body)](record, body)


read_body: Callable[[Record], View] = partial(decode_as, VIEWS)
"""Read a record's body as far as its events need it; raises ``LogCorruptError``."""


def _of_workflow_created(_record: Record, _body: WorkflowCreatedView) -> tuple[StreamEvent, ...]:
    return ()


def _of_state_created(record: Record, body: StateCreatedView) -> tuple[StreamEvent, ...]:
    return (_workflow_updated(record, body.workflow_id, body.state, "STATE_CREATED"),)


def _of_state_updated(record: Record, body: StateUpdatedView) -> tuple[StreamEvent, ...]:
    return (_workflow_updated(record, body.workflow_id, body.state, "STATE_UPDATED"),)


def _of_resource_created(record: Record, body: ResourceCreatedView) -> tuple[StreamEvent, ...]:
    view = body.resource
    return (
        StreamEvent(RESOURCE_UPDATES, view.value),
        _resource_event(record, "RESOURCE_CREATED", view, {"state": view.state}, body.triggered_by),
        nats_event(record, "CREATED", view.value, tuple, triggered_by=body.triggered_by),
    )


def _of_resource_changed(record: Record, body: ResourceChangedView) -> tuple[StreamEvent, ...]:
    view = body.resource
    return (
        StreamEvent(RESOURCE_UPDATES, view.value),
        StreamEvent(NATS_RESOURCE_STREAM, partial(_nats_of_change, record, view)),
    )


def _nats_of_change(record: Record, view: ResourceView) -> dict[str, object]:
    # Apart, because most readers of changes do not want it.
    return nats_event(record, "DATA_UPDATED", view.value, view.entries).value


def _of_activity_executed(record: Record, body: ActivityExecutedView) -> tuple[StreamEvent, ...]:
    view = body.resource
    data: dict[str, object] = {
        "fromState": body.from_state,
        "toState": body.to_state,
        "activityId": body.activity_id,
    }
    history = partial(view.entries, record.offset)
    value = partial(view.value, history)
    update = StreamEvent(RESOURCE_UPDATES, value)
    executed = _resource_event(record, "ACTIVITY_EXECUTED", view, data, body.triggered_by)
    moved = body.from_state != body.to_state
    nats = nats_event(
        record,
        "STATE_CHANGED" if moved else "DATA_UPDATED",
        value,
        history,
        triggered_by=body.triggered_by,
        activity=body.activity_id,
        previous_state=body.from_state,
    )
    if not moved:
        return (update, executed, nats)
    changed = _resource_event(record, "RESOURCE_STATE_CHANGED", view, data, body.triggered_by)
    return (update, executed, changed, nats)


# By type, not by a `match` that asks for one after the other: a replay derives very many.
_EVENTS: Mapping[type[View], Callable[[Record, Any], tuple[StreamEvent, ...]]] = {
    WorkflowCreatedView: _of_workflow_created,
    StateCreatedView: _of_state_created,
    StateUpdatedView: _of_state_updated,
    ResourceCreatedView: _of_resource_created,
    ResourceChangedView: _of_resource_changed,
    ActivityExecutedView: _of_activity_executed,
}


def _workflow_updated(record: Record, workflow_id: str, state: StateView, change: str) -> StreamEvent:
    value: dict[str, object] = {
        "eventType": "WORKFLOW_UPDATED",
        "workflowId": workflow_id,
        "resourceId": None,
        "timestamp": state.updated_at,
        "data": {"stateId": state.id, "change": change},
        "triggeredBy": None,
        "natsSequence": str(record.offset),
    }
    return StreamEvent(WORKFLOW_EVENTS, value)


def _resource_event(
    record: Record,
    event_type: str,
    resource: ResourceView,
    data: Mapping[str, object],
    triggered_by: str | None,
) -> StreamEvent:
    return StreamEvent(
        WORKFLOW_EVENTS, partial(_resource_event_value, record, event_type, resource, data, triggered_by)
    )


def _resource_event_value(
    record: Record,
    event_type: str,
    resource: ResourceView,
    data: Mapping[str, object],
    triggered_by: str | None,
) -> dict[str, object]:
    return {
        "eventType": event_type,
        "workflowId": resource.workflow_id,
        "resourceId": resource.id,
        "timestamp": resource.updated_at,
        "data": data,
        "triggeredBy": triggered_by,
        "natsSequence": str(record.offset),
    }


# --- records to the fields of events ---------------------------------------------------------------


def _moved(body: ActivityExecutedView) -> bool:
    return body.from_state != body.to_state


def _resource_fields(history: FieldSource) -> dict[str, FieldSource]:
    return {
        "id": "resource.id",
        "workflowId": "resource.workflow_id",
        "state": "resource.state",
        "stateDefinition": "resource.state_definition",
        "data": "resource.data",
        "metadata": "resource.metadata",
        "createdAt": "resource.created_at",
        "updatedAt": "resource.updated_at",
        "history": history,
    }


def _event_fields(
    event_type: FieldSource, data: FieldSource, triggered_by: FieldSource
) -> dict[str, FieldSource]:
    return {
        "eventType": event_type,
        "workflowId": "resource.workflow_id",
        "resourceId": "resource.id",
        "timestamp": "resource.updated_at",
        "data": data,
        "triggeredBy": triggered_by,
        "natsSequence": offset,
    }


def _state_fields(change: str) -> dict[str, FieldSource]:
    return {
        "eventType": always("WORKFLOW_UPDATED"),
        "workflowId": "workflow_id",
        "resourceId": always(None),
        "timestamp": "state.updated_at",
        "data": lambda _record, body, _item: {"stateId": body.state.id, "change": change},
        "triggeredBy": always(None),
        "natsSequence": offset,
    }


def _history_of_activity(record: Record, body: ActivityExecutedView, _item: object) -> object:
    return body.resource.entries(record.offset)


def _created(_record: Record, body: ResourceCreatedView, _item: object) -> dict[str, object]:
    return {"state": body.resource.state}


def _executed(_record: Record, body: ActivityExecutedView, _item: object) -> dict[str, object]:
    return {"fromState": body.from_state, "toState": body.to_state, "activityId": body.activity_id}


def _nats_fields(
    event_type: FieldSource,
    history: Callable[[Record, Any], object],
    entries: Callable[[Record, Any], Sequence[dict[str, object]]],
    *,
    activity: FieldSource,
    previous_state: FieldSource,
    triggered_by: Callable[[Any], str | None],
) -> dict[str, FieldSource]:
    def resource(record: Record, body: Any, _item: object) -> dict[str, object]:
        value = body.resource.value(history(record, body))
        return nats_value(
            value,
            lambda: activity_records(entries(record, body)),
            offset=record.offset,
            subject=record.subject,
        )

    def metadata(_record: Record, body: Any, _item: object) -> object:
        by = triggered_by(body)
        return None if by is None else {"triggeredBy": by}

    return {
        "eventType": event_type,
        "resource": resource,
        "subject": lambda record, _body, _item: record.subject,
        "sequence": offset,
        "timestamp": "resource.updated_at",
        "activity": activity,
        "previousState": previous_state,
        "metadata": metadata,
    }


EVENT_FIELDS: Mapping[str, Mapping[type, EventFields]] = {
    RESOURCE_UPDATES: {
        ResourceCreatedView: EventFields(_resource_fields("resource.history")),
        ResourceChangedView: EventFields(_resource_fields("resource.history")),
        ActivityExecutedView: EventFields(_resource_fields(_history_of_activity)),
    },
    WORKFLOW_EVENTS: {
        StateCreatedView: EventFields(_state_fields("STATE_CREATED")),
        StateUpdatedView: EventFields(_state_fields("STATE_UPDATED")),
        ResourceCreatedView: EventFields(
            _event_fields(always("RESOURCE_CREATED"), _created, "triggered_by"), first=1
        ),
        ActivityExecutedView: EventFields(
            _event_fields(lambda _record, _body, item: item, _executed, "triggered_by"),
            items=lambda body: ("ACTIVITY_EXECUTED", "RESOURCE_STATE_CHANGED")[: 1 + _moved(body)],
            first=1,
        ),
    },
    NATS_RESOURCE_STREAM: {
        ResourceCreatedView: EventFields(
            _nats_fields(
                always("CREATED"),
                lambda _record, _body: None,
                lambda _record, _body: (),
                activity=always(None),
                previous_state=always(None),
                triggered_by=lambda body: body.triggered_by,
            ),
            first=2,
        ),
        ResourceChangedView: EventFields(
            _nats_fields(
                always("DATA_UPDATED"),
                lambda _record, _body: None,
                lambda _record, body: body.resource.entries(),
                activity=always(None),
                previous_state=always(None),
                triggered_by=lambda _body: None,
            ),
            first=1,
        ),
        ActivityExecutedView: EventFields(
            _nats_fields(
                lambda _record, body, _item: "STATE_CHANGED" if _moved(body) else "DATA_UPDATED",
                lambda record, body: partial(body.resource.entries, record.offset),
                lambda record, body: body.resource.entries(record.offset),
                activity="activity_id",
                previous_state="from_state",
                triggered_by=lambda body: body.triggered_by,
            ),
            first=lambda body: 2 + _moved(body),
        ),
    },
}
"""The sources of the fields of events, by stream and type of body."""
