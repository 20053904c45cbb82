"""The wait until a subscription has begun: it is live, or its request is written."""

from __future__ import annotations

import asyncio
from typing import Any, final

from circuit_breaker_sdk.connections import Link
from circuit_breaker_sdk.delivery.delivery import Delivery
from circuit_breaker_sdk.errors import OperationTimeoutError
from circuit_breaker_sdk.subscriptions.shared_timer import Deadlines

__all__ = ["BeginWait"]


@final
class BeginWait:
    """Wait until subscriptions have begun, each for so many seconds.

    Example::

        wait = BeginWait(10.0)
        await wait.until_begun(delivery, link)
    """

    __slots__ = ("_deadlines", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines = Deadlines(seconds)

    async def until_begun(self, delivery: Delivery[Any], link: Link) -> None:
        """Wait until a subscription is live, or written where the server does not say so.

        Cancellation ends the subscription.

        :raises TransportError, SubscriptionError: what ended it before its first event;
            ``OperationTimeoutError`` where it was not live in time.
        """
        if link.resume_negotiated:
            await self._until_live(delivery, link)
        else:
            await self._until_written(delivery, link)
        if delivery.error is not None and not delivery.events_received:
            raise delivery.error

    async def _until_written(self, delivery: Delivery[Any], link: Link) -> None:
        try:
            # By default the connection writes what was sent in one turn at the beginning of the next.
            await asyncio.sleep(link.write_delay_seconds)
        except asyncio.CancelledError:
            delivery.unsubscribe()
            raise
        if not delivery.has_begun:
            delivery.go_live()

    async def _until_live(self, delivery: Delivery[Any], link: Link) -> None:
        seconds = self._seconds
        try:
            while not delivery.has_begun and not delivery.is_late_on(link, after=seconds):
                begun = delivery.awaiting_begin()
                self._deadlines.add(begun)
                try:
                    await begun
                finally:
                    self._deadlines.discard(begun)
        except asyncio.CancelledError:
            delivery.unsubscribe()
            raise
        if not delivery.has_begun:
            delivery.unsubscribe()
            raise OperationTimeoutError(f"subscribing to {delivery.label}", seconds=seconds)
