"""Blocking code acknowledges events: in any order, in any thread, and the stored cursor follows."""

from __future__ import annotations

import asyncio
import gc
import json
import queue
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from circuit_breaker_sdk import BufferLimits, OverflowPolicy, SubscriptionFailed, SyncClient, UsageError
from circuit_breaker_sdk.sync import SyncPendingEvent
from tests.sync.blocking_world import TICKS, World, world
from tests.sync.real_server import create, serving
from tests.waiting import PATIENCE_SECONDS


class SlowStore:
    """A store that can be held up, from the test's thread."""

    def __init__(self) -> None:
        self.saved: list[str] = []
        self.may_save = threading.Event()
        self.may_save.set()
        self.error: OSError | None = None

    async def load(self, _key: str) -> str | None:
        return self.saved[-1] if self.saved else None

    async def save(self, _key: str, cursor: str) -> None:
        await asyncio.to_thread(self.may_save.wait)
        if self.error is not None:
            raise self.error
        self.saved.append(cursor)


def take(events: Iterator[SyncPendingEvent[int]], number: int) -> list[SyncPendingEvent[int]]:
    return [next(events) for _ in range(number)]


def stored(path: Path) -> object:
    return json.loads(path.read_text())


# The real server and a real file ---------------------------------------------------------------------------


def test_a_restarted_program_goes_on_behind_the_last_event_that_all_before_are_acknowledged(
    tmp_path: Path,
) -> None:
    cursors = tmp_path / "cursors.json"
    with serving(tmp_path / "data") as url:
        with SyncClient(url, cursor_store=cursors) as client:
            workflow = create(client)
            updates = client.workflows.subscribe_resource_updates(workflow_id=workflow.id, cursor_key="audit")
            made = [client.workflows.create_resource(workflow_id=workflow.id).id for _ in range(5)]
            events = updates.acknowledged()
            one, two, three, four = [events.next(PATIENCE_SECONDS) for _ in range(4)]
            assert [event.value.id for event in (one, two, three, four)] == made[:4]
            begun = updates.cursor
            four.ack()
            two.ack()
            assert (two.is_acknowledged, one.is_acknowledged, updates.cursor) == (True, False, begun)
            one.ack()
            assert updates.cursor != begun
            assert stored(cursors) == {"audit": updates.cursor}, "it is stored when ack() returns"
        with SyncClient(url, cursor_store=cursors) as client:
            updates = client.workflows.subscribe_resource_updates(workflow_id=workflow.id, cursor_key="audit")
            events = updates.acknowledged()
            again = [events.next(PATIENCE_SECONDS) for _ in range(3)]
            assert [event.value.id for event in again] == made[2:], "the fourth as well: the third was not"
            for event in again:
                event.ack()
        with SyncClient(url, cursor_store=cursors) as client:
            updates = client.workflows.subscribe_resource_updates(workflow_id=workflow.id, cursor_key="audit")
            last = client.workflows.create_resource(workflow_id=workflow.id)
            assert updates.acknowledged().next(PATIENCE_SECONDS).value.id == last.id


def test_threads_acknowledge_what_one_thread_takes(tmp_path: Path) -> None:
    cursors = tmp_path / "cursors.json"
    with serving(tmp_path / "data") as url, SyncClient(url, cursor_store=cursors) as client:
        workflow = create(client)
        with (
            client.workflows.subscribe_resource_updates(workflow_id=workflow.id, cursor_key="k") as updates,
            ThreadPoolExecutor(4) as workers,
        ):
            made = [client.workflows.create_resource(workflow_id=workflow.id).id for _ in range(40)]
            seen, acks = [], []
            for event in updates.acknowledged(max_pending=7):
                seen.append(event.value.id)
                acks.append(workers.submit(event.ack))
                if len(seen) == len(made):
                    break
            for ack in acks:
                ack.result(PATIENCE_SECONDS)
            assert seen == made
            assert updates.stats().handled == len(made)
            assert stored(cursors) == {"k": updates.cursor}


# Taking ----------------------------------------------------------------------------------------------------


def test_events_come_once_and_in_order_over_many_hops() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        w.ticks(*range(1_000))
        events = take(ticks.acknowledged(), 1_000)
        assert [event.value for event in events] == list(range(1_000))
        assert ticks.cursor == "fake.0"
        for event in reversed(events):
            event.ack()
        assert ticks.cursor == "fake.1000"


@pytest.mark.parametrize("overflow", OverflowPolicy)
def test_each_overflow_policy_hands_over_what_it_holds(overflow: OverflowPolicy) -> None:
    limits = BufferLimits(max_events=40, overflow=overflow)
    with world() as w, SyncClient(w.url) as client:
        ticks = client.subscribe(TICKS, type=int, buffer=limits)
        for start in range(0, 90, 30):
            w.ticks(*range(start, start + 30))
            events = take(ticks.acknowledged(), 30)
            assert [event.value for event in events] == list(range(start, start + 30))
            for event in events:
                event.ack()
            assert ticks.cursor == f"fake.{start + 30}"


def test_a_timeout_loses_nothing() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        events = ticks.acknowledged()
        for number in range(5):
            for seconds in (0.01, 0):
                with pytest.raises(TimeoutError, match="no event of"):
                    events.next(timeout=seconds)
            w.ticks(number)
            event = events.next(timeout=PATIENCE_SECONDS)
            assert event.value == number
            event.ack()
            assert ticks.cursor == f"fake.{number + 1}"


def test_so_many_may_be_pending_and_the_others_wait() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        w.ticks(*range(5))
        events = ticks.acknowledged(max_pending=2)
        one, two = take(events, 2)
        two.ack()  # one is before it
        with pytest.raises(TimeoutError):
            events.next(0.05)
        assert ticks.acknowledged(max_pending=3).next(PATIENCE_SECONDS).value == 2, "another has more room"
        later = threading.Timer(0.05, one.ack)
        later.start()
        assert events.next(PATIENCE_SECONDS).value == 3
        later.join()


def test_a_loop_that_is_left_goes_on_there_the_next_time() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        w.ticks(*range(10))
        for event in ticks.acknowledged():
            if event.value == 3:
                break
        assert ticks.stats().handled == 0
        assert ticks.stats().buffered_events == 6, "what was handed over and not taken still waits"
        for event in ticks.acknowledged(max_pending=100):
            assert event.value == 4
            break


def test_other_ways_to_take_events_are_refused_while_some_are_pending() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        w.ticks(*range(4))
        assert next(ticks) == 0
        event = next(ticks.acknowledged())
        assert (event.value, ticks.cursor) == (1, "fake.1"), "the one before is handled"
        for take_otherwise in (lambda: next(ticks), lambda: ticks.next(1), lambda: ticks.on_data(print)):
            with pytest.raises(UsageError, match="1 events of subscription are not acknowledged yet"):
                take_otherwise()
        event.ack()
        assert next(ticks) == 2
        seen: queue.SimpleQueue[int] = queue.SimpleQueue()
        ticks.on_data(seen.put)
        assert seen.get(timeout=PATIENCE_SECONDS) == 3


def test_ways_to_take_events_follow_each_other_when_a_wait_has_timed_out() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        for number in range(0, 6, 2):
            with pytest.raises(TimeoutError):
                ticks.next(0.01)
            with pytest.raises(TimeoutError):
                ticks.acknowledged().next(0.01)
            with pytest.raises(TimeoutError):
                ticks.next(0)
            w.ticks(number)
            event = ticks.acknowledged().next(PATIENCE_SECONDS)
            assert event.value == number
            event.ack()
            w.ticks(number + 1)
            assert ticks.next(PATIENCE_SECONDS) == number + 1
            assert ticks.cursor == f"fake.{number + 1}", "the one in hand is not handled yet"


def test_it_cannot_be_iterated_beside_handlers_or_without_room() -> None:
    with world() as w, SyncClient(w.url) as client:
        ticks = client.subscribe(TICKS, type=int)
        with pytest.raises(UsageError, match="max_pending"):
            ticks.acknowledged(max_pending=0)
        ticks.on_data(print)
        with pytest.raises(UsageError, match="handlers"):
            next(ticks.acknowledged())


def test_one_thread_takes_at_a_time() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        found: list[int] = []
        begun = threading.Event()

        def follow() -> None:
            begun.set()
            found.append(next(ticks.acknowledged()).value)

        thread = threading.Thread(target=follow)
        thread.start()
        assert begun.wait(PATIENCE_SECONDS)
        until_refused(lambda: ticks.acknowledged().next(0.01))
        w.ticks(1)
        thread.join(PATIENCE_SECONDS)
        assert found == [1]


def until_refused(take_one: object) -> None:
    """Take in this thread until the other one has begun to wait, which refuses it."""
    assert callable(take_one)
    for _ in range(1_000):
        try:
            take_one()
        except TimeoutError:
            continue
        except UsageError as error:
            assert "another thread" in str(error)  # noqa: PT017 (the other end is a timeout)
            return
    raise AssertionError("it was never refused")


# The end ---------------------------------------------------------------------------------------------------


def end(w: World, way: str) -> None:
    if way == "fail":
        w.do(w.server.fail, "no more")
    else:
        w.do(w.server.complete)


@pytest.mark.parametrize("way", ["fail", "complete"])
def test_at_the_end_all_that_waits_is_handed_out_and_then_it_is_told(way: str) -> None:
    with world() as w, SyncClient(w.url) as client:
        ticks = client.subscribe(TICKS, type=int)
        w.ticks(1, 2, 3)
        events = ticks.acknowledged(max_pending=1)
        pending = [next(events)]
        end(w, way)
        pending += take(events, 2)
        with pytest.raises(SubscriptionFailed if way == "fail" else StopIteration):
            next(events)
        for event in pending:
            event.ack()
        assert [event.value for event in pending] == [1, 2, 3]
        assert ticks.cursor == "fake.3"


def test_closing_the_subscription_ends_the_iteration_and_events_can_be_acknowledged_after_it(
    tmp_path: Path,
) -> None:
    cursors = tmp_path / "cursors.json"
    with world() as w, SyncClient(w.url, cursor_store=cursors) as client:
        ticks = client.subscribe(TICKS, type=int, cursor_key="k")
        w.ticks(1, 2, 3)
        taken = take(ticks.acknowledged(), 2)
        ticks.close()
        assert list(ticks.acknowledged()) == []
        for event in taken:
            event.ack()
        assert stored(cursors) == {"k": "fake.2"}


def test_after_the_client_is_closed_an_event_cannot_be_acknowledged_and_comes_again(tmp_path: Path) -> None:
    with world() as w:
        with SyncClient(w.url, cursor_store=tmp_path / "cursors") as client:
            ticks = client.subscribe(TICKS, type=int, cursor_key="k")
            w.ticks(1, 2)
            one, two = take(ticks.acknowledged(), 2)
            one.ack()
        assert list(ticks.acknowledged()) == []
        with pytest.raises(UsageError, match="closed"):
            two.ack()
        assert not two.is_acknowledged
        with SyncClient(w.url, cursor_store=tmp_path / "cursors") as client:
            assert next(client.subscribe(TICKS, type=int, cursor_key="k").acknowledged()).value == 2


def test_an_iterator_and_its_events_need_no_other_reference() -> None:
    with world() as w:
        events = SyncClient(w.url).subscribe(TICKS, type=int).acknowledged()
        gc.collect()
        w.ticks(1)
        event = next(events)
        del events
        gc.collect()
        event.ack()
        assert event.is_acknowledged


# The store -------------------------------------------------------------------------------------------------


def test_a_wait_for_the_store_that_times_out_takes_nothing_back() -> None:
    store = SlowStore()
    with world() as w, SyncClient(w.url, cursor_store=store) as client:
        ticks = client.subscribe(TICKS, type=int, cursor_key="k")
        w.ticks(1, 2)
        one, two = take(ticks.acknowledged(), 2)
        one.ack(timeout=PATIENCE_SECONDS)
        assert store.saved[-1] == "fake.1"
        store.may_save.clear()
        for seconds in (0.01, 0):
            with pytest.raises(TimeoutError, match="its cursor is not stored yet"):
                two.ack(timeout=seconds)
        assert (ticks.cursor, two.is_acknowledged) == ("fake.2", True)
        store.may_save.set()
        two.ack()
        assert store.saved[-1] == "fake.2"


def test_no_cursor_is_stored_before_all_events_up_to_it_are_acknowledged() -> None:
    acknowledged: set[int] = set()
    early: list[str] = []

    class Store(SlowStore):
        async def save(self, key: str, cursor: str) -> None:
            until = int(cursor.removeprefix("fake."))
            if not acknowledged.issuperset(range(until)):
                early.append(cursor)
            await super().save(key, cursor)

    def acknowledge(events: list[SyncPendingEvent[int]]) -> None:
        for event in random.Random(events[0].value).sample(events, len(events)):  # noqa: S311 (any order does)
            acknowledged.add(event.value)
            event.ack()

    store = Store()
    with world() as w, ThreadPoolExecutor(8) as workers, SyncClient(w.url, cursor_store=store) as client:
        ticks = client.subscribe(TICKS, type=int, cursor_key="k")
        w.ticks(*range(600))
        events = ticks.acknowledged(max_pending=450)
        running = []
        for start in range(0, 600, 50):
            taken = take(events, 50)
            assert [event.value for event in taken] == list(range(start, start + 50))
            running.append(workers.submit(acknowledge, taken))
        for each in running:
            each.result(PATIENCE_SECONDS)
        assert (early, store.saved[-1], ticks.cursor) == ([], "fake.600", "fake.600")


def test_a_store_that_fails_is_told_and_tried_again() -> None:
    store = SlowStore()
    with world() as w:
        with SyncClient(w.url, cursor_store=store) as client:
            ticks = client.subscribe(TICKS, type=int, cursor_key="k")
            w.ticks(1)
            event = next(ticks.acknowledged())
            store.error = OSError("no room")
            with pytest.raises(OSError, match="no room"):
                event.ack()
            assert event.is_acknowledged
            store.error = None
        assert store.saved[-1] == "fake.1"


def test_a_client_that_is_dropped_with_pending_events_ends_its_threads() -> None:
    with world() as w:
        before = set(threading.enumerate())
        client = SyncClient(w.url)
        ticks = client.subscribe(TICKS, type=int)
        w.ticks(*range(10))
        events = take(ticks.acknowledged(), 3)
        threads = set(threading.enumerate()) - before
        assert threads
        del client, ticks, events
        gc.collect()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
