"""Mutations that wait for a server that is away: sent again under one key until answered, in order."""

from __future__ import annotations

import asyncio
import itertools
import random
from bisect import bisect_left, insort
from collections.abc import Awaitable, Callable
from typing import final

import msgspec

from circuit_breaker_sdk.config import OfflineQueue, QueueOverflow
from circuit_breaker_sdk.errors import (
    ConnectionFailed,
    OfflineQueueFull,
    OperationTimeoutError,
    RateLimitExceeded,
    TransportError,
    UsageError,
)

__all__ = ["MutationQueue"]

_BASE_SECONDS, _MAX_SECONDS = 0.1, 2.0
_CLOSED = "the client is closed: make a new one"


@final
class _Waiting(msgspec.Struct, order=True):
    """One mutation that waits, in the order in which they were called."""

    number: int
    head: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    dropped: bool = False

    def __hash__(self) -> int:
        return self.number


@final
class _Past:
    """Outcome of one mutation's attempts so far: the last failure, and whether it may have happened."""

    def __init__(self) -> None:
        self.failure: TransportError | None = None
        self.may_have_happened = False

    def note(self, failure: TransportError | None) -> None:
        """Take the end of an attempt; ``None`` where the server said that it could not do it yet."""
        self.failure = failure
        is_harmless = isinstance(failure, RateLimitExceeded) or (
            isinstance(failure, ConnectionFailed) and failure.not_sent
        )
        self.may_have_happened = self.may_have_happened or not is_harmless

    def given_up(self, what: str, reason: UsageError) -> ConnectionFailed | UsageError:
        """Return what is raised where it cannot be sent again: ``reason`` only if it never was."""
        if not self.may_have_happened:
            return reason
        return ConnectionFailed(
            f"{what} was not answered, and whether it was executed is not known ({reason})"
        )


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
        self._under_way: set[asyncio.Timeout] = set()
        self._closed = False

    def __len__(self) -> int:
        """The number of waiting mutations."""
        return len(self._waiting)

    async def run(self, what: str, send: Callable[[], Awaitable[bytes | None]]) -> bytes:
        """Return the answer. ``send`` sends once; ``None`` says that the server could not do it yet.

        :raises OperationTimeoutError: no answer before the deadline; it happened whole or not at all.
        :raises OfflineQueueFull: as many wait as may.
        :raises ConnectionFailed: the client was closed; it may have happened.
        :raises UsageError: the client is closed; it was not sent.
        :raises TransportError: another attempt cannot help.
        """
        if self._closed:
            raise UsageError(_CLOSED)
        past = _Past()
        limit = asyncio.timeout(self._limits.deadline_seconds)
        try:
            async with limit:
                self._under_way.add(limit)
                return await self._until_answered(what, send, past)
        except TransportError:
            raise  # some are a TimeoutError, and not that of the limit
        except TimeoutError:
            if self._closed:
                raise past.given_up(what, UsageError(_CLOSED)) from past.failure
            raise OperationTimeoutError(
                f"{what}, which happened whole or not at all", seconds=self._limits.deadline_seconds
            ) from past.failure
        except UsageError as error:
            raise past.given_up(what, error) from past.failure
        finally:
            self._under_way.discard(limit)

    def close(self) -> None:
        """Let those that wait end in the next turns: nothing will be sent any more. Idempotent."""
        self._closed = True
        now = asyncio.get_running_loop().time()
        for limit in self._under_way:
            if not limit.expired():
                limit.reschedule(now)

    async def _until_answered(
        self, what: str, send: Callable[[], Awaitable[bytes | None]], past: _Past
    ) -> bytes:
        number = next(self._numbers)
        if not self._waiting and (answer := await _try(send, past)) is not None:
            return answer
        waiting = self._join(what, number)
        try:
            await waiting.head.wait()
            if waiting.dropped:
                raise OfflineQueueFull(what, self._limits.max_operations)
            for attempt in itertools.count():
                if (answer := await _try(send, past)) is not None:
                    return answer
                await asyncio.sleep(_delay(attempt, past.failure))
        finally:
            self._leave(waiting)
        raise AssertionError("the loop above ends only by an answer or an error")

    def _join(self, what: str, number: int) -> _Waiting:
        if len(self._waiting) >= self._limits.max_operations:
            # Not one that is under way, as the head is.
            may_be_dropped = (each for each in self._waiting if not each.head.is_set())
            oldest = next(may_be_dropped, None)
            if self._limits.overflow is QueueOverflow.REJECT or oldest is None:
                raise OfflineQueueFull(what, self._limits.max_operations)
            self._remove(oldest)  # now: others may join before it has its turn
            oldest.dropped = True
            oldest.head.set()
        waiting = _Waiting(number)
        insort(self._waiting, waiting)
        self._waiting[0].head.set()
        return waiting

    def _leave(self, waiting: _Waiting) -> None:
        if not waiting.dropped:
            self._remove(waiting)
        if self._waiting:
            self._waiting[0].head.set()

    def _remove(self, waiting: _Waiting) -> None:
        del self._waiting[bisect_left(self._waiting, waiting.number, key=lambda each: each.number)]


async def _try(send: Callable[[], Awaitable[bytes | None]], past: _Past) -> bytes | None:
    try:
        answer = await send()
    except TransportError as error:
        if not error.retryable:
            raise
        past.note(error)
        return None
    past.note(None)  # where there is an answer, it is not read
    return answer


def _delay(attempt: int, failure: TransportError | None) -> float:
    delay: float = random.random() * min(_MAX_SECONDS, _BASE_SECONDS * 2 ** min(attempt, 10))  # noqa: S311 (chance)
    if isinstance(failure, RateLimitExceeded) and failure.retry_after is not None:
        delay = max(delay, failure.retry_after)
    return delay
