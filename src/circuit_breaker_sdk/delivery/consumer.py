"""The consumer's side of a subscription: events kept until they are taken, or handed to a handler at once."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Awaitable, Callable, Sized
from typing import Generic, TypeVar, final

from circuit_breaker_sdk.callbacks import CALLBACK_ERRORS, in_own_context
from circuit_breaker_sdk.config import BufferLimits
from circuit_breaker_sdk.delivery.buffer import BufferBudget, EventBuffer
from circuit_breaker_sdk.delivery.decoding import Extensions, Response, traceparent_of
from circuit_breaker_sdk.delivery.filters import Custom, SubscriptionFilter
from circuit_breaker_sdk.delivery.handler_interfaces import Stream
from circuit_breaker_sdk.delivery.handlers import Handlers
from circuit_breaker_sdk.errors import (
    UsageError,
)
from circuit_breaker_sdk.loop_affinity import check_loop
from circuit_breaker_sdk.observability.latency import Latency, Timed
from circuit_breaker_sdk.observability.tracing import Tracer, traced_call

__all__ = ["NEVER", "Consumer", "plain", "value_of"]

T = TypeVar("T")

NEVER = sys.maxsize
"""More events than are ever waited for."""


@final
class Consumer(Generic[T]):
    """Hand the events of one subscription to its handlers, or keep them until they are taken.

    A :class:`~circuit_breaker_sdk.delivery.delivery.Delivery` has one, and brings the events. Slots, and
    nothing that most subscriptions do not use: there may be a hundred thousand.

    :ivar last_handled: what :attr:`handled` was when it was last asked for; inline handlers set it.
    :ivar buffer: the events that wait.
    :ivar inline: the handler that is called inside the read callback; ``None``: events are buffered.
    :ivar predicates: filters; an event for which one is false is kept back.
    :ivar run_goes_to: the handler that gets the events of a run, while nothing that they depend on changes.
    :ivar wake_at: a consumer waits for so many buffered events; ``NEVER``: none waits.
    :ivar taken: what came beside the event that was taken last, while the consumer is not done with it.
    :ivar done: what came beside the last event that it is done with; its cursor is read when it is asked for.
    :ivar is_handing_over: what is buffered goes to a handler in the next turn of the loop.
    :ivar on_ready: for a consumer of many: called when an event is buffered, a handler attached, the end has
        come.
    :ivar on_taken: called when an event is taken, while the stream is stopped.
    :ivar latency: measures the handlers; ``None``: nothing does.
    :ivar tracer: makes spans for them; ``None``: nothing does.
    :ivar on_asked: called before :attr:`handled` is told: a reader in another thread may have gone on.
    :ivar pending: events that were taken and count as handled once they are acknowledged; ``None``: none has.
    :ivar save_cursor: returns when :attr:`handled` is stored; ``None``: it is not kept.
    """

    __slots__ = (
        "_drained",
        "_ended",
        "_next_inline",
        "_waiter",
        "buffer",
        "done",
        "filtered",
        "handlers",
        "inline",
        "is_handing_over",
        "last_handled",
        "latency",
        "loop",
        "on_asked",
        "on_ready",
        "on_taken",
        "pending",
        "predicates",
        "run_goes_to",
        "save_cursor",
        "stream",
        "taken",
        "tracer",
        "wake_at",
    )

    def __init__(
        self,
        stream: Stream,
        *,
        limits: BufferLimits,
        budget: BufferBudget,
        tasks: set[asyncio.Task[None]],
        after: str | None,
    ) -> None:
        self.stream: Stream = stream
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.last_handled: str | None = after
        self.handlers: Handlers[T] = Handlers(self, tasks)
        self.filtered: int = 0
        self.latency: Latency | None = None
        self.tracer: Tracer | None = None
        self.on_ready: Callable[[], None] | None = None
        self.on_taken: Callable[[], None] | None = None
        self.on_asked: Callable[[], None] | None = None
        self.pending: Sized | None = None
        self.save_cursor: Callable[[], Awaitable[None]] | None = None
        self.buffer: EventBuffer[T] = EventBuffer(limits, budget)
        self.inline: Callable[[T], object] | None = None
        self._next_inline: Callable[[T], object] | None = None
        self.is_handing_over: bool = False
        self.predicates: tuple[Callable[[T], object], ...] = ()
        self.run_goes_to: Callable[[T], object] | None = None
        self.taken: Extensions | None = None
        self.done: Extensions | None = None
        self.wake_at: int = NEVER
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None

    @property
    def handled(self) -> str | None:
        """The cursor behind the last event that the consumer is done with."""
        if self.on_asked is not None:
            self.on_asked()
        done, self.done = self.done, None
        if done is not None:
            self.last_handled = _cursor_of(done) or self.last_handled
        return self.last_handled

    @handled.setter
    def handled(self, cursor: str | None) -> None:
        self.last_handled, self.done = cursor, None

    @property
    def ended(self) -> asyncio.Future[None]:
        """Done at the end."""
        if self._ended is None:
            self._ended = self.loop.create_future()
            if self.stream.state.is_end:
                self._ended.set_result(None)
        return self._ended

    def add_filter(self, part: SubscriptionFilter[T]) -> None:
        """Keep events from the consumer for which it is false, from the next event on."""
        # A custom one is called, and named in errors, as the function that it is.
        predicate = in_own_context(part.predicate) if isinstance(part, Custom) else part
        self.predicates = (*self.predicates, predicate)
        self.run_goes_to = None

    def set_inline(self, handler: Callable[[T], object] | None) -> None:
        """Call the handler inside the read callback from now on, first with all that is buffered.

        What is buffered is handed over in the next turn of the loop, so that handlers which are attached
        together get the same events, in whatever order they are attached. ``None``: buffer from now on.
        """
        if self._waiter is not None and handler is not None:
            raise UsageError("a task is iterating over this subscription: attach handlers before, or instead")
        self.handled = self.handled  # from now on the events of the handler set it
        handler = self._measured(handler)
        self.run_goes_to = None
        if handler is not None and self.buffer:
            self.inline, self._next_inline = None, handler
            if not self.is_handing_over:
                self.is_handing_over = True
                self.loop.call_soon(self._hand_over, context=contextvars.Context())
        else:
            self.inline, self._next_inline = handler, None
        if self.on_ready is not None:
            self.on_ready()

    def measure(self, latency: Latency | None) -> None:
        """Measure the handlers from now on; ``None``: no more."""
        self.latency = latency
        self.inline, self._next_inline = self._measured(self.inline), self._measured(self._next_inline)

    def _measured(self, handler: Callable[[T], object] | None) -> Callable[[T], object] | None:
        handler = plain(handler)
        if self.latency is None or handler is None:
            return handler
        return self.latency.timed(handler, self.stream)

    def _hand_over(self) -> None:
        """Hand what is buffered to the handler that was attached."""
        try:
            while self.buffer and (handler := plain(self._next_inline)) is not None:
                response = self.take()
                if not self.handlers.call(handler, value_of(response), _cursor_of(response.extensions)):
                    return  # it is awaited from now on: events go through the buffer
                self.mark_handled()
            if self._next_inline is not None:
                self.inline, self._next_inline = self._next_inline, None
        finally:
            self.is_handing_over = False
            self.notice_drained()
            if self.stream.state.is_end:
                self.handlers.end()

    async def wait(self, at_least: int = 1) -> None:
        """Wait until that many events are buffered, the buffer is half full, or the end has come.

        Nothing is taken: cancellation loses no event.

        :raises UsageError: another task is waiting.
        """
        while len(self.buffer) < at_least and not self.stream.state.is_end:
            if at_least > 1 and self.buffer.is_half_full():
                return
            await self.wait_once(at_least)

    async def wait_once(self, at_least: int = 1) -> None:
        """Wait until :meth:`wake` is called: by so many events, the end, a handler that is to be awaited.

        :raises UsageError: another task is waiting, or the caller is on another event loop.
        """
        if self._waiter is not None:
            raise UsageError("another task is waiting for this subscription's next event")
        waiter = self._waiter = self.loop.create_future()
        self.wake_at = at_least
        try:
            await waiter
            self._waiter = None
            self.wake_at = NEVER
        except BaseException as error:
            self._waiter = None
            self.wake_at = NEVER
            if isinstance(error, RuntimeError):
                # A task of another loop cannot await it. Asked only then: this is the hot path.
                check_loop(self.loop)
            raise

    def take(self) -> Response[T]:
        """Take the oldest buffered event; it counts as handled once :meth:`mark_handled` is called."""
        response = self.buffer.take()
        self.taken = response.extensions
        if self.on_taken is not None:
            self.on_taken()
        return response

    def take_pending(self) -> Response[T]:
        """Take the oldest buffered event, which counts as handled once :meth:`done_with` is called.

        :raises IndexError: none is buffered.
        """
        response = self.buffer.take()
        if self.on_taken is not None:
            self.on_taken()
        return response

    def done_with(self, extensions: Extensions | None) -> None:
        """Note that the consumer is done with an event that it took as pending, and all before it."""
        self.done = extensions or self.done

    def check_nothing_pending(self) -> None:
        """Refuse to hand out events in another way: the cursor would go past those that are pending.

        :raises UsageError: some are pending.
        """
        if self.pending:
            raise UsageError(
                f"{len(self.pending)} events of {self.stream.label} are not acknowledged yet: acknowledge "
                "them first, or go on with acknowledged()"
            )

    async def drained(self) -> None:
        """Wait until the consumer is done with all that is buffered, or the end has come.

        The body of an iteration is done with an event when it asks for the next one.
        """
        while not self.stream.state.is_end and (
            self.buffer
            or self.taken is not None
            or self.pending
            or self.is_handing_over
            or self.handlers.is_busy
        ):
            self._drained = self.loop.create_future()
            await asyncio.wait((self._drained, self.ended), return_when=asyncio.FIRST_COMPLETED)
        self._drained = None

    def notice_drained(self) -> None:
        """Let :meth:`drained` look again, if it waits."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    @property
    def traceparent(self) -> str | None:
        """The trace of the mutation that caused the event that was taken last; ``None``: it has none."""
        return traceparent_of(self.taken)

    def traced(self, handler: Callable[[T], object]) -> Callable[[T], object]:
        """Return a handler of the event that was taken last, with a span around it if that was traced."""
        return self.traced_by(handler, self.traceparent)

    def traced_by(self, handler: Callable[[T], object], traceparent: str | None) -> Callable[[T], object]:
        """Return a handler with a span around its next call, which belongs to a trace.

        It is the handler itself where there is no trace, or the tracer makes no span for this call.
        """
        if self.tracer is None or traceparent is None:
            return handler
        span = self.tracer.handling(self.stream.label, self.stream.id, traceparent)
        if span is None:
            return handler
        return traced_call(handler.callback if isinstance(handler, Timed) else handler, span)

    def take_value(self) -> T:
        """Take the oldest buffered event's value."""
        data = self.take().data
        return None if data is None else data.value  # type: ignore[return-value]  # as in `value_of`

    def next_value(self) -> T:
        """Take the oldest buffered event's value; what was taken before is done with: the hot path.

        :raises IndexError: none is buffered.
        """
        response = self.buffer.take()
        self.done, self.taken = self.taken or self.done, response.extensions
        if self.on_taken is not None:
            self.on_taken()
        data = response.data
        return None if data is None else data.value  # type: ignore[return-value]  # as in `value_of`

    def mark_handled(self) -> None:
        """Note that the consumer is done with what it took."""
        if self.taken is not None:
            self.done, self.taken = self.taken, None
            if self._drained is not None:
                self.notice_drained()

    @property
    def buffered(self) -> int:
        """The number of events that wait for a consumer."""
        return len(self.buffer)

    def end(self) -> None:
        """Note that the stream has ended: whatever waits looks again."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def wake(self) -> None:
        """Let a waiting consumer look again."""
        self.wake_at = NEVER
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def passes(self, value: T) -> bool:
        """Tell whether all filters let an event through; one that raises is reported, and lets it through."""
        for predicate in self.predicates:
            try:
                passes = predicate(value)
            except CALLBACK_ERRORS as error:  # as for handlers; an event is not lost over it
                self.handlers.report(predicate, error)
                continue
            if not passes:
                self.filtered += 1
                return False
        return True


def plain(handler: Callable[[T], object] | None) -> Callable[[T], object] | None:
    """Return a handler as it was attached; what has waited in the buffer says nothing of how late it is."""
    return handler.callback if isinstance(handler, Timed) else handler


def _cursor_of(extensions: Extensions | None) -> str | None:
    return None if extensions is None or extensions.resume is None else extensions.resume.cursor


def value_of(response: Response[T]) -> T:
    """Return a buffered event's value."""
    data = response.data
    return None if data is None else data.value  # type: ignore[return-value]  # buffered: None only if T allows it
