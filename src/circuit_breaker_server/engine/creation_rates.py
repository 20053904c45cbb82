"""Limit the rate at which each principal creates objects, with one token bucket for each."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import final

from circuit_breaker_server.engine.errors import EngineError, ErrorCode

__all__ = ["CreationRates"]


@final
class CreationRates:
    """Refuse a principal that creates more than so many a second, once its burst is used up.

    :param per_second: how many a second; ``None``: any number.
    :param burst: how many at once, after a pause.
    :param monotonic: seconds of a clock that is never set.

    Example::

        rates = CreationRates(per_second=50, burst=200)
        rates.take("ada")
    """

    def __init__(
        self, *, per_second: float | None, burst: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._monotonic = monotonic
        # When a principal's bucket is full again; of those whose bucket is full nothing is kept.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    @property
    def principals(self) -> int:
        """The number of principals that are remembered."""
        return len(self._full_at)

    def take(self, principal: str) -> None:
        """Count a creation; callers who are not known (``""``) are not limited.

        :raises EngineError: ``RATE_LIMITED``.
        """
        if self._per_second is None or not principal:
            return
        now = self._monotonic()
        self._forget(now)
        full_at = max(now, self._full_at.get(principal, now)) + 1 / self._per_second
        wait = full_at - now - self._burst / self._per_second
        if wait > 1e-9:  # less is an error of rounding
            raise EngineError(
                ErrorCode.RATE_LIMITED,
                f"you create more than {self._per_second:g} a second: nothing was changed; "
                f"try again in {wait:.3f} s",
                retryAfter=round(max(wait, 0.001), 3),
            )
        self._full_at[principal] = full_at
        self._full_at.move_to_end(principal)

    def _forget(self, now: float) -> None:
        """Forget a few of the principals whose bucket is full again."""
        for _ in range(2):
            oldest = next(iter(self._full_at), None)
            if oldest is None or self._full_at[oldest] > now:
                return
            del self._full_at[oldest]
