"""What reaches a peer: everything, once, in order, from one reading path, in one write a turn."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.gateway.projection import Projection
from circuit_breaker_server.gateway.subscription_plan import Refused
from tests.server.gateway.failing_peer import Failing
from tests.server.gateway.worlds import (
    ALL_NOTES,
    ALL_THINGS,
    ONE_THING,
    TAGGED,
    FakePeer,
    ScriptedLog,
    assert_chained,
    cursor_of,
    resume_of,
    running,
    thing_record,
    turns,
)
from tests.waiting import until


async def test_nothing_is_missed_between_the_live_signal_and_the_first_event() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peers: list[FakePeer] = []

        async def produce() -> None:
            for n in range(200):
                log.thing("a", n)
                if n % 3 == 0:
                    await asyncio.sleep(0)

        producing = asyncio.create_task(produce())
        while not producing.done():
            peer = FakePeer(gateway)
            peer.subscribe("1")
            peers.append(peer)
            await asyncio.sleep(0)
        await producing
        await turns(200)
    assert len(peers) > 10
    for peer in peers:
        ((_, start),) = peer.signals
        first = Cursor.parse(start).offset  # the record of n is at offset n + 1
        assert peer.numbers("1") == list(range(first, 200))
        assert_chained(peer.events("1"), start)


@pytest.mark.parametrize("flushes", ["in a turn"], indirect=True)  # it counts the writes of turns
@pytest.mark.parametrize("page_records", [1, 3, 256])
async def test_a_slow_peer_catches_up_from_the_log_and_goes_on_from_the_ring(page_records: int) -> None:
    log = ScriptedLog()
    async with running(log, ring_size=4, page_records=page_records) as gateway:
        slow, quick = FakePeer(gateway, room=1), FakePeer(gateway)
        slow.subscribe("s")
        quick.subscribe("q")
        for n in range(50):
            log.thing("a", n)
            await asyncio.sleep(0)
        await turns()
        assert len(slow.writes) == 1, "a full socket is not written to"
        assert len(quick.writes) == 50
        produced = itertools.count(50)
        while slow.numbers("s")[-1:] != [99]:
            for _ in range(2):
                if (n := next(produced)) < 100:
                    log.thing("a", n)
            slow.drain(room=1)
            await turns()
        assert slow.numbers("s") == list(range(100))
        assert_chained(slow.events("s"), slow.signals[0][1])
        assert slow.payloads("s") == quick.payloads("q")
        slow.drain()
        await turns()
        reads = log.reads
        for n in range(100, 120):
            log.thing("a", n)
            await asyncio.sleep(0)
        assert (await slow.received("s", 120))[-1]["data"]["things"]["n"] == 119
        assert log.reads == reads, "whoever has caught up is fed from the ring"
        assert slow.payloads("s") == quick.payloads("q")


@pytest.mark.parametrize("ring_size", [1, 4, 1024])
@pytest.mark.parametrize("query", [ALL_THINGS, ALL_NOTES])
async def test_resuming_from_every_cursor_gives_the_live_bytes_but_for_the_first_prev(
    query: str, ring_size: int
) -> None:
    log = ScriptedLog()
    async with running(log, ring_size=ring_size, page_records=2) as gateway:
        live = FakePeer(gateway)
        live.subscribe("1", query)
        start = live.signals[0][1]
        for n in range(6):
            log.thing("ab"[n % 2], n)
            await asyncio.sleep(0)
        await turns()
        expected = live.payloads("1")
        own = [resume_of(event)[0] for event in live.events("1")]
        places = [start] + [cursor_of(log, offset, index) for offset in range(1, 7) for index in range(3)]
        for after in places:
            peer = FakePeer(gateway)
            peer.subscribe("r", query, after=after)
            at = Cursor.parse(after)
            skipped = sum((c.offset, c.index) <= (at.offset, at.index) for c in map(Cursor.parse, own))
            events = await peer.received("r", len(expected) - skipped)
            assert peer.signals == [("r", after)]
            assert peer.payloads("r")[1:] == expected[skipped + 1 :]
            if events:
                assert_chained(events, after)
                told = resume_of(live.events("1")[skipped])[1]
                assert peer.payloads("r")[0].replace(after.encode(), told.encode()) == expected[skipped]
            gateway.detach(peer.feed)


async def test_a_resumed_subscription_goes_on_live_without_a_seam() -> None:
    log = ScriptedLog()
    async with running(log, ring_size=4, page_records=3) as gateway:
        for n in range(30):
            log.thing("a", n)
        peer = FakePeer(gateway)
        after = cursor_of(log, 5, 0)
        peer.subscribe("1", after=after)
        for n in range(30, 90):  # while it reads
            log.thing("a", n)
            await asyncio.sleep(0)
        events = await peer.received("1", 85)
        assert peer.numbers("1") == list(range(5, 90))
        assert_chained(events, after)


async def test_what_is_committed_while_a_reading_is_answered_is_not_skipped() -> None:
    log = log_of_ten()
    async with running(log) as gateway:
        peer = FakePeer(gateway)

        def commit_once() -> None:
            log.after_read = None
            log.thing("a", 10)

        log.after_read = commit_once
        peer.subscribe("1", after=cursor_of(log, 8, 0))
        await peer.received("1", 3)
        assert peer.numbers("1") == [8, 9, 10]


async def test_a_socket_that_fills_up_inside_a_page_is_not_written_to_until_it_has_room() -> None:
    log = ScriptedLog()
    log.thing("a", 0)
    text = "x" * 100_000
    for n in range(12):
        log.put(("thing.a", [("notes", {"id": str(n), "text": text})]))
    async with running(log) as gateway:
        peer = FakePeer(gateway, room=1)  # writing to a full one fails the test
        after = cursor_of(log, 1, 2)
        peer.subscribe("1", ALL_NOTES, after=after)
        for _ in range(10):
            await turns()
            peer.drain(room=1)
        events = await peer.received("1", 12)
        assert [event["data"]["notes"]["id"] for event in events] == [str(n) for n in range(12)]
        assert_chained(events, after)
        assert len(peer.writes) > 3


async def reason(gateway_log: ScriptedLog, after: str) -> object:
    async with running(gateway_log) as gateway:
        peer = FakePeer(gateway)
        try:
            peer.subscribe("1", after=after)
        except Refused as refused:
            (error,) = refused.errors
        else:
            error = await peer.failed("1")
            assert not peer.feed.subscribers
        assert error.code == "RESUME_GAP"
        assert not peer.writes, "never a partial replay"
        assert not peer.signals
        assert gateway.channels == 0
        assert error.extensions is not None
        return error.extensions["reason"]


def log_of_ten() -> ScriptedLog:
    log = ScriptedLog()
    for n in range(10):
        log.thing("a", n)
    return log


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "00000000deadbeef.1.0.zzzzzzzz", "a.1.0.00000000 "])
async def test_a_cursor_that_is_none_is_malformed(text: str) -> None:
    assert await reason(log_of_ten(), text) == "malformed"


async def test_a_cursor_of_another_log_is_a_gap_of_epoch() -> None:
    assert await reason(log_of_ten(), "0123456789abcdef.1.0.00000000") == "epoch"


async def test_a_cursor_after_the_end_is_a_gap_of_the_future() -> None:
    log = log_of_ten()
    assert await reason(log, str(Cursor(log.epoch, 11, 0, "00000000"))) == "future"


async def test_a_cursor_whose_record_is_another_one_is_rewritten() -> None:
    log = log_of_ten()
    assert await reason(log, str(Cursor(log.epoch, 5, 0, "0badf00d"))) == "rewritten"


async def test_a_cursor_of_a_record_this_log_never_had_is_rewritten() -> None:
    log = log_of_ten()
    log.hole()
    log.thing("a", 10)
    assert await reason(log, str(Cursor(log.epoch, 11, 0, "0badf00d"))) == "rewritten"


async def test_a_cursor_whose_record_is_gone_is_trimmed() -> None:
    log = log_of_ten()
    after = cursor_of(log, 3, 0)
    log.trim_now(6)
    assert await reason(log, after) == "trimmed"


async def test_the_start_of_a_log_that_was_trimmed_is_trimmed() -> None:
    log = log_of_ten()
    log.trim_now(6)
    assert await reason(log, str(Cursor(log.epoch, 0, 0, "00000000"))) == "trimmed"


async def test_the_cursor_just_before_the_first_kept_record_can_be_resumed_from() -> None:
    log = log_of_ten()
    after = cursor_of(log, 5, 2)
    log.trim_now(6)
    async with running(log) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("1", after=after)
        await peer.received("1", 5)
        assert peer.numbers("1") == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("index", [0, 1])
async def test_a_cursor_before_later_events_of_the_record_just_before_the_first_kept_is_trimmed(
    index: int,
) -> None:
    log = log_of_ten()
    after = cursor_of(log, 5, index)
    log.trim_now(6)
    assert await reason(log, after) == "trimmed"


@pytest.mark.parametrize("before", [11, 12])
async def test_the_very_end_can_be_resumed_from_when_nothing_is_kept(before: int) -> None:
    log = log_of_ten()
    if before == 12:
        log.put(("other", []))
    after = str(Cursor(log.epoch, before - 1, 2 if before == 11 else 0, log.records[before - 1].check))
    log.trim_now(before)
    async with running(log) as gateway:
        assert str(gateway.end_cursor) == after
        peer = FakePeer(gateway)
        peer.subscribe("1", after=after)
        await turns()
        assert peer.signals == [("1", after)]
        log.thing("a", 10)
        await peer.received("1", 1)
        assert peer.numbers("1") == [10]


async def test_a_place_inside_a_record_that_goes_while_a_slow_peer_is_behind_is_a_gap() -> None:
    log = ScriptedLog()
    async with running(log, ring_size=1) as gateway:
        peer = FakePeer(gateway, room=1)
        peer.subscribe("1", ALL_NOTES)
        log.put(thing_record("a", 0))
        log.put(thing_record("a", 1))
        log.put(thing_record("a", 2))
        await turns()
        assert not peer.feed.writable
        log.trim_now(3)
        peer.drain()
        error = await peer.failed("1")
        assert error.extensions == {"code": "RESUME_GAP", "reason": "trimmed"}


async def test_a_trim_while_a_slow_peer_is_behind_is_told_as_a_gap() -> None:
    log = ScriptedLog()
    async with running(log, ring_size=2) as gateway:
        peer = FakePeer(gateway, room=1)
        peer.subscribe("1")
        for n in range(10):
            log.thing("a", n)
            await asyncio.sleep(0)
        log.trim_now(6)
        peer.drain()
        error = await peer.failed("1")
        assert error.extensions == {"code": "RESUME_GAP", "reason": "trimmed"}
        assert peer.numbers("1") == [0]


async def test_a_trim_during_the_reading_is_told_as_a_gap_before_anything_is_sent() -> None:
    log = log_of_ten()
    async with running(log) as gateway:
        peer = FakePeer(gateway)
        log.before_read = lambda: log.trim_now(8)
        peer.subscribe("1", after=cursor_of(log, 2, 2))
        error = await peer.failed("1")
        assert error.extensions == {"code": "RESUME_GAP", "reason": "trimmed"}
        assert not peer.writes


async def test_holes_are_no_gap() -> None:
    log = ScriptedLog()
    log.hole()
    async with running(log, ring_size=1) as gateway:
        peer = FakePeer(gateway, room=1)
        peer.subscribe("1")
        for n in range(5):
            log.hole()
            log.thing("a", n)
            await asyncio.sleep(0)
        peer.drain()
        await peer.received("1", 5)
        assert not peer.failures


async def test_equal_documents_and_variables_share_a_channel_and_its_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = ScriptedLog()
    encoded: list[object] = []
    original = Projection.encode

    def encode(self: Projection, value: dict[str, object]) -> bytes:
        encoded.append(value)
        return original(self, value)

    monkeypatch.setattr(Projection, "encode", encode)
    query = "subscription($id: String, $tag: String) { things(id: $id, tag: $tag) { n } }"
    async with running(log) as gateway:
        peers = [FakePeer(gateway) for _ in range(5)]
        for i, peer in enumerate(peers):
            variables = {"id": "a", "tag": "t"} if i % 2 else {"tag": "t", "id": "a"}
            peer.subscribe(str(i), query, variables)
        assert gateway.channels == 1
        peers[0].subscribe("other", query, {"id": "b", "tag": "t"})
        assert gateway.channels == 2
        for n in range(3):
            log.thing("a", n, "t")
            await asyncio.sleep(0)
        await turns()
        assert len(encoded) == 3
        for i, peer in enumerate(peers):
            assert peer.payloads(str(i)) == peers[0].payloads("0")
        plain = FakePeer(gateway, resume=False)
        plain.subscribe("p", query, {"id": "a", "tag": "t"})
        assert gateway.channels == 2


async def test_a_peer_without_resume_gets_payloads_without_cursors_and_no_signal() -> None:
    log = ScriptedLog()
    async with running(log, ring_size=2) as gateway:
        plain, full = FakePeer(gateway, resume=False, room=1), FakePeer(gateway)
        plain.subscribe("1")
        full.subscribe("1")
        for n in range(10):
            log.thing("a", n)
            await asyncio.sleep(0)
        plain.drain()
        events = await plain.received("1", 10)
        assert [e.keys() for e in events] == [{"data"}] * 10
        assert [e["data"] for e in full.events("1")] == [e["data"] for e in events]
        assert not plain.signals


@pytest.mark.parametrize("flushes", ["in a turn"], indirect=True)
async def test_each_peer_is_written_to_once_in_a_turn() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peers = [FakePeer(gateway) for _ in range(3)]
        for peer in peers:
            peer.subscribe("1")
            peer.subscribe("2", ALL_NOTES)
            peer.subscribe("3", ONE_THING, {"id": "a"})
        for n in range(5):
            log.thing("a", n)
        await turns()
        for peer in peers:
            assert len(peer.writes) == 1
            assert [len(peer.payloads(i)) for i in "123"] == [5, 10, 5]


class Clock:
    """Time as the fan-out measures it: each write takes so many seconds."""

    def __init__(self, write_seconds: float) -> None:
        self.now = 1.0
        self.write_seconds = write_seconds

    def perf_counter(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.now

    def pass_by(self) -> None:
        self.now += self.write_seconds


def let_rest(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Let every flush be one to very many, with a rest behind it however long it took."""
    monkeypatch.setattr("circuit_breaker_server.gateway.fan_out.time", clock)
    monkeypatch.setattr("circuit_breaker_server.gateway.fan_out._SHORT_SECONDS", 0.0)
    monkeypatch.setattr("circuit_breaker_server.gateway.fan_out._LONGEST_REST_SECONDS", 500.0)
    monkeypatch.setattr("circuit_breaker_server.gateway.fan_out.MANY", 0)


@pytest.mark.parametrize("flushes", ["in a turn"], indirect=True)
async def test_a_flush_to_very_many_is_followed_by_a_rest_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, log = Clock(0.5), ScriptedLog()
    let_rest(monkeypatch, clock)
    async with running(log, ring_size=8) as gateway:
        peer = Failing(gateway)
        peer.on_write = clock.pass_by
        peer.subscribe("1")
        for n in range(2):
            log.thing("a", n)
            await turns()
            assert peer.numbers("1") == [0], "half a second is waited"
        clock.now += 0.6
        log.thing("a", 2)
        gateway.flush()
        assert peer.numbers("1") == [0, 1, 2]
        clock.write_seconds = 0.003
        for n in range(3, 6):
            log.thing("a", n)
            wanted = list(range(n + 1))
            await until(lambda: peer.numbers("1") == wanted)  # noqa: B023 (awaited here)
        assert len(peer.writes) == 5


@pytest.mark.parametrize("flushes", ["in a turn"], indirect=True)
async def test_a_rest_ends_before_a_ring_is_full_of_news(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, log = Clock(500.0), ScriptedLog()
    let_rest(monkeypatch, clock)
    async with running(log, ring_size=8) as gateway:
        peer = Failing(gateway)
        peer.on_write = clock.pass_by
        peer.subscribe("1")
        for n in range(60):
            log.thing("a", n)
            await turns(3)
        # One, then as many as a full ring has, then half as many each time.
        assert [len(write.splitlines()) for write in peer.writes] == [1, 7, *[4] * 13]
        assert peer.numbers("1") == list(range(60))
        assert not log.reads


async def test_a_burst_greater_than_the_ring_is_written_in_pieces_and_needs_no_log() -> None:
    log = ScriptedLog()
    async with running(log, ring_size=4) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("1")
        reads = log.reads
        log.put(*(thing_record("a", n) for n in range(50)))
        await peer.received("1", 50)
        assert peer.numbers("1") == list(range(50))
        assert log.reads == reads


async def test_an_operation_gets_only_what_its_arguments_ask_for() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("a", ONE_THING, {"id": "a"})
        peer.subscribe("t", TAGGED, {"tag": "x"})
        for n in range(12):
            log.thing("ab"[n % 2], n, "x" if n % 3 == 0 else None)
        await turns()
        assert peer.numbers("a") == [0, 2, 4, 6, 8, 10]
        assert peer.numbers("t") == [0, 3, 6, 9]
        assert_chained(peer.events("t"), peer.signals[1][1])


async def test_arguments_that_name_nothing_are_refused_with_the_engine_s_code() -> None:
    async with running(ScriptedLog()) as gateway:
        peer = FakePeer(gateway)
        with pytest.raises(Refused) as refused:
            peer.subscribe("1", ONE_THING, {"id": "missing"})
        assert refused.value.errors[0].code == "NOT_FOUND"
        assert gateway.channels == 0


async def test_a_channel_lives_as_long_as_its_last_subscriber() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        one, two = FakePeer(gateway), FakePeer(gateway)
        one.subscribe("1")
        two.subscribe("1")
        two.subscribe("2", ALL_NOTES)
        assert gateway.channels == 2
        one.feed.unsubscribe("1")
        one.feed.unsubscribe("1")
        assert gateway.channels == 2
        gateway.detach(two.feed)
        gateway.detach(two.feed)
        assert gateway.channels == 0
        log.thing("a", 1)
        await turns()
        assert not one.writes
        assert not two.writes


async def test_of_a_peer_that_goes_very_many_operations_leave_a_few_at_a_time_and_get_nothing_more() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peer, other = FakePeer(gateway), FakePeer(gateway)
        for number in range(200):
            peer.subscribe(str(number), ONE_THING, {"id": str(number)})
        other.subscribe("1")
        assert gateway.channels == 201
        gateway.detach(peer.feed)
        assert 100 < gateway.channels < 201
        for number in range(200):
            log.thing(str(number), number)
            await asyncio.sleep(0)
        await until(lambda: gateway.channels == 1)
        await other.received("1", 200)
        assert not peer.writes
        assert other.numbers("1") == list(range(200))


async def test_a_gateway_that_closes_waits_until_all_operations_have_left() -> None:
    async with running(ScriptedLog()) as gateway:
        peer = FakePeer(gateway)
        for number in range(200):
            peer.subscribe(str(number), ONE_THING, {"id": str(number)})
        gateway.detach(peer.feed)
        await gateway.aclose()
        assert not gateway.channels


async def test_an_id_is_free_again_and_its_successor_is_not_the_one_before() -> None:
    log = log_of_ten()
    async with running(log, page_records=1) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("1", after=cursor_of(log, 1, 2))
        await asyncio.sleep(0)
        peer.feed.unsubscribe("1")  # while it reads
        peer.writes.clear()
        peer.subscribe("1", ONE_THING, {"id": "b"})
        log.thing("a", 10)
        log.thing("b", 11)
        await turns(100)
        assert peer.numbers("1") == [11]


async def test_a_projection_that_fails_ends_its_own_operation_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("bad", ALL_NOTES)
        peer.subscribe("good")
        bad = peer.feed.subscribers["bad"].channel.projection

        def encode(self: Projection, value: dict[str, object]) -> bytes:
            if self is bad:
                raise ValueError("a secret of the inside")
            return original(self, value)

        original = Projection.encode
        monkeypatch.setattr(Projection, "encode", encode)
        log.thing("a", 1)
        log.thing("a", 2)
        error = await peer.failed("bad")
        assert (error.message, error.code) == ("internal error", "INTERNAL")
        await peer.received("good", 2)
        assert gateway.channels == 1


async def test_a_filter_that_fails_ends_its_own_operation_alone() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("bad", TAGGED, {"tag": "x"})
        peer.subscribe("good")
        log.put(("thing.a", [("things", {"id": "a", "n": 1})]))  # no tag
        assert (await peer.failed("bad")).code == "INTERNAL"
        await peer.received("good", 1)


async def test_a_record_that_cannot_be_read_ends_those_it_concerns_and_nobody_else() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("a", ONE_THING, {"id": "a"})
        peer.subscribe("b", ONE_THING, {"id": "b"})
        log.put(("thing.a", [("things",)]))  # type: ignore[list-item]  # no event at all, as it should be
        assert (await peer.failed("a")).code == "INTERNAL"
        log.thing("b", 1)
        await peer.received("b", 1)
        peer.subscribe("c")
        assert peer.signals[-1][0] == "c"


async def test_a_log_that_cannot_be_read_ends_what_needs_it_and_nothing_else() -> None:
    log = log_of_ten()
    async with running(log) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("live")
        log.broken = True
        peer.subscribe("behind", after=cursor_of(log, 1, 0))
        assert (await peer.failed("behind")).code == "UNAVAILABLE"
        log.thing("a", 10)
        await peer.received("live", 1)


async def test_a_cursor_moves_on_where_nothing_matched_and_prev_does_not_know_of_it() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peer, plain = FakePeer(gateway), FakePeer(gateway, resume=False)
        peer.subscribe("a", ONE_THING, {"id": "a"})
        peer.subscribe("b", ONE_THING, {"id": "b"})
        plain.subscribe("a", ONE_THING, {"id": "a"})
        start = peer.signals[0][1]
        peer.signals.clear()
        gateway.advance()
        assert not peer.signals, "nothing happened"
        for n in range(3):
            log.thing("b", n)
        gateway.advance()
        assert [operation for operation, _ in peer.signals] == ["a"], "b's news is not flushed yet"
        await turns()
        peer.signals.clear()
        gateway.advance()
        # What b received lies before the end of its record: that much it moves on.
        assert peer.signals == [("b", cursor_of(log, 3, 2))]
        log.thing("a", 3)
        (event,) = await peer.received("a", 1)
        assert resume_of(event)[1] == start
        assert not plain.signals


async def test_many_cursors_move_on_a_few_at_a_time_and_none_is_forgotten() -> None:
    log = ScriptedLog()
    async with running(log, advance_seconds=0.05) as gateway:
        peers = [FakePeer(gateway) for _ in range(9)]
        for peer in peers:
            for k in range(50):
                peer.subscribe(str(k), ONE_THING, {"id": "a"})
            peer.signals.clear()
        log.thing("b", 1)
        told: list[int] = []
        async with asyncio.timeout(5):
            while sum(told[-1:]) < 9 * 50:
                await turns()
                told.append(sum(len(peer.signals) for peer in peers))
    # A peer's are told together, four peers' of 50 at a time.
    assert {count for count in told if count} == {200, 400, 450}
    for peer in peers:
        assert [id_ for id_, _ in peer.signals] == [str(k) for k in range(50)]


async def test_a_gateway_begins_at_the_end_of_a_log_that_is_there_already() -> None:
    log = log_of_ten()
    async with running(log) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("1")
        assert peer.signals == [("1", cursor_of(log, 10, 2))]
    end = cursor_of(log, 10, 2)
    log.trim_now(11)
    async with running(log) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("1")
        (_, start) = peer.signals[0]
        assert Cursor.parse(start).check == Cursor.parse(end).check
        again = FakePeer(gateway)
        again.subscribe("1", after=start)
        log.thing("a", 10)
        await again.received("1", 1)


async def test_closing_while_peers_are_behind_leaves_no_task() -> None:
    log = log_of_ten()
    async with running(log) as gateway:
        for _ in range(3):
            peer = FakePeer(gateway)
            peer.subscribe("1", after=cursor_of(log, 1, 0))
        await asyncio.sleep(0)
    await gateway.aclose()
    log.thing("a", 1)
    await turns()


async def test_many_operations_of_one_peer_are_written_in_bounded_pieces() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peer = FakePeer(gateway)
        aliases = " ".join(f"{name * 50}: id" for name in "abcdefghijklmnopqrstuvwxyz")
        for i in range(60):
            peer.subscribe(str(i), f"subscription {{ things {{ {aliases} n{i}: n }} }}")
        for n in range(20):
            log.thing("a", n)
        await turns(1000)
        assert len(peer.writes) > 1
        assert max(map(len, peer.writes)) < 512 * 1024
        for i in range(60):
            assert [e["data"]["things"][f"n{i}"] for e in peer.events(str(i))] == list(range(20))


async def test_what_graphql_core_has_to_encode_is_counted_also_after_its_channel_is_gone() -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("1")
        log.thing("a", 1)
        await turns()
        assert gateway.fallbacks == 0
        log.put(("thing.a", [("things", {"id": None, "n": 2, "tag": None})]))
        await turns()
        assert gateway.fallbacks == 1
        peer.feed.unsubscribe("1")
        assert (gateway.channels, gateway.fallbacks) == (0, 1)


class ImpatientClock(Clock):
    """Fails a flush that looks at it without end."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.looks = 0

    def perf_counter(self) -> float:
        self.looks += 1
        assert self.looks < 1000, "the flush does not end"
        return self.now


@pytest.mark.parametrize("is_closing", [False, True])
async def test_a_flush_does_not_wait_for_a_peer_with_more_than_one_write_takes(
    monkeypatch: pytest.MonkeyPatch, *, is_closing: bool
) -> None:
    monkeypatch.setattr("circuit_breaker_server.gateway.feed.MAX_WRITE_BYTES", 100)
    log = ScriptedLog()
    async with running(log) as gateway:
        peer = FakePeer(gateway)
        for number in range(4):
            peer.subscribe(str(number), f"subscription {{ things {{ id n{number}: n }} }}")
        log.thing("a", 0)
        monkeypatch.setattr("circuit_breaker_server.gateway.fan_out.time", ImpatientClock())
        if is_closing:
            gateway.flush()
        await turns()
        assert [len(peer.payloads(str(number))) for number in range(4)] == [1] * 4
        assert len(peer.writes) > 1
