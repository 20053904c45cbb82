"""A clock that a test moves on."""

from __future__ import annotations

from typing import final

from circuit_breaker_sdk.errors import UsageError

__all__ = ["ManualClock"]


@final
class ManualClock:
    """Tell the time that a test has set: for whatever takes ``clock=``.

    It moves only by :meth:`advance`; what sleeps on the event loop is not woken by it.

    Example::

        clock = ManualClock()
        before = clock()
        clock.advance(2.5)
        assert clock() - before == 2.5
    """

    __slots__ = ("_now",)

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on.

        :raises UsageError: the number is negative: such clocks do not go back.
        """
        if seconds < 0:
            raise UsageError(f"a clock does not go back, here by {-seconds:g} s")
        self._now += seconds
