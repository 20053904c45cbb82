"""What a server by others does between its events and its generators: a queue for each subscriber."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import final

from benchmarks.event import resource

__all__ = ["Broadcast"]


@final
class Broadcast:
    """Events for those who follow a name; the empty name has those who want all."""

    def __init__(self) -> None:
        self._followers: dict[str, set[asyncio.Queue[dict[str, object]]]] = {}
        self._number = 0

    async def follow(self, name: str) -> AsyncIterator[dict[str, object]]:
        """Yield what is published from now on."""
        queue: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        followers = self._followers.setdefault(name, set())
        followers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            followers.discard(queue)

    async def publish(self, events: int, together: int, workflows: int = 0) -> None:
        """Publish so many, the next few when all have taken the last; spread over workflows if any."""
        for _ in range(events // together):
            queues = []
            for _ in range(together):
                name = f"w{self._number % workflows}" if workflows else ""
                value = resource(self._number)
                self._number += 1
                for queue in self._followers.get(name, ()):
                    queue.put_nowait(value)
                    queues.append(queue)
            while any(not queue.empty() for queue in queues):
                await asyncio.sleep(0)
