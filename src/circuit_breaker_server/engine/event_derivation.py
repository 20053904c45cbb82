"""From a record to its events, whatever domain it belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from circuit_breaker_server.engine.agents import streams as agents
from circuit_breaker_server.engine.agents.records import decode_body as read_agents
from circuit_breaker_server.engine.costs import streams as costs
from circuit_breaker_server.engine.costs.records import decode_body as read_costs
from circuit_breaker_server.engine.event_fields import EventBodies, EventFields
from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.engine.llm import streams as llm
from circuit_breaker_server.engine.llm.records import decode_body as read_llm
from circuit_breaker_server.engine.mcp import streams as mcp
from circuit_breaker_server.engine.mcp.records import decode_body as read_mcp
from circuit_breaker_server.engine.rules import streams as rules
from circuit_breaker_server.engine.rules.records import decode_body as read_rules
from circuit_breaker_server.engine.skipped_records import ABOUT_LOG
from circuit_breaker_server.engine.workflows import streams as workflows
from circuit_breaker_server.log.event_log import LogCorruptError, Record

__all__ = ["EVENT_BODIES", "derive"]


def _no_events(_record: Record) -> tuple[StreamEvent, ...]:
    return ()


def _no_body(_record: Record) -> None:
    return None


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

_READERS: Mapping[object, Callable[[Record], object]] = {
    workflows.derive: workflows.read_body,
    rules.derive: read_rules,
    llm.derive: read_llm,
    costs.derive: read_costs,
    agents.derive: read_agents,
    mcp.derive: read_mcp,
    _no_events: _no_body,
}
_READER_BY_TOKEN: Mapping[str, Callable[[Record], object]] = {
    token: _READERS[derive_events] for token, derive_events in _BY_TOKEN.items()
}


def derive(record: Record) -> tuple[StreamEvent, ...]:
    """Return the events of a record; an event's place in the tuple is its cursor's index.

    A pure function of the record: a replay says what the live stream said, byte for byte.

    :raises LogCorruptError: the record cannot be read.
    """
    of_domain = _BY_TOKEN.get(record.subject.partition(".")[0])
    if of_domain is None:
        raise _unknown(record)
    return of_domain(record)


def _read_body(record: Record) -> object:
    read = _READER_BY_TOKEN.get(record.subject.partition(".")[0])
    if read is None:
        raise _unknown(record)
    return read(record)


def _reader(subjects: Sequence[str]) -> Callable[[Record], object]:
    """Return what reads the bodies of these subjects: of one domain alone, that domain's own."""
    readers = {_READER_BY_TOKEN.get(pattern.partition(".")[0], _read_body) for pattern in subjects}
    return readers.pop() if len(readers) == 1 else _read_body


def _unknown(record: Record) -> LogCorruptError:
    return LogCorruptError(
        f"record {record.offset} ({record.subject}) is of a kind that this program does not know; "
        "run the program that wrote it"
    )


def _all_fields() -> Mapping[str, Mapping[type, EventFields]]:
    """Put together what the domains say: a stream may have events of several."""
    found: dict[str, dict[type, EventFields]] = defaultdict(dict)
    for domain in (workflows, agents, llm, costs, mcp):
        for stream, fields in domain.EVENT_FIELDS.items():
            found[stream].update(fields)
    return found


EVENT_BODIES: Final = EventBodies(_reader, _all_fields())
"""The bodies of all records, for encoders that need no whole events."""
