"""Handlers: in order, apart from each other, awaited where they are async, ended with their subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from circuit_breaker_sdk.config import BufferLimits
from circuit_breaker_sdk.delivery.filters import Custom
from circuit_breaker_sdk.delivery.subscription_state import SubscriptionState
from circuit_breaker_sdk.errors import (
    BufferOverflowError,
    CircuitBreakerError,
    ConnectionFailed,
    HandlerError,
    SubscriptionError,
    TransportError,
    UsageError,
)
from tests.delivery.deliveries import Rig

LOST = ConnectionFailed("gone")


class Gate:
    """An async handler that notes each event, then waits to be let on."""

    def __init__(self) -> None:
        self.began: list[int] = []
        self.done: list[int] = []
        self.open = asyncio.Event()
        self.entered = asyncio.Event()

    async def __call__(self, value: int) -> None:
        self.began.append(value)
        self.entered.set()
        await self.open.wait()
        self.done.append(value)


# Order -----------------------------------------------------------------------------------------------------


async def test_a_plain_handler_gets_what_is_buffered_then_each_event_at_once() -> None:
    rig, seen = Rig(), list[int]()
    rig.receive(1, 2)
    rig.delivery.consumer.handlers.add_data(seen.append)
    await asyncio.sleep(0)
    assert seen == [1, 2]
    rig.receive(3)
    assert seen == [1, 2, 3]
    assert rig.tasks == set()


@pytest.mark.parametrize("buffered", [True, False])
async def test_an_async_handler_gets_one_event_at_a_time_in_order(buffered: bool) -> None:
    rig, gate = Rig(), Gate()
    if buffered:
        rig.receive(1, 2)
    rig.delivery.consumer.handlers.add_data(gate)
    if not buffered:
        rig.receive(1, 2)
    rig.receive(3)
    await gate.entered.wait()
    assert (gate.began, gate.done, rig.delivery.consumer.buffered) == ([1], [], 2)
    gate.open.set()
    rig.receive(4)
    rig.delivery.completed()
    await rig.settled()
    assert gate.done == [1, 2, 3, 4]


@pytest.mark.parametrize("async_first", [True, False])
async def test_plain_and_async_handlers_side_by_side_all_see_the_same_order(async_first: bool) -> None:
    rig, seen = Rig(), list[tuple[str, int]]()

    async def slow(value: int) -> None:
        await asyncio.sleep(0)
        seen.append(("slow", value))

    handlers: list[Callable[[int], object]] = [slow, lambda value: seen.append(("plain", value))]
    for handler in handlers if async_first else reversed(handlers):
        rig.delivery.consumer.handlers.add_data(handler)
    rig.receive(1, 2, 3)
    rig.delivery.completed()
    await rig.settled()
    for kind in ("slow", "plain"):
        assert [value for name, value in seen if name == kind] == [1, 2, 3]
    assert rig.delivery.stats().handled == 3


async def test_events_behind_a_slow_handler_stay_within_the_buffers_bounds() -> None:
    rig, gate = Rig(limits=BufferLimits(max_events=2)), Gate()
    rig.delivery.consumer.handlers.add_data(gate)
    rig.receive(1, 2, 3, 4)
    assert isinstance(rig.delivery.error, BufferOverflowError)
    gate.open.set()
    await rig.settled()
    assert gate.done == [1, 2, 3]


async def test_any_awaitable_that_a_plain_function_returns_is_awaited() -> None:
    rig = Rig()
    future = asyncio.get_running_loop().create_future()
    seen: list[int] = []

    def handler(value: int) -> Awaitable[None]:
        seen.append(value)
        return future

    rig.delivery.consumer.handlers.add_data(handler)
    rig.receive(1, 2)
    await asyncio.sleep(0)
    assert seen == [1]
    future.set_result(None)
    rig.delivery.completed()
    await rig.settled()
    assert seen == [1, 2]


async def test_handlers_and_a_waiting_iterator_exclude_each_other() -> None:
    rig, seen = Rig(), list[int]()
    waiting = asyncio.create_task(rig.delivery.consumer.wait())
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="iterating"):
        rig.delivery.consumer.handlers.add_data(seen.append)
    assert not rig.delivery.consumer.handlers.has_data
    rig.receive(1)
    await waiting
    rig.delivery.consumer.handlers.add_data(seen.append)
    await asyncio.sleep(0)
    assert seen == [1]


# Handlers that raise ---------------------------------------------------------------------------------------


async def test_a_handler_that_raises_stops_neither_its_neighbours_nor_the_stream() -> None:
    rig, seen, errors = Rig(), list[int](), list[CircuitBreakerError]()

    def plain(value: int) -> None:
        raise ValueError(value)

    async def asynchronous(value: int) -> None:
        raise KeyError(value)

    for handler in (plain, asynchronous, seen.append):
        rig.delivery.consumer.handlers.add_data(handler)
    rig.delivery.consumer.handlers.add_error(errors.append)
    rig.receive(1, 2)
    rig.delivery.completed()
    await rig.settled()
    assert seen == [1, 2]
    assert [type(error.__cause__) for error in errors] == [ValueError, KeyError] * 2
    assert all(isinstance(error, HandlerError) for error in errors)
    assert "plain" in str(errors[0])
    assert rig.delivery.stats().handler_errors == 4
    assert rig.delivery.state is SubscriptionState.COMPLETED


async def test_what_a_handler_awaits_may_be_cancelled_without_ending_the_handlers() -> None:
    rig, seen, errors = Rig(), list[int](), list[CircuitBreakerError]()

    async def handler(value: int) -> None:
        seen.append(value)
        if value == 1:
            raise asyncio.CancelledError

    rig.delivery.consumer.handlers.add_data(handler)
    rig.delivery.consumer.handlers.add_error(errors.append)
    rig.receive(1, 2)
    rig.delivery.completed()
    await rig.settled()
    assert seen == [1, 2]
    assert [type(error.__cause__) for error in errors] == [asyncio.CancelledError]


@pytest.mark.parametrize(
    ("raised", "is_async"), [(ValueError(), False), (ValueError(), True), (asyncio.CancelledError(), True)]
)
async def test_an_error_handler_that_raises_is_not_called_about_itself(
    raised: BaseException, is_async: bool
) -> None:
    rig, calls = Rig(), list[object]()

    def plain(error: object) -> None:
        calls.append(error)
        raise raised

    async def asynchronous(error: object) -> None:
        plain(error)

    handler = asynchronous if is_async else plain
    rig.delivery.consumer.handlers.add_error(handler)
    rig.delivery.consumer.handlers.add_data(lambda _: 1 / 0)
    rig.receive(1)
    await rig.settled()
    rig.delivery.connection_lost(LOST)
    await rig.settled()
    assert [type(call) for call in calls] == [HandlerError, ConnectionFailed]
    assert rig.delivery.stats().handler_errors == 3


async def test_one_function_for_events_and_errors_that_raises_is_called_once_for_each() -> None:
    rig, calls = Rig(), list[object]()

    async def handler(argument: object) -> None:
        calls.append(argument)
        raise ValueError

    rig.delivery.consumer.handlers.add_error(handler)
    rig.delivery.consumer.handlers.add_data(handler)
    rig.receive(1)
    rig.delivery.completed()
    await rig.settled()
    assert len(calls) == 2
    assert (calls[0], type(calls[1])) == (1, HandlerError)


# The end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("completes", [True, False])
async def test_the_end_is_told_after_the_last_event_is_handled(completes: bool) -> None:
    rig, gate, told = Rig(), Gate(), list[object]()
    rig.delivery.consumer.handlers.add_data(gate)
    rig.delivery.consumer.handlers.add_error(told.append)
    rig.delivery.consumer.handlers.add_complete(lambda: told.append("complete"))
    rig.receive(1, 2)
    if completes:
        rig.delivery.completed()
    else:
        rig.delivery.connection_lost(LOST)
    await gate.entered.wait()
    assert told == []
    gate.open.set()
    await rig.settled()
    assert gate.done == [1, 2]
    assert told == ["complete" if completes else LOST]


async def test_a_handler_that_comes_after_the_end_is_told_at_once_what_concerns_it() -> None:
    completed, failed, told = Rig(), Rig(), list[object]()
    completed.delivery.completed()
    failed.delivery.connection_lost(LOST)
    for rig in (completed, failed):
        rig.delivery.consumer.handlers.add_complete(lambda: told.append("complete"))
        rig.delivery.consumer.handlers.add_error(told.append)
    assert told == ["complete", LOST]


async def test_unsubscribing_tells_nobody() -> None:
    rig, told = Rig(), list[object]()
    rig.delivery.consumer.handlers.add_error(told.append)
    rig.delivery.consumer.handlers.add_complete(lambda: told.append("complete"))
    rig.delivery.unsubscribe()
    assert told == []


async def test_async_handlers_of_errors_and_of_the_end_are_awaited_without_any_of_events() -> None:
    rig, told = Rig(), list[object]()

    async def on_error(error: CircuitBreakerError) -> None:
        await asyncio.sleep(0)
        told.append(type(error.__cause__))

    async def on_complete() -> None:
        await asyncio.sleep(0)
        told.append("complete")

    rig.delivery.consumer.add_filter(Custom(lambda _: 1 / 0))
    rig.delivery.consumer.handlers.add_error(on_error)
    rig.delivery.consumer.handlers.add_complete(on_complete)
    rig.receive(1)
    rig.delivery.completed()
    await rig.settled()
    assert told == [ZeroDivisionError, "complete"]
    assert rig.delivery.consumer.take_value() == 1


async def test_closing_cancels_the_handler_that_runs_and_calls_none_after() -> None:
    rig, gate, cancelled = Rig(), Gate(), list[int]()

    async def handler(value: int) -> None:
        try:
            await gate(value)
        except asyncio.CancelledError:
            cancelled.append(value)
            raise

    rig.delivery.consumer.handlers.add_data(handler)
    rig.receive(1, 2)
    await gate.entered.wait()
    await rig.aclose()
    assert (cancelled, gate.began, rig.tasks) == ([1], [1], set())


@pytest.mark.parametrize("running", [True, False])
async def test_closing_leaves_no_coroutine_unawaited(running: bool) -> None:
    # Warnings are errors: a coroutine that is never awaited warns when it is collected.
    rig, gate, other = Rig(), Gate(), Gate()
    rig.delivery.consumer.handlers.add_data(gate)
    rig.delivery.consumer.handlers.add_data(other)
    rig.receive(1, 2)
    if running:
        await gate.entered.wait()
    await rig.aclose()
    assert (gate.began, other.began) == ([1] if running else [], [])


async def test_a_handler_may_end_its_own_subscription() -> None:
    rig, seen = Rig(), list[int]()

    async def handler(value: int) -> None:
        seen.append(value)
        await rig.aclose()
        seen.append(-value)

    rig.delivery.consumer.handlers.add_data(handler)
    rig.receive(1, 2)
    await rig.settled()
    assert seen == [1, -1]
    assert rig.delivery.state is SubscriptionState.UNSUBSCRIBED


async def test_the_error_that_ended_it_is_told_apart_by_identity() -> None:
    rig, ending = Rig(), list[bool]()

    def on_error(error: CircuitBreakerError) -> None:
        ended_by: TransportError | SubscriptionError | None = rig.delivery.error
        ending.append(error is ended_by)

    rig.delivery.consumer.handlers.add_error(on_error)
    rig.delivery.consumer.handlers.add_data(lambda _: 1 / 0)
    rig.receive(1)
    rig.delivery.connection_lost(LOST)
    assert ending == [False, True]


async def test_what_cannot_be_called_is_no_handler() -> None:
    handlers = Rig().delivery.consumer.handlers
    for add in (handlers.add_data, handlers.add_error, handlers.add_complete):
        with pytest.raises(UsageError, match="a handler must be a function or a callable object, not None"):
            add(None)  # type: ignore[arg-type]  # that is the point
    assert not handlers.has_data
