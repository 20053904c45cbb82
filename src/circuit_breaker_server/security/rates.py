"""How often somebody may ask: moving windows, per principal or per address."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import Final, Literal, final

from limits import RateLimitItemPerSecond
from limits.storage import MovingWindowSupport, Storage
from limits.strategies import MovingWindowRateLimiter

from circuit_breaker_server.config import RateSettings

__all__ = ["RATE_LIMITED", "Asked", "Rates", "too_often"]

RATE_LIMITED: Final = "RATE_LIMITED"

Asked = Literal["connects", "subscribes", "operations", "polls"]

_MIN_WAIT_SECONDS: Final = 0.001


@final
class Rates:
    """Counts what is asked for, and refuses what is too much.

    Example::

        rates = Rates(RateSettings(subscribes_per_second=100))
        wait = rates.take("subscribes", "user-7")  # None: go on
    """

    def __init__(self, settings: RateSettings) -> None:
        self._limiter = MovingWindowRateLimiter(_Windows())
        allowed = {
            "connects": settings.connects_per_second,
            "subscribes": settings.subscribes_per_second,
            "operations": settings.operations_per_second,
            "polls": settings.polls_per_second,
        }
        self._items = {
            name: None if count is None else RateLimitItemPerSecond(count) for name, count in allowed.items()
        }

    def take(self, asked: Asked, who: str) -> float | None:
        """Count one and return ``None``; or count none, and return in how many seconds to ask again."""
        item = self._items[asked]
        if item is None or self._limiter.hit(item, asked, who):
            return None
        reset = self._limiter.get_window_stats(item, asked, who).reset_time
        return max(_MIN_WAIT_SECONDS, min(1.0, reset - time.time()))


def too_often(asked: Asked, wait_seconds: float) -> tuple[str, dict[str, object]]:
    """Word the refusal: its text, and its ``extensions``."""
    text = f"too many {asked}: try again in {wait_seconds:.3f} s"
    return text, {"code": RATE_LIMITED, "retryAfterSeconds": round(wait_seconds, 3)}


@final
class _Windows(Storage, MovingWindowSupport):
    """When what was taken, by key, for one thread: the library's own storage has a thread that tidies up.

    Keys come from addresses, without end: those that were used longest ago go first, once they are over.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self._taken: OrderedDict[str, deque[float]] = OrderedDict()

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Take so many, if they fit into the window."""
        now = time.time()
        self._forget(now - expiry)
        taken = self._taken.get(key)
        if taken is None:
            taken = self._taken[key] = deque()
        else:
            self._taken.move_to_end(key)
            _drop_before(taken, now - expiry)
        if len(taken) + amount > limit:
            return False
        taken.extend([now] * amount)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return when the oldest one in the window was taken, and how many are in it."""
        del limit
        # Asked for each refusal: those that are in the window are not walked over.
        now = time.time()
        taken = self._taken.get(key)
        if taken is None:
            return now, 0
        _drop_before(taken, now - expiry)
        return (taken[0] if taken else now), len(taken)

    def _forget(self, before: float) -> None:
        """Forget a few of the keys that nothing was taken for lately."""
        for _ in range(2):
            oldest = next(iter(self._taken), None)
            if oldest is None or (self._taken[oldest] and self._taken[oldest][-1] >= before):
                return
            del self._taken[oldest]

    # What the library's other strategies need.

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        raise NotImplementedError(f"only moving windows are counted, not {key}")

    def get(self, key: str) -> int:
        return len(self._taken.get(key, ()))

    def get_expiry(self, key: str) -> float:
        taken = self._taken.get(key)
        return taken[-1] if taken else time.time()

    def check(self) -> bool:
        return True

    def reset(self) -> int | None:
        count = len(self._taken)
        self._taken.clear()
        return count

    def clear(self, key: str) -> None:
        self._taken.pop(key, None)


def _drop_before(taken: deque[float], before: float) -> None:
    while taken and taken[0] < before:
        taken.popleft()
