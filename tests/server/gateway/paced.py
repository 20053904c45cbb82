"""A clock for paced subscriptions."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

from tests.server.gateway.worlds import turns


class FakeClock:
    """A clock that a test moves on; its timers are called when it does."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._numbers = itertools.count()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object], /) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        handle = asyncio.TimerHandle(self.now + delay, callback, (), loop)
        heapq.heappush(self._timers, (handle.when(), next(self._numbers), handle))
        return handle

    async def advance(self, seconds: float) -> None:
        """Move on, stopping at each timer."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, handle = heapq.heappop(self._timers)
            if not handle.cancelled():
                handle._run()
            await turns()
        self.now = end
        await turns()
