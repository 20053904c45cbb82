"""Windows of event time: every event in exactly one window, or counted as late."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_sdk import (
    Client,
    ConnectionFailed,
    EventAggregator,
    SubscriptionError,
    TransportError,
    UsageError,
    Window,
)
from circuit_breaker_sdk.streams import Windows
from circuit_breaker_server import Server, ServerSettings
from tests.integration.workflows import create_review_workflow

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Tick(msgspec.Struct, frozen=True):
    timestamp: datetime
    amount: int = 1


def tick(seconds: float, amount: int = 1) -> Tick:
    return Tick(EPOCH + timedelta(seconds=seconds), amount)


def total(value: int, event: Tick) -> int:
    return value + event.amount


def seconds_of(window: Window[Tick]) -> tuple[float, float]:
    return (window.start - EPOCH).total_seconds(), (window.end - EPOCH).total_seconds()


@given(
    st.lists(st.integers(-50, 50), max_size=40),
    st.integers(1, 20),
    st.integers(0, 30),
    st.integers(1, 5),
)
def test_every_event_is_in_one_window_or_late_and_windows_come_once_in_order(
    moments: list[int], size: int, lateness: int, max_open: int
) -> None:
    aggregator: EventAggregator[Tick] = EventAggregator(
        size, allowed_lateness=lateness, keep_events=True, max_open_windows=max_open
    )
    windows = []
    for moment in moments:
        windows += aggregator.add(tick(moment))
        assert aggregator.open_windows <= max_open
    windows += aggregator.flush()
    assert aggregator.open_windows == 0
    starts = [window.start for window in windows]
    assert starts == sorted(set(starts))
    assert sum(window.count for window in windows) + aggregator.late == len(moments)
    for window in windows:
        assert len(window.events) == window.count > 0
        start, end = seconds_of(window)
        assert (start % size, end - start) == (0, size)
        assert all(window.start <= event.timestamp < window.end for event in window.events)


@given(st.lists(st.integers(0, 200), max_size=40))
def test_events_within_the_allowed_lateness_are_never_late(moments: list[int]) -> None:
    aggregator: EventAggregator[Tick] = EventAggregator(10, allowed_lateness=200)
    for moment in moments:
        aggregator.add(tick(moment))
    assert aggregator.late == 0


def test_a_window_is_returned_when_an_event_shows_that_its_end_has_passed() -> None:
    aggregator: EventAggregator[Tick] = EventAggregator(timedelta(seconds=10), folds={"sum": (0, total)})
    assert aggregator.add(tick(11, 2)) == []
    assert aggregator.add(tick(19.999999, 3)) == []
    (window,) = aggregator.add(tick(20))
    assert seconds_of(window) == (10, 20)
    assert (window.count, window.rate, window.folds, window.early) == (2, 0.2, {"sum": 5}, False)
    assert (window.events, window.dropped_events) == ((), 0)
    (last,) = aggregator.flush()
    assert (last.count, last.folds, last.early) == (1, {"sum": 1}, True)
    assert aggregator.flush() == []


def test_late_events_are_counted_and_not_added() -> None:
    aggregator: EventAggregator[Tick] = EventAggregator(10, allowed_lateness=5)
    assert aggregator.add(tick(8)) == []
    assert aggregator.add(tick(14)) == []
    assert aggregator.add(tick(9)) == []
    assert [window.count for window in aggregator.add(tick(15))] == [2]
    assert aggregator.add(tick(9)) == []
    assert aggregator.late == 1
    # An event for what was flushed is late as well, and so is one for a window that never had any.
    assert [window.count for window in aggregator.flush()] == [2]
    aggregator.add(tick(19))
    aggregator.add(tick(99))
    aggregator.add(tick(50))
    assert aggregator.late == 3


def test_one_window_more_than_may_be_open_returns_the_oldest_early() -> None:
    aggregator: EventAggregator[Tick] = EventAggregator(10, allowed_lateness=1000, max_open_windows=2)
    assert aggregator.add(tick(25)) == []
    assert aggregator.add(tick(5)) == []
    (oldest,) = aggregator.add(tick(15))
    assert (seconds_of(oldest), oldest.early) == ((0, 10), True)
    aggregator.add(tick(5))
    assert aggregator.late == 1


def test_kept_events_are_bounded_in_number_and_bytes_and_the_count_stays_exact() -> None:
    few: EventAggregator[Tick] = EventAggregator(
        10, keep_events=True, max_events=2, allowed_lateness=10, folds={"sum": (0, total)}
    )
    for seconds in (1, 12, 2, 13):
        few.add(tick(seconds))
    (first, second) = few.flush()
    assert (first.events, first.count, first.dropped_events, first.folds) == ((tick(1),), 2, 1, {"sum": 2})
    assert (second.events, second.count, second.dropped_events) == ((tick(12),), 2, 1)
    # What was returned makes room.
    few.add(tick(21))
    assert few.flush()[0].events == (tick(21),)

    small: EventAggregator[Tick] = EventAggregator(
        10, keep_events=True, max_bytes=25, size=lambda e: e.amount
    )
    for amount in (20, 10, 5):
        small.add(tick(1, amount))
    (window,) = small.flush()
    assert ([event.amount for event in window.events], window.dropped_events) == ([20, 5], 1)


def test_without_a_size_function_bytes_are_those_of_the_json_text() -> None:
    length = len(msgspec.json.encode(tick(1)))
    aggregator: EventAggregator[Tick] = EventAggregator(10, keep_events=True, max_bytes=2 * length)
    for _ in range(3):
        aggregator.add(tick(1))
    assert aggregator.flush()[0].dropped_events == 1
    odd: EventAggregator[object] = EventAggregator(10, keep_events=True, time=lambda _: EPOCH)
    with pytest.raises(UsageError, match="size="):
        odd.add(object())


def test_a_mutable_initial_value_is_each_windows_own() -> None:
    def append(amounts: list[int], event: Tick) -> list[int]:
        amounts.append(event.amount)
        return amounts

    aggregator: EventAggregator[Tick] = EventAggregator(10, folds={"amounts": ([], append)})
    aggregator.add(tick(1, 1))
    (first,) = aggregator.add(tick(11, 2))
    (second,) = aggregator.flush()
    assert (first.folds, second.folds) == ({"amounts": [1]}, {"amounts": [2]})


def test_an_event_whose_fold_raises_is_not_added() -> None:
    aggregator: EventAggregator[Tick] = EventAggregator(
        10, folds={"sum": (0, total), "ratio": (0.0, lambda value, event: value + 1 / event.amount)}
    )
    aggregator.add(tick(1, 2))
    with pytest.raises(ZeroDivisionError):
        aggregator.add(tick(20, 0))
    (window,) = aggregator.flush()
    assert (window.count, window.folds) == (1, {"sum": 2, "ratio": 0.5})


def test_windows_are_frozen() -> None:
    aggregator: EventAggregator[Tick] = EventAggregator(10, folds={"sum": (0, total)})
    aggregator.add(tick(1))
    (window,) = aggregator.flush()
    with pytest.raises(AttributeError):
        window.count = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        window.folds["sum"] = 2  # type: ignore[index]


def test_time_is_read_by_the_key_function_in_any_time_zone() -> None:
    there = timezone(timedelta(hours=2))
    aggregator: EventAggregator[int] = EventAggregator(
        3600, time=lambda hour: datetime(2026, 1, 2, hour, 30, tzinfo=there)
    )
    aggregator.add(4)
    (window,) = aggregator.flush()
    assert window.start == datetime(2026, 1, 2, 2, tzinfo=UTC)


def test_what_cannot_be_used_is_refused() -> None:
    for size in (0, -1, float("nan"), float("inf"), timedelta()):
        with pytest.raises(UsageError, match="window_size"):
            EventAggregator[Tick](size)
    with pytest.raises(UsageError, match="allowed_lateness"):
        EventAggregator[Tick](1, allowed_lateness=-1)
    with pytest.raises(UsageError, match="max_open_windows"):
        EventAggregator[Tick](1, max_open_windows=0)
    with pytest.raises(UsageError, match="int has no timestamp"):
        EventAggregator[int](1).add(1)
    at_the_end: EventAggregator[Tick] = EventAggregator(7)
    with pytest.raises(UsageError, match="beyond"):
        at_the_end.add(Tick(datetime.max.replace(tzinfo=UTC)))
    assert at_the_end.open_windows == 0
    with pytest.raises(UsageError, match="time zone"):
        EventAggregator[Tick](1).add(Tick(datetime(2026, 1, 2)))  # noqa: DTZ001 (that is the point)


async def stream(*events: Tick, end: TransportError | SubscriptionError | None = None) -> AsyncIterator[Tick]:
    for event in events:
        yield event
    if end is not None:
        raise end


async def test_the_end_of_the_stream_brings_the_last_window_and_then_what_ended_it() -> None:
    windows: Windows[Tick] = Windows(stream(tick(1), tick(2), tick(11)), EventAggregator(10))
    assert [(window.count, window.early) async for window in windows] == [(2, False), (1, True)]
    lost: Windows[Tick] = Windows(stream(tick(1), end=ConnectionFailed("lost")), EventAggregator(10))
    assert (await anext(lost)).count == 1
    for _ in range(2):
        with pytest.raises(ConnectionFailed, match="lost"):
            await anext(lost)


async def test_a_subscriptions_windows_hold_its_events(tmp_path: Path) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server, Client(server.url) as client:
        workflow = await create_review_workflow(client)
        async with (
            client.workflows.subscribe_workflow_events(workflow_id=workflow.id) as plain,
            client.workflows.subscribe_workflow_events(workflow_id=workflow.id) as events,
        ):
            windows = events.windows(0.001, keep_events=True)
            resource = await client.workflows.create_resource(workflow_id=workflow.id)
            first = await anext(plain)
            while True:
                await client.workflows.execute_activity(resource_id=resource.id, activity_id="submit")
                await client.workflows.execute_activity(resource_id=resource.id, activity_id="reject")
                if (await anext(plain)).timestamp > first.timestamp:
                    break
            window = await anext(windows)
            assert window.events[0] == first
            assert window.start <= first.timestamp < window.end
