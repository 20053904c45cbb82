"""The audit lines of mutations, written from the records of the event log.

A line follows from its record: a caller that is cancelled right after the record was appended, or a server
that is killed there, does not leave a record without a line. After a crash the lines that are missing are
written when the server starts again, or by the node that declares it gone.

While the audit log cannot be written the server refuses mutations, and the event log keeps the records whose
lines are not on the disk.
"""

from __future__ import annotations

import asyncio
from typing import Final, final

from circuit_breaker_server.engine.command_origin import origin_of
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.nodes.records import NODE_SUBJECTS, NodeGone, decode_body, node_subject
from circuit_breaker_server.log.event_log import EventLog, LogError, Record
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.audit import AuditEvent, AuditLog, AuditLogError

__all__ = ["AuditTrail", "position_of"]

MAX_WAITING_LINES: Final = 10_000
"""Lines that wait while those of another node are written; above that, mutations are refused."""

_RETRY_SECONDS: Final = 1.0

_log = get_logger("audit")


def position_of(log: EventLog, offset: int) -> str:
    """Return a place in the event log as audit lines name it."""
    return f"{log.epoch}.{offset}"


@final
class AuditTrail:
    """Write the audit line of each record that a caller's mutation made.

    Where nodes share the event log each writes the lines of its own records. Who declares a node gone writes
    those that this one may have left out, in its own log, where they name the node
    (:attr:`AuditEvent.taken_from`). Until these are written no line about a later record is, so that a crash
    in between leaves nothing out: the next start begins with them again.

    Example::

        trail = AuditTrail(audit_log, event_log)
        engine = Engine(event_log, audit=trail.follow, catch_up=trail.catch_up)
    """

    def __init__(self, audit: AuditLog, log: EventLog, *, node: str = "") -> None:
        """``node`` is the name of this node: it writes the lines of its own records, and others theirs."""
        self._audit = audit
        self._log = log
        self._node = node
        self._taking_over: asyncio.Task[None] | None = None
        # While lines are taken over: the records that have lines, and where the log is.
        self._waiting: list[Record] = []
        self._seen = 0
        self._failure: Exception | None = None

    async def catch_up(self) -> None:
        """Write the lines of all records so far that have none: those that a crash left out.

        :raises LogCorruptError: a record cannot be read.
        :raises AuditLogError: the lines are more than memory holds, and cannot be written.
        """
        epoch, _, offset = (self._audit.position or position_of(self._log, 0)).rpartition(".")
        after = int(offset) if epoch == self._log.epoch else 0
        if epoch != self._log.epoch:
            _log.warning(
                "audit_of_another_log",
                audited=epoch,
                log=self._log.epoch,
                advice="this data directory was used with another event log; if that is not meant, check "
                "--log and --data",
            )
        written_by_others = await self._written_by_others(after)
        async for record in self._log.scan(after=after):
            gone = self._to_take_over(record, self._node)
            if gone is not None:
                await self._take_over(gone, record.offset)
            if any(record.offset in each for each in written_by_others):
                self._audit.position = position_of(self._log, record.offset)
            else:
                self._write(record)
            await self._make_room()

    async def aclose(self) -> None:
        """Stop taking over lines; the next start begins anew with them. Idempotent."""
        if self._taking_over is not None:
            self._taking_over.cancel()
            await asyncio.wait((self._taking_over,))

    def check(self) -> None:
        """Let a mutation begin, if its line can be written.

        :raises EngineError: ``UNAVAILABLE``.
        """
        if not self._audit.takes_effects or len(self._waiting) > MAX_WAITING_LINES:
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

    @property
    def _waits(self) -> bool:
        """Whether lines wait for those that are being taken over."""
        return self._taking_over is not None

    def follow(self, record: Record) -> None:
        """Write the line of a record, if it has one; what it raises, also of a takeover, ends the engine."""
        if self._failure is not None:
            raise self._failure
        gone = self._to_take_over(record, self._node)
        if self._waits:
            self._seen = record.offset
            if gone is not None or self._line(record, self._node) is not None:
                self._waiting.append(record)
        elif gone is not None:
            self._seen = record.offset
            self._taking_over = asyncio.get_running_loop().create_task(
                self._take_over_in_background(gone, record.offset), name="audit-takeover"
            )
        else:
            self._write(record)

    def _write(self, record: Record) -> None:
        if (line := self._line(record, self._node)) is not None:
            self._audit.append(line)
        self._audit.position = position_of(self._log, record.offset)

    def _line(self, record: Record, node: str, *, is_taken_over: bool = False) -> AuditEvent | None:
        """Return the line of a record that a node has to write; ``None`` where there is none."""
        if b'"action":"' not in record.data:
            return None
        origin = origin_of(record)
        if not origin.action or origin.node != node:
            return None
        position = position_of(self._log, record.offset)
        return AuditEvent(
            action="mutate",
            principal=origin.principal,
            tenant=origin.tenant,
            address=origin.address,
            what=origin.action,
            decision="allowed",
            policy=origin.policy,
            record=None if is_taken_over else position,
            taken_over=position if is_taken_over else None,
            taken_from=node if is_taken_over else None,
        )

    def _to_take_over(self, record: Record, node: str) -> NodeGone | None:
        """Return what a record says of a node that is gone, if ``node`` has to write its lines."""
        if not node or not record.subject.startswith(NODE_SUBJECTS):
            return None
        body = decode_body(record)
        return body if isinstance(body, NodeGone) and body.by == node and body.audited is not None else None

    async def _written_by_others(self, after: int) -> list[range]:
        """Return the offsets whose lines other nodes have written since this one was declared gone."""
        if not self._node:
            return []
        records = await self._log.read(after=after, subjects=(node_subject(self._node),))
        bodies = [(record.offset, decode_body(record)) for record in records]
        return [
            range(body.audited + 1, offset)
            for offset, body in bodies
            if isinstance(body, NodeGone) and body.audited is not None
        ]

    async def _take_over_in_background(self, gone: NodeGone, offset: int) -> None:
        try:
            await self._take_over_and_go_on(gone, offset)
        except Exception as error:  # noqa: BLE001 (the next record raises it, and ends the engine)
            self._failure = error

    async def _take_over_and_go_on(self, gone: NodeGone, offset: int) -> None:
        """Write the lines of a node that is gone, then those that have waited for them."""
        while True:
            try:
                await self._take_over(gone, offset)
                break
            except (LogError, AuditLogError) as error:
                # What was written is written again: lines that are taken over may be there twice.
                _log.warning("audit_takeover_delayed", node=gone.name, why=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
        self._audit.position = position_of(self._log, offset)
        waiting, self._waiting, seen = self._waiting, [], self._seen
        self._taking_over = None
        for record in waiting:
            self.follow(record)
        if self._waits:
            self._seen = seen
        else:
            self._audit.position = position_of(self._log, seen)

    async def _take_over(self, gone: NodeGone, offset: int) -> None:
        """Write the lines of a node that was declared gone by the record at an offset.

        :raises LogError: the event log cannot be read.
        :raises AuditLogError: the lines are more than memory holds, and cannot be written.
        """
        lines = 0
        async for record in self._log.scan(after=gone.audited or 0, upto=offset - 1):
            if (line := self._line(record, gone.name, is_taken_over=True)) is not None:
                self._audit.append(line)
                lines += 1
            elif (theirs := self._to_take_over(record, gone.name)) is not None:
                # It had the lines of a third node to write.
                await self._take_over(theirs, record.offset)
            await self._make_room()
        _log.info("audit_lines_taken_over", node=gone.name, term=gone.term, lines=lines)

    async def _make_room(self) -> None:
        if not self._audit.effects_fit and not await asyncio.to_thread(self._audit.flush):
            raise AuditLogError(
                "the audit log cannot be written, and lacks lines about records of the event log; "
                "make room on its disk and start the server again"
            )
