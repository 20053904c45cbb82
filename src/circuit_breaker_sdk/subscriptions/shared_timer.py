"""One timer for many callers that wait equally long."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import final

__all__ = ["Deadlines"]


@final
class Deadlines:
    """Ends waits after so many seconds; a timer for each would be most of what a wait costs.

    Example::

        deadlines = Deadlines(10.0)
        deadlines.add(future)
        await future
        deadlines.discard(future)
    """

    __slots__ = ("_seconds", "_timer", "_waiting")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # The order in which they came is the order in which their time is over. In a plain dict each look for
        # the first goes past the places of all that were taken before: quadratic, where very many are over.
        self._waiting: OrderedDict[asyncio.Future[None], float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Tell how many wait."""
        return len(self._waiting)

    def add(self, future: asyncio.Future[None]) -> None:
        """Let this one be done in so many seconds, if nothing else does it before."""
        loop = future.get_loop()
        due = self._waiting[future] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._look)

    def discard(self, future: asyncio.Future[None]) -> None:
        """Forget one; nothing happens if it is not known."""
        self._waiting.pop(future, None)
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        while self._waiting:
            future, due = next(iter(self._waiting.items()))
            loop = future.get_loop()
            if due > loop.time():
                self._timer = loop.call_at(due, self._look)
                return
            del self._waiting[future]
            if not future.done():
                future.set_result(None)
