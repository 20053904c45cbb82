"""From the records of agents to ``agentExecutionStream``, and to AGENT_TRIGGERED of ``workflowEvents``."""

from __future__ import annotations

from collections.abc import Mapping

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
from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.engine.workflows.streams import WORKFLOW_EVENTS
from circuit_breaker_server.log.event_log import Record

__all__ = ["AGENT_EXECUTIONS", "derive", "ends"]

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
            data = {"output": body.output} if status == "COMPLETED" else None
            return (_event(body, _ENDS[status], status, data=data, error=body.error),)


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


def _note(body: ExecutionProgressed, note: Note) -> StreamEvent:
    match note.kind:
        case "RETRY":
            return _event(body, "RETRY", "RUNNING", data={"attempt": note.attempt}, error=note.text)
        case "LOG":
            return _event(body, "LOG", "RUNNING", data={"message": note.text})
        case _:
            return _event(body, "PROGRESS", "RUNNING", data={"delta": note.text})


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
