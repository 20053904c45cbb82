"""The bounds of a buffer, in events and in bytes, under both policies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_sdk.config import BufferLimits, OverflowPolicy
from circuit_breaker_sdk.delivery.buffer import BufferBudget, EventBuffer
from circuit_breaker_sdk.delivery.consumer import value_of
from circuit_breaker_sdk.delivery.decoding import EventDecoder
from tests.delivery.deliveries import result

DECODE = EventDecoder(int, "tick", with_resume=False).decode


def buffer(max_events: int, max_bytes: int, overflow: OverflowPolicy) -> EventBuffer[int]:
    limits = BufferLimits(max_events=max_events, max_bytes=max_bytes, overflow=overflow)
    return EventBuffer(limits, BufferBudget(1 << 30))


def put(into: EventBuffer[int], *sizes: int) -> list[bool]:
    """Put events whose values are their sizes."""
    return [into.put(DECODE(result(size)), size) for size in sizes]


def held(by: EventBuffer[int]) -> list[int]:
    return [value_of(by.take()) for _ in range(len(by))]


@pytest.mark.parametrize(("max_events", "max_bytes"), [(2, 1000), (1000, 30)])
def test_under_fail_what_does_not_fit_is_refused_and_changes_nothing(max_events: int, max_bytes: int) -> None:
    events = buffer(max_events, max_bytes, OverflowPolicy.FAIL)
    assert put(events, 10, 20, 1) == [True, True, False]
    assert (events.size_bytes, events.dropped) == (30, 0)
    assert held(events) == [10, 20]
    assert events.size_bytes == 0


@pytest.mark.parametrize(
    ("max_events", "max_bytes", "kept"), [(2, 1000, [20, 15]), (1000, 35, [20, 15]), (1000, 34, [15])]
)
def test_under_drop_oldest_only_as_many_make_room_as_must(
    max_events: int, max_bytes: int, kept: list[int]
) -> None:
    events = buffer(max_events, max_bytes, OverflowPolicy.DROP_OLDEST)
    assert all(put(events, 10, 20, 15))
    assert (events.size_bytes, events.dropped) == (sum(kept), 3 - len(kept))
    assert held(events) == kept


def test_an_event_larger_than_the_whole_buffer_is_dropped_alone_or_fails() -> None:
    dropping = buffer(10, 30, OverflowPolicy.DROP_OLDEST)
    assert put(dropping, 10, 31, 5) == [True, True, True]
    assert dropping.dropped == 1
    assert held(dropping) == [10, 5]
    assert put(buffer(10, 30, OverflowPolicy.FAIL), 31) == [False]


def test_half_full_is_half_of_either_bound() -> None:
    by_events, by_bytes = buffer(4, 1000, OverflowPolicy.FAIL), buffer(1000, 40, OverflowPolicy.FAIL)
    seen = []
    for _ in range(2):
        put(by_events, 1)
        put(by_bytes, 10)
        seen.append((by_events.is_half_full(), by_bytes.is_half_full()))
    assert seen == [(False, False), (True, True)]


def test_clearing_forgets_events_and_their_size() -> None:
    events = buffer(2, 30, OverflowPolicy.FAIL)
    put(events, 10, 20)
    events.clear()
    assert (len(events), events.size_bytes) == (0, 0)
    assert put(events, 30) == [True]


def test_all_buffers_of_a_client_together_have_a_bound_and_the_rest_waits_until_half_is_free() -> None:
    budget = BufferBudget(100)
    limits = BufferLimits(max_events=10, max_bytes=1000)
    one, other = EventBuffer[int](limits, budget), EventBuffer[int](limits, budget)
    assert put(one, 40, 40) == [True, True]
    assert put(other, 20, 1) == [True, False]
    assert (budget.used, other.is_full, other.is_low) == (100, True, False)
    told: list[int] = []

    def tell() -> None:
        told.append(budget.used)

    other.when_client_is_low(tell)
    other.when_client_is_low(tell)
    one.take()
    assert not told
    one.clear()
    assert (told, budget.used, other.is_low) == ([20], 20, True)
    assert (other.fits_client(100), other.fits_client(101)) == (True, False)


def test_under_drop_oldest_the_bound_of_the_client_holds_too() -> None:
    budget = BufferBudget(50)
    limits = BufferLimits(max_events=10, max_bytes=1000, overflow=OverflowPolicy.DROP_OLDEST)
    one, other = EventBuffer[int](limits, budget), EventBuffer[int](limits, budget)
    put(one, 20)
    put(other, 20, 25)
    assert (held(other), other.dropped) == ([25], 1)
    put(other, 51)  # more than the client may hold in all
    assert (len(other), other.dropped, budget.used) == (0, 2, 20)
    put(other, 31)  # one event fits, whatever the neighbours hold
    assert (len(other), other.dropped, budget.used) == (1, 2, 51)


def test_under_block_everything_is_taken_and_who_calls_is_told_that_it_is_full() -> None:
    events = buffer(2, 1000, OverflowPolicy.BLOCK)
    fullness = []
    for size in (10, 10, 10):
        assert put(events, size) == [True]
        fullness.append(events.is_full)
    assert fullness == [False, True, True]
    events.take()
    assert not events.is_low
    events.take()
    assert events.is_low


@pytest.mark.parametrize("neighbours", [6, 30])
def test_no_neighbour_takes_the_reserve_of_a_buffer(neighbours: int) -> None:
    budget = BufferBudget(6_400, lambda: neighbours + 1)
    limits = BufferLimits(max_events=1_000, max_bytes=10_000)
    hungry = [EventBuffer[int](limits, budget) for _ in range(neighbours)]
    for _ in range(200):
        for each in hungry:
            put(each, 50)
    reader = EventBuffer[int](limits, budget)
    for _ in range(50):
        assert put(reader, 50, 50) == [True, True]
        assert budget.used <= budget.max_bytes
        assert [reader.take().size_bytes, reader.take().size_bytes] == [50, 50]


def test_the_buffer_that_holds_most_is_refused_first() -> None:
    budget = BufferBudget(10_000, lambda: 4)
    limits = BufferLimits(max_events=1_000, max_bytes=100_000)
    big, small = EventBuffer[int](limits, budget), EventBuffer[int](limits, budget)
    while put(big, 100) == [True]:
        pass
    assert budget.used > budget.easy_bytes
    assert put(small, 100, 100, 100) == [True] * 3
    assert put(big, 100) == [False]


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 400), st.booleans()), max_size=400))
def test_all_buffers_together_hold_at_most_the_bound_and_one_event_each(
    steps: list[tuple[int, int, bool]],
) -> None:
    budget = BufferBudget(3_000, lambda: 8)
    limits = BufferLimits(max_events=1_000, max_bytes=3_000)
    buffers = [EventBuffer[int](limits, budget) for _ in range(8)]
    for number, size, is_put in steps:
        if is_put:
            put(buffers[number], size)
        elif buffers[number]:
            buffers[number].take()
        assert budget.used == sum(each.size_bytes for each in buffers)
        assert budget.used <= budget.max_bytes + sum(each.size_bytes for each in buffers if len(each) == 1)


def test_a_paused_buffer_goes_on_when_its_own_half_is_free_whatever_its_neighbours_hold() -> None:
    budget = BufferBudget(6_400, lambda: 2)
    limits = BufferLimits(max_events=4, max_bytes=10_000)
    other = EventBuffer[int](BufferLimits(max_events=1_000, max_bytes=10_000), budget)
    while put(other, 100) == [True]:
        pass
    mine = EventBuffer[int](limits, budget)
    assert put(mine, 10, 10, 10, 10, 10) == [True] * 4 + [False]
    lows = [mine.is_low]
    mine.take()
    mine.take()
    assert [*lows, mine.is_low, budget.is_low] == [False, True, False]
