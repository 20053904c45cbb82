"""A clock that only work moves, and how much work each round of the event loop has done."""

from __future__ import annotations

import asyncio


class LoopRounds:
    """Measures the work of each round of the running loop.

    :ivar now: the clock, in seconds.
    :ivar rounds: how far it has moved in each round.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.rounds: list[float] = []
        self._round_began = 0.0
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_soon(self._round)

    def read(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds

    def stop(self) -> None:
        self._next.cancel()

    def _round(self) -> None:
        self.rounds.append(self.now - self._round_began)
        self._round_began = self.now
        self._next = self._loop.call_soon(self._round)
