"""What is due at which moment, by session."""

from __future__ import annotations

import asyncio
import heapq
from datetime import datetime
from typing import final

__all__ = ["Due"]


@final
class Due:
    """Moments of sessions, the earliest first; wakes whoever waits when an earlier one comes.

    An entry is not taken back: whoever takes it looks whether it still holds.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, str]] = []
        self._earlier = asyncio.Event()

    def add(self, moment: datetime, session_id: str) -> None:
        """Note a moment."""
        if not self._heap or moment < self._heap[0][0]:
            self._earlier.set()
        heapq.heappush(self._heap, (moment, session_id))

    def take(self, now: datetime) -> list[str]:
        """Take what is due, the earliest first."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            found.append(heapq.heappop(self._heap)[1])
        return found

    async def wait(self, now: datetime) -> None:
        """Wait until the first moment, or until an earlier one comes."""
        self._earlier.clear()
        seconds = (self._heap[0][0] - now).total_seconds() if self._heap else None
        try:
            async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
                await self._earlier.wait()
        except TimeoutError:
            return
