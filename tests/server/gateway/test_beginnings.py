"""Subscriptions that begin at the beginning, at a time, or a number of events before the end."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from circuit_breaker_server.gateway.subscription_plan import Refused
from tests.server.gateway.worlds import (
    ALL_NOTES,
    ALL_THINGS,
    ONE_THING,
    TAGGED,
    FakePeer,
    Payload,
    ScriptedLog,
    assert_chained,
    running,
    turns,
)


def at(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()


async def told(
    log: ScriptedLog,
    begin: Mapping[str, object],
    query: str = ALL_THINGS,
    variables: Mapping[str, object] | None = None,
    *,
    count: int,
    page_records: int = 3,
) -> list[Payload]:
    """Subscribe with this beginning; return so many events, which hang together."""
    async with running(log, page_records=page_records) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("1", query, variables, begin=begin)
        events = await peer.received("1", count)
        await turns()
        assert len(peer.events("1")) == count
        ((_, start),) = peer.signals
        assert_chained(events, start)
        return events


def numbers(events: list[Payload]) -> list[object]:
    return [event["data"]["things"]["n"] for event in events]


async def test_the_beginning_is_everything_and_what_comes_goes_on() -> None:
    log = ScriptedLog()
    for n in range(10):
        log.thing("a", n)
    async with running(log, page_records=3) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("1", begin={"from": "beginning"})
        await peer.received("1", 10)
        log.thing("a", 10)
        assert numbers(await peer.received("1", 11)) == list(range(11))


async def test_an_empty_log_has_a_beginning_and_no_last_events() -> None:
    for begin in ({"from": "beginning"}, {"last": 5}, {"since": at(0)}):
        log = ScriptedLog()
        async with running(log) as gateway:
            peer = FakePeer(gateway)
            peer.subscribe("1", begin=begin)
            await turns()
            log.thing("a", 1)
            assert numbers(await peer.received("1", 1)) == [1]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 39, 40, 41, 1000])
async def test_the_last_events_are_exactly_so_many(count: int) -> None:
    log = ScriptedLog()
    for n in range(40):
        if n % 3 == 0:
            log.hole()
        log.thing("a", n)
    wanted = list(range(40))[-count:]
    assert numbers(await told(log, {"last": count}, count=len(wanted))) == wanted


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
async def test_the_last_events_may_begin_inside_of_a_record(count: int) -> None:
    log = ScriptedLog()
    for n in range(3):
        log.thing("a", n)
    events = await told(log, {"last": count}, ALL_NOTES, count=count)
    texts = [f"{n} {what}" for n in range(3) for what in ("begins", "ends")]
    assert [event["data"]["notes"]["text"] for event in events] == texts[-count:]


async def test_the_last_events_are_those_that_match_however_far_behind() -> None:
    chance = random.Random(7)  # noqa: S311 (which of them match)
    log = ScriptedLog()
    for n in range(3000):
        log.thing(chance.choice("ab"), n, "rare" if n in {5, 700, 2000} else "any")
    events = await told(log, {"last": 3}, TAGGED, {"tag": "rare"}, count=3, page_records=256)
    assert numbers(events) == [5, 700, 2000]
    assert len(await told(log, {"last": 5}, ONE_THING, {"id": "a"}, count=5, page_records=256)) == 5


@pytest.mark.parametrize(("since", "first"), [(0, 0), (1000, 0), (1001, 1), (5500, 5), (9000, 8), (9001, 9)])
async def test_a_time_is_where_the_first_record_is_not_older(since: int, first: int) -> None:
    log = ScriptedLog()
    for n in range(9):
        log.time_ms = 1000 * (n + 1)
        log.thing("a", n)
    wanted = list(range(first, 9))
    assert numbers(await told(log, {"since": at(since)}, count=len(wanted))) == wanted


@pytest.mark.parametrize("since", ["1970-01-01T00:00:05.000999Z", "1970-01-01T02:00:05.0000001+02:00"])
async def test_what_happened_within_the_same_millisecond_is_not_left_out(since: str) -> None:
    log = ScriptedLog()
    for n in range(9):
        log.time_ms = 1000 * (n + 1)
        log.thing("a", n)
    assert numbers(await told(log, {"since": since}, count=5)) == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("begin", "is_gap"),
    [
        ({"from": "beginning"}, True),
        ({"last": 5}, False),
        ({"last": 6}, True),
        ({"since": at(6000)}, False),
        ({"since": at(5001)}, False),
        ({"since": at(5000)}, True),
        ({"since": at(0)}, True),
    ],
)
async def test_what_was_trimmed_is_a_gap_and_never_told_in_part(
    begin: Mapping[str, object], is_gap: bool
) -> None:
    log = ScriptedLog()
    for n in range(10):
        log.time_ms = 1000 * (n + 1)
        log.thing("a", n)
    log.trim_now(6)
    if not is_gap:
        assert numbers(await told(log, begin, count=5)) == [5, 6, 7, 8, 9]
        return
    async with running(log) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("1", begin=begin)
        error = await peer.failed("1")
        assert error.extensions == {"code": "RESUME_GAP", "reason": "trimmed"}
        assert peer.events("1") == []


@pytest.mark.parametrize(
    ("begin", "text"),
    [
        ({"from": "end"}, ".from"),
        ({"from": 1}, ".from"),
        ({"last": 0}, ".last"),
        ({"last": -1}, ".last"),
        ({"last": 1001}, ".last"),
        ({"last": True}, ".last"),
        ({"last": "5"}, ".last"),
        ({"since": "yesterday"}, ".since"),
        ({"since": "2026-01-31T12:00:00"}, ".since"),
        ({"since": "2026-13-31T12:00:00Z"}, ".since"),
        ({"since": "0001-01-01T00:00:00+14:00"}, ".since"),
        ({"since": 5}, ".since"),
        ({"last": 5, "from": "beginning"}, "from and last"),
        ({"last": 5, "after": "x"}, "after and last"),
    ],
)
async def test_what_is_no_beginning_is_refused_with_what_would_be_one(
    begin: Mapping[str, object], text: str
) -> None:
    async with running(ScriptedLog()) as gateway:
        peer = FakePeer(gateway)
        with pytest.raises(Refused) as refused:
            peer.subscribe("1", begin=begin)
        (error,) = refused.value.errors
        assert (error.extensions or {})["code"] == "BAD_REQUEST"
        assert text in error.message
        assert gateway.channels == 0


async def test_events_that_come_while_the_last_are_looked_for_follow_them() -> None:
    log = ScriptedLog()
    for n in range(50):
        log.thing("a", n)
    async with running(log, page_records=3) as gateway:
        peer = FakePeer(gateway)
        log.before_read = lambda: log.thing("a", log.last_offset) if log.last_offset < 60 else None
        peer.subscribe("1", begin={"last": 10})
        assert numbers(await peer.received("1", 20)) == list(range(40, 60))


async def test_a_random_log_gives_the_last_events_of_each_subscription_exactly() -> None:
    chance = random.Random(3)  # noqa: S311 (a log)
    for _ in range(30):
        log = ScriptedLog()
        every: list[tuple[str, int]] = []
        for n in range(chance.randrange(1, 200)):
            name = chance.choice("abc")
            every.append((name, n))
            if chance.random() < 0.2:
                log.hole()
            log.thing(name, n)
        name, count = chance.choice("abc"), chance.randrange(1, 30)
        wanted = [n for of, n in every if of == name][-count:]
        events = await told(log, {"last": count}, ONE_THING, {"id": name}, count=len(wanted))
        assert numbers(events) == wanted
