"""The subscription that an application holds: a typed stream of events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from circuit_breaker_sdk.config import TransportKind
from circuit_breaker_sdk.connections import Connection, EventStreamConnection, PollConnection
from circuit_breaker_sdk.delivery.delivery import Delivery
from circuit_breaker_sdk.delivery.filters import SubscriptionFilter, as_filter, conjuncts
from circuit_breaker_sdk.delivery.subscription_handler import SubscriptionHandler
from circuit_breaker_sdk.delivery.subscription_state import (
    Continuity,
    SubscriptionId,
    SubscriptionState,
    SubscriptionStats,
)
from circuit_breaker_sdk.errors import CircuitBreakerError, StreamFailure, UsageError
from circuit_breaker_sdk.loop_affinity import check_loop
from circuit_breaker_sdk.subscriptions.aggregate import EventAggregator, Folds, Windows
from circuit_breaker_sdk.subscriptions.iterators import Acknowledged, Batches

__all__ = ["Subscription"]

T_co = TypeVar("T_co", covariant=True)


class Subscription(Generic[T_co]):
    """A running subscription: iterate over it, or attach handlers.

    It is live when you get it, and keeps events in its bounded buffer until the first consumer comes. Either
    iterate (one task at a time; cancelling it loses no event) or attach handlers, not both at once. Leaving
    its block, :meth:`unsubscribe`, and dropping the last reference end it on the server too; one with a
    handler needs no reference and lives until it ends or is unsubscribed.

    **Errors.** What ends the subscription is raised by the iterator once all buffered events are handed out,
    given to :meth:`on_error`, and stays in :attr:`error`. Two things end nothing and are reported to
    :meth:`on_error`, :attr:`last_error` and :meth:`stats`: a handler that raises (``HandlerError``), and an
    event with GraphQL ``errors`` (``OperationError``): its value is delivered if there is one; if it is null
    the iterator goes on to the next event. A stream that ends having said nothing but errors has failed.

    All methods belong on the event loop that it was made on.

    Example::

        async with client.workflows.subscribe_resource_updates(resource_id="r-1") as updates:
            async for resource in updates:
                print(resource.state)
    """

    __slots__ = ("__weakref__", "_delivery")

    def __init__(self, delivery: Delivery[T_co]) -> None:
        self._delivery = delivery

    def __del__(self) -> None:
        # The registry holds the delivery only, so this object's end is the end of the last reference. It may
        # come in any thread, in the middle of anything.
        delivery = self._delivery
        if not delivery.state.is_end:
            with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing left to end
                delivery.consumer.loop.call_soon_threadsafe(delivery.abandon)

    # What it is ------------------------------------------------------------------------------------------

    @property
    def id(self) -> SubscriptionId:
        """The operation id, as in logs and errors."""
        return self._delivery.id

    @property
    def state(self) -> SubscriptionState:
        """The state of the subscription."""
        return self._delivery.state

    @property
    def continuity(self) -> Continuity:
        """Whether it is proven that no event is missing."""
        return self._delivery.continuity

    @property
    def traceparent(self) -> str | None:
        """The trace of the mutation that caused the event that was taken last (W3C Trace Context).

        ``None``: it was not traced, or the client has no tracer.
        """
        return self._delivery.consumer.traceparent

    @property
    def cursor(self) -> str | None:
        """The position behind the last handled event; ``None`` where the server gives none.

        An event is handled when its handlers have returned, or when the iterator is asked for the next one.
        """
        return self._delivery.consumer.handled

    @property
    def transport(self) -> TransportKind | None:
        """The transport of its events now; ``None`` while there is none, or a query is asked instead."""
        link = self._delivery.link
        if isinstance(link, Connection):
            return TransportKind.WEBSOCKET
        if isinstance(link, EventStreamConnection):
            return TransportKind.SSE
        return TransportKind.POLL if isinstance(link, PollConnection) else None

    @property
    def is_polled(self) -> bool:
        """Whether its events come by long-polling now, because no WebSocket gets through."""
        return self.transport is TransportKind.POLL

    async def snapshot(self) -> Any:
        """Read the present state behind the stream, by its own query or the ``snapshot`` it was given.

        The subscription is live, so nothing that happens from now on is missed: the state, and then the
        events, are the truth. An event may already be in the state, and some that wait are older than it.

        :raises UsageError: there is no query for this stream.
        :raises OperationError, TransportError: what the query raises.
        """
        check_loop(self._delivery.consumer.loop)
        read = self._delivery.owner.snapshot_of(self._delivery)
        if read is None:
            raise UsageError(f"{self._delivery.label} has no query of the present state")
        return await read()

    @property
    def error(self) -> StreamFailure | None:
        """The error that ended the subscription, if one did."""
        return self._delivery.error

    @property
    def last_error(self) -> CircuitBreakerError | None:
        """The most recent error, whether it ended the subscription or not."""
        return self._delivery.last_error

    def stats(self) -> SubscriptionStats:
        """Take a snapshot of its counters."""
        return self._delivery.stats()

    def __repr__(self) -> str:
        delivery = self._delivery
        return f"<{type(self).__name__} {delivery.id} {delivery.label} {delivery.state}>"

    # Handlers --------------------------------------------------------------------------------------------

    def on_data(self, handler: Callable[[T_co], object]) -> Self:
        """Call ``handler`` with each event, first with those that are buffered. Several are called in order.

        What is buffered comes in the next turn of the event loop: handlers that are attached together all get
        it, in whatever order they are attached.

        A plain function runs inside the read callback: keep it short. An async one is awaited, one event at
        a time, while events wait in the buffer. If it raises, that is reported and ends nothing.

        :raises UsageError: a task is iterating right now.
        """
        check_loop(self._delivery.consumer.loop)
        self._delivery.consumer.check_nothing_pending()
        self._delivery.consumer.handlers.add_data(handler)
        return self

    def on_error(self, handler: Callable[[CircuitBreakerError], object]) -> Self:
        """Call ``handler`` with each error; ``error is subscription.error`` tells the one that ended it.

        A lost connection that is tried again is one of them, while ``state`` is ``RECONNECTING``.
        """
        check_loop(self._delivery.consumer.loop)
        self._delivery.consumer.handlers.add_error(handler)
        return self

    def on_state(self, handler: Callable[[SubscriptionState], object]) -> Self:
        """Call ``handler`` with the new :class:`SubscriptionState` whenever it changes.

        It runs before the handlers of the error or of the end that come with the change.

        Example::

            updates.on_state(lambda state: print("the stream is", state))
        """
        check_loop(self._delivery.consumer.loop)
        self._delivery.consumer.handlers.add_state(handler)
        return self

    def on_complete(self, handler: Callable[[], object]) -> Self:
        """Call ``handler`` when the server has ended the stream, after the last handled event.

        Where no handler of events is attached it is called as soon as the end arrives. It is not called for
        a failure, nor for :meth:`unsubscribe`.
        """
        check_loop(self._delivery.consumer.loop)
        self._delivery.consumer.handlers.add_complete(handler)
        return self

    def handle(self, handler: SubscriptionHandler[T_co]) -> Self:
        """Attach an object's ``on_data``, ``on_error`` and ``on_complete``."""
        # Not this stream's own `on_complete`, which may have a result for its handlers.
        Subscription.on_complete(self, handler.on_complete)
        return self.on_error(handler.on_error).on_data(handler.on_data)

    # As in the builder.
    @overload
    def filter(self, predicate: SubscriptionFilter[T_co]) -> Self: ...

    @overload
    def filter(self, predicate: Callable[[T_co], object]) -> Self: ...

    def filter(self, predicate: Callable[[T_co], object]) -> Self:
        """Keep back events for which ``predicate`` is false, from the next one that arrives on.

        ``predicate`` is a :class:`SubscriptionFilter` or a plain function. Several must all hold, as must
        the parts of a conjunction. It runs in the read callback. If it raises, that is an error of this
        subscription only: it is reported (``HandlerError``) to :meth:`on_error`, :attr:`last_error` and
        :meth:`stats`, ends nothing, and the event passes unless another filter keeps it back. A builder's
        own filters are cheaper: the server applies those that it can.

        :raises UsageError: the event type lacks an attribute that the filter reads, or the function is
            async.
        """
        check_loop(self._delivery.consumer.loop)
        whole = as_filter(predicate)
        whole.check(self._delivery.event_type)
        for part in conjuncts(whole):
            self._delivery.consumer.add_filter(part)
        return self

    # Iteration -------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        check_loop(self._delivery.consumer.loop)
        self._delivery.consumer.check_nothing_pending()
        return self

    async def __anext__(self) -> T_co:
        """Wait for the next event. Cancellation loses none."""
        consumer = self._delivery.consumer
        buffer = consumer.buffer
        if not buffer.items or consumer.handlers.has_data:
            consumer.mark_handled()
            await self._wait(1)
        # `Consumer.next_value` and `EventBuffer.take`, without the calls: the hot path.
        response = buffer.items.popleft()  # type: ignore[union-attr]  # there is one, or `_wait` has raised
        size_bytes = response.size_bytes
        buffer.size_bytes -= size_bytes
        budget = buffer.budget
        if budget.is_watched:
            budget.give_back(size_bytes)
        else:
            budget.used -= size_bytes
        if consumer.taken is not None:
            consumer.done = consumer.taken
        consumer.taken = response.extensions
        if consumer.on_taken is not None:
            consumer.on_taken()
        data = response.data
        return None if data is None else data.value  # type: ignore[return-value]  # as in `value_of`

    def batches(self, *, max_events: int = 100, max_wait_seconds: float = 1.0) -> Batches[T_co]:
        """Iterate over lists of events.

        A list has at least one event and at most ``max_events``; after its first event has arrived it waits
        at most ``max_wait_seconds`` for more, less if the buffer is half full. Cancellation loses no event.

        Example::

            async for batch in subscription.batches(max_events=500, max_wait_seconds=0.2):
                await store.insert_many(batch)
        """
        if max_events < 1 or max_wait_seconds < 0:
            raise UsageError("max_events must be at least 1, max_wait_seconds not negative")
        self._delivery.consumer.check_nothing_pending()
        return Batches(self._delivery.consumer, self._wait, max_events, max_wait_seconds)

    def acknowledged(self, *, max_pending: int = 1_000) -> Acknowledged[T_co]:
        """Iterate over events that count as handled when they are acknowledged, in whatever order.

        What is not acknowledged when the program dies comes again to one that goes on from the same
        ``cursor_key``, and so does what was acknowledged behind it: at least once, never less. A lost
        connection brings nothing again. While ``max_pending`` events are not acknowledged, or come after one
        that is not, the iterator waits, and events wait in the buffer. Cancellation loses no event.

        :raises UsageError: ``max_pending`` is less than 1. The iterator raises it for a subscription with
            handlers; while events are pending, other ways to take events do.

        Example::

            async for event in subscription.acknowledged():
                await store.insert(event.value)
                await event.ack()
        """
        check_loop(self._delivery.consumer.loop)
        if max_pending < 1:
            raise UsageError("max_pending must be at least 1")
        return Acknowledged(self._delivery.consumer, self._wait, max_pending)

    def windows(
        self,
        seconds: float | timedelta,
        *,
        time: Callable[[T_co], datetime] | None = None,
        folds: Folds | None = None,
        allowed_lateness: float | timedelta = 0,
        max_open_windows: int = 64,
        keep_events: bool = False,
        max_events: int = 10_000,
        max_bytes: int = 16 * 1024 * 1024,
    ) -> Windows[T_co]:
        """Iterate over tumbling windows of event time: see :class:`EventAggregator` for the arguments.

        At the end of the stream the windows that are still open come first, marked ``early``, then what
        ended it is raised. An event counts as handled once it is in its window, which may still be open.

        Example::

            async for window in events.windows(60, folds={"moved": (0, lambda n, event: n + 1)}):
                print(window.start, window.rate, window.folds["moved"])
        """
        self._delivery.consumer.check_nothing_pending()
        aggregator: EventAggregator[T_co] = EventAggregator(
            seconds,
            time=time,
            folds=folds,
            allowed_lateness=allowed_lateness,
            max_open_windows=max_open_windows,
            keep_events=keep_events,
            max_events=max_events,
            max_bytes=max_bytes,
        )
        return Windows(self, aggregator)

    async def _wait(self, at_least: int) -> None:
        """Wait for events; at the end of the stream raise what ended it."""
        consumer = self._delivery.consumer
        if consumer.handlers.has_data:
            raise UsageError(f"{self!r} has handlers: it cannot be iterated as well")
        await consumer.wait(at_least)
        if not consumer.buffer.items:
            error = self._delivery.error
            if error is not None:
                raise error
            raise StopAsyncIteration

    # The end ---------------------------------------------------------------------------------------------

    async def unsubscribe(self) -> None:
        """End it, here and on the server; what is buffered is dropped. Idempotent.

        An async handler that is running is cancelled, unless it is the caller.
        """
        check_loop(self._delivery.consumer.loop)
        self._delivery.unsubscribe()
        await self._delivery.consumer.handlers.aclose()

    async def wait_closed(self) -> None:
        """Wait until it has ended and every handler has returned. Cancelling the wait changes nothing.

        :raises TransportError, SubscriptionError: what ended it.
        """
        check_loop(self._delivery.consumer.loop)
        delivery = self._delivery
        await asyncio.shield(delivery.consumer.ended)
        if delivery.consumer.is_handing_over:
            await asyncio.sleep(0)  # it is done in the next turn
        pump = delivery.consumer.handlers.pump
        if pump is not None and pump is not asyncio.current_task():
            await asyncio.wait((pump,))
        if delivery.error is not None:
            raise delivery.error

    async def __aenter__(self) -> Self:
        check_loop(self._delivery.consumer.loop)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.unsubscribe()
