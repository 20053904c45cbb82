"""What becomes of subscriptions whose connection was lost: they go on by the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, final

from circuit_breaker_sdk.config import ErrorRecoveryPolicy
from circuit_breaker_sdk.connections import Backoff, Connection, Supervisor
from circuit_breaker_sdk.errors import SubscriptionError, UsageError
from circuit_breaker_sdk.subscriptions.delivery import Delivery

__all__ = ["Recovery"]


@final
class Recovery:
    """Keep the lost subscriptions, connect again, and put them on the new connection in their old order.

    One task does it for all of them, and runs only while there are any.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        policy: ErrorRecoveryPolicy,
        resume: Callable[[Delivery[Any], Connection], None],
    ) -> None:
        """``resume`` puts one on a connection; it raises ``ConnectionFailed`` if that is closing."""
        self._supervisor = supervisor
        self._backoff = Backoff(policy)
        self._gives_up_at_once = policy.max_retries == 0
        self._resume = resume
        # Any: deliveries of all event types. A dict, because they keep their order.
        self._lost: dict[Delivery[Any], None] = {}
        self._error: SubscriptionError | None = None
        self._running: asyncio.Task[None] | None = None
        self._closed = False

    def take(self, delivery: Delivery[Any], error: SubscriptionError) -> bool:
        """Take a subscription whose connection was lost; ``False`` if it is not to be tried again."""
        if self._closed or self._gives_up_at_once or not error.retryable:
            return False
        self._lost[delivery] = None
        self._error = error
        if self._running is None:
            self._running = asyncio.create_task(self._recover(), name="circuit-breaker-reconnect")
        return True

    def forget(self, delivery: Delivery[Any]) -> None:
        """Note that a subscription has ended."""
        self._lost.pop(delivery, None)

    async def aclose(self) -> None:
        """Try no more. Idempotent."""
        self._closed = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))

    async def _recover(self) -> None:
        try:
            while self._lost and (error := self._error) is not None:
                seconds = self._backoff.failed(error)
                if seconds is None:
                    self._give_up(error)
                    return
                await asyncio.sleep(seconds)
                if not self._lost:
                    return  # all were ended by the application
                try:
                    connection = await self._supervisor.connection()
                except SubscriptionError as failed:
                    self._error = failed
                except UsageError:
                    return  # the client was closed
                else:
                    self._backoff.connected()
                    await self._put_on(connection)
        finally:
            self._running = None

    async def _put_on(self, connection: Connection) -> None:
        resumed = list(self._lost)
        for delivery in resumed:
            try:
                self._resume(delivery, connection)
            except SubscriptionError as error:
                self._error = error
                return  # it and those behind it are still here
            del self._lost[delivery]
        if not connection.resume_negotiated:
            # As for a new one: nothing will say that it is live, so it is when the message is written.
            await asyncio.sleep(0)
            for delivery in resumed:
                if delivery not in self._lost and not delivery.state.is_end:
                    delivery.go_live()

    def _give_up(self, error: SubscriptionError) -> None:
        for delivery in tuple(self._lost):
            delivery.give_up(error)
