"""From a record to its events, whatever domain it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from circuit_breaker_server.engine.agents import streams as agents
from circuit_breaker_server.engine.costs import streams as costs
from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.engine.llm import streams as llm
from circuit_breaker_server.engine.mcp import streams as mcp
from circuit_breaker_server.engine.rules import streams as rules
from circuit_breaker_server.engine.skipped_records import ABOUT_LOG
from circuit_breaker_server.engine.workflows import streams as workflows
from circuit_breaker_server.log.event_log import LogCorruptError, Record

__all__ = ["derive"]


def _no_events(_record: Record) -> tuple[StreamEvent, ...]:
    return ()


_BY_TOKEN: Mapping[str, Callable[[Record], tuple[StreamEvent, ...]]] = {
    "workflow": workflows.derive,
    "resource": workflows.derive,
    "rule": rules.derive,
    "provider": llm.derive,
    "completion": llm.derive,
    "cost": costs.derive,
    "agent": agents.derive,
    "agentconfig": agents.derive,
    "trigger": agents.derive,
    "execution": agents.derive,
    "mcp": mcp.derive,
    "node": _no_events,
    "format": _no_events,
    ABOUT_LOG: _no_events,
}
"""By the first token of the record's subject."""


def derive(record: Record) -> tuple[StreamEvent, ...]:
    """Return the events of a record; an event's place in the tuple is its cursor's index.

    A pure function of the record: a replay says what the live stream said, byte for byte.

    :raises LogCorruptError: the record cannot be read.
    """
    of_domain = _BY_TOKEN.get(record.subject.partition(".")[0])
    if of_domain is None:
        raise LogCorruptError(
            f"record {record.offset} ({record.subject}) is of a kind that this program does not know; "
            "run the program that wrote it"
        )
    return of_domain(record)
