"""Put an event into words, for a table's cell."""

from __future__ import annotations

from circuit_breaker_sdk.cli.runtime import one_line
from circuit_breaker_sdk.events import (
    AgentExecutionEvent,
    CostUpdate,
    LLMStreamChunk,
    MCPServerStatusUpdate,
    MCPSessionEvent,
    Resource,
    WorkflowEvent,
)

__all__ = [
    "words_of_chunk",
    "words_of_cost",
    "words_of_execution",
    "words_of_resource",
    "words_of_server_status",
    "words_of_session",
    "words_of_workflow_event",
]

_SHOWN = 8


def words_of_resource(resource: Resource) -> str:
    """Say what a resource became, and by which activity: ``1f0c… in_review → approved (approve)``."""
    subject = _short(resource.id)
    if not resource.history:
        return one_line(f"{subject} created as {resource.state}")
    last = resource.history[-1]
    return one_line(f"{subject} {last.from_state} → {last.to_state} ({last.activity})")


def words_of_workflow_event(event: WorkflowEvent) -> str:
    """Say what happened, with the ids cut to what tells them apart on a screen."""
    message = event.message
    for id_ in filter(None, (event.resource_id, event.workflow_id)):
        message = message.replace(id_, _short(id_))
    return one_line(message)


def words_of_execution(event: AgentExecutionEvent) -> str:
    """Say what a run did: ``1f0c… PROGRESS: Triage``."""
    data = event.data if isinstance(event.data, dict) else {}
    said = event.error or data.get("delta") or data.get("message") or ""
    return one_line(f"{_short(event.execution_id)} {event.type}: {said}".rstrip(": "))


def words_of_chunk(chunk: LLMStreamChunk) -> str:
    """Say what a completion added."""
    said = chunk.content or chunk.error or (f"{chunk.usage.total_tokens} tokens" if chunk.usage else "")
    return one_line(f"{_short(chunk.request_id)} {chunk.type}: {said}".rstrip(": "))


def words_of_cost(update: CostUpdate) -> str:
    """Say what an account paid, and how its budget stands."""
    limit = None if update.budget is None else update.budget.limit
    status = "" if limit is None else f" of {limit:g}"
    return one_line(f"{update.type} {update.amount:+.6f} USD, {update.total_cost:.6f}{status} used")


def words_of_server_status(update: MCPServerStatusUpdate) -> str:
    """Say what an MCP server became: ``1f0c… ONLINE → ERROR``."""
    return one_line(f"{_short(update.server_id)} {update.old_status} → {update.new_status}")


def words_of_session(event: MCPSessionEvent) -> str:
    """Say what happened to a session: ``1f0c… of ada: CREATED``."""
    return one_line(f"{_short(event.session_id)} of {event.session.user_id}: {event.type}")


def _short(id_: str) -> str:
    return id_ if len(id_) <= _SHOWN else f"{id_[:_SHOWN]}…"
