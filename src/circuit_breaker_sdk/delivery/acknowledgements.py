"""Events that count as handled when the application says so, in whatever order it does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, Self, TypeVar, final

from circuit_breaker_sdk.delivery.consumer import Consumer, value_of
from circuit_breaker_sdk.delivery.decoding import Extensions
from circuit_breaker_sdk.loop_affinity import check_loop

__all__ = ["Acknowledgeable", "Acknowledgements", "PendingEvent"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Acknowledgeable(Protocol):
    """Interface of an event that was handed out and is to be acknowledged."""

    @property
    def is_acknowledged(self) -> bool:
        """Whether it was acknowledged."""
        ...


@final
class PendingEvent(Generic[T_co]):
    """An event that is handled once it is acknowledged: see ``Subscription.acknowledged``.

    :ivar value: the event.

    Example::

        async for event in subscription.acknowledged():
            await store.insert(event.value)
            await event.ack()
    """

    __slots__ = ("_is_acknowledged", "_settle", "value")

    def __init__(self, value: T_co, settle: Callable[[], Awaitable[None]]) -> None:
        self.value: T_co = value
        self._settle: Callable[[], Awaitable[None]] = settle
        self._is_acknowledged: bool = False

    @property
    def is_acknowledged(self) -> bool:
        """Whether :meth:`ack` was called."""
        return self._is_acknowledged

    async def ack(self) -> None:
        """Note that the event is handled. Idempotent.

        The subscription's cursor goes on as far as all events before are acknowledged too. Where it has a
        ``cursor_key`` this returns when the store holds that cursor; acknowledgements that come together
        share one write. Cancelling the wait takes nothing back.

        :raises UsageError: called on another event loop than the subscription's.
        :raises Exception: what the store raises. The event stays acknowledged, and saving is tried again.
        """
        settled = self._settle()
        self._is_acknowledged = True
        await settled


@final
class Acknowledgements(Generic[T]):
    """The events of one subscription that were handed out and are not acknowledged, oldest first.

    Example::

        acknowledgements = Acknowledgements(consumer)
        event = acknowledgements.take()
        await event.ack()
    """

    __slots__ = ("_consumer", "_has_fewer", "_pending")

    def __init__(self, consumer: Consumer[T]) -> None:
        self._consumer = consumer
        self._pending: deque[tuple[Acknowledgeable, Extensions | None]] = deque()
        self._has_fewer = asyncio.Event()

    @classmethod
    def of(cls, consumer: Consumer[T]) -> Self:
        """Return those of a subscription, which are made when they are asked for first."""
        if not isinstance(consumer.pending, cls):
            consumer.pending = cls(consumer)
        pending: Self = consumer.pending
        return pending

    def __len__(self) -> int:
        """The number of events that are not acknowledged, or come after one that is not."""
        return len(self._pending)

    def take(self) -> PendingEvent[T]:
        """Take the oldest buffered event.

        :raises IndexError: none is buffered.
        """
        response = self._consumer.take_pending()
        event = PendingEvent(value_of(response), self._settle)
        self.hold(event, response.extensions)
        return event

    def hold(self, event: Acknowledgeable, extensions: Extensions | None) -> None:
        """Hold the cursor back until an event is acknowledged, which was taken from the buffer as pending."""
        self._pending.append((event, extensions))

    async def wait_below(self, most: int) -> None:
        """Wait until fewer are pending, or the stream has ended."""
        ended = self._consumer.ended
        while len(self._pending) >= most and not ended.done():
            self._has_fewer.clear()
            fewer = asyncio.ensure_future(self._has_fewer.wait())
            try:
                await asyncio.wait((fewer, ended), return_when=asyncio.FIRST_COMPLETED)
            finally:
                fewer.cancel()

    def settle(self) -> None:
        """Let the cursor go on as far as all events are acknowledged."""
        pending, consumer = self._pending, self._consumer
        while pending and pending[0][0].is_acknowledged:
            _, extensions = pending.popleft()
            consumer.done_with(extensions)
            self._has_fewer.set()
        consumer.notice_drained()

    async def save(self) -> None:
        """Return when the store holds the cursor; at once where there is no store."""
        if self._consumer.save_cursor is not None:
            await self._consumer.save_cursor()

    def _settle(self) -> Awaitable[None]:
        """Check the caller's loop; what is returned takes note of the acknowledgements, and saves."""
        check_loop(self._consumer.loop)
        return self._settled()

    async def _settled(self) -> None:
        self.settle()
        await self.save()
