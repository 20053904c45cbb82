"""From the records of rules to events: no stream tells of them."""

from __future__ import annotations

from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.engine.rules.records import decode_body
from circuit_breaker_server.log.event_log import Record

__all__ = ["derive"]


def derive(record: Record) -> tuple[StreamEvent, ...]:
    """Return the events of a record: none.

    :raises LogCorruptError: the record cannot be read.
    """
    decode_body(record)
    return ()
