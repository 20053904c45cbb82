"""The bounds of a buffer, in events and in bytes, under both policies."""

from __future__ import annotations

import pytest

from circuit_breaker_sdk.config import BufferLimits, OverflowPolicy
from circuit_breaker_sdk.subscriptions.buffer import BufferBudget, EventBuffer
from circuit_breaker_sdk.subscriptions.consumption import value_of
from circuit_breaker_sdk.subscriptions.decoding import EventDecoder
from tests.subscriptions.deliveries import result

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
    put(other, 31)  # more than ours can make room for
    assert (len(other), other.dropped, budget.used) == (0, 2, 20)


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
