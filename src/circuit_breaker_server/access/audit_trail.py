"""The audit lines of mutations, written from the records of the event log.

A line follows from its record: a caller that is cancelled right after the record was appended, or a server
that is killed there, does not leave a record without a line. After a crash the lines that are missing are
written when the server starts again.
"""

from __future__ import annotations

from typing import final

from circuit_breaker_server.engine.origin import origin_of
from circuit_breaker_server.log.event_log import EventLog, Record
from circuit_breaker_server.security.audit import AuditEvent, AuditLog

__all__ = ["AuditTrail", "position_of"]


def position_of(log: EventLog, offset: int) -> str:
    """Return a place in the event log as audit lines name it."""
    return f"{log.epoch}.{offset}"


@final
class AuditTrail:
    """Write the audit line of each record that a caller's mutation made.

    Example::

        trail = AuditTrail(audit_log, event_log)
        await trail.catch_up()
        engine = Engine(event_log, audit=trail.follow)
    """

    def __init__(self, audit: AuditLog, log: EventLog) -> None:
        self._audit = audit
        self._log = log

    async def catch_up(self) -> None:
        """Write the lines that a crash has kept from being written. Call it before the engine starts.

        :raises LogCorruptError: a record cannot be read.
        """
        epoch, _, offset = (self._audit.position or position_of(self._log, 0)).rpartition(".")
        after = int(offset) if epoch == self._log.epoch else 0
        async for record in self._log.scan(after=after):
            self.follow(record)

    def follow(self, record: Record) -> None:
        """Write the line of a record, if it has one."""
        position = position_of(self._log, record.offset)
        if b'"action":"' in record.data:
            origin = origin_of(record)
            if origin.action:
                self._audit.append(
                    AuditEvent(
                        action="mutate",
                        principal=origin.principal,
                        tenant=origin.tenant,
                        address=origin.address,
                        what=origin.action,
                        decision="allowed",
                        policy=origin.policy,
                        record=position,
                    )
                )
        self._audit.position = position
