"""The appends under way: each has one outcome, which is its record, a refusal or the end of its time."""

from __future__ import annotations

import asyncio
from typing import final

from circuit_breaker_server.log.event_log import (
    AppendOutcomeUnknown,
    LogError,
    LogWriteError,
    NewRecord,
    Record,
)
from circuit_breaker_server.log.jetstream.errors import ApiError
from circuit_breaker_server.log.jetstream.waiting_appends import Append

__all__ = ["PendingAppends"]


@final
class PendingAppends:
    """The appends whose callers wait for an answer.

    :ivar by_id: by the id of the record.
    :ivar has_unknown: an append has ended whose record may be in the log.

    Example::

        pending = PendingAppends("events", patience_seconds=8)
        append = pending.add(new_record)
        pending.settle(append, record)
        await pending.finish()
    """

    def __init__(self, name: str, *, patience_seconds: float) -> None:
        """Fail an append that is not settled in so many seconds; ``name`` is the stream's."""
        self.by_id: dict[str, Append] = {}
        self.has_unknown = False
        self._name = name
        self._patience_seconds = patience_seconds
        self._loop = asyncio.get_running_loop()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    def add(self, record: NewRecord) -> Append:
        """Begin an append."""
        append = Append(record, self._loop.create_future())
        append.answer.add_done_callback(_retrieve)
        append.timer = self._loop.call_later(self._patience_seconds, self._expire, append)
        self.by_id[record.id] = append
        self._is_idle.clear()
        return append

    def settle(self, append: Append, outcome: Record | BaseException) -> None:
        """Answer an append, if nothing has answered it before."""
        if append.answer.done():
            return
        if append.timer is not None:
            append.timer.cancel()
        self.by_id.pop(append.record.id, None)
        if not self.by_id:
            self._is_idle.set()
        if isinstance(outcome, BaseException):
            append.answer.set_exception(outcome)
        else:
            append.answer.set_result(outcome)

    def refuse(self, append: Append, error: LogError | ApiError) -> None:
        """Fail an append for an error that will not pass."""
        append.problem = str(error)
        self._expire(append)

    def _expire(self, append: Append) -> None:
        text = f"{self._name}: cannot append to {append.record.subject}: {append.problem}"
        if append.is_uncertain:
            self.has_unknown = True
            self.settle(
                append,
                AppendOutcomeUnknown(f"{text}; it may be in the log, append it again with the same id"),
            )
        else:
            self.settle(append, LogWriteError(text))

    def fail(self, error: LogError) -> None:
        """Fail every append."""
        for append in tuple(self.by_id.values()):
            self.refuse(append, error)

    async def finish(self) -> None:
        """Wait until every append is settled."""
        await self._is_idle.wait()


def _retrieve(answer: asyncio.Future[Record]) -> None:
    # Its callers may all have been cancelled: an error that nobody awaits is not worth a report.
    if not answer.cancelled():
        answer.exception()
