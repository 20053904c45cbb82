"""One subscription, one request: its events, its cursors, its ends."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from circuit_breaker_server.graphql.documents import Document
from tests.server.event_stream_stage import ACCEPT, Stream, asked, opened
from tests.server.gateway.finite_stream import LAST, Story
from tests.server.gateway.worlds import ALL_THINGS, ONE_THING, ScriptedLog
from tests.server.http_stage import http_stage
from tests.waiting import until

GET = {"query": ALL_THINGS}


def things(log: ScriptedLog, first: int, last: int) -> None:
    for n in range(first, last + 1):
        log.thing("r", n)


async def test_a_subscription_is_answered_with_a_stream_of_its_events() -> None:
    async with http_stage() as stage, opened(stage) as stream:
        assert stream.answer.headers["Cache-Control"] == "no-store, no-transform"
        assert stream.answer.headers["X-Accel-Buffering"] == "no"
        start = await stream.signal()
        stage.log.thing("r", 1)
        number, cursor = await stream.number()
        assert number == 1
        assert cursor not in (None, start)


@pytest.mark.parametrize("path", ["/graphql", "/graphql/stream", "/stream", "/ws", "/"])
async def test_every_path_of_operations_and_of_streams_has_them(path: str) -> None:
    async with http_stage() as stage, opened(stage, path=path) as stream:
        await stream.signal()


async def test_a_path_of_streams_needs_no_accept_header() -> None:
    async with http_stage() as stage, opened(stage, path="/graphql/stream", headers={}) as stream:
        await stream.signal()


async def test_without_the_resume_protocol_payloads_are_plain_and_ids_are_cursors() -> None:
    async with http_stage() as stage:
        async with opened(stage) as stream:
            await stream.signal()
            things(stage.log, 1, 3)
            assert [await stream.payload() for _ in range(3)] == [
                {"data": {"things": {"id": "r", "n": n}}} for n in (1, 2, 3)
            ]
            things(stage.log, 4, 4)
            (_, cursor) = await stream.number()
        async with opened(stage, headers={**ACCEPT, "Last-Event-ID": str(cursor)}) as stream:
            assert await stream.signal() == cursor
            things(stage.log, 5, 5)
            assert (await stream.number())[0] == 5


async def test_with_the_resume_protocol_payloads_carry_cursor_and_previous() -> None:
    async with http_stage() as stage:
        async with opened(stage, headers={**ACCEPT, "Resume-Version": "1"}) as stream:
            start = await stream.signal()
            things(stage.log, 1, 2)
            first, second = await stream.payload(), await stream.payload()
            assert first["extensions"]["resume"]["prev"] == start  # type: ignore[index]  # of this shape
            cursor = first["extensions"]["resume"]["cursor"]  # type: ignore[index]  # of this shape
            assert second["extensions"]["resume"]["prev"] == cursor  # type: ignore[index]  # of this shape
        async with opened(stage, asked(after=cursor)) as stream:
            assert await stream.signal() == cursor
            again = await stream.payload()
            assert again["extensions"] == second["extensions"]


async def test_an_event_source_comes_again_behind_the_last_event_it_had() -> None:
    async with http_stage() as stage:
        url = stage.root + "/graphql/stream"
        async with stage.http.get(url, params=GET, headers=ACCEPT) as answer:
            stream = Stream(answer)
            await stream.signal()
            things(stage.log, 1, 1)
            (_, cursor) = await stream.number()
        things(stage.log, 2, 4)
        headers = {**ACCEPT, "Last-Event-ID": str(cursor)}
        async with stage.http.get(url, params=GET, headers=headers) as answer:
            stream = Stream(answer)
            assert await stream.signal() == cursor
            assert [(await stream.number())[0] for _ in range(3)] == [2, 3, 4]


async def test_a_gap_is_told_and_the_cursor_taken_back() -> None:
    async with http_stage() as stage, opened(stage, asked(after="rubbish")) as stream:
        event = await stream.event()
        assert (event.type, event.id) == ("next", "")
        assert b'"RESUME_GAP"' in (event.data or b"")
        await stream.complete()


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("subscription { things { nothing } }", "nothing"),
        ("subscription { things { id }", "Syntax Error"),
        ("subscription { things { id } notes { id } }", "one"),
        ("subscription($id: String!) { things(id: $id) { id } }", "$id"),
    ],
)
async def test_an_invalid_operation_is_told_as_next_and_complete(query: str, text: str) -> None:
    async with http_stage() as stage, opened(stage, asked(query)) as stream:
        payload = await stream.payload()
        assert text in str(payload["errors"])
        assert "data" not in payload
        await stream.complete()


async def test_a_query_is_answered_as_a_stream_where_only_streams_are_accepted() -> None:
    async with http_stage() as stage:
        async with opened(stage, asked("{ nothing }")) as stream:
            assert await stream.payload() == {"data": {"nothing": None}}
            await stream.complete()
        headers = {"Accept": "application/json, text/event-stream"}
        async with stage.http.post(
            stage.root + "/graphql", json=asked("{ nothing }"), headers=headers
        ) as answer:
            assert answer.content_type == "application/json"
        async with opened(stage, headers=headers) as stream:
            await stream.signal()


@pytest.mark.parametrize(
    ("method", "headers", "body", "status", "text"),
    [
        ("POST", {"Content-Type": "text/plain"}, b"{}", 415, "Content-Type"),
        ("POST", {"Content-Type": "application/json"}, b"[]", 400, "arrays"),
        ("POST", {"Content-Type": "application/json"}, b"{", 400, "not a GraphQL request"),
        ("GET", {}, b"", 400, "?query="),
        ("DELETE", {}, b"", 404, "no event stream"),
        ("PATCH", {}, b"", 405, "GET, POST, PUT, DELETE"),
    ],
)
async def test_what_is_no_request_for_a_stream_gets_one_clear_error(
    method: str, headers: dict[str, str], body: bytes, status: int, text: str
) -> None:
    async with http_stage() as stage:
        url = stage.root + "/graphql/stream"
        async with stage.http.request(method, url, data=body, headers=headers) as answer:
            assert answer.status == status
            assert answer.content_type == "application/json"
            (error,) = (await answer.json())["errors"]
            assert text in error["message"]


async def test_a_client_that_leaves_takes_its_subscription_with_it() -> None:
    async with http_stage() as stage:
        async with opened(stage) as stream:
            await stream.signal()
            assert (len(stage.endpoints.streams), stage.gateway.channels) == (1, 1)
        await until(lambda: not stage.gateway.channels and not len(stage.endpoints.streams))


async def test_a_silent_stream_is_kept_alive_by_comments() -> None:
    async with http_stage(settings={"ping_seconds": 0.02}) as stage, opened(stage) as stream:
        await stream.signal()
        reading = asyncio.ensure_future(stream.event())
        await until(lambda: stream.comments >= 3)
        things(stage.log, 1, 1)
        assert (await reading).type == "next"


async def test_a_server_that_stops_ends_streams_without_completing_them() -> None:
    async with http_stage() as stage, opened(stage) as stream:
        await stream.signal()
        things(stage.log, 1, 1)
        stage.gateway.flush()
        closing = asyncio.ensure_future(stage.endpoints.aclose())
        assert (await stream.number())[0] == 1
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.event()
        await closing


async def test_a_slow_reader_is_read_from_the_log_and_misses_nothing() -> None:
    async with (
        http_stage(ring_size=4, settings={"send_buffer_bytes": 4096}) as stage,
        opened(stage) as stream,
    ):
        await stream.signal()
        for n in range(1, 2001):
            stage.log.thing("x" * 1000, n)
            if n % 50 == 0:
                await asyncio.sleep(0)
        assert [(await stream.number())[0] for _ in range(2000)] == list(range(1, 2001))


async def test_a_finite_stream_is_told_whole_then_completed() -> None:
    log = Story()
    log.thing("other", 1)
    log.begin()
    log.tell(*range(LAST + 1))
    async with (
        http_stage(log, select=log.select) as stage,
        opened(stage, asked(ONE_THING, variables={"id": "s"})) as stream,
    ):
        await stream.signal()
        assert [(await stream.number())[0] for _ in range(LAST + 1)] == list(range(LAST + 1))
        await stream.complete()


async def test_an_operation_that_fails_says_nothing_of_why() -> None:
    async def failing(_document: Document, *_given: object, **_more: object) -> bytes:
        raise RuntimeError("a secret")

    async with http_stage(execute=failing) as stage, opened(stage, asked("{ nothing }")) as stream:
        payload = await stream.payload()
        assert "a secret" not in str(payload)
        assert payload["errors"]
        await stream.complete()
