"""Handlers of a subscription: called in order, isolated from each other, awaited where they are async."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar, final

from circuit_breaker_sdk.callbacks import (
    CALLBACK_ERRORS,
    background_task,
    callback_name,
    in_own_context,
)
from circuit_breaker_sdk.delivery.handler_interfaces import EventSource
from circuit_breaker_sdk.delivery.subscription_state import SubscriptionState
from circuit_breaker_sdk.errors import CircuitBreakerError, HandlerError, UsageError
from circuit_breaker_sdk.observability import log

__all__ = ["Handlers"]

T = TypeVar("T")


class _Pending(NamedTuple):
    """A call of a handler that has to be awaited."""

    handler: object
    awaitable: Awaitable[object]
    report: Callable[[object, BaseException], None]
    cursor: str | None


class _Awaitables(list[tuple[object, Awaitable[object]]]):
    """Awaitables returned by several handlers that were called as one."""


@final
class Handlers(Generic[T]):
    """The handlers of one subscription.

    Plain handlers run inside the read callback, one event after the other. As soon as one returns an
    awaitable, events go through the buffer instead, and one task (the pump) calls all handlers in order and
    awaits them: an event at a time, so order is kept and the buffer's bounds hold.

    :ivar errors: how often a handler raised.
    :ivar has_data: events go to handlers: it cannot be iterated then, and lives without a reference.
    """

    __slots__ = (
        "_async",
        "_complete",
        "_data",
        "_end_told",
        "_error",
        "_is_settling",
        "_pending",
        "_pump",
        "_source",
        "_state",
        "_tasks",
        "_told",
        "errors",
        "has_data",
    )

    def __init__(self, source: EventSource[T], tasks: set[asyncio.Task[None]]) -> None:
        self.errors: int = 0
        self.has_data: bool = False
        self._source = source
        self._tasks = tasks
        # Tuples and nothing: most subscriptions have one handler, and there may be a hundred thousand.
        self._data: tuple[Callable[[T], object], ...] = ()
        self._error: tuple[Callable[[CircuitBreakerError], object], ...] = ()
        self._complete: tuple[Callable[[], object], ...] = ()
        self._state: tuple[Callable[[SubscriptionState], object], ...] = ()
        self._async = False
        self._pending: deque[_Pending] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._end_told = False
        self._is_settling = False
        # How many of the handlers of the end know it.
        self._told = 0

    @property
    def is_busy(self) -> bool:
        """Whether a handler is being awaited."""
        return bool(self._pending) or self._is_settling

    @property
    def pump(self) -> asyncio.Task[None] | None:
        """The task that awaits handlers, while there is one."""
        return self._pump if self._pump is not None and not self._pump.done() else None

    def add_data(self, handler: Callable[[T], object]) -> None:
        """Add a handler of events; what is buffered goes to the first one at once."""
        _check_callable(handler)
        handler = in_own_context(handler)
        before = self._data
        self._data, self.has_data = (*before, handler), True
        if not self._async:
            try:
                self._source.set_inline(self._call_all if before else handler)
            except BaseException:
                self._data, self.has_data = before, bool(before)
                raise

    def add_error(self, handler: Callable[[CircuitBreakerError], object]) -> None:
        """Add a handler of errors; if the subscription has failed already it is called at once."""
        _check_callable(handler)
        handler = in_own_context(handler)
        self._error = (*self._error, handler)
        if self._end_told:
            self._tell_end()

    def add_complete(self, handler: Callable[[], object]) -> None:
        """Add a handler of the end; if the stream has ended already it is called at once."""
        _check_callable(handler)
        handler = in_own_context(handler)
        self._complete = (*self._complete, handler)
        if self._end_told:
            self._tell_end()

    def add_state(self, handler: Callable[[SubscriptionState], object]) -> None:
        """Add a handler of changes of the state."""
        _check_callable(handler)
        self._state = (*self._state, in_own_context(handler))

    def call(self, handler: Callable[[T], object], value: T, cursor: str | None) -> bool:
        """Call a handler here and now; ``False`` if it turned out to be async and is awaited elsewhere."""
        try:
            result = handler(value)
        except CALLBACK_ERRORS as error:
            self.report(handler, error)
            return True
        return result is None or not self.take_awaitable(handler, result, cursor)

    def take_awaitable(self, handler: object, result: object, cursor: str | None) -> bool:
        """Take what a plain call of a handler returned; ``True`` if it has to be awaited.

        From now on events go through the buffer; ``cursor`` is handled once the awaitable is done.
        """
        if isinstance(result, _Awaitables):
            calls = result
        elif inspect.isawaitable(result):
            calls = _Awaitables([(handler, result)])
        else:
            return False
        self._async = True
        self._source.set_inline(None)
        for i, (called, awaitable) in enumerate(calls, start=1):
            # The event is handled when the last of them is done.
            self._await_later(_Pending(called, awaitable, self.report, cursor if i == len(calls) else None))
        return True

    def report(self, handler: object, error: BaseException) -> None:
        """Report that a handler raised."""
        self.errors += 1
        self.report_error(HandlerError(self._source.stream.id, callback_name(handler), error))

    def report_error(self, error: CircuitBreakerError) -> None:
        """Report an error that ends nothing."""
        stream = self._source.stream
        stream.last_error = error
        log(
            logging.WARNING,
            "subscription error",
            subscription_id=stream.id,
            operation=stream.label,
            error=error,
        )
        for handler in self._error:
            self._observe(handler, error)

    def report_state(self, state: SubscriptionState) -> None:
        """Report that the state has changed; a handler that raises is reported as an error."""
        for handler in self._state:
            self._guarded(handler, self.report, state)

    def end(self) -> None:
        """Tell the handlers of errors or of the end, once all events are handled."""
        if self._async:
            self._start_pump()
        if self.pump is not None:
            self._source.wake()
        else:
            self._tell_end()

    async def aclose(self) -> None:
        """Stop awaiting handlers: one that is running is cancelled, unless it is the caller itself."""
        pump = self.pump
        if pump is not None and pump is not asyncio.current_task():
            pump.cancel()
            await asyncio.wait((pump,))

    # -------------------------------------------------------------------------------------------------------

    def _call_all(self, value: T) -> object:
        """Call several handlers as one, each isolated; return what is to be awaited."""
        awaitables = _Awaitables()
        for handler in self._data:
            try:
                result = handler(value)
            except CALLBACK_ERRORS as error:
                self.report(handler, error)
            else:
                if inspect.isawaitable(result):
                    awaitables.append((handler, result))
        return awaitables or None

    def _observe(self, handler: Callable[[CircuitBreakerError], object], error: CircuitBreakerError) -> None:
        """Call a handler of errors; if it raises, that is the last error: no handler is called for it."""
        self._guarded(handler, self._note_raised, error)

    def _complete_one(self, handler: Callable[[], object]) -> None:
        """Call a handler of the end; if it raises, the handlers of errors are called."""
        self._guarded(handler, self.report)

    def _guarded(
        self,
        handler: Callable[..., object],
        report: Callable[[object, BaseException], None],
        *arguments: object,
    ) -> None:
        try:
            result = handler(*arguments)
        except CALLBACK_ERRORS as error:
            report(handler, error)
        else:
            if inspect.isawaitable(result):
                self._await_later(_Pending(handler, result, report, None))

    def _note_raised(self, handler: object, error: BaseException) -> None:
        self.errors += 1
        self._source.stream.last_error = HandlerError(self._source.stream.id, callback_name(handler), error)
        log(
            logging.ERROR,
            "handler raised",
            subscription_id=self._source.stream.id,
            handler=callback_name(handler),
            error=repr(error),
        )

    def _await_later(self, pending: _Pending) -> None:
        if self._pending is None:
            self._pending = deque()
        self._pending.append(pending)
        self._start_pump()
        self._source.wake()

    def _start_pump(self) -> None:
        if self.pump is None:
            self._pump = pump = background_task(self._run(), name=f"circuit-breaker-{self._source.stream.id}")
            # Owned by the manager: its `aclose` awaits what is still running.
            self._tasks.add(pump)
            pump.add_done_callback(self._pump_ended)

    def _pump_ended(self, pump: asyncio.Task[None]) -> None:
        self._tasks.discard(pump)
        # Not in the task itself: one that is cancelled before its first turn runs nothing of its own.
        if self._pump is pump and self._pending:
            for pending in self._pending:
                close = getattr(pending.awaitable, "close", None)
                if close is not None:
                    close()
            self._pending = None

    async def _run(self) -> None:
        source = self._source
        while True:
            if self._pending:
                handler, awaitable, report, cursor = self._pending.popleft()
                self._is_settling = True
                try:
                    await self._settle(handler, awaitable, report)
                finally:
                    self._is_settling = False
                source.handled = cursor or source.handled
                source.notice_drained()
            elif self._async and source.buffered:
                value, latency = source.take_value(), source.latency
                for on_data in self._data:
                    began = time.perf_counter()
                    await self._call_and_settle(source.traced(on_data), value)
                    if latency is not None:
                        latency.handled(source.stream, on_data, time.perf_counter() - began)
                source.mark_handled()
            elif self._source.stream.state.is_end and not self._end_told:
                self._tell_end()
            elif self._source.stream.state.is_end or not self._async:
                return
            else:
                await source.wait_once()

    async def _call_and_settle(self, handler: Callable[[T], object], value: T) -> None:
        try:
            result = handler(value)
        except CALLBACK_ERRORS as error:
            self.report(handler, error)
        else:
            if inspect.isawaitable(result):
                await self._settle(handler, result, self.report)

    async def _settle(
        self, handler: object, awaitable: Awaitable[object], report: Callable[[object, BaseException], None]
    ) -> None:
        try:
            await awaitable
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled us: what the handler awaited was cancelled, which is its own affair.
            report(handler, error)
        except Exception as error:  # noqa: BLE001 (a handler may raise anything; it ends nothing)
            report(handler, error)

    def _tell_end(self) -> None:
        """Tell the end to the handlers that do not know it yet, once all events are handled."""
        source = self._source
        if source.is_handing_over:
            return  # this is called again when that is done
        self._end_told = True
        if self._source.stream.state is SubscriptionState.COMPLETED:
            complete, self._told = self._complete[self._told :], len(self._complete)
            for handler in complete:
                self._complete_one(handler)
        elif self._source.stream.error is not None:
            failed, self._told = self._error[self._told :], len(self._error)
            for on_error in failed:
                self._observe(on_error, self._source.stream.error)


def _check_callable(handler: object) -> None:
    if not callable(handler):
        raise UsageError(f"a handler must be a function or a callable object, not {handler!r}")
