"""Whether a peer still answers: a ping now and then, and a deadline for its pong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

__all__ = ["Pulse"]

# A loop that was busy runs its timers before it reads what has arrived meanwhile: one look at the sockets
# lies between a deadline that has passed and the verdict.
_GRACE_SECONDS = 0.1


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
        return 0.0 if self._sent_at is None else self._loop.time() - self._sent_at

    def start(self) -> None:
        """Begin: the first ping goes out after one interval."""
        self._after(self._interval_seconds, self._beat)

    def pong(self) -> None:
        """Note a pong; one without a ping means nothing."""
        sent_at, self._sent_at = self._sent_at, None
        if sent_at is None:
            return
        seconds = self.round_trip_seconds = self._loop.time() - sent_at
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
        self._sent_at = self._loop.time()
        self._after(self._timeout_seconds, self._overdue)
        self._ping()

    def _overdue(self) -> None:
        self._after(_GRACE_SECONDS, self._silent)

    def _silent(self) -> None:
        self.stop()
        self._on_silence()
