"""Long polls: what each is answered with, when, and that a chain of them misses and doubles nothing."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest

from circuit_breaker_server import logs
from circuit_breaker_server.log.event_log import LogPage
from tests.server.gateway.worlds import (
    ALL_NOTES,
    ALL_THINGS,
    ONE_THING,
    TAGGED,
    FakePeer,
    Payload,
    ScriptedLog,
    assert_chained,
    cursor_of,
    resume_of,
)
from tests.server.polling_stage import PollStage, Result, operation, polling
from tests.waiting import until

JSON = "application/json"


@pytest.fixture(autouse=True)
def quiet_logs(default_log_level: None) -> None:
    logs.configure("critical")


async def waiting(stage: PollStage, *, channels: int = 1) -> None:
    """Wait until a poll has joined its channels."""
    await until(lambda: len(stage.polls) == 1 and stage.gateway.channels == channels)


# --- when a poll is answered, and with what --------------------------------------------------------


async def test_without_a_cursor_the_start_position_is_told_at_once_and_nothing_after_it_is_missed() -> None:
    async with polling() as stage:
        stage.log.thing("a", 0)
        start = await stage.poll()
        assert start == Result(events=[], cursor=cursor_of(stage.log, 1, 2), done=False)
        assert stage.gateway.channels == 0
        stage.log.thing("a", 1)
        stage.log.thing("a", 2)
        missed = await stage.poll(after=start.after)
        assert (missed.numbers, missed.done) == ([1, 2], False)
        assert_chained(missed.events, start.after)
        assert missed.cursor == resume_of(missed.events[-1])[0]


async def test_a_poll_waits_for_an_event_and_then_tells_it_at_once() -> None:
    async with polling() as stage:
        start = (await stage.poll()).after
        poll = asyncio.create_task(stage.poll(after=start))
        await waiting(stage)
        stage.log.thing("a", 1)
        told = await poll
        assert told.numbers == [1]
        assert_chained(told.events, start)


async def test_what_comes_in_one_go_rides_in_one_answer() -> None:
    async with polling() as stage:
        start = (await stage.poll()).after
        poll = asyncio.create_task(stage.poll_many(operation(after=start), operation(ALL_NOTES, after=start)))
        await waiting(stage, channels=2)
        for n in range(5):
            stage.log.thing("a", n)
        things, notes = await poll
        assert things.numbers == list(range(5))
        assert len(notes.events) == 10


async def test_a_wait_of_zero_tells_what_is_there_over_all_pages_of_the_log() -> None:
    async with polling(page_records=2) as stage:
        start = (await stage.poll()).after
        for n in range(9):
            stage.log.thing("a", n)
        told = await stage.poll(after=start, wait_ms=0)
        assert told.numbers == list(range(9))
        assert_chained(told.events, start)


async def test_where_nothing_matched_the_cursor_is_moved_on_and_named_by_the_next_event() -> None:
    async with polling() as stage:
        start = (await stage.poll(ONE_THING, {"id": "a"})).after
        stage.log.thing("b", 1)
        moved = await stage.poll(ONE_THING, {"id": "a"}, after=start, wait_ms=0)
        assert moved == Result(events=[], cursor=cursor_of(stage.log, 1, 2), done=False)
        again = await stage.poll(ONE_THING, {"id": "a"}, after=moved.after, wait_ms=0)
        assert again == moved
        stage.log.thing("a", 2)
        told = await stage.poll(ONE_THING, {"id": "a"}, after=moved.after)
        assert told.numbers == [2]
        assert_chained(told.events, moved.after)


async def test_an_operation_without_news_is_moved_on_while_another_tells_its_own() -> None:
    async with polling() as stage:
        start = (await stage.poll()).after
        poll = asyncio.create_task(
            stage.poll_many(
                operation(ONE_THING, {"id": "a"}, after=start), operation(ONE_THING, {"id": "b"}, after=start)
            )
        )
        await waiting(stage, channels=2)
        stage.log.thing("b", 1)
        a, b = await poll
        assert (a.events, a.cursor) == ([], cursor_of(stage.log, 1, 2))
        assert b.numbers == [1]


async def test_a_log_too_long_for_one_poll_is_read_through_by_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = ScriptedLog()
    async with polling(log, page_records=2) as stage:
        start = (await stage.poll(TAGGED, {"tag": "x"})).after
        for n in range(20):
            log.thing("a", n)
        log.thing("a", 20, "x")
        asked, read_page = 0, log.read_page

        async def read_some(**what: Any) -> LogPage:
            nonlocal asked
            asked += 1
            if asked == 5:
                stage.polls.stop()
                await asyncio.Event().wait()  # the poll is answered first, and leaves
            return await read_page(**what)

        monkeypatch.setattr(log, "read_page", read_some)
        cut = await stage.poll(TAGGED, {"tag": "x"}, after=start)
        monkeypatch.undo()
        assert (cut.events, cut.done) == ([], False)
        assert start != cut.cursor != cursor_of(log, 21, 2)
    async with polling(log, page_records=2) as stage:
        told = await stage.poll(TAGGED, {"tag": "x"}, after=cut.cursor)
        assert told.numbers == [20]
        assert_chained(told.events, cut.after)


async def test_several_operations_are_answered_in_order_each_with_what_is_its_own() -> None:
    async with polling() as stage:
        stage.log.thing("a", 0)
        told, start, broken = await stage.poll_many(
            operation(after=f"{stage.log.epoch}.0.0.00000000"),
            operation(ALL_NOTES),
            operation("{ nonsense }"),
        )
        assert told.numbers == [0]
        assert start == Result(events=[], cursor=cursor_of(stage.log, 1, 2), done=False)
        assert (broken.done, broken.events, broken.cursor) == (True, [], None)
        assert broken.error["message"]
        (one,) = await stage.poll_many(operation())
        assert one.cursor == start.cursor


# --- what ends an operation ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "variables", "code", "text"),
    [
        ("subscription {", {}, "GRAPHQL_PARSE_FAILED", "Syntax"),
        ("subscription { nothing { id } }", {}, "GRAPHQL_VALIDATION_FAILED", "nothing"),
        (ONE_THING, {}, "INVALID_INPUT", "id"),
        (ONE_THING, {"id": "missing"}, "NOT_FOUND", "missing"),
        ("{ nothing }", {}, "OPERATION_NOT_SUPPORTED", "/graphql"),
        (
            "subscription A { things { id } } subscription B { notes { id } }",
            {},
            "OPERATION_RESOLUTION_FAILURE",
            "operationName",
        ),
    ],
)
async def test_an_operation_that_cannot_be_served_ends_with_its_errors(
    query: str, variables: dict[str, object], code: str, text: str
) -> None:
    async with polling() as stage:
        refused = await stage.poll(query, variables)
        assert (refused.events, refused.done, refused.extensions["code"]) == ([], True, code)
        assert text in str(refused.error["message"])
        assert stage.gateway.channels == 0


async def test_a_named_operation_of_several_is_polled() -> None:
    async with polling() as stage:
        body = {
            "query": "subscription A { things { id n } } subscription B { notes { id text } }",
            "operationName": "A",
            "extensions": {"resume": {"after": f"{stage.log.epoch}.0.0.00000000"}},
        }
        stage.log.thing("a", 7)
        async with stage.http.post(stage.url, json=body) as answer:
            assert msgspec.json.decode(await answer.read(), type=Result).numbers == [7]


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (7, "malformed"),
        ("x", "malformed"),
        ("ffff.1.0.00000000", "epoch"),
        ("00000000deadbeef.99.0.00000000", "future"),
        ("00000000deadbeef.3.0.ffffffff", "rewritten"),
        ("00000000deadbeef.1.0.00000000", "trimmed"),
    ],
)
async def test_a_cursor_that_cannot_be_resumed_ends_with_the_reason(after: object, reason: str) -> None:
    async with polling() as stage:
        for n in range(4):
            stage.log.thing("a", n)
        stage.log.trim_now(3)
        gap = await stage.poll(after=after)
        assert gap.extensions == {"code": "RESUME_GAP", "reason": reason}
        assert (gap.events, gap.done) == ([], True)
        assert stage.gateway.channels == 0


async def test_a_log_that_cannot_be_read_ends_the_operation_with_unavailable() -> None:
    async with polling() as stage:
        start = (await stage.poll()).after
        stage.log.thing("a", 1)
        stage.log.broken = True
        failed = await stage.poll(after=start)
        assert (failed.done, failed.extensions["code"]) == (True, "UNAVAILABLE")


# --- bodies that are no poll -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "content_type", "status", "text"),
    [
        (b"{nonsense", JSON, 400, "not a GraphQL request"),
        (b"", JSON, 400, "not a GraphQL request"),
        (b"\xff\xfe", JSON, 400, "not a GraphQL request"),
        (b"[]", JSON, 400, "object"),
        (b"{}", JSON, 400, "`query`"),
        (b'{"query": 1}', JSON, 400, "query"),
        (b'{"query": "x", "waitMs": -1}', JSON, 400, "waitMs must be 0 to 25000 milliseconds, not -1"),
        (b'{"query": "x", "waitMs": 25001}', JSON, 400, "waitMs"),
        (b'{"query": "x", "waitMs": "1"}', JSON, 400, "waitMs"),
        (b'{"operations": []}', JSON, 400, "1 to 10 operations"),
        (b'{"operations": [%b]}' % b",".join([b'{"query": "x"}'] * 11), JSON, 400, "1 to 10 operations"),
        (b'{"query": "x", "operations": [{"query": "x"}]}', JSON, 400, "not both"),
        (b'{"query": "x", "extensions": 1}', JSON, 400, "extensions"),
        (b'{"query": "x"}', "text/plain", 415, JSON),
        (b'{"query": "' + b"x" * 100_000 + b'"}', JSON, 413, "100000"),
    ],
)
async def test_a_body_that_is_no_poll_gets_one_clear_error(
    body: bytes, content_type: str, status: int, text: str
) -> None:
    async with polling() as stage:
        async with stage.http.post(stage.url, data=body, headers={"Content-Type": content_type}) as answer:
            assert (answer.status, answer.headers["Cache-Control"]) == (status, "no-store")
            (error,) = (await answer.json())["errors"]
            assert text in error["message"]
        assert len(stage.polls) == 0


UNREADABLE = [
    (b'{"query": "x", "variables": {"id": "\\ud83d"}}', "surrogate"),
    (b'{"query": "x", "variables": {"id": NaN}}', "NaN"),
    (b'{"query": "x", "variables": 1}', "variables"),
    (b'{"query": "\xed\xa0\x80"}', "not UTF-8"),
    (b"{}", "query"),
    (b"null", "object"),
]


@pytest.mark.parametrize(("unreadable", "text"), UNREADABLE)
async def test_an_operation_that_cannot_be_read_fails_alone(unreadable: bytes, text: str) -> None:
    async with polling() as stage:
        good = msgspec.json.encode({"query": ALL_THINGS})
        body = b'{"operations": [%b, %b], "waitMs": 0}' % (unreadable, good)
        async with stage.http.post(stage.url, data=body, headers={"Content-Type": JSON}) as answer:
            assert answer.status == 200
            failed, started = (await answer.json())["results"]
        assert failed["done"] is True
        assert text in failed["errors"][0]["message"]
        assert (started["done"], "errors" in started) == (False, False)
        assert started["cursor"]


async def test_other_methods_are_told_to_post() -> None:
    async with polling() as stage, stage.http.get(stage.url) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")


# --- the bound in bytes ----------------------------------------------------------------------------


@pytest.mark.parametrize(("poll_bytes", "at_most"), [(1, 1), (400, 2), (1000, 7)])
async def test_an_answer_is_bounded_and_the_rest_comes_with_the_next(poll_bytes: int, at_most: int) -> None:
    async with polling(poll_bytes=poll_bytes) as stage:
        start = after = (await stage.poll()).after
        for n in range(12):
            stage.log.thing("a", n)
        received: list[Payload] = []
        while len(received) < 12:
            told = await stage.poll(after=after)
            assert 1 <= len(told.events) <= at_most
            size = sum(len(msgspec.json.encode(event)) for event in told.events)
            assert size <= poll_bytes or len(told.events) == 1
            received += told.events
            after = told.after
        assert_chained(received, start)
        assert [event["data"]["things"]["n"] for event in received] == list(range(12))


@pytest.mark.parametrize("poll_bytes", [1, 500, 2000])
async def test_operations_share_the_bound_and_none_starves(poll_bytes: int) -> None:
    queries = (ALL_THINGS, ALL_NOTES, "subscription { things { n } }")
    async with polling(poll_bytes=poll_bytes) as stage:
        start = (await stage.poll()).after
        for n in range(6):
            stage.log.thing("a", n)
        afters = [start] * 3
        received: list[list[Payload]] = [[], [], []]
        polls = 0
        while [len(events) for events in received] != [6, 12, 6]:
            told = await stage.poll_many(
                *(operation(query, after=after) for query, after in zip(queries, afters, strict=True))
            )
            polls += 1
            assert any(result.events for result in told)
            if polls == 3:
                assert all(received[i] or told[i].events for i in range(3)), "each has had its turn"
            for events, result in zip(received, told, strict=True):
                events.extend(result.events)
            afters = [result.after for result in told]
        for events in received:
            assert_chained(events, start)


async def test_a_live_burst_over_the_bound_is_cut_and_goes_on_from_there() -> None:
    async with polling(poll_bytes=300) as stage:
        start = (await stage.poll()).after
        poll = asyncio.create_task(stage.poll_many(operation(after=start), operation(ALL_NOTES, after=start)))
        await waiting(stage, channels=2)
        for n in range(10):
            stage.log.thing("a", n)
        results = await poll
        assert sum(len(result.events) for result in results) in (1, 2)
        for query, first in zip((ALL_THINGS, ALL_NOTES), results, strict=True):
            events, after = list(first.events), first.after
            while len(events) < (10 if query == ALL_THINGS else 20):
                told = await stage.poll(query, after=after)
                events += told.events
                after = told.after
            assert_chained(events, start)


# --- leaving and stopping --------------------------------------------------------------------------


async def test_a_client_that_leaves_while_it_waits_releases_everything() -> None:
    async with polling() as stage:
        start = (await stage.poll()).after
        poll = asyncio.create_task(stage.poll_many(operation(after=start), operation(ALL_NOTES, after=start)))
        await waiting(stage, channels=2)
        poll.cancel()
        await asyncio.gather(poll, return_exceptions=True)
        await until(lambda: stage.gateway.channels == 0 and len(stage.polls) == 0)
        stage.log.thing("a", 1)
        assert (await stage.poll(after=start)).numbers == [1]


async def test_stopping_answers_those_who_wait_and_those_who_still_come() -> None:
    async with polling() as stage:
        start = (await stage.poll()).after
        poll = asyncio.create_task(stage.poll(after=start))
        await waiting(stage)
        stage.polls.stop()
        assert await poll == Result(events=[], cursor=start, done=False)
        assert await stage.poll(after=start) == Result(events=[], cursor=start, done=False)


# --- a chain of polls ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
async def test_a_chain_of_polls_sees_every_event_once_in_order_while_more_are_appended(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (no secret)
    total = 150
    bounds = chance.choice([1, 300, 1000, 100_000])
    async with polling(ring_size=4, page_records=3, poll_bytes=bounds) as stage:
        queries = [ALL_THINGS, ALL_NOTES, 'subscription { things(id: "a") { id n } }']
        if seed % 2:
            # Who stays subscribed keeps the channel, and with it a ring that the polls come back to.
            FakePeer(stage.gateway).subscribe("1", ALL_THINGS)
        start = (await stage.poll()).after
        afters, received = [start] * 3, [list[Payload](), list[Payload](), list[Payload]()]

        async def append() -> None:
            n = 0
            while n < total:
                for _ in range(chance.choice([1, 1, 2, 9])):
                    stage.log.thing(chance.choice("ab"), n)
                    n += 1
                for _ in range(chance.choice([0, 1, 5, 200])):
                    await asyncio.sleep(0)
            stage.log.put(("end", []))

        appending = asyncio.create_task(append())
        end = ""
        while not (appending.done() and afters == [end] * 3):
            told = await stage.poll_many(
                *(operation(query, after=after) for query, after in zip(queries, afters, strict=True)),
                wait_ms=chance.choice([0, 1, 50]),
            )
            for events, result, after in zip(received, told, afters, strict=True):
                assert result.errors == []
                assert_chained(result.events, after)
                events.extend(result.events)
            afters = [result.after for result in told]
            if appending.done():
                end = cursor_of(stage.log, stage.log.last_offset, 0)
        await appending
        things, notes, some = received
        for events in received:
            cursors = [resume_of(event)[0] for event in events]
            assert len(set(cursors)) == len(cursors)
        everything = [record for record in stage.log.records.values() if record.subject != "end"]
        assert [e["data"]["things"]["n"] for e in things] == list(range(len(everything)))
        assert len(notes) == 2 * len(everything)
        assert len(some) == sum(record.subject == "thing.a" for record in everything)
