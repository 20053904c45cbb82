"""Pacing: any second holds a second's events and a burst at most, on every path, and nothing is lost."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_server.gateway import catch_up, feed
from circuit_breaker_server.gateway.pacing import Pacing
from tests.server.gateway.paced import FakeClock
from tests.server.gateway.worlds import FakePeer, ScriptedLog, assert_chained, cursor_of, running, turns
from tests.server.polling_stage import polling

RATE = 20


class TimedPeer(FakePeer):
    """Notes when each event was written."""

    def __init__(self, *arguments: object, clock: FakeClock, **named: object) -> None:
        self.clock = clock
        self.times: list[float] = []
        super().__init__(*arguments, **named)  # type: ignore[arg-type]  # as FakePeer's

    def write(self, frames: bytes) -> None:
        super().write(frames)
        self.times += [self.clock.now] * frames.count(b"\n")


def most_in_a_second(times: list[float]) -> int:
    return max((sum(start <= t <= start + 1 for t in times) for start in times), default=0)


def longest_silence(times: list[float]) -> float:
    return max(b - a for a, b in itertools.pairwise(times))


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 100)), max_size=60), st.integers(1, 50))
def test_any_second_holds_a_second_s_events_and_a_burst_at_most(
    steps: list[tuple[float, int]], rate: int
) -> None:
    clock = FakeClock()
    bucket = Pacing(rate, clock).bucket()
    times: list[float] = []
    for seconds, wanted in steps:
        clock.now += seconds
        times += [clock.now] * bucket.take(wanted)
    assert most_in_a_second(times) <= 2 * rate


def test_the_clock_of_the_machine_can_be_set_without_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    bucket = Pacing(RATE).bucket()
    assert bucket.take(RATE) == RATE
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert bucket.take(1) == 0


@pytest.mark.parametrize("burst", [1, 7, 300])
async def test_a_live_stream_keeps_its_pace_and_is_whole(burst: int) -> None:
    log, clock = ScriptedLog(), FakeClock()
    async with running(log, pacing=Pacing(RATE, clock)) as gateway:
        peer = TimedPeer(gateway, clock=clock)
        peer.subscribe("1")
        for n in range(300):
            log.thing("a", n)
            if n % burst == burst - 1:
                await clock.advance(0.01)
        await clock.advance(20)
        assert peer.numbers("1") == list(range(300))
        assert_chained(peer.events("1"), peer.signals[0][1])
        assert most_in_a_second(peer.times) <= 2 * RATE
        assert longest_silence(peer.times) <= 0.2


@pytest.mark.parametrize("ring_size", [1, 1024])
@pytest.mark.parametrize("page_records", [1, 256])
async def test_a_resumed_stream_keeps_its_pace_and_is_whole(ring_size: int, page_records: int) -> None:
    log, clock = ScriptedLog(), FakeClock()
    async with running(
        log, pacing=Pacing(RATE, clock), ring_size=ring_size, page_records=page_records
    ) as gateway:
        for n in range(200):
            log.thing("a", n)
        peer = TimedPeer(gateway, clock=clock)
        after = cursor_of(log, 1, 0)
        peer.subscribe("1", after=after)
        await turns(200)
        for n in range(200, 300):
            log.thing("a", n)
            await clock.advance(0.01)
        await clock.advance(20)
        assert peer.numbers("1") == list(range(1, 300))
        assert_chained(peer.events("1"), after)
        assert most_in_a_second(peer.times) <= 2 * RATE
        assert longest_silence(peer.times) <= 0.2


async def test_a_socket_that_fills_costs_no_tokens_of_events_that_were_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (feed, catch_up):
        monkeypatch.setattr(module, "MAX_WRITE_BYTES", 5_000)
    log, clock = ScriptedLog(), FakeClock()
    async with running(log, pacing=Pacing(RATE, clock), ring_size=1) as gateway:
        big = "x" * 6_000  # one event is a write, and a page holds all of them
        for n in range(10):
            log.thing(big, n)
        peer = TimedPeer(gateway, clock=clock, room=1)
        peer.subscribe("1", after=cursor_of(log, 1, 0))
        for _ in range(20):
            await turns()
            peer.drain(room=1)
        assert peer.numbers("1") == list(range(1, 10)), "all within one burst"


async def test_subscriptions_have_a_pace_each() -> None:
    log, clock = ScriptedLog(), FakeClock()
    async with running(log, pacing=Pacing(RATE, clock)) as gateway:
        peer = TimedPeer(gateway, clock=clock)
        peer.subscribe("1")
        peer.subscribe("2")
        for n in range(RATE):
            log.thing("a", n)
        await turns()
        assert peer.numbers("1") == peer.numbers("2") == list(range(RATE))


async def test_polls_of_a_subscription_share_one_pace() -> None:
    clock = FakeClock()
    async with polling(pacing=Pacing(RATE, clock)) as stage:
        after = (await stage.poll()).after
        for n in range(100):
            stage.log.thing("a", n)
        seen: list[object] = []
        times: list[float] = []
        while len(seen) < 100:
            answer = await stage.poll(after=after, wait_ms=0)
            seen += answer.numbers
            times += [clock.now] * len(answer.numbers)
            after = answer.after
            await clock.advance(0.1)
        assert seen == list(range(100))
        assert most_in_a_second(times) <= 2 * RATE


async def test_a_poll_that_rests_is_answered_as_soon_as_it_may_be() -> None:
    clock = FakeClock()
    async with polling(pacing=Pacing(RATE, clock)) as stage:
        after = (await stage.poll()).after
        for n in range(RATE + 5):
            stage.log.thing("a", n)
        first = await stage.poll(after=after)
        assert first.numbers == list(range(RATE)), "what may be sent is not held back by what may not"
        waiting = asyncio.ensure_future(stage.poll(after=first.after))
        while not waiting.done():
            await clock.advance(0.05)
        assert waiting.result().numbers[:1] == [RATE]


def test_buckets_of_polls_are_forgotten_once_they_are_full() -> None:
    clock = FakeClock()
    pacing = Pacing(RATE, clock)
    for n in range(1000):
        pacing.bucket_of(("someone", n)).take(RATE)
        clock.now += 0.01
    assert len(pacing) <= 210
    held = pacing.bucket_of("held")
    clock.now += 5
    for n in range(300):
        pacing.bucket_of(n)
    assert len(pacing) <= 3
    assert pacing.bucket_of("held") is held, "a poll that waits and its successor share it"
