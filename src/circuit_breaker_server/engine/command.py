"""The tools that all commands share: a clock, ids, one append to the log, and the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Generic, TypeVar, final

import msgspec

from circuit_breaker_server.engine.command_origin import ORIGIN, with_origin
from circuit_breaker_server.engine.creation_rates import CreationRates
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.engine.idempotency import CLAIM, Claim, Effect
from circuit_breaker_server.engine.ids import RandomIds
from circuit_breaker_server.engine.record_bodies import VersionedBody, encode_body
from circuit_breaker_server.engine.timestamps import timestamp
from circuit_breaker_server.log.event_log import (
    AppendOutcomeUnknown,
    EventLog,
    ExpectationFailed,
    LogClosedError,
    LogError,
    NewRecord,
    Record,
)
from circuit_breaker_server.tracing import step

__all__ = ["ATTEMPTS", "Appender", "Committed", "Value"]

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


@final
class Appender:
    """The one way into the log for all domains.

    :param is_running: tells whether the state follows the log; commands are refused where not.
    :param has_applied: tells of an offset whether the state has its record; where not, it has stopped
        following the log for good.
    :param now: the clock.
    :param creations: how often a principal may create; ``None``: without a bound.
    :param node: the name of this node, as each record's origin keeps it; empty for the only one.
    :param term: the number of the node's start.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        is_running: Callable[[], bool],
        has_applied: Callable[[int], bool],
        now: Callable[[], datetime] = _now,
        creations: CreationRates | None = None,
        node: str = "",
        term: int = 0,
    ) -> None:
        self.now = now
        self._log = log
        self._creations = creations
        self._is_running = is_running
        self._has_applied = has_applied
        self._node = node
        self._term = term
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
        expected: int | None,
        record_id: str | None = None,
        effect: Effect | None = None,
    ) -> Record:
        """Append one record, with the origin of this context (:data:`~.origin.ORIGIN`).

        :param effect: of the one record that is the caller's command: a mutation sent again with the same key
            is answered from it.

        :raises ExpectationFailed: someone else wrote to the subject first.
        :raises EngineError: ``UNAVAILABLE``: the log cannot be written, or the server is stopping;
            ``CONFLICT``: an earlier attempt of the claim's mutation is in the log.
        """
        if not self._is_running():
            raise EngineError(ErrorCode.UNAVAILABLE, "the server is not running: nothing was changed")
        claim = None if effect is None else CLAIM.get()
        id_ = self._effect_id(claim) if record_id is None else record_id
        if claim is not None and effect is not None:
            body = claim.put_into(body, effect)
        data = with_origin(encode_body(body), ORIGIN.get(), node=self._node, term=self._term)
        new = NewRecord(subject=subject, id=id_, data=data, expected=expected)
        try:
            with step("append"):
                record = await self._log.append(new)
        except ExpectationFailed:
            raise
        except LogClosedError as error:
            raise EngineError(ErrorCode.UNAVAILABLE, "the server is stopping: nothing was changed") from error
        except AppendOutcomeUnknown as error:
            if claim is not None:
                claim.left_open(id_)
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
            if record.data != data:
                # The answer of this attempt is not that of the record.
                raise EngineError(ErrorCode.CONFLICT, "the mutation happened in an earlier attempt")
            claim.appended(effect, record)
        return record

    def _effect_id(self, claim: Claim | None) -> str:
        return (None if claim is None else claim.open_id) or self.record_id()

    def effect_id(self) -> str:
        """Return the id for the record that is the caller's command.

        It is the id of the earlier attempt where the outcome of that one is not known: it is not appended
        twice.
        """
        return self._effect_id(CLAIM.get())

    async def append_own(
        self,
        subject: str,
        body: VersionedBody,
        *,
        expected: int,
        conflict: str,
        record_id: str | None = None,
        effect: Effect | None = None,
    ) -> Record:
        """Append what only the caller can decide again: if someone was first, it is refused.

        :raises EngineError: ``CONFLICT`` with the text given, ``UNAVAILABLE``.
        """
        try:
            return await self.append(subject, body, expected=expected, record_id=record_id, effect=effect)
        except ExpectationFailed as error:
            raise EngineError(ErrorCode.CONFLICT, conflict) from error

    def committed(self, value: V_co, record: Record) -> Committed[V_co]:  # type: ignore[misc]  # read only
        """Return what a command did by this record."""
        return Committed(value, record, self.cursor_after(record))

    def cursor_after(self, record: Record) -> Cursor:
        """Return the place just after a record's last event."""
        index = max(len(derive(record)) - 1, 0)
        return Cursor(self.epoch, record.offset, index, record.check)
