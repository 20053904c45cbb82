"""From the records of this domain to its three streams, and from their arguments to records."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from circuit_breaker_server.engine.event_fields import EventFields, FieldSource
from circuit_breaker_server.engine.events import Selection, StreamEvent
from circuit_breaker_server.engine.mcp.records import (
    CapabilitiesRegistered,
    ServerChecked,
    ServerDeleted,
    ServerPut,
    SessionChanged,
    decode_body,
    server_subject,
)
from circuit_breaker_server.engine.mcp.serializers import server_value, session_value
from circuit_breaker_server.engine.validation import refuse
from circuit_breaker_server.log.event_log import Record, subject

__all__ = [
    "EVENT_FIELDS",
    "derive",
    "select_capability_updates",
    "select_session_events",
    "select_status_updates",
]

STATUS_UPDATES = "mcpServerStatusUpdates"
SESSION_EVENTS = "mcpSessionEvents"
CAPABILITY_UPDATES = "mcpCapabilityUpdates"


def derive(record: Record) -> tuple[StreamEvent, ...]:
    """Return the events of a record: each step of the status, then what is offered if that has changed."""
    body = decode_body(record)
    match body:
        case ServerPut() | ServerDeleted():
            return _status_events(body)
        case ServerChecked(offer=offer):
            events = _status_events(body, body.health.error)
            if offer is not None:
                events += (StreamEvent(CAPABILITY_UPDATES, offer.value(body.id)),)
            return events
        case CapabilitiesRegistered(changes=True, offer=offer):
            return (StreamEvent(CAPABILITY_UPDATES, offer.value(body.id)),)
        case SessionChanged():
            return (StreamEvent(SESSION_EVENTS, _session_event(body)),)
        case _:
            return ()


def _status_events(
    body: ServerPut | ServerChecked | ServerDeleted, error: str | None = None
) -> tuple[StreamEvent, ...]:
    data = _cause(body, error)
    return tuple(
        StreamEvent(
            STATUS_UPDATES,
            {
                "serverId": body.id,
                "oldStatus": old,
                "newStatus": new,
                "timestamp": body.at,
                "data": data,
            },
        )
        for old, new in itertools.pairwise(body.statuses)
    )


def _cause(body: ServerPut | ServerChecked | ServerDeleted, error: str | None = None) -> dict[str, object]:
    return {"cause": body.cause} if error is None else {"cause": body.cause, "error": error}


def _session(body: SessionChanged) -> dict[str, object]:
    return session_value(body.session, server_value(body.server, active=body.active))


def _session_error(body: SessionChanged) -> dict[str, object] | None:
    return None if body.error is None else {"error": body.error}


def _session_event(body: SessionChanged) -> dict[str, object]:
    return {
        "sessionId": body.session.id,
        "type": body.change,
        "session": _session(body),
        "timestamp": body.at,
        "data": _session_error(body),
    }


def select_status_updates(arguments: Mapping[str, object]) -> Selection:
    """Tell what ``mcpServerStatusUpdates`` reads."""
    return Selection((_of_server(arguments),))


def select_capability_updates(arguments: Mapping[str, object]) -> Selection:
    """Tell what ``mcpCapabilityUpdates`` reads."""
    return Selection((_of_server(arguments),))


def select_session_events(arguments: Mapping[str, object]) -> Selection:
    """Tell what ``mcpSessionEvents`` reads."""
    server, user = (_token(arguments.get(name)) for name in ("serverId", "userId"))
    return Selection((f"mcp.session.{server}.{user}.*",))


def _of_server(arguments: Mapping[str, object]) -> str:
    server_id = arguments.get("serverId")
    return "mcp.server.*" if server_id is None else server_subject(_checked(server_id))


def _token(value: object) -> str:
    return "*" if value is None else subject(_checked(value))


def _checked(value: object) -> str:
    if not str(value):
        refuse("an id must not be empty")
    return str(value)


def _steps(body: ServerPut | ServerChecked | ServerDeleted) -> Sequence[tuple[str, str]]:
    return list(itertools.pairwise(body.statuses))


def _status_fields(data: FieldSource) -> dict[str, FieldSource]:
    return {
        "serverId": "id",
        "oldStatus": lambda _record, _body, step: step[0],
        "newStatus": lambda _record, _body, step: step[1],
        "timestamp": "at",
        "data": data,
    }


def _of_offer(name: str) -> FieldSource:
    return lambda _record, body, _item: body.offer.value(body.id)[name]


_CAPABILITIES: dict[str, FieldSource] = {
    "serverId": "id",
    "tools": _of_offer("tools"),
    "resources": _of_offer("resources"),
    "prompts": _of_offer("prompts"),
    "features": _of_offer("features"),
    "protocolVersion": _of_offer("protocolVersion"),
    "lastUpdated": "offer.at",
}
_STATUS = EventFields(_status_fields(lambda _record, body, _item: _cause(body)), items=_steps)

EVENT_FIELDS: Mapping[str, Mapping[type, EventFields]] = {
    STATUS_UPDATES: {
        ServerPut: _STATUS,
        ServerDeleted: _STATUS,
        ServerChecked: EventFields(
            _status_fields(lambda _record, body, _item: _cause(body, body.health.error)), items=_steps
        ),
    },
    CAPABILITY_UPDATES: {
        ServerChecked: EventFields(
            _CAPABILITIES,
            items=lambda body: () if body.offer is None else (body,),
            first=lambda body: len(_steps(body)),
        ),
        CapabilitiesRegistered: EventFields(
            _CAPABILITIES, items=lambda body: (body,) if body.changes else ()
        ),
    },
    SESSION_EVENTS: {
        SessionChanged: EventFields(
            {
                "sessionId": "session.id",
                "type": "change",
                "session": lambda _record, body, _item: _session(body),
                "timestamp": "at",
                "data": lambda _record, body, _item: _session_error(body),
            }
        ),
    },
}
"""The sources of the fields of events, by stream and type of body."""
