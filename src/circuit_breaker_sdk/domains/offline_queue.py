"""Mutations that wait for a server that is away: sent again under one key until answered, in order."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from bisect import insort
from collections.abc import Awaitable, Callable
from typing import final

import msgspec

from circuit_breaker_sdk.config import OfflineQueue, QueueOverflow
from circuit_breaker_sdk.errors import (
    OfflineQueueFull,
    OperationTimeoutError,
    RateLimitExceeded,
    SubscriptionError,
)

__all__ = ["MutationQueue"]

_BASE_SECONDS, _MAX_SECONDS = 0.1, 2.0


@final
class _Waiting(msgspec.Struct, order=True):
    """One mutation that waits, in the order in which they were called."""

    number: int
    head: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    dropped: bool = False

    def __hash__(self) -> int:
        return self.number


@final
class MutationQueue:
    """Send mutations at once while the server answers; once one has no answer, one after another.

    Those called later wait behind it. Each is sent under one ``Idempotency-Key`` however often: the server
    executes it once, and answers each time what it answered first.
    """

    def __init__(self, limits: OfflineQueue) -> None:
        self._limits = limits
        self._numbers = itertools.count()
        self._waiting: list[_Waiting] = []

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def run(self, what: str, send: Callable[[], Awaitable[bytes | None]]) -> bytes:
        """Return the answer. ``send`` sends once; ``None`` says that the server could not do it yet.

        :raises OperationTimeoutError: no answer before the deadline; it happened whole or not at all.
        :raises OfflineQueueFull: as many wait as may.
        :raises SubscriptionError: another attempt cannot help.
        """
        number, failure = next(self._numbers), None
        deadline = time.monotonic() + self._limits.deadline_seconds
        if not self._waiting:
            answer, failure = await self._try(send, deadline)
            if answer is not None:
                return answer
        waiting = self._join(what, number)
        try:
            async with asyncio.timeout_at(self._at(deadline)):
                await waiting.head.wait()
                if waiting.dropped:
                    raise OfflineQueueFull(what, self._limits.max_operations)
                for attempt in itertools.count():
                    answer, failure = await self._try(send, deadline)
                    if answer is not None:
                        return answer
                    await asyncio.sleep(_delay(attempt, failure))
        except TimeoutError:
            raise OperationTimeoutError(
                f"{what}, which happened whole or not at all", seconds=self._limits.deadline_seconds
            ) from failure
        finally:
            self._leave(waiting)
        raise AssertionError("the loop above ends only by an answer or an error")

    async def _try(
        self, send: Callable[[], Awaitable[bytes | None]], deadline: float
    ) -> tuple[bytes | None, SubscriptionError | None]:
        try:
            async with asyncio.timeout_at(self._at(deadline)):
                return await send(), None
        except SubscriptionError as error:
            if not error.retryable:
                raise
            return None, error

    def _at(self, deadline: float) -> float:
        return asyncio.get_running_loop().time() + (deadline - time.monotonic())

    def _join(self, what: str, number: int) -> _Waiting:
        if len(self._waiting) >= self._limits.max_operations:
            if self._limits.overflow is QueueOverflow.REJECT:
                raise OfflineQueueFull(what, self._limits.max_operations)
            # Not the head: it is under way.
            oldest = self._waiting[min(1, len(self._waiting) - 1)]
            oldest.dropped = True
            oldest.head.set()
        waiting = _Waiting(number)
        insort(self._waiting, waiting)
        self._waiting[0].head.set()
        return waiting

    def _leave(self, waiting: _Waiting) -> None:
        self._waiting = [each for each in self._waiting if each is not waiting]
        if self._waiting:
            self._waiting[0].head.set()


def _delay(attempt: int, failure: SubscriptionError | None) -> float:
    delay: float = random.random() * min(_MAX_SECONDS, _BASE_SECONDS * 2 ** min(attempt, 10))  # noqa: S311 (chance)
    if isinstance(failure, RateLimitExceeded) and failure.retry_after is not None:
        delay = max(delay, failure.retry_after)
    return delay
