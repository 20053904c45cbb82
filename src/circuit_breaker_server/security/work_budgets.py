"""Limit the work of each principal or address per second; unused budget is saved up for some seconds."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, final

__all__ = ["Budgets"]

_SAVED_SECONDS: Final = 4.0


@final
class Budgets:
    """One token bucket for each principal or address; each begins full.

    :param per_second: what is added; ``None``: there is no limit.
    :param monotonic: seconds of a clock that is never set.

    Example::

        budgets = Budgets(50_000)
        wait = budgets.spend("user-7", 1_000)  # None: go on
    """

    def __init__(self, per_second: float | None, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._monotonic = monotonic
        # What is left, and when that was so. Keys come from addresses, without end: the ones that were used
        # longest ago go first, once they are full again.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    @property
    def keys(self) -> int:
        """The number of principals and addresses that are remembered."""
        return len(self._left)

    def change(self, per_second: float | None) -> None:
        """Add so much from now on; what each has left is bounded by it."""
        self._per_second = per_second

    def spend(self, key: str, cost: float) -> float | None:
        """Spend and return ``None``, or spend nothing and return the seconds to wait.

        What costs more than can be saved up waits for a full bucket, and leaves a debt.
        """
        if self._per_second is None:
            return None
        now, full = self._monotonic(), self._per_second * _SAVED_SECONDS
        self._forget(now)
        left, at = self._left.get(key, (full, now))
        left = min(full, left + (now - at) * self._per_second)
        wanted = min(cost, full)
        if left < wanted:
            return (wanted - left) / self._per_second
        self._left[key] = (left - cost, now)
        self._left.move_to_end(key)
        return None

    def _forget(self, now: float) -> None:
        """Forget a few of the keys whose budget is full."""
        if self._per_second is None:
            return
        for _ in range(2):
            oldest = next(iter(self._left), None)
            if oldest is None:
                return
            left, at = self._left[oldest]
            if left + (now - at) * self._per_second < self._per_second * _SAVED_SECONDS:
                return
            del self._left[oldest]
