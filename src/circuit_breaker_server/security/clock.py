"""The time by which tokens live: a date, not the loop's time since some start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol, final

__all__ = ["Alarm", "Clock", "WallClock"]

_MAX_SLEEP_SECONDS: Final = 60.0


class Alarm(Protocol):
    """A call that is due at an instant."""

    def cancel(self) -> None:
        """Do not call. Idempotent, and without effect once it was called."""
        ...


class Clock(Protocol):
    """Tells the time, and when an instant has come."""

    def now(self) -> float:
        """Return the seconds since 1970 (UTC)."""
        ...

    def call_at(self, when: float, callback: Callable[[], object]) -> Alarm:
        """Call, in a turn of the running loop, once :meth:`now` is ``when`` or later."""
        ...


@final
class WallClock:
    """The clock of the machine.

    Example::

        alarm = WallClock().call_at(time.time() + 60, lambda: print("a minute"))
    """

    def now(self) -> float:
        """Return the seconds since 1970 (UTC)."""
        return time.time()

    def call_at(self, when: float, callback: Callable[[], object]) -> Alarm:
        """Call once the instant has come, also when the clock was set or the machine slept meanwhile."""
        return _WallAlarm(when, callback)


@final
class _WallAlarm:
    __slots__ = ("_callback", "_handle", "_when")

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self._when = when
        self._callback = callback
        self._handle = self._sleep()

    def cancel(self) -> None:
        self._handle.cancel()

    def _sleep(self) -> asyncio.TimerHandle:
        # The loop knows nothing of a clock that is set, nor of a machine that sleeps: look now and then.
        seconds = min(max(0.0, self._when - time.time()), _MAX_SLEEP_SECONDS)
        return asyncio.get_running_loop().call_later(seconds, self._wake)

    def _wake(self) -> None:
        if time.time() < self._when:
            self._handle = self._sleep()
        else:
            self._callback()
