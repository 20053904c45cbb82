"""The circuit breaker of one endpoint: after failures in a row it is left alone for a while."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from typing import final

from circuit_breaker_sdk.config import CircuitBreakerPolicy

__all__ = ["BreakerState", "CircuitBreaker"]


class BreakerState(enum.StrEnum):
    """State of a circuit breaker: which attempts it lets through."""

    CLOSED = "closed"
    """Everything."""
    OPEN = "open"
    """Nothing, until its time is over."""
    HALF_OPEN = "half_open"
    """One attempt; what becomes of it decides."""


@final
class CircuitBreaker:
    """Count failures in a row; open at the threshold, half-open after a while, closed by a success.

    Example::

        if not breaker.wait_seconds():
            ...  # try, then breaker.succeeded() or breaker.failed()
    """

    __slots__ = ("_clock", "_failures", "_opened_at", "_policy")

    def __init__(self, policy: CircuitBreakerPolicy, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds."""
        self._policy = policy
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None

    @property
    def state(self) -> BreakerState:
        """The state now."""
        if self._opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self.wait_seconds() else BreakerState.HALF_OPEN

    def wait_seconds(self) -> float:
        """Return how long nothing is to be tried: 0 unless it is open."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._policy.open_seconds - self._clock())

    def failed(self) -> None:
        """Note a failure: the threshold, or the one attempt of a half-open breaker, opens it."""
        self._failures += 1
        if self._opened_at is not None or self._failures >= self._policy.failure_threshold:
            self._opened_at = self._clock()

    def succeeded(self) -> None:
        """Note a success: it is closed."""
        self._failures = 0
        self._opened_at = None
