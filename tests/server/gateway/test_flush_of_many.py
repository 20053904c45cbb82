"""A channel with very many members is flushed over several turns of the loop, and nobody notices."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from circuit_breaker_server.access.streams import EVERYTHING_SEEN, View
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.security.rights import Rights
from tests.server.gateway.failing_peer import Failing
from tests.server.gateway.worlds import (
    ALL_NOTES,
    ONE_THING,
    FakePeer,
    ScriptedLog,
    assert_chained,
    running,
    thing_record,
    turns,
)
from tests.waiting import until

pytestmark = pytest.mark.parametrize("flushes", ["in steps"], indirect=True)
"""Each step gives one member what is new, and ends the turn."""


@pytest.fixture(autouse=True)
def two_are_few(flushes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuit_breaker_server.gateway.fan_out.MANY", 2)


async def step() -> None:
    await asyncio.sleep(0)


def subscribed(gateway: Gateway, count: int) -> list[FakePeer]:
    """Make so many peers, with a subscription to all things each."""
    peers = [FakePeer(gateway) for _ in range(count)]
    for peer in peers:
        peer.subscribe("1")
    return peers


async def test_one_turn_gives_what_is_new_to_some_of_them_only() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peers = subscribed(gateway, 10)
        log.thing("a", 0)
        for given in range(1, 11):
            await step()
            assert sum(len(peer.writes) for peer in peers) == given
        log.thing("a", 1)
        await turns()
        for peer in peers:
            assert peer.numbers("1") == [0, 1]
            assert_chained(peer.events("1"), peer.signals[0][1])


async def test_channels_with_few_members_go_first() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peers = subscribed(gateway, 10)
        few = FakePeer(gateway)
        few.subscribe("1", ONE_THING, {"id": "b"})
        log.thing("a", 0)
        await step()
        log.thing("b", 1)
        await step()
        assert few.numbers("1") == [1]
        assert any(not peer.writes for peer in peers)
        await turns()
        assert [peer.numbers("1") for peer in peers] == [[0, 1]] * 10


@pytest.mark.parametrize("steps", range(5))
async def test_what_comes_between_two_steps_is_given_to_all_once_and_in_order(steps: int) -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peers = [FakePeer(gateway, room=None if number else 1) for number in range(4)]
        for peer in peers:
            peer.subscribe("1")
        for n in range(20):
            log.thing("a", n)
            for _ in range(steps):
                await step()
        peers[0].drain()
        await turns(200)
        for peer in peers:
            assert peer.numbers("1") == list(range(20))
            assert_chained(peer.events("1"), peer.signals[0][1])


async def test_a_peer_with_several_subscriptions_is_written_to_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuit_breaker_server.gateway.flush_of_many._IN_A_STEP", 8)
    log = ScriptedLog()
    async with running(log) as gateway:
        peers = [FakePeer(gateway) for _ in range(3)]
        # One after the other, so that those of one peer are not beside each other.
        for number in range(4):
            for peer in peers:
                peer.subscribe(f"things{number}")
                peer.subscribe(f"notes{number}", ALL_NOTES)
        log.thing("a", 0)
        await turns(200)
        for peer in peers:
            assert [len(peer.payloads(f"things{n}")) for n in range(4)] == [1] * 4
            assert [len(peer.payloads(f"notes{n}")) for n in range(4)] == [2] * 4
            assert len(peer.writes) == 1


async def test_whoever_leaves_between_two_steps_gets_nothing_more() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peers = subscribed(gateway, 6)
        log.thing("a", 0)
        await step()
        peers[2].feed.unsubscribe("1")
        gateway.detach(peers[3].feed)
        late = FakePeer(gateway)
        late.subscribe("1")
        log.thing("a", 1)
        await turns()
        received = [peer.numbers("1") for peer in (*peers, late)]
        assert received == [[0, 1], [0, 1], [], [], [0, 1], [0, 1], [1]]


async def test_a_channel_whose_members_all_leave_between_two_steps_is_over() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peers = subscribed(gateway, 6)
        log.thing("a", 0)
        await step()
        for peer in peers:
            gateway.detach(peer.feed)
        await turns()
        assert gateway.channels == 0
        again = FakePeer(gateway)
        again.subscribe("1")
        log.thing("a", 1)
        assert await again.received("1", 1)
        assert again.numbers("1") == [1]


async def test_rights_that_change_between_two_steps_hold_for_those_who_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("circuit_breaker_server.gateway.flush_of_many._IN_A_STEP", 3)
    log = ScriptedLog()
    view = EVERYTHING_SEEN

    def look(_rights: Rights, _field: str, _arguments: Mapping[str, object]) -> View:
        return view

    async with running(log, look=look) as gateway:
        peers = subscribed(gateway, 60)
        log.thing("a", 0)
        await step()
        view = View("not the first one", lambda value: value["n"] != 0)
        moved = peers[31::2]
        for peer in moved:
            gateway.review(peer.feed)
        # They are live again in another channel, and their neighbours still wait in the old one.
        await until(lambda: all(peer.feed.subscribers["1"].live for peer in moved))
        assert not peers[30].writes
        log.thing("a", 1)
        await turns(200)
        assert [peer.numbers("1") for peer in moved] == [[1]] * 15
        assert [peer.numbers("1") for peer in peers if peer not in moved] == [[0, 1]] * 45


async def test_a_peer_that_fails_in_a_step_ends_alone() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peers = [FakePeer(gateway), Failing(gateway, "write"), *(FakePeer(gateway) for _ in range(4))]
        for peer in peers:
            peer.subscribe("1")
        log.thing("a", 0)
        log.thing("a", 1)
        await turns()
        assert [peer.numbers("1") for peer in peers] == [[0, 1], [], *[[0, 1]] * 4]
        assert [peer.dropped for peer in peers] == [False, True, *[False] * 4]


async def test_a_burst_greater_than_the_ring_between_two_steps_needs_no_log() -> None:
    log = ScriptedLog()
    async with running(log, ring_size=4) as gateway:
        peers = subscribed(gateway, 6)
        log.thing("a", 0)
        await step()
        reads = log.reads
        log.put(*(thing_record("a", n) for n in range(1, 50)))
        await turns()
        assert [peer.numbers("1") for peer in peers] == [list(range(50))] * 6
        assert log.reads == reads


async def test_news_that_grow_between_two_steps_stay_in_the_ring() -> None:
    log = ScriptedLog()
    async with running(log, ring_bytes=450) as gateway:
        peers = subscribed(gateway, 6)
        log.thing("a", 0)
        await turns()
        reads = log.reads
        # Encoded for the first of them, they are more than the ring holds.
        for n in range(1, 4):
            log.thing("a", n)
        await step()
        log.thing("a", 4)
        await turns()
        assert [peer.numbers("1") for peer in peers] == [list(range(5))] * 6
        assert log.reads == reads


async def test_closing_writes_what_is_left_of_it_at_once() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peers = subscribed(gateway, 6)
        log.thing("a", 0)
        await step()
        log.thing("a", 1)
        gateway.flush()
        assert [peer.numbers("1") for peer in peers] == [[0, 1]] * 6


class Clock:
    """Time as the fan-out measures it."""

    def __init__(self) -> None:
        self.now = 1.0

    def perf_counter(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.now


async def test_the_rest_is_as_long_as_the_last_walk_also_after_very_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, log = Clock(), ScriptedLog()
    monkeypatch.setattr("circuit_breaker_server.gateway.fan_out.time", clock)
    monkeypatch.setattr("circuit_breaker_server.gateway.fan_out._SHORT_SECONDS", 0.0)
    async with running(log) as gateway:
        peers = [Failing(gateway) for _ in range(4)]
        for peer in peers:
            peer.on_write = lambda: setattr(clock, "now", clock.now + 0.01)
            peer.subscribe("1")
        # So many that there is always something left to flush.
        for n in range(100):
            log.thing("a", n)
            await step()
            await step()
        await until(lambda: all(len(peer.events("1")) == 100 for peer in peers))
        await turns()
        assert gateway._fan_out._rests_until - clock.now == pytest.approx(0.04)


async def test_the_rest_after_a_walk_over_very_many_holds_up_no_channel_with_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, log = Clock(), ScriptedLog()
    monkeypatch.setattr("circuit_breaker_server.gateway.fan_out.time", clock)
    monkeypatch.setattr("circuit_breaker_server.gateway.fan_out._SHORT_SECONDS", 0.0)
    async with running(log) as gateway:
        for _ in range(4):
            peer = Failing(gateway)
            peer.on_write = lambda: setattr(clock, "now", clock.now + 0.1)
            peer.subscribe("1")
        few = FakePeer(gateway)
        few.subscribe("1", ALL_NOTES)
        few.subscribe("2", ONE_THING, {"id": "b"})
        log.thing("a", 0)
        await turns()
        log.thing("b", 1)
        await turns()
        assert few.numbers("2") == [1]
