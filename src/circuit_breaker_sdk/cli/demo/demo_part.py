"""Base of the demo's parts: a client, a ledger of events, and the condition to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from typing import Protocol, TypeVar

from circuit_breaker_sdk import Client, Subscription, SubscriptionState
from circuit_breaker_sdk.cli.demo.ledger import KINDS, Ledger
from circuit_breaker_sdk.errors import CircuitBreakerError

__all__ = ["Course", "Stage"]

T = TypeVar("T")


class Stage:
    """Stage of the demo's parts.

    :ivar stop: once it is set no new mutation is sent; those under way are waited for.
    :ivar failed: the first error that ended a subscription, or came of a handler.
    """

    def __init__(
        self, client: Client, ledger: Ledger, stop: asyncio.Event, subscriptions: AsyncExitStack
    ) -> None:
        self.client = client
        self.ledger = ledger
        self.stop = stop
        self.failed: CircuitBreakerError | None = None
        self._subscriptions = subscriptions

    async def subscribe(
        self,
        kind: str,
        scope: str,
        own: AbstractAsyncContextManager[Subscription[T]],
        consolidated: AbstractAsyncContextManager[Subscription[T]],
        *,
        value_of: Callable[[T], Hashable],
        words_of: Callable[[T], str],
        until: AsyncExitStack | None = None,
    ) -> list[Subscription[T]]:
        """Subscribe a kind of stream through both clients, a handler each.

        :param until: what ends the subscriptions; ``None`` for the end of the demo.
        """
        found = []
        stack = until or self._subscriptions
        for client, builder in ((KINDS[kind], own), ("subscriptions", consolidated)):
            subscription = await stack.enter_async_context(builder)
            subscription.on_error(partial(self._note, subscription))
            subscription.on_data(self.ledger.handler(f"{client}.{kind}", scope, value_of, words_of))
            found.append(subscription)
        return found

    def _note(self, subscription: Subscription[T], error: CircuitBreakerError) -> None:
        """End the demo with an error, unless it is a lost connection that is tried again."""
        if subscription.state is not SubscriptionState.RECONNECTING:
            self.fail(error)

    def at_end(self, clean_up: Callable[[], Awaitable[None]]) -> None:
        """Have something done when the demo ends, however it ends."""
        self._subscriptions.push_async_callback(clean_up)

    def fail(self, error: CircuitBreakerError) -> None:
        """End the demo with an error."""
        if self.failed is None:
            self.failed = error
        self.stop.set()

    async def pause(self, seconds: float) -> None:
        """Wait, but not longer than until the end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()


class Course(Protocol):
    """One part of what the demo shows."""

    async def prepare(self) -> None:
        """Make what it needs, and subscribe."""
        ...

    def lead(self) -> Coroutine[object, object, None]:
        """Send mutations until the stage says stop; raise the first error."""
        ...
