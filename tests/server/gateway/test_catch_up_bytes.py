"""Bytes: a slow reader costs the log no more than twice what it is sent, and memory a page at most."""

from __future__ import annotations

import gc
from collections.abc import Mapping

import pytest

from circuit_breaker_server.access.streams import View
from circuit_breaker_server.gateway import catch_up, feed
from circuit_breaker_server.gateway.pacing import Pacing
from circuit_breaker_server.security.rights import Rights
from tests.server.gateway.paced import FakeClock
from tests.server.gateway.worlds import (
    TAGGED,
    FakePeer,
    ScriptedLog,
    assert_chained,
    cursor_of,
    running,
    turns,
)
from tests.waiting import until

EVENT_BYTES = 60_000
NAME = "x" * EVENT_BYTES
PAGE_BYTES = 256 * 1024


def put(log: ScriptedLog, n: int) -> None:
    log.put((f"thing.{n % 7}", [("things", {"id": NAME, "n": n, "tag": None})]))


def sent_bytes(*peers: FakePeer) -> int:
    return sum(len(frames) for peer in peers for frames in peer.writes)


async def drain(peer: FakePeer, operation_id: str, last: int, *, room: int = 1) -> None:
    """Let the socket have room for a write at a time until the last event is there."""
    while peer.numbers(operation_id)[-1:] != [last]:
        seen = len(peer.writes)
        peer.drain(room=room)
        await until(lambda: len(peer.writes) > seen)  # noqa: B023 (waited for at once)


@pytest.mark.parametrize("count", [20, 600])
async def test_a_socket_that_fills_reads_at_most_twice_what_it_sends(count: int) -> None:
    log = ScriptedLog()
    async with running(log, ring_size=4) as gateway:
        for n in range(count):
            put(log, n)
        peer = FakePeer(gateway, room=1)
        after = cursor_of(log, 1, 0)
        peer.subscribe("1", after=after)
        await drain(peer, "1", count - 1)
        assert_chained(peer.events("1"), after)
        assert peer.numbers("1") == list(range(1, count))
        assert log.bytes_read <= 2 * sent_bytes(peer)


async def test_a_page_of_several_writes_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (feed, catch_up):
        monkeypatch.setattr(module, "MAX_WRITE_BYTES", EVENT_BYTES // 2)  # one event is a write
    log = ScriptedLog()
    async with running(log, ring_size=4) as gateway:
        for n in range(40):
            put(log, n)
        peer = FakePeer(gateway, room=1)
        peer.subscribe("1", after=cursor_of(log, 1, 0))
        await drain(peer, "1", 39)
        assert peer.numbers("1") == list(range(1, 40))
        assert log.bytes_read <= 2 * sent_bytes(peer)


async def test_a_slow_reader_of_a_live_stream_reads_at_most_twice_what_it_sends() -> None:
    log = ScriptedLog()
    async with running(log, ring_size=4) as gateway:
        peer = FakePeer(gateway, room=1)
        peer.subscribe("1")
        for n in range(200):
            put(log, n)
            await turns()
            if n % 9 == 0:
                peer.drain(room=1)
        await drain(peer, "1", 199)
        assert peer.numbers("1") == list(range(200))
        assert log.bytes_read <= 2 * sent_bytes(peer)


async def test_many_subscriptions_behind_one_full_socket_read_at_most_twice_what_they_send() -> None:
    log = ScriptedLog()
    async with running(log, ring_size=4) as gateway:
        for n in range(50):
            put(log, n)
        peer = FakePeer(gateway, room=1)
        names = [str(number) for number in range(8)]
        for name in names:
            peer.subscribe(name, after=cursor_of(log, 1, 0))
        for name in names:
            await drain(peer, name, 49)
        assert all(peer.numbers(name) == list(range(1, 50)) for name in names)
        assert log.bytes_read <= 2 * sent_bytes(peer)


async def test_paced_subscriptions_that_catch_up_read_at_most_twice_what_they_send() -> None:
    log, clock = ScriptedLog(), FakeClock()
    async with running(log, ring_size=4, pacing=Pacing(20, clock)) as gateway:
        for n in range(120):
            put(log, n)
        peer = FakePeer(gateway)
        for name in "1234":
            peer.subscribe(name, after=cursor_of(log, 1, 0))
        await turns(200)
        await clock.advance(10)
        assert all(peer.numbers(name) == list(range(1, 120)) for name in "1234")
        assert log.bytes_read <= 2 * sent_bytes(peer)


async def test_a_paced_subscription_for_which_little_matches_reads_large_pages() -> None:
    log, clock = ScriptedLog(), FakeClock()
    async with running(log, ring_size=4, pacing=Pacing(1, clock)) as gateway:
        for n in range(2_000):
            log.thing("a", n, tag="rare" if n in (1_500, 1_999) else None)
        peer = FakePeer(gateway)
        peer.subscribe("1", TAGGED, {"tag": "rare"}, after=cursor_of(log, 1, 0))
        await until(lambda: peer.numbers("1") == [1_500])
        assert log.reads < 20
        await clock.advance(5)
        assert peer.numbers("1") == [1_500, 1_999]


async def test_a_full_socket_keeps_a_page_in_memory_at_most() -> None:
    log = ScriptedLog()
    async with running(log, ring_size=4) as gateway:
        for n in range(300):
            put(log, n)
        peer = FakePeer(gateway, room=1)
        for name in "1234":
            peer.subscribe(name, after=cursor_of(log, 1, 0))
        await until(lambda: peer.writes)
        await turns(200)
        read = log.bytes_read
        await turns(200)
        assert log.bytes_read == read, "a full socket reads nothing on"
        assert read <= 2 * (PAGE_BYTES + EVENT_BYTES)
        gc.collect()
        kept = [each for each in gc.get_objects() if isinstance(each, dict) and each.get("id") == NAME]
        assert len(kept) * EVENT_BYTES <= 2 * (PAGE_BYTES + EVENT_BYTES)


async def test_what_was_kept_of_a_page_is_not_sent_by_rights_that_were_taken_away() -> None:
    log = ScriptedLog()
    hidden: set[object] = set()

    def look(_rights: Rights, _field: str, _arguments: Mapping[str, object]) -> View:
        gone = frozenset(hidden)
        return View(gone, lambda value: value["n"] not in gone)

    async with running(log, ring_size=1, look=look) as gateway:
        for n in range(40):
            put(log, n)
        peer = FakePeer(gateway, room=1)
        peer.subscribe("1", after=cursor_of(log, 1, 0))
        await until(lambda: peer.writes)
        await turns(50)
        seen = peer.numbers("1")
        hidden.update(range(40))
        hidden.discard(39)
        gateway.review(peer.feed)
        peer.drain()
        await until(lambda: peer.numbers("1")[-1:] == [39])
        assert peer.numbers("1") == [*seen, 39]


async def test_an_operation_that_ends_leaves_nothing_of_its_page_to_its_successor() -> None:
    log = ScriptedLog()
    async with running(log, ring_size=1) as gateway:
        for n in range(40):
            put(log, n)
        peer = FakePeer(gateway, room=1)
        peer.subscribe("1", after=cursor_of(log, 1, 0))
        await until(lambda: peer.writes)
        await turns(50)
        peer.feed.unsubscribe("1")
        sent = len(peer.payloads("1"))
        peer.subscribe("1", after=cursor_of(log, 31, 0))
        peer.drain()
        await until(lambda: peer.numbers("1")[-1:] == [39])
        assert peer.numbers("1")[sent:] == list(range(31, 40))
