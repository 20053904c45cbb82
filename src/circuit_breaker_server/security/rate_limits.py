"""Rate limits: moving windows of one second, per principal or per address."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Literal, final

from circuit_breaker_server.settings.rates import RateSettings

__all__ = ["RATE_LIMITED", "Asked", "Rates", "too_often"]

RATE_LIMITED: Final = "RATE_LIMITED"

Asked = Literal["connects", "subscribes", "operations", "polls"]

_WINDOW_SECONDS: Final = 1.0
_MIN_WAIT_SECONDS: Final = 0.001


@final
class Rates:
    """Count the requests of each principal or address, and refuse those above the limit.

    :param monotonic: seconds of a clock that is never set, unlike the system's.

    Example::

        rates = Rates(RateSettings(subscribes_per_second=100))
        wait = rates.take("subscribes", "user-7")  # None: go on
    """

    def __init__(self, settings: RateSettings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._limits: dict[Asked, int | None] = {}
        self.change(settings)
        # When requests were taken, by kind and key. Keys come from addresses, without end: the ones that were
        # used longest ago go first, once their window is over.
        self._taken: OrderedDict[tuple[Asked, str], deque[float]] = OrderedDict()

    @property
    def keys(self) -> int:
        """The number of principals and addresses that are remembered."""
        return len(self._taken)

    def change(self, settings: RateSettings) -> None:
        """Take other limits; what was counted stays counted."""
        self._limits = {
            "connects": settings.connects_per_second,
            "subscribes": settings.subscribes_per_second,
            "operations": settings.operations_per_second,
            "polls": settings.polls_per_second,
        }

    def take(self, asked: Asked, key: str) -> float | None:
        """Count a request and return ``None``, or refuse it and return the seconds to wait."""
        limit = self._limits[asked]
        if limit is None:
            return None
        now = self._monotonic()
        before = now - _WINDOW_SECONDS
        self._forget(before)
        taken = self._taken.get((asked, key))
        if taken is None:
            taken = self._taken[asked, key] = deque()
        else:
            self._taken.move_to_end((asked, key))
            while taken and taken[0] <= before:
                taken.popleft()
        if len(taken) < limit:
            taken.append(now)
            return None
        return max(_MIN_WAIT_SECONDS, taken[0] - before)

    def _forget(self, before: float) -> None:
        """Forget a few of the keys whose window is over."""
        for _ in range(2):
            oldest = next(iter(self._taken), None)
            if oldest is None or (self._taken[oldest] and self._taken[oldest][-1] > before):
                return
            del self._taken[oldest]


def too_often(asked: Asked, wait_seconds: float) -> tuple[str, dict[str, object]]:
    """Word the refusal: its text, and its ``extensions``."""
    text = f"too many {asked}: try again in {wait_seconds:.3f} s"
    return text, {"code": RATE_LIMITED, "retryAfterSeconds": round(wait_seconds, 3)}
