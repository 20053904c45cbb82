"""Iterators over a subscription's events: in lists, or each to be acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, Self, TypeVar, final

from circuit_breaker_sdk.delivery.acknowledgements import Acknowledgements, PendingEvent
from circuit_breaker_sdk.delivery.consumer import Consumer

__all__ = ["Acknowledged", "Batches"]

T = TypeVar("T")


@final
class Batches(Generic[T]):
    """Iterate over a subscription's events in lists: see :meth:`Subscription.batches`.

    Example::

        batches = subscription.batches(max_events=2)
        first = await anext(batches)
    """

    __slots__ = ("_consumer", "_max_events", "_max_wait_seconds", "_wait")

    def __init__(
        self,
        consumer: Consumer[T],
        wait: Callable[[int], Awaitable[None]],
        max_events: int,
        max_wait_seconds: float,
    ) -> None:
        """``wait``: the subscription's own wait for events, which keeps the subscription referenced."""
        self._consumer = consumer
        self._wait = wait
        self._max_events = max_events
        self._max_wait_seconds = max_wait_seconds

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[T]:
        """Wait for the next list. Cancellation loses no event."""
        consumer, max_events = self._consumer, self._max_events
        consumer.mark_handled()
        await self._wait(1)
        if consumer.buffered < max_events and self._max_wait_seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._max_wait_seconds):
                    await consumer.wait(max_events)
        return [consumer.take_value() for _ in range(min(max_events, consumer.buffered))]


@final
class Acknowledged(Generic[T]):
    """Iterate over a subscription's events, each to be acknowledged: see :meth:`Subscription.acknowledged`.

    Example::

        event = await anext(subscription.acknowledged(max_pending=1))
        await event.ack()
    """

    __slots__ = ("_consumer", "_max_pending", "_wait")

    def __init__(
        self, consumer: Consumer[T], wait: Callable[[int], Awaitable[None]], max_pending: int
    ) -> None:
        """``wait``: as in :class:`Batches`."""
        self._consumer = consumer
        self._wait = wait
        self._max_pending = max_pending

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PendingEvent[T]:
        """Wait for the next event. Cancellation loses none."""
        pending = Acknowledgements.of(self._consumer)
        self._consumer.mark_handled()
        await pending.wait_below(self._max_pending)
        await self._wait(1)
        return pending.take()
