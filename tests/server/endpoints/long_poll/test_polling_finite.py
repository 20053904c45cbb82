"""Polls of streams that begin and end: whole, then done; and one that never begins is not polled forever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from circuit_breaker_server.endpoints.long_poll.start_deadlines import Patience
from circuit_breaker_server.gateway.subscription_plan import PlanKey
from tests.server.gateway.finite_stream import LAST, Story
from tests.server.gateway.worlds import ONE_THING, Payload, assert_chained
from tests.server.polling_stage import PollStage, Result, operation, polling
from tests.waiting import PATIENCE_SECONDS, until


@contextlib.asynccontextmanager
async def telling(
    *, begin_seconds: float = 60.0, poll_bytes: int = 1024 * 1024
) -> AsyncIterator[tuple[Story, PollStage]]:
    log = Story()
    log.thing("other", 1)
    async with polling(
        log, select=log.select, page_records=3, begin_seconds=begin_seconds, poll_bytes=poll_bytes
    ) as stage:
        yield log, stage


async def follow(stage: PollStage, *, after: str | None = None, wait_ms: int = 25_000) -> Result:
    return await stage.poll(ONE_THING, {"id": "s"}, after=after, wait_ms=wait_ms)


@pytest.mark.parametrize("poll_bytes", [1, 500, 1024 * 1024])
async def test_it_is_whole_from_its_beginning_then_done_and_done_again_after_the_end(poll_bytes: int) -> None:
    async with telling(poll_bytes=poll_bytes) as (log, stage):
        log.begin()
        log.tell(*range(LAST + 1))
        told = await follow(stage)
        start = told.after
        assert (told.events, told.cursor, told.done) == ([], str(log.start()), False)
        events: list[Payload] = []
        while not told.done:
            told = await follow(stage, after=told.after)
            assert told.events
            events += told.events
        assert [event["data"]["things"]["n"] for event in events] == list(range(LAST + 1))
        assert_chained(events, start)
        assert await follow(stage, after=told.after) == Result(events=[], cursor=told.cursor, done=True)


async def test_a_start_beside_an_operation_that_reads_on_is_a_start_still() -> None:
    async with telling() as (log, stage):
        log.begin()
        log.tell(*range(LAST + 1))
        begin = await follow(stage)
        started, told = await stage.poll_many(
            operation(ONE_THING, {"id": "s"}),
            operation("subscription($id: String!) { things(id: $id) { n } }", {"id": "s"}, after=begin.after),
        )
        assert started == begin
        assert (told.numbers, told.done) == (list(range(LAST + 1)), True)


async def test_one_that_begins_while_it_is_polled_is_told_as_it_comes_and_done_with_the_last_event() -> None:
    async with telling() as (log, stage):
        start = await follow(stage)
        assert (start.events, start.done) == ([], False)
        poll = asyncio.create_task(follow(stage, after=start.after))
        await until(lambda: stage.gateway.channels == 1)
        log.begin()
        log.tell(0, 1)
        first = await poll
        assert (first.numbers, first.done) == ([0, 1], False)
        log.tell(*range(2, LAST + 1))
        rest = await follow(stage, after=first.after)
        assert (rest.numbers, rest.done) == (list(range(2, LAST + 1)), True)
        assert_chained([*first.events, *rest.events], start.after)


async def test_one_that_never_begins_ends_with_not_found_however_short_its_polls_are() -> None:
    async with telling(begin_seconds=0.05) as (_, stage):
        told = await follow(stage)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not told.done:
                told = await follow(stage, after=told.after, wait_ms=0)
        assert told.extensions == {"code": "NOT_FOUND"}
        assert told.error["message"] == "there is no story"
        assert (await follow(stage, after=(await follow(stage)).after)).done
        assert stage.gateway.channels == 0


async def test_the_time_to_begin_counts_from_who_came_last_and_a_waiting_poll_is_told_at_its_end() -> None:
    async with telling(begin_seconds=0.05) as (log, stage):
        start = await follow(stage)
        told = await follow(stage, after=start.after)
        assert told.extensions == {"code": "NOT_FOUND"}
        log.begin()
        log.tell(0)
        assert (await follow(stage, after=start.after)).numbers == [0]


async def test_what_is_remembered_of_streams_that_never_begin_is_bounded() -> None:
    patience = Patience(60.0)
    keys: list[PlanKey] = [("subscription { … }", None, str(n).encode()) for n in range(10_100)]
    first = patience.left(keys[0], anew=True)
    assert first == pytest.approx(60.0)
    assert patience.left(keys[0], anew=False) <= first
    for key in keys:
        patience.left(key, anew=False)
    assert len(patience) == 10_000
