"""The audit lines of mutations, written from the records of the event log.

A line follows from its record: a caller that is cancelled right after the record was appended, or a server
that is killed there, does not leave a record without a line. After a crash the lines that are missing are
written when the server starts again.

While the audit log cannot be written the server refuses mutations, and the event log keeps the records whose
lines are not on the disk.
"""

from __future__ import annotations

import asyncio
from typing import final

from circuit_breaker_server.engine.command_origin import origin_of
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.log.event_log import EventLog, LogError, Record
from circuit_breaker_server.security.audit import AuditEvent, AuditLog, AuditLogError

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

    def __init__(self, audit: AuditLog, log: EventLog, *, node: str = "") -> None:
        """``node`` is the name of this node: it writes the lines of its own records, and others theirs."""
        self._audit = audit
        self._log = log
        self._node = node

    async def catch_up(self) -> None:
        """Write the lines that a crash has kept from being written. Call it before the engine starts.

        :raises LogCorruptError: a record cannot be read.
        :raises AuditLogError: the lines are more than memory holds, and cannot be written.
        """
        epoch, _, offset = (self._audit.position or position_of(self._log, 0)).rpartition(".")
        after = int(offset) if epoch == self._log.epoch else 0
        async for record in self._log.scan(after=after):
            self.follow(record)
            if not self._audit.effects_fit and not await asyncio.to_thread(self._audit.flush):
                raise AuditLogError(
                    "the audit log cannot be written, and lacks lines about records of the event log; "
                    "make room on its disk and start the server again"
                )

    def check(self) -> None:
        """Let a mutation begin, if its line can be written.

        :raises EngineError: ``UNAVAILABLE``.
        """
        if not self._audit.takes_effects:
            raise EngineError(
                ErrorCode.UNAVAILABLE,
                "the audit log cannot be written at present; nothing was changed, try again later",
            )

    async def make_durable(self) -> None:
        """Bring the lines of all records so far to the disk, before these records are trimmed.

        :raises LogError: the audit log cannot be written.
        """
        if not await asyncio.to_thread(self._audit.flush):
            raise LogError("the audit log cannot be written, and lines about records are not on the disk")

    @property
    def durable_offset(self) -> int:
        """The offset of the event log up to which no line is missing on the disk."""
        epoch, _, offset = (self._audit.durable_position or "").rpartition(".")
        return int(offset) if epoch == self._log.epoch else 0

    def follow(self, record: Record) -> None:
        """Write the line of a record, if it has one."""
        position = position_of(self._log, record.offset)
        if b'"action":"' in record.data:
            origin = origin_of(record)
            if origin.action and origin.node == self._node:
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
