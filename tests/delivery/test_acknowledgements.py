"""Events that count as handled when they are acknowledged."""

from __future__ import annotations

import asyncio

import pytest

from circuit_breaker_sdk.errors import ConnectionFailed, UsageError
from circuit_breaker_sdk.recovery.cursor_store import CursorKeeper
from circuit_breaker_sdk.subscriptions import Subscription
from tests.delivery.deliveries import Rig


class Store:
    """A store that can be held up, and can fail."""

    def __init__(self) -> None:
        self.saved: list[str] = []
        self.may_save = asyncio.Event()
        self.may_save.set()
        self.error: OSError | None = None

    async def load(self, _key: str) -> str | None:
        return None

    async def save(self, _key: str, cursor: str) -> None:
        await self.may_save.wait()
        if self.error is not None:
            raise self.error
        self.saved.append(cursor)


def begun(*cursors: str) -> tuple[Rig, Subscription[int]]:
    rig = Rig(resume=True)
    rig.delivery.positioned("c0")
    rig.receive_chain(*cursors, prev="c0")
    return rig, Subscription(rig.delivery)


async def test_the_cursor_goes_on_as_far_as_all_before_are_acknowledged() -> None:
    _, ticks = begun("c1", "c2", "c3", "c4")
    events = ticks.acknowledged()
    one, two, three = [await anext(events) for _ in range(3)]
    assert ticks.cursor == "c0"
    await two.ack()
    assert (ticks.cursor, two.is_acknowledged, one.is_acknowledged) == ("c0", True, False)
    await one.ack()
    assert ticks.cursor == "c2"
    four = await anext(events)
    assert ticks.cursor == "c2"
    await four.ack()
    assert ticks.cursor == "c2"
    await three.ack()
    await three.ack()
    assert ticks.cursor == "c4"
    assert ticks.stats().handled == 4


async def test_events_that_are_not_acknowledged_are_not_handled() -> None:
    rig, ticks = begun("c1", "c2", "c3")
    event = await anext(ticks.acknowledged())
    assert ticks.stats().handled == 0
    drained = asyncio.create_task(rig.delivery.consumer.drained())
    for other in [await anext(ticks.acknowledged()) for _ in range(2)]:
        await other.ack()
    await asyncio.sleep(0)
    assert not drained.done()
    await event.ack()
    await drained
    assert ticks.stats().handled == 3


async def test_so_many_may_be_pending_and_the_others_wait() -> None:
    _, ticks = begun("c1", "c2", "c3")
    events = ticks.acknowledged(max_pending=2)
    one, two = await anext(events), await anext(events)
    three = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    await two.ack()  # one is before it
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not three.done()
    await one.ack()
    assert (await three).is_acknowledged is False
    cancelled = asyncio.ensure_future(anext(ticks.acknowledged(max_pending=1)))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_at_the_end_what_waits_is_handed_out_and_then_what_ended_it_is_raised() -> None:
    rig, ticks = begun("c1", "c2")
    events = ticks.acknowledged(max_pending=1)
    one = await anext(events)
    second = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    rig.delivery.connection_lost(ConnectionFailed("gone"))
    two = await second
    with pytest.raises(ConnectionFailed):
        await anext(events)
    await two.ack()
    await one.ack()
    assert ticks.cursor == "c2"


async def test_other_ways_to_take_events_are_refused_while_some_are_pending() -> None:
    _, ticks = begun("c1", "c2")
    event = await anext(ticks.acknowledged())
    message = r"1 events of ticks are not acknowledged yet"
    with pytest.raises(UsageError, match=message):
        aiter(ticks)
    with pytest.raises(UsageError, match=message):
        ticks.batches()
    with pytest.raises(UsageError, match=message):
        ticks.windows(60)
    with pytest.raises(UsageError, match=message):
        ticks.on_data(print)
    await event.ack()
    async for _ in ticks:
        assert ticks.cursor == "c1"
        break


async def test_an_acknowledgement_on_another_loop_is_refused_and_changes_nothing() -> None:
    _, ticks = begun("c1")
    event = await anext(ticks.acknowledged())
    with pytest.raises(UsageError, match="make one for each loop"):
        await asyncio.to_thread(lambda: asyncio.run(event.ack()))
    assert (event.is_acknowledged, ticks.cursor) == (False, "c0")


async def test_it_cannot_be_iterated_beside_handlers_or_without_room() -> None:
    _, ticks = begun()
    with pytest.raises(UsageError, match="max_pending"):
        ticks.acknowledged(max_pending=0)
    ticks.on_data(print)
    with pytest.raises(UsageError, match="handlers"):
        await anext(ticks.acknowledged())


async def test_an_acknowledgement_returns_when_the_cursor_is_saved_and_many_share_one_write() -> None:
    rig, ticks = begun("c1", "c2", "c3", "c4")
    store = Store()
    keeper = CursorKeeper(store)
    keeper.keep("k", rig.delivery)
    events = [await anext(ticks.acknowledged()) for _ in range(4)]
    await events[0].ack()
    assert store.saved == ["c1"]
    store.may_save.clear()
    acks = [asyncio.create_task(event.ack()) for event in events[1:]]  # the first is written alone
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(ack.done() for ack in acks)
    store.may_save.set()
    await asyncio.gather(*acks)
    assert store.saved == ["c1", "c2", "c4"]
    await keeper.aclose()


async def test_a_store_that_fails_is_told_and_tried_again() -> None:
    rig, ticks = begun("c1")
    store = Store()
    keeper = CursorKeeper(store)
    keeper.keep("k", rig.delivery)
    event = await anext(ticks.acknowledged())
    store.error = OSError("no room")
    with pytest.raises(OSError, match="no room"):
        await event.ack()
    assert event.is_acknowledged
    assert ticks.cursor == "c1"
    store.error = None
    await keeper.aclose()
    assert store.saved == ["c1"]


async def test_an_event_that_is_acknowledged_after_the_end_is_saved() -> None:
    rig, ticks = begun("c1")
    store = Store()
    keeper = CursorKeeper(store)
    keeper.keep("k", rig.delivery)
    event = await anext(ticks.acknowledged())
    await ticks.unsubscribe()
    await keeper.aclose()
    assert store.saved == ["c0"]
    await event.ack()
    assert store.saved == ["c0", "c1"]
