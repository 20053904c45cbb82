"""The tools that all commands share: a clock, ids, one append to the log, and the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar, final

import msgspec

from circuit_breaker_server.engine.command_origin import ORIGIN, with_origin
from circuit_breaker_server.engine.creation_rates import CreationRates
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.engine.idempotency import CLAIM, Effect
from circuit_breaker_server.engine.ids import RandomIds
from circuit_breaker_server.engine.log_guards import with_claim
from circuit_breaker_server.engine.nodes.ownership import Identity
from circuit_breaker_server.engine.record_bodies import VersionedBody, encode_body
from circuit_breaker_server.engine.record_versions import VERSION
from circuit_breaker_server.engine.timestamps import timestamp
from circuit_breaker_server.log.event_log import (
    AppendOutcomeUnknown,
    EventLog,
    ExpectationFailed,
    Guards,
    LogClosedError,
    LogError,
    NewRecord,
    Record,
)
from circuit_breaker_server.tracing import step

__all__ = ["ATTEMPTS", "Appender", "Committed", "LogFormat", "Value"]

ATTEMPTS = 16
"""The most attempts of a command whose subject only the server's own writers can change meanwhile."""

Value = dict[str, object]
"""An answer in the shape of a type of the schema; readers do not change it. A callable value is called when
its field is selected, and JSON may be ``msgspec.Raw``: fields that are not selected are not decoded."""


V_co = TypeVar("V_co", covariant=True)


@final
class Committed(msgspec.Struct, Generic[V_co], frozen=True):
    """The result of a command.

    :ivar value: the answer.
    :ivar record: the one record that the command appended.
    :ivar cursor: the position just after the record's last event.
    """

    value: V_co
    record: Record
    cursor: Cursor


def _now() -> datetime:
    return datetime.now(UTC)


class LogFormat(Protocol):
    """The part of the state that has the log's format. No call: it is read for each record."""

    format: int


@final
class _Newest:
    def __init__(self) -> None:
        self.format = VERSION


@final
class Appender:
    """The one way into the log for all domains.

    :param is_running: tells whether the state follows the log; commands are refused where not.
    :param has_applied: tells of an offset whether the state has its record; where not, it has stopped
        following the log for good.
    :param decided_at: tells the offset of the state that is decided on now.
    :param is_claimed: tells of a principal and an idempotency key whether that has been used.
    :param now: the clock.
    :param creations: how often a principal may create; ``None``: without a bound.
    :param me: which node this is, as each record's origin keeps it.
    :param log_format: has the version in which records are written now.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        is_running: Callable[[], bool],
        has_applied: Callable[[int], bool],
        decided_at: Callable[[], int],
        is_claimed: Callable[[str, str], bool] = lambda _principal, _key: False,
        now: Callable[[], datetime] = _now,
        creations: CreationRates | None = None,
        me: Identity | None = None,
        log_format: LogFormat | None = None,
    ) -> None:
        self.now = now
        self._log = log
        self._creations = creations
        self._is_running = is_running
        self._has_applied = has_applied
        self.decided_at = decided_at
        """Tells the offset of the state as it is now, for the guards of what is decided on it."""
        self._is_claimed = is_claimed
        self._me = me or Identity()
        self._log_format = log_format or _Newest()
        self._ids = RandomIds()

    @property
    def epoch(self) -> str:
        """The epoch of the log."""
        return self._log.epoch

    def count_creation(self) -> None:
        """Count what the principal of this context is about to create, and refuse it if it is too often.

        A command that names an object looks for it first: an object that the caller may not see is answered
        as one that there is not, and the refusal must not tell the two apart.

        :raises EngineError: ``RATE_LIMITED``.
        """
        if self._creations is not None:
            self._creations.take(ORIGIN.get().principal)

    def at(self) -> str:
        """Return the present moment as the schema writes it."""
        return timestamp(self.now())

    def new_id(self) -> str:
        """Make an id for something new: a UUID."""
        return self._ids.uuid()

    def record_id(self) -> str:
        """Make an id that begins with the time: a log that indexes ids appends to the end of its index."""
        milliseconds = int(self.now().timestamp() * 1000) & 0xFFFF_FFFF_FFFF
        return f"{milliseconds:012x}{self._ids.hex()[12:]}"

    @staticmethod
    def follow_up_id(*cause: str) -> str:
        """Make the id of a record that follows from another: the same cause, the same id, so only once."""
        return hashlib.sha256("\0".join(cause).encode()).hexdigest()[:32]

    async def append(
        self,
        subject: str,
        body: VersionedBody,
        *,
        expected: int,
        record_id: str | None = None,
        effect: Effect | None = None,
        guards: Guards | None = None,
    ) -> Record:
        """Append one record, with the origin of this context (:data:`~.origin.ORIGIN`).

        :param effect: of the one record that is the caller's command: a mutation sent again with the same key
            is answered from it.

        :param guards: what else must hold.

        :raises ExpectationFailed: someone else wrote to the subject first, or a guard does not hold.
        :raises EngineError: ``UNAVAILABLE``: the log cannot be written, or the server is stopping;
            ``CONFLICT``: another attempt of the claim's mutation is in the log; ``INVALID_INPUT``: the log's
            format cannot hold the body.
        """
        if not self._is_running():
            raise EngineError(ErrorCode.UNAVAILABLE, "the server is not running: nothing was changed")
        claim = None if effect is None else CLAIM.get()
        if claim is not None and effect is not None:
            body = claim.put_into(body, effect)
            if claim.guard is not None:
                if self._is_claimed(claim.principal, claim.key):
                    raise claim.taken()
                guards = with_claim(guards, claim.guard, decided_at=self.decided_at())
        encoded = encode_body(body, self._log_format.format)
        data = with_origin(encoded, ORIGIN.get(), node=self._me.name, term=self._me.term)
        id_ = record_id or self.record_id()
        new = NewRecord(subject=subject, id=id_, data=data, expected=expected, guards=guards)
        try:
            with step("append"):
                record = await self._log.append(new)
        except ExpectationFailed as error:
            if claim is not None and error.subject == claim.guard:
                raise claim.taken() from error
            raise
        except LogClosedError as error:
            raise EngineError(ErrorCode.UNAVAILABLE, "the server is stopping: nothing was changed") from error
        except AppendOutcomeUnknown as error:
            raise EngineError(
                ErrorCode.UNAVAILABLE,
                f"the event log did not answer: {error}; the change may have happened: read before trying "
                "again, or try again with the same Idempotency-Key",
                mayHaveHappened=True,
            ) from error
        except LogError as error:
            raise EngineError(
                ErrorCode.UNAVAILABLE, f"the event log could not be written: {error}; nothing was changed"
            ) from error
        if not self._has_applied(record.offset):
            # No answer can be made of a state without the record.
            raise EngineError(
                ErrorCode.UNAVAILABLE,
                "the server is stopping; the change is durable: read before trying again",
            )
        if claim is not None and effect is not None:
            claim.appended(effect, record)
        return record

    async def append_own(
        self,
        subject: str,
        body: VersionedBody,
        *,
        expected: int,
        conflict: str,
        record_id: str | None = None,
        effect: Effect | None = None,
        guards: Guards | None = None,
    ) -> Record:
        """Append what only the caller can decide again: if someone was first, it is refused.

        :raises EngineError: ``CONFLICT`` with the text given, ``UNAVAILABLE``.
        """
        try:
            return await self.append(
                subject, body, expected=expected, record_id=record_id, effect=effect, guards=guards
            )
        except ExpectationFailed as error:
            raise EngineError(ErrorCode.CONFLICT, conflict) from error

    def committed(self, value: V_co, record: Record) -> Committed[V_co]:  # type: ignore[misc]  # read only
        """Return what a command did by this record."""
        return Committed(value, record, self.cursor_after(record))

    def cursor_after(self, record: Record) -> Cursor:
        """Return the place just after a record's last event."""
        index = max(len(derive(record)) - 1, 0)
        return Cursor(self.epoch, record.offset, index, record.check)
