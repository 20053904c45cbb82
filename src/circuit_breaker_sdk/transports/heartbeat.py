"""Whether a peer is still there: a ping and a deadline for its pong, or a deadline for its own next sign."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, final

__all__ = ["KeepAliveWatch", "Pulse"]

# A loop that was busy runs its timers before it reads what has arrived meanwhile: one look at the sockets
# lies between a deadline that has passed and the verdict.
_GRACE_SECONDS = 0.1

_INTERVALS: Final = 3
_UNKNOWN_SECONDS: Final = 120.0


@final
class Pulse:
    """Ping a peer at an interval; call ``on_silence`` once if a pong is missing at its deadline.

    Only a pong that a ping has asked for counts. Neither other messages nor a pong out of the blue do: a
    connection of which one direction is dead may go on delivering for hours.

    :param interval_seconds: between two pings; measured from the ping before.
    :param timeout_seconds: from a ping to its pong.

    Example::

        pulse = Pulse(10.0, 5.0, ping=send_ping, on_silence=drop)
        pulse.start()
        pulse.pong()  # for every pong that arrives
        pulse.stop()
    """

    __slots__ = (
        "_interval_seconds",
        "_loop",
        "_on_silence",
        "_ping",
        "_sent_at",
        "_timeout_seconds",
        "_timer",
        "round_trip_seconds",
    )

    def __init__(
        self,
        interval_seconds: float,
        timeout_seconds: float,
        *,
        ping: Callable[[], object],
        on_silence: Callable[[], object],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds
        self._ping = ping
        self._on_silence = on_silence
        self._sent_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.round_trip_seconds: float | None = None
        """From the latest answered ping to its pong; ``None`` before the first."""

    @property
    def unanswered_seconds(self) -> float:
        """For how long the latest ping has been waiting for its pong; 0 where none is waited for."""
        return 0.0 if self._sent_at is None else time.perf_counter() - self._sent_at

    def start(self) -> None:
        """Begin: the first ping goes out after one interval."""
        self._after(self._interval_seconds, self._beat)

    def pong(self) -> None:
        """Note a pong; one without a ping means nothing."""
        sent_at, self._sent_at = self._sent_at, None
        if sent_at is None:
            return
        seconds = self.round_trip_seconds = time.perf_counter() - sent_at
        self._after(max(0.0, self._interval_seconds - seconds), self._beat)

    def stop(self) -> None:
        """End. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sent_at = None

    def _after(self, seconds: float, do: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, do)

    def _beat(self) -> None:
        # Not the loop's clock: uvloop's stands still for a turn and knows whole milliseconds only.
        self._sent_at = time.perf_counter()
        self._after(self._timeout_seconds, self._overdue)
        self._ping()

    def _overdue(self) -> None:
        self._after(_GRACE_SECONDS, self._silent)

    def _silent(self) -> None:
        self.stop()
        self._on_silence()


@final
class KeepAliveWatch:
    """Watch for the signs of life that a peer sends by itself; call ``on_silence`` once if they cease.

    A peer that sends none is not watched. The others may be silent for three times the longest interval
    between two signs, but at least for ``least_seconds``; behind the first, when no interval is known yet,
    for two minutes.

    Example::

        watch = KeepAliveWatch(15.0, on_silence=drop)
        watch.start()
        watch.pong()  # for every sign
        watch.stop()
    """

    __slots__ = ("_heard_at", "_is_watched", "_least_seconds", "_longest", "_loop", "_on_silence", "_timer")

    round_trip_seconds: Final = None
    """``None``: nothing is asked, and nothing answered."""
    unanswered_seconds: Final = 0.0

    def __init__(self, least_seconds: float, *, on_silence: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._least_seconds = least_seconds
        self._on_silence = on_silence
        self._is_watched = False
        self._heard_at: float | None = None
        self._longest = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, or go on after :meth:`stop`; the time between them is no interval."""
        if self._is_watched:
            self._wait()

    def pong(self) -> None:
        """Note a sign of life."""
        now, before = self._loop.time(), self._heard_at
        if before is not None:
            self._longest = max(self._longest, now - before)
        self._is_watched, self._heard_at = True, now
        self._wait()

    def stop(self) -> None:
        """End. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._heard_at = None

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        allowed = _INTERVALS * self._longest or _UNKNOWN_SECONDS
        self._timer = self._loop.call_later(max(self._least_seconds, allowed), self._overdue)

    def _overdue(self) -> None:
        self._timer = self._loop.call_later(_GRACE_SECONDS, self._silent)

    def _silent(self) -> None:
        self.stop()
        self._on_silence()
