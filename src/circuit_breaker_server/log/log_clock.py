"""The time by the clock that dates the records of a log, whatever this machine's own clock says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, final

from circuit_breaker_server.log.event_log import Record

__all__ = ["LogClock"]

_WINDOW_SECONDS: Final = 60.0


@final
class LogClock:
    """Tells the time of the brokers that keep the log, so that all nodes see what expires at one moment.

    Each record that arrives says how far this machine's clock is from theirs, less the time that it took to
    arrive. The best of one to two minutes counts: one that came late says too little, never too much.

    Example::

        clock = LogClock()
        log.tail(clock.follow)
        clock()  # datetime.datetime(…, tzinfo=datetime.timezone.utc)
    """

    def __init__(
        self, *, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._ahead: float | None = None
        self._before: float | None = None
        self._window_ends = 0.0

    @property
    def ahead_seconds(self) -> float:
        """How far the brokers' clock is ahead of this machine's; 0 before any record has come."""
        found = [each for each in (self._ahead, self._before) if each is not None]
        return max(found, default=0.0)

    def follow(self, records: Sequence[Record]) -> None:
        """Take records that have just arrived, as a tail of the log."""
        ahead = records[-1].time_ms / 1000 - self._wall()
        now = self._monotonic()
        if self._ahead is None or now >= self._window_ends:
            self._before, self._ahead = self._ahead, ahead
            self._window_ends = now + _WINDOW_SECONDS
        else:
            self._ahead = max(self._ahead, ahead)

    def __call__(self) -> datetime:
        """Return the present moment by the brokers' clock, in UTC."""
        return datetime.fromtimestamp(self._wall() + self.ahead_seconds, UTC)
