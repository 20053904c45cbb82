"""Remove the oldest records of the log, by age, by size or by number.

Only records are removed. The state is in the snapshot, so queries answer as before: the whole history of a
resource, runs, costs, answers under an Idempotency-Key. Streams are read from the log itself, up to its
beginning: a cursor before that is a gap (``trimmed``), and a completion's or a run's stream that began
before it is no longer read from its beginning (``NOT_FOUND``). The server never sends a part of a stream as
if it were the whole.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, final

import msgspec

from circuit_breaker_server.log.event_log import EventLog, LogError, Record
from circuit_breaker_server.log.search import first_since
from circuit_breaker_server.logs import get_logger

__all__ = ["Limits", "Retention"]

BLOCK_RECORDS: Final = 4096
"""So many records are measured as one and remembered by their size."""

_TOLERATED_SECONDS: Final = 60.0
"""By so much the system's clock may run ahead of the monotonic one between two looks."""

_CONFIRMATIONS: Final = 2

_log = get_logger("retention")


@final
class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the log; ``None`` for no limit. If one is exceeded, the oldest records are removed.

    :ivar seconds: the age of a record by its time. If the clock was set back, a record is removed with an
        older one that stands behind it.
    :ivar size_bytes: the records as they are encoded, their bodies mostly.
    :ivar records: their number.
    """

    seconds: float | None = None
    size_bytes: int | None = None
    records: int | None = None


@final
class Retention:
    """Check the log at intervals, and remove the records that its limits do not keep.

    A record stays at least from one check to the next, whatever the limits: a client that was connected a
    moment ago can resume, and a command that has read an aggregate finds all later records of it.

    :param make_durable: saves the state if what is saved does not cover this offset.
    :param before_trim: called when something is about to go; moves on the cursors of clients that wait for
        events, so that they do not stand before what is trimmed.
    :param may_trim_before: tells below which offset no other node needs the records; 0 where another node
        trims; ``None`` for no limit.
    :param every_seconds: between two looks; the first one is so long after the start.
    :param now: seconds since 1970, by the clock that dates the records.
    :param monotonic: seconds of a clock that is never set.

    Example::

        retention = Retention(log, Limits(records=100_000), engine.make_durable, gateway.advance)
        retention.start()
        await retention.aclose()
    """

    def __init__(
        self,
        log: EventLog,
        limits: Limits,
        make_durable: Callable[[int], Awaitable[None]],
        before_trim: Callable[[], None],
        *,
        may_trim_before: Callable[[], int | None] = lambda: None,
        every_seconds: float = 60.0,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._limits = limits
        self._make_durable = make_durable
        self._before_trim = before_trim
        self._may_trim_before = may_trim_before
        self._every_seconds = every_seconds
        self._clock = _AgeClock(now, monotonic)
        self._sizes = _Sizes(log)
        self._seen = log.last_offset
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, if there is any limit."""
        if self._limits != Limits():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="retention")

    async def aclose(self) -> None:
        """Look no more. A trim under way ends after a few records. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_seconds)
            try:
                await self.look()
            except LogError as error:
                _log.warning("not_trimmed", reason=str(error))
            except Exception:  # noqa: BLE001 -- whatever it is, the server lives on and looks again
                _log.exception("retention_failed")

    async def look(self) -> int:
        """Trim what the limits let go, up to where the log ended at the look before; return how many went.

        :raises LogError: the log cannot be read, or the state or the trim cannot be written (a full disk);
            some of the records may be gone, all that was to stay is there.
        """
        end, self._seen = self._seen, self._log.last_offset
        before = min(await self._first_kept(), end + 1)
        limit = self._may_trim_before()
        if limit is not None:
            before = min(before, limit)
        if before <= self._log.first_offset:
            return 0
        await self._make_durable(before - 1)
        self._before_trim()
        count = await self._log.trim(before)
        _log.info("trimmed", records=count, first_offset=self._log.first_offset)
        return count

    async def _first_kept(self) -> int:
        limits = self._limits
        before = self._log.first_offset
        if limits.records is not None:
            before = max(before, self._log.last_offset - limits.records + 1)
        if limits.size_bytes is not None:
            before = max(before, await self._sizes.first_within(limits.size_bytes))
        if limits.seconds is not None:
            now = self._clock.read(await self._last_kept())
            if now is not None:
                before = max(before, await first_since(self._log, (now - limits.seconds) * 1000))
        return before

    async def _last_kept(self) -> Record | None:
        found = await self._log.read(after=self._log.last_offset - 1, limit=1)
        return found[0] if found else None


@final
class _AgeClock:
    """The time by which records grow old: the system's clock, as far as the records confirm it.

    A clock that jumps forward, by a fault or by a hand, would make every record too old at once. After a jump
    nothing is trimmed by age until records that were appended after it were found at two looks.
    """

    def __init__(self, now: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._now = now
        self._monotonic = monotonic
        self._trusted: float | None = None  # the system's clock at the monotonic clock's zero
        self._jumped = 0.0  # likewise, after a jump that is not confirmed
        self._seen = 0
        self._confirmations = -1

    def read(self, newest: Record | None) -> float | None:
        """Return seconds since 1970; ``None`` while a jump is not confirmed.

        :param newest: the last record of the log, if there is one.
        """
        now = self._now()
        zero = now - self._monotonic()
        offset = 0 if newest is None else newest.offset
        if self._trusted is None:
            # The time in which no server ran looks like a jump as well.
            self._trusted = zero if newest is None else newest.time_ms / 1000 - self._monotonic()
        if zero <= self._trusted + _TOLERATED_SECONDS:
            self._trusted, self._confirmations = zero, -1
            return now
        if self._confirmations < 0 or abs(zero - self._jumped) > _TOLERATED_SECONDS:
            _log.warning("clock_jumped", seconds=round(zero - self._trusted), trimmed_by_age=False)
            self._jumped, self._seen, self._confirmations = zero, offset, 0
            return None
        if offset > self._seen:
            self._seen = offset
            self._confirmations += 1
        if self._confirmations < _CONFIRMATIONS:
            return None
        self._trusted, self._confirmations = zero, -1
        return now


@final
class _Sizes:
    """Measure the bytes of the log: each check measures only the records appended since the last one.

    Blocks of records with their sizes, oldest first: after, up to and including, bytes.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._blocks: deque[tuple[int, int, int]] = deque()

    async def first_within(self, limit: int) -> int:
        """Return the offset from which on all records together are not more than the limit."""
        await self._measure()
        excess = sum(size for _, _, size in self._blocks) - limit
        before = self._log.first_offset
        for after, upto, size in self._blocks:
            if excess <= 0:
                break
            before = upto + 1 if size <= excess else await self._after_excess(after, upto, excess)
            excess -= size
        return before

    async def _measure(self) -> None:
        blocks, first, last = self._blocks, self._log.first_offset, self._log.last_offset
        while blocks and blocks[0][1] < first:
            blocks.popleft()
        if blocks and blocks[0][0] < first - 1:
            _, upto, _ = blocks.popleft()
            blocks.appendleft((first - 1, upto, await self._size(first - 1, upto)))
        measured = blocks[-1][1] if blocks else first - 1
        while measured < last:
            upto = min(last, (measured // BLOCK_RECORDS + 1) * BLOCK_RECORDS)
            after, size = measured, await self._size(measured, upto)
            if blocks and measured % BLOCK_RECORDS:  # the last one was not full
                after, _, old = blocks.pop()
                size += old
            blocks.append((after, upto, size))
            measured = upto

    async def _after_excess(self, after: int, upto: int, excess: int) -> int:
        """Return the offset in a block before which there are at least so many bytes."""
        low, high = after + 1, upto + 1
        while low < high:
            middle = (low + high) // 2
            if await self._size(after, middle - 1) >= excess:
                high = middle
            else:
                low = middle + 1
        return low

    async def _size(self, after: int, upto: int) -> int:
        return await self._log.size_bytes(after=after, upto=upto)
