"""From the records of this domain to its three streams, and from their arguments to records."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

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

__all__ = ["derive", "select_capability_updates", "select_session_events", "select_status_updates"]

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
    data: dict[str, object] = {"cause": body.cause}
    if error is not None:
        data["error"] = error
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


def _session_event(body: SessionChanged) -> dict[str, object]:
    return {
        "sessionId": body.session.id,
        "type": body.change,
        "session": session_value(body.session, server_value(body.server, active=body.active)),
        "timestamp": body.at,
        "data": None if body.error is None else {"error": body.error},
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
