"""From the records of agents to ``agentExecutionStream``, and to AGENT_TRIGGERED of ``workflowEvents``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from circuit_breaker_server.engine.agents.records import (
    AgentCreated,
    AgentsTriggered,
    ConfigCreated,
    ExecutionEnded,
    ExecutionProgressed,
    ExecutionStarted,
    Note,
    decode_body,
)
from circuit_breaker_server.engine.event_fields import EventFields, FieldSource, Make, always, offset
from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.engine.workflows.streams import WORKFLOW_EVENTS
from circuit_breaker_server.log.event_log import Record

__all__ = ["AGENT_EXECUTIONS", "EVENT_FIELDS", "derive", "ends"]

AGENT_EXECUTIONS = "agentExecutionStream"

_ENDS = {"COMPLETED": "COMPLETED", "FAILED": "FAILED", "TIMEOUT": "FAILED", "CANCELLED": "CANCELLED"}
"""The event of each status that is an end."""


def derive(record: Record) -> tuple[StreamEvent, ...]:
    """Return the events of a record."""
    body = decode_body(record)
    match body:
        case AgentCreated() | ConfigCreated():
            return ()
        case AgentsTriggered(runs=runs):
            return tuple(
                _triggered(record, body, {"executionId": run.id, "agentId": run.agent_id}) for run in runs
            )
        case ExecutionStarted():
            return (_event(body, "STARTED", "RUNNING", data={"input": body.input}),)
        case ExecutionProgressed(notes=notes):
            return tuple(_note(body, note) for note in notes)
        case ExecutionEnded(status=status):
            return (_event(body, _ENDS[status], status, data=_end_data(body), error=body.error),)


def ends(value: Mapping[str, object]) -> bool:
    """Tell whether an event is the last of its run."""
    return value["eventType"] in ("COMPLETED", "FAILED", "CANCELLED")


def _triggered(record: Record, body: AgentsTriggered, data: dict[str, object]) -> StreamEvent:
    value: dict[str, object] = {
        "eventType": "AGENT_TRIGGERED",
        "workflowId": body.workflow_id,
        "resourceId": body.resource_id,
        "timestamp": body.at,
        "data": {**data, "stateId": body.state_id},
        "triggeredBy": None,
        "natsSequence": str(record.offset),
    }
    return StreamEvent(WORKFLOW_EVENTS, value)


def _end_data(body: ExecutionEnded) -> dict[str, object] | None:
    return {"output": body.output} if body.status == "COMPLETED" else None


def _note(body: ExecutionProgressed, note: Note) -> StreamEvent:
    return _event(body, _note_type(note), "RUNNING", data=_note_data(note), error=_note_error(note))


def _note_type(note: Note) -> str:
    return note.kind if note.kind in ("RETRY", "LOG") else "PROGRESS"


def _note_data(note: Note) -> dict[str, object]:
    match note.kind:
        case "RETRY":
            return {"attempt": note.attempt}
        case "LOG":
            return {"message": note.text}
        case _:
            return {"delta": note.text}


def _note_error(note: Note) -> str | None:
    return note.text if note.kind == "RETRY" else None


def _event(
    body: ExecutionStarted | ExecutionProgressed | ExecutionEnded,
    event_type: str,
    status: str,
    *,
    data: Mapping[str, object] | None = None,
    error: str | None = None,
) -> StreamEvent:
    value: dict[str, object] = {
        "eventType": event_type,
        "executionId": body.execution_id,
        "agentId": body.agent_id,
        "resourceId": body.resource_id,
        "status": status,
        "timestamp": body.at,
        "data": data,
        "error": error,
    }
    return StreamEvent(AGENT_EXECUTIONS, value)


def _fields(
    event_type: FieldSource, status: FieldSource, data: FieldSource, error: FieldSource
) -> dict[str, FieldSource]:
    return {
        "eventType": event_type,
        "executionId": "execution_id",
        "agentId": "agent_id",
        "resourceId": "resource_id",
        "status": status,
        "timestamp": "at",
        "data": data,
        "error": error,
    }


def _of_item(make: Callable[[Any], object]) -> Make:
    return lambda _record, _body, item: make(item)


EVENT_FIELDS: Mapping[str, Mapping[type, EventFields]] = {
    WORKFLOW_EVENTS: {
        AgentsTriggered: EventFields(
            {
                "eventType": always("AGENT_TRIGGERED"),
                "workflowId": "workflow_id",
                "resourceId": "resource_id",
                "timestamp": "at",
                "data": lambda _record, body, run: {
                    "executionId": run.id,
                    "agentId": run.agent_id,
                    "stateId": body.state_id,
                },
                "triggeredBy": always(None),
                "natsSequence": offset,
            },
            items=lambda body: body.runs,
        ),
    },
    AGENT_EXECUTIONS: {
        ExecutionStarted: EventFields(
            _fields(
                always("STARTED"),
                always("RUNNING"),
                lambda _record, body, _item: {"input": body.input},
                always(None),
            )
        ),
        ExecutionProgressed: EventFields(
            _fields(_of_item(_note_type), always("RUNNING"), _of_item(_note_data), _of_item(_note_error)),
            items=lambda body: body.notes,
        ),
        ExecutionEnded: EventFields(
            _fields(
                lambda _record, body, _item: _ENDS[body.status],
                "status",
                lambda _record, body, _item: _end_data(body),
                "error",
            )
        ),
    },
}
"""The sources of the fields of events, by stream and type of body."""
