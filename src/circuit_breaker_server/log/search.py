"""Find places in a log: by time, and before an offset."""

from __future__ import annotations

from circuit_breaker_server.log.event_log import EventLog, Record

__all__ = ["first_since", "last_before"]

_FIRST_STEP = 16


async def first_since(log: EventLog, time_ms: float) -> int:
    """Return the first offset that is not older, ``last_offset + 1`` where all are older.

    It is found by halving: time goes with offsets, as long as the clock is not set back.

    :raises LogError: the log cannot be read.
    """
    low, high = log.first_offset, log.last_offset + 1
    middle = low  # most looks find that not even the first is old enough
    while low < high:
        found = await log.read(after=middle - 1, limit=1)
        if found and found[0].time_ms < time_ms:
            low = found[0].offset + 1
        else:
            high = middle
        middle = (low + high) // 2
    return low


async def last_before(log: EventLog, offset: int) -> Record | None:
    """Return the last kept record below an offset; ``None`` if none is kept.

    :raises LogError: the log cannot be read.
    """
    step = 1
    while offset > log.first_offset:
        # Offsets may have holes.
        found = await log.read(after=max(offset - step - 1, 0), limit=step)
        below = [record for record in found if record.offset < offset]
        if below:
            return below[-1]
        if offset - step <= log.first_offset:
            break
        step = max(_FIRST_STEP, step * 8)
    return None
