"""The subscription that a program without asyncio holds: an iterator over typed events."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, final

from circuit_breaker_sdk.callbacks import callback_name
from circuit_breaker_sdk.config import BufferLimits, TransportKind
from circuit_breaker_sdk.delivery.look_ahead import PendingLookAhead
from circuit_breaker_sdk.errors import CircuitBreakerError, StreamFailure, UsageError
from circuit_breaker_sdk.subscriptions import (
    Continuity,
    Gap,
    Subscription,
    SubscriptionBuilder,
    SubscriptionId,
    SubscriptionState,
    SubscriptionStats,
)
from circuit_breaker_sdk.sync.acknowledgements import SyncAcknowledged
from circuit_breaker_sdk.sync.hand_over import HandOver
from circuit_breaker_sdk.sync.portal import Portal

__all__ = ["SyncSubscription", "on_executor", "start"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@final
class SyncSubscription(Generic[T_co]):
    """A running subscription, for blocking code: iterate over it, or attach handlers.

    It is live when you get it, and keeps events in its bounded buffer. What ends it is raised by the iterator
    once all buffered events are handed out. Leaving its block, :meth:`close`, and dropping the last reference
    end it on the server too. One thread iterates at a time; all else may be called from any thread.

    Handlers run in the client's ``executor``, one event after the other.

    Example::

        with client.workflows.subscribe_resource_updates(resource_id="r-1") as updates:
            for resource in updates:
                print(resource.state)
    """

    __slots__ = ("__weakref__", "_hand_over", "_loop", "_portal", "_subscription", "_values")

    def __init__(self, portal: Portal, subscription: Subscription[T_co]) -> None:
        """It is made on the loop of ``portal``."""
        self._portal = portal
        self._subscription = subscription
        self._hand_over: HandOver[T_co] = HandOver(subscription)
        self._values: deque[T_co] = self._hand_over.plain.values
        self._loop: asyncio.AbstractEventLoop = portal.add(self._hand_over)

    def __del__(self) -> None:
        with contextlib.suppress(RuntimeError, AttributeError):  # the loop is closed; or it was never made
            self._loop.call_soon_threadsafe(self._hand_over.abandon)

    # What it is --------------------------------------------------------------------------------------------

    @property
    def id(self) -> SubscriptionId:
        """The operation id, as in logs and errors."""
        return self._subscription.id

    @property
    def state(self) -> SubscriptionState:
        """The state of the subscription."""
        return self._subscription.state

    @property
    def continuity(self) -> Continuity:
        """Whether it is proven that no event is missing."""
        return self._subscription.continuity

    @property
    def cursor(self) -> str | None:
        """The position behind the last handled event; ``None`` where the server gives none.

        An event is handled when its handlers have returned, when the iterator is asked for the next one, or
        when it is acknowledged: see :meth:`acknowledged`.
        """
        return self._portal.read(lambda: self._subscription.cursor)

    @property
    def transport(self) -> TransportKind | None:
        """The transport of its events now; ``None`` while there is none."""
        return self._portal.read(lambda: self._subscription.transport)

    def snapshot(self) -> Any:
        """Read the present state behind the stream: see :meth:`Subscription.snapshot`."""
        return self._portal.call(self._subscription.snapshot)

    @property
    def error(self) -> StreamFailure | None:
        """The error that ended the subscription, if one did."""
        return self._subscription.error

    @property
    def last_error(self) -> CircuitBreakerError | None:
        """The most recent error, whether it ended the subscription or not."""
        return self._subscription.last_error

    def stats(self) -> SubscriptionStats:
        """Take a snapshot of its counters."""

        def read() -> SubscriptionStats:
            self._hand_over.settle()
            return self._subscription.stats()

        return self._portal.read(read)

    def __repr__(self) -> str:
        return f"<Sync{repr(self._subscription)[1:]}"

    # Iteration ---------------------------------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T_co:
        """Wait for the next event."""
        try:
            return self._values.popleft()
        except IndexError:
            pass
        return self._hand_over.next(self._hand_over.plain, self._portal.wake, None)

    def next(self, timeout: float | None = None) -> T_co:
        """Wait for the next event, for so many seconds at most. A timeout loses none.

        :raises TimeoutError: none came in time.
        :raises StopIteration: the stream has ended.
        """
        return self._hand_over.next(self._hand_over.plain, self._portal.wake, timeout)

    def acknowledged(self, *, max_pending: int = 1_000) -> SyncAcknowledged[T_co]:
        """Iterate over events that count as handled when they are acknowledged, in whatever order.

        One thread iterates, and any thread acknowledges. What is not acknowledged when the program dies comes
        again to one that goes on from the same ``cursor_key``, and so does what was acknowledged behind it:
        at least once, never less. A lost connection brings nothing again. While ``max_pending`` events are
        not acknowledged, or come after one that is not, the iterator waits, and events wait in the buffer.
        Neither a timeout nor leaving the loop loses an event.

        :raises UsageError: ``max_pending`` is less than 1. The iterator raises it for a subscription with
            handlers; while events are pending, other ways to take events do.

        Example::

            for event in subscription.acknowledged():
                store.insert(event.value)
                event.ack()
        """
        if max_pending < 1:
            raise UsageError("max_pending must be at least 1")
        consumer = self._subscription._delivery.consumer  # noqa: SLF001 (its blocking form)
        return SyncAcknowledged(self._portal, self, PendingLookAhead(consumer, max_pending))

    # Handlers ----------------------------------------------------------------------------------------------

    def on_data(self, handler: Callable[[T_co], object]) -> Self:
        """Call ``handler`` with each event, first with those that are buffered. Several are called in order.

        The next event comes when all of them have returned. If one raises, that is reported and ends nothing.

        :raises UsageError: a thread is iterating right now, or the function is async.
        """
        called = on_executor(self._portal, handler)

        async def attach() -> None:
            await self._hand_over.leave()
            self._hand_over.settle()
            self._subscription.on_data(called)
            self._hand_over.withdraw()

        self._portal.call(attach)
        return self

    def on_error(self, handler: Callable[[CircuitBreakerError], object]) -> Self:
        """Call ``handler`` with each error; ``error is subscription.error`` tells the one that ended it."""
        self._portal.do(self._subscription.on_error, on_executor(self._portal, handler))
        return self

    def on_state(self, handler: Callable[[SubscriptionState], object]) -> Self:
        """Call ``handler`` with the new :class:`SubscriptionState` whenever it changes."""
        self._portal.do(self._subscription.on_state, on_executor(self._portal, handler))
        return self

    def on_complete(self, handler: Callable[[], object]) -> Self:
        """Call ``handler`` when the server has ended the stream, after the last handled event."""
        self._portal.do(self._subscription.on_complete, on_executor(self._portal, handler))
        return self

    def filter(self, predicate: Callable[[T_co], object]) -> Self:
        """Keep back events for which ``predicate`` is false, from the next one that arrives on.

        It is called on the client's own loop, in the middle of things: keep it short.
        """
        self._portal.do(self._subscription.filter, predicate)
        return self

    # The end -----------------------------------------------------------------------------------------------

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until it has ended and every handler has returned; a timeout changes nothing.

        :raises TransportError, SubscriptionError: what ended it.
        :raises TimeoutError: it has not ended in time.
        """
        self._portal.call_within(timeout, self._subscription.wait_closed)

    def close(self) -> None:
        """End it, here and on the server; what is buffered is dropped, and an iteration ends. Idempotent."""
        if self._portal.is_closed:
            return

        async def end() -> None:
            self._hand_over.end()
            await self._subscription.unsubscribe()

        self._portal.call(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def on_executor(portal: Portal, handler: Callable[..., Any]) -> Callable[..., Awaitable[object]]:
    """Return an async handler that calls a plain one in the executor, in the context in which this is called.

    :raises UsageError: it is async, or no function.
    """
    if not callable(handler):
        raise UsageError(f"a handler must be a function or a callable object, not {handler!r}")
    if inspect.iscoroutinefunction(handler):
        raise UsageError(f"{callback_name(handler)} is async: a blocking client calls plain functions")
    context, executor = contextvars.copy_context(), portal.executor

    async def call(*arguments: object) -> object:
        run = functools.partial(context.copy().run, handler, *arguments)
        return await asyncio.get_running_loop().run_in_executor(executor, run)

    call.__qualname__ = callback_name(handler)
    return call


def start(
    portal: Portal,
    make: Callable[[], SubscriptionBuilder[T, Any]],
    *,
    filter: Callable[[T], object] | None = None,  # noqa: A002 (the name users expect)
    buffer: BufferLimits | None = None,
    after: str | None = None,
    from_beginning: bool | None = None,
    since: datetime | None = None,
    last: int | None = None,
    cursor_key: str | None = None,
    on_gap: Callable[[Gap], object] | None = None,
    critical: bool | None = None,
) -> SyncSubscription[T]:
    """Start the subscription of the builder that ``make`` returns; the others are the builder's methods."""
    gap_handler = None if on_gap is None else on_executor(portal, on_gap)

    async def begin() -> SyncSubscription[T]:
        builder = make()
        if filter is not None:
            builder = builder.filter(filter)
        if buffer is not None:
            builder = builder.buffer(buffer)
        if after is not None:
            builder = builder.after(after)
        if from_beginning:
            builder = builder.from_beginning()
        if since is not None:
            builder = builder.since(since)
        if last is not None:
            builder = builder.last(last)
        if cursor_key is not None:
            builder = builder.cursor_key(cursor_key)
        if gap_handler is not None:
            builder = builder.on_gap(gap_handler)
        if critical is not None:
            builder = builder.critical(critical)
        return SyncSubscription(portal, await builder._subscribe_plain())  # noqa: SLF001 (its blocking form)

    return portal.call(begin)
