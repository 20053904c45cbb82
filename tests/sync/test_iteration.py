"""A blocking iteration: every event once, in order; nothing lost by a timeout, and each end told as it is."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import pytest

from circuit_breaker_sdk import (
    BufferLimits,
    OverflowPolicy,
    SubscriptionFailed,
    SubscriptionState,
    SyncClient,
    UsageError,
)
from tests.sync.blocking_world import TICKS, world
from tests.waiting import PATIENCE_SECONDS


def test_events_come_once_and_in_order_over_many_batches() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        w.ticks(*range(1_000))
        assert [next(ticks) for _ in range(1_000)] == list(range(1_000))
        w.ticks(1_000)
        assert next(ticks) == 1_000


@pytest.mark.parametrize("overflow", OverflowPolicy)
def test_each_overflow_policy_hands_over_what_it_holds(overflow: OverflowPolicy) -> None:
    limits = BufferLimits(max_events=40, overflow=overflow)
    with world() as w, SyncClient(w.url) as client:
        ticks = client.subscribe(TICKS, type=int, buffer=limits)
        for start in range(0, 90, 30):
            w.ticks(*range(start, start + 30))
            assert [ticks.next(5) for _ in range(30)] == list(range(start, start + 30))


def test_a_timeout_loses_nothing() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        for number in range(5):
            for _ in range(3):
                with pytest.raises(TimeoutError, match="no event of"):
                    ticks.next(timeout=0.01)
            with pytest.raises(TimeoutError):
                ticks.next(timeout=0)
            w.ticks(number)
            assert ticks.next(timeout=PATIENCE_SECONDS) == number


def test_completion_ends_the_loop_after_the_last_event() -> None:
    with world() as w, SyncClient(w.url) as client:
        ticks = client.subscribe(TICKS, type=int)
        w.ticks(1, 2, 3)
        w.do(w.server.complete)
        assert list(ticks) == [1, 2, 3]
        assert list(ticks) == []
        assert ticks.state is SubscriptionState.COMPLETED
        ticks.wait_closed()


def test_what_ends_it_is_raised_after_the_last_event() -> None:
    with world() as w, SyncClient(w.url) as client:
        ticks = client.subscribe(TICKS, type=int)
        w.ticks(1, 2)
        w.do(w.server.fail, "no more")
        seen: list[int] = []
        with pytest.raises(SubscriptionFailed, match="no more") as failure:
            seen.extend(ticks)
        assert seen == [1, 2]
        assert ticks.error is failure.value
        with pytest.raises(SubscriptionFailed):
            next(ticks)


def test_a_refused_subscription_raises_where_it_is_made() -> None:
    with world() as w, SyncClient(w.url) as client:
        w.server.refuses = True
        with pytest.raises(Exception, match=r"4403|refused"):
            client.subscribe(TICKS, type=int)


def test_only_what_the_consumer_is_done_with_counts_as_handled() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        w.ticks(*range(100))
        assert ticks.cursor == "fake.0"
        for number in range(10):
            assert next(ticks) == number
        assert ticks.cursor == "fake.9", "the tenth is still in the caller's hands"
        assert ticks.stats().buffered_events == 90, "what was handed over and not taken still waits"
        assert next(ticks) == 10
        assert ticks.cursor == "fake.10"


@pytest.mark.parametrize("leave", ["break", "close", "drop", "error"])
def test_a_loop_left_in_the_middle_of_a_batch_goes_on_there_the_next_time(tmp_path: Path, leave: str) -> None:
    def run(stop_at: int) -> list[int]:
        seen = []
        with SyncClient(w.url, cursor_store=tmp_path / "cursors") as client:
            ticks = client.subscribe(TICKS, type=int, cursor_key="ticks", after="fake.0")
            if leave == "drop":
                for seen_last in ticks:
                    seen.append(seen_last)
                    if seen_last == stop_at:
                        break
                del ticks
                gc.collect()
                return seen
            try:
                for tick in ticks:
                    seen.append(tick)
                    if tick == stop_at and leave == "error":
                        raise ArithmeticError  # noqa: TRY301 (of the loop's body)
                    if tick == stop_at and leave == "close":
                        ticks.close()
                    elif tick == stop_at:
                        break
            except ArithmeticError:
                pass
        return seen

    with world() as w:
        w.ticks(*range(300))
        assert run(7) == list(range(8))
        assert run(280) == list(range(7, 281)), "the one in hand comes again, and none after it is missing"
        assert run(290) == list(range(280, 291))


def test_it_cannot_be_iterated_and_handled_at_once() -> None:
    with world() as w, SyncClient(w.url) as client:
        ticks = client.subscribe(TICKS, type=int)
        ticks.on_data(print)
        with pytest.raises(UsageError, match="has handlers"):
            next(ticks)


def test_a_second_thread_that_waits_is_refused() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(next(ticks)))
        thread.start()
        time.sleep(0.1)
        with pytest.raises(UsageError, match="another thread"):
            ticks.next(1)
        w.ticks(1)
        thread.join(PATIENCE_SECONDS)
        assert found == [1]


def test_a_cut_connection_resumes_without_loss() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        seen = []
        for number in range(20):
            w.ticks(number)
            if number % 5 == 0:
                w.do(w.server.drop)
            seen.append(ticks.next(PATIENCE_SECONDS))
        assert seen == list(range(20))
        assert client.metrics.connection_failures >= 1


def test_a_slow_reader_stops_the_stream_and_loses_nothing() -> None:
    limits = BufferLimits(max_events=16)
    with world() as w, SyncClient(w.url) as client:
        ticks = client.subscribe(TICKS, type=int, buffer=limits)
        w.ticks(*range(5_000))
        time.sleep(0.2)
        assert ticks.stats().buffered_events < 1_000, "the rest waits on its way"
        assert [ticks.next(PATIENCE_SECONDS) for _ in range(5_000)] == list(range(5_000))


def test_a_filter_keeps_back() -> None:
    with world() as w, SyncClient(w.url) as client:
        odd = client.subscribe(TICKS, type=int, filter=lambda tick: tick % 2)
        late = client.subscribe(TICKS, type=int).filter(lambda tick: tick > 5)
        w.ticks(*range(10))
        assert [odd.next(5) for _ in range(5)] == [1, 3, 5, 7, 9]
        assert [late.next(5) for _ in range(4)] == [6, 7, 8, 9]
