"""What an application holds: iteration, batches, the end, and what is left when nobody holds it."""

from __future__ import annotations

import asyncio
import gc

import pytest

from circuit_breaker_sdk.errors import ConnectionFailed, UsageError
from circuit_breaker_sdk.subscriptions import Subscription, SubscriptionState
from tests.delivery.deliveries import Rig

LOST = ConnectionFailed("gone")


async def test_iteration_hands_out_all_that_came_before_the_end_then_what_ended_it() -> None:
    completed, failed = Rig(), Rig()
    one, two = Subscription(completed.delivery), Subscription(failed.delivery)
    completed.receive(1, 2)
    failed.receive(1, 2)
    completed.delivery.completed()
    failed.delivery.connection_lost(LOST)
    assert [event async for event in one] == [1, 2]
    assert [await anext(two), await anext(two)] == [1, 2]
    with pytest.raises(ConnectionFailed) as caught:
        await anext(two)
    assert caught.value is two.error is LOST
    with pytest.raises(ConnectionFailed):
        await two.wait_closed()
    await one.wait_closed()


async def test_cancelling_the_iterator_loses_no_event() -> None:
    rig = Rig()
    ticks = Subscription(rig.delivery)
    waiting = asyncio.create_task(anext(ticks))
    await asyncio.sleep(0)
    rig.receive(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await anext(ticks) == 1


async def test_the_cursor_is_behind_the_last_event_whose_successor_was_asked_for() -> None:
    rig = Rig(resume=True)
    ticks = Subscription(rig.delivery)
    rig.delivery.positioned("c0")
    rig.receive_chain("c1", "c2", "c3", prev="c0")
    cursors = [ticks.cursor]
    for _ in range(2):
        await anext(ticks)
        cursors.append(ticks.cursor)
    assert cursors == ["c0", "c0", "c1"]
    assert await anext(ticks.batches(max_events=5, max_wait_seconds=0)) == [0]
    assert ticks.cursor == "c2"


async def test_a_batch_is_full_or_what_there_is_at_the_end() -> None:
    rig = Rig()
    ticks = Subscription(rig.delivery)
    rig.receive(1, 2, 3)
    rig.delivery.completed()
    assert [batch async for batch in ticks.batches(max_events=2, max_wait_seconds=60)] == [[1, 2], [3]]
    for max_events, seconds in ((0, 1.0), (1, -1.0)):
        with pytest.raises(UsageError):
            ticks.batches(max_events=max_events, max_wait_seconds=seconds)


async def test_one_with_handlers_cannot_be_iterated() -> None:
    rig = Rig()
    ticks = Subscription(rig.delivery).on_data(lambda _: None)
    rig.receive(1)
    with pytest.raises(UsageError, match="handlers"):
        await anext(ticks)


async def test_leaving_the_block_ends_it_and_the_iterator() -> None:
    rig = Rig()
    async with Subscription(rig.delivery) as ticks:
        rig.receive(1)
    assert ticks.state is SubscriptionState.UNSUBSCRIBED
    assert [event async for event in ticks] == []
    assert repr(ticks) == "<Subscription 00000001 ticks unsubscribed>"


async def test_dropping_the_last_reference_ends_it_unless_a_handler_was_attached() -> None:
    dropped, handled = Rig(), Rig()
    Subscription(dropped.delivery)
    Subscription(handled.delivery).on_data(lambda _: None)
    gc.collect()
    await asyncio.sleep(0)
    assert (dropped.delivery.state, handled.delivery.state) == ("unsubscribed", "starting")
    assert (dropped.ends, handled.ends) == (1, 0)
