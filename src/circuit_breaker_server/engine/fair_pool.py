"""A pool of slots that tenants or principals share: each has its part, and the waiting take turns."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from typing import Final, final

from circuit_breaker_server.engine.errors import EngineError, ErrorCode

__all__ = ["NO_PRINCIPAL", "FairPool"]

NO_PRINCIPAL: Final = ""
"""The key of callers without authentication. They are then the only callers: the key may take every slot."""


@final
class FairPool:
    """Let at most so many work at once, in all and for each key.

    A key (a tenant, a principal) never holds more than its share, so that a newcomer finds a free slot. Those
    that wait are served in turn, one of each key, whatever the length of their queues.

    :param name: of what is limited, for messages: ``completions``.
    :param slots: for all keys together.
    :param share: for one key.
    :param max_waiting: how many of one key may wait; one more is refused. ``None``: any number.
    :param wait_seconds: how long one waits before it is refused; ``None``: without end.

    Example::

        pool = FairPool("checks", slots=32, share=8)
        async with pool.slot("acme"):
            await check()
    """

    def __init__(
        self,
        name: str,
        *,
        slots: int,
        share: int,
        max_waiting: int | None = None,
        wait_seconds: float | None = None,
    ) -> None:
        self._name = name
        self._free = slots
        self._slots = slots
        self._share = min(share, slots)
        self._max_waiting = max_waiting
        self._wait_seconds = wait_seconds
        self._held: Counter[str] = Counter()
        # By key, in the order of their turns; only keys with waiters are in it.
        self._queues: OrderedDict[str, OrderedDict[asyncio.Future[None], None]] = OrderedDict()

    def waiting(self, key: str) -> int:
        """Count those of a key that wait for their turn."""
        return len(self._queues.get(key, ()))

    def require_room(self, key: str) -> None:
        """Refuse a key that has as many waiting as it may.

        :raises EngineError: ``RATE_LIMITED``.
        """
        waiting = self.waiting(key)
        if self._max_waiting is not None and waiting >= self._max_waiting:
            raise self._refusal(key, f"{waiting} {self._name} of yours wait for their turn already")

    @contextlib.asynccontextmanager
    async def slot(self, key: str) -> AsyncIterator[None]:
        """Hold a slot; wait for it if the key has its share, or none is free.

        Cancelled while it waits, it holds nothing.

        :raises EngineError: ``RATE_LIMITED``: too many of the key wait, or this one has waited too long.
        """
        await self._take(key)
        try:
            yield
        finally:
            self._give_back(key)

    async def _take(self, key: str) -> None:
        if self._may_have(key):
            self._hold(key)
            return
        self.require_room(key)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(key, OrderedDict())[turn] = None
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._give_back(key)  # its turn came in the moment in which it stopped waiting
            else:
                self._leave(key, turn)
            if isinstance(error, TimeoutError):
                raise self._refusal(key, f"no turn within {self._wait_seconds:g} s") from error
            raise

    def _may_have(self, key: str) -> bool:
        # Callers that wait while a slot is free have keys that hold their share: none of them is overtaken.
        return self._free > 0 and self._held[key] < self._share_of(key)

    def _share_of(self, key: str) -> int:
        return self._slots if key == NO_PRINCIPAL else self._share

    def _hold(self, key: str) -> None:
        self._free -= 1
        self._held[key] += 1

    def _give_back(self, key: str) -> None:
        self._free += 1
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
        # Only a few can hold their share: the first that may have a slot is soon found.
        while (waiting := next(filter(self._may_have, self._queues), None)) is not None:
            if (turn := self._next_turn(waiting)) is not None:
                self._hold(waiting)
                turn.set_result(None)
                return

    def _next_turn(self, key: str) -> asyncio.Future[None] | None:
        """Take the first that still waits out of a key's queue, and put the key behind the others."""
        queue = self._queues.pop(key)
        found: asyncio.Future[None] | None = None
        while queue and found is None:
            first, _ = queue.popitem(last=False)
            found = None if first.done() else first  # one that is cancelled may not have left the queue yet
        if queue:
            self._queues[key] = queue
        return found

    def _leave(self, key: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(key)
        if queue is not None:
            queue.pop(turn, None)
            if not queue:
                del self._queues[key]

    def _refusal(self, key: str, why: str) -> EngineError:
        return EngineError(
            ErrorCode.RATE_LIMITED,
            f"{why}: at most {self._share_of(key)} {self._name} run for you at once; try again later",
            retryAfter=1.0,
        )
