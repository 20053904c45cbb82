"""Gaps: why the events after a cursor cannot be read, and how that is found out."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Final, final

from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.gateway.channel import Position
from circuit_breaker_server.log.event_log import EventLog, LogError, Record

__all__ = ["Gap", "GapReason", "refuse_gap", "refuse_if_trimmed"]

_PATIENCE_SECONDS: Final = 2.0
"""How long a resume waits for a tail that is behind its cursor."""


class GapReason(enum.StrEnum):
    """``extensions.reason`` of ``RESUME_GAP``: why a cursor cannot be resumed from."""

    TRIMMED = "trimmed"
    EPOCH = "epoch"
    REWRITTEN = "rewritten"
    FUTURE = "future"
    MALFORMED = "malformed"
    SKIPPED = "skipped"
    """An operator had a record skipped that the subscription would have had events of."""


@final
class Gap(Exception):
    """Some or all events after a cursor are not in the log."""

    def __init__(self, reason: GapReason) -> None:
        self.reason = reason
        super().__init__(reason)


async def refuse_gap(log: EventLog, cursor: Cursor, end_cursor: Callable[[Record], Cursor]) -> None:
    """Make sure that the log has the cursor's record, and every event after it.

    :param end_cursor: gives the cursor after the last event of a record.
    :raises Gap: it has not.
    :raises LogError: whether it has cannot be told now.
    """
    if cursor.epoch != log.epoch:
        raise Gap(GapReason.EPOCH)
    if cursor.offset > log.last_offset and not await _is_reached(log, cursor.offset):
        raise Gap(GapReason.FUTURE)
    check = await log.check(cursor.offset)
    if check is None:
        # A hole between kept records: this log never had that record.
        raise Gap(GapReason.TRIMMED if cursor.offset < log.first_offset else GapReason.REWRITTEN)
    if check != cursor.check:
        raise Gap(GapReason.REWRITTEN)
    await refuse_if_trimmed(log, end_cursor, (cursor.offset, cursor.index))


async def _is_reached(log: EventLog, offset: int) -> bool:
    """Tell whether the log has come to an offset that this server's tail has not: from another, perhaps."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await log.reaches(offset)
    except TimeoutError as error:
        raise LogError("this server is behind the log; try again") from error


async def refuse_if_trimmed(log: EventLog, end_cursor: Callable[[Record], Cursor], after: Position) -> None:
    """Make sure that no event after the place was trimmed.

    :raises Gap: one was, or may have been.
    """
    if log.first_offset <= max(after[0], 1):
        return
    # All that is gone is at or before the end of the record removed last.
    removed = await log.last_removed()
    if removed is not None:
        end = end_cursor(removed)
        if after < (end.offset, end.index):
            raise Gap(GapReason.TRIMMED)
