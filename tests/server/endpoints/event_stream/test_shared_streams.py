"""One stream for many operations: reserved, opened, and used by requests of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import msgspec
import pytest

from circuit_breaker_server.endpoints.event_stream import shared_streams
from circuit_breaker_server.graphql.documents import Document
from tests.server.event_stream_stage import TOKEN, Stream, asked, reserved
from tests.server.gateway.worlds import ONE_THING
from tests.server.http_stage import HttpStage, http_stage
from tests.waiting import until


@contextlib.asynccontextmanager
async def shared(
    stage: HttpStage, path: str = "/graphql/stream", **headers: str
) -> AsyncIterator[tuple[Stream, str]]:
    """Reserve a stream and open it."""
    token = await reserved(stage)
    shown = {"Accept": "text/event-stream", TOKEN: token, **headers}
    async with stage.http.get(stage.root + path, headers=shown) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        yield Stream(answer), token


async def begin(
    stage: HttpStage, token: str, operation_id: object, body: Mapping[str, object] | None = None
) -> tuple[int, str]:
    """Begin an operation; return status and body of the answer."""
    whole = dict(body or asked())
    extensions = msgspec.convert(whole.pop("extensions", {}), dict[str, object])
    whole["extensions"] = {**extensions, "operationId": operation_id}
    async with stage.http.post(stage.root + "/graphql/stream", json=whole, headers={TOKEN: token}) as answer:
        return answer.status, await answer.text()


async def stop(stage: HttpStage, token: str, operation_id: str) -> int:
    params = {"operationId": operation_id}
    url = stage.root + "/graphql/stream"
    async with stage.http.delete(url, params=params, headers={TOKEN: token}) as answer:
        return answer.status


async def message(stream: Stream) -> tuple[str, str, object]:
    """Return type, operation id and payload of the next event."""
    event = await stream.event()
    data = msgspec.json.decode(event.data or b"", type=dict[str, object])
    return event.type, str(data["id"]), data.get("payload")


@pytest.mark.parametrize("path", ["/graphql", "/graphql/stream"])
async def test_operations_share_a_stream_and_each_event_has_the_id_of_its_own(path: str) -> None:
    async with http_stage() as stage, shared(stage, path) as (stream, token):
        assert await begin(stage, token, "all") == (202, "")
        assert await begin(stage, token, 'one "ü"', asked(ONE_THING, variables={"id": "a"})) == (202, "")
        stage.log.thing("b", 1)
        stage.log.thing("a", 2)
        got = sorted([str(await message(stream)) for _ in range(3)])
        assert got == sorted(
            str(("next", id_, {"data": {"things": thing}}))
            for id_, thing in (
                ("all", {"id": "b", "n": 1}),
                ("all", {"id": "a", "n": 2}),
                ('one "ü"', {"id": "a", "n": 2}),
            )
        )


async def test_a_client_that_knows_resume_gets_live_signals_and_resumes_each_operation() -> None:
    async with http_stage() as stage:
        async with shared(stage, **{"Resume-Version": "1"}) as (stream, token):
            await begin(stage, token, "my operation")
            start, _, operation_id = (await stream.signal()).partition(" ")
            assert operation_id == "my operation"
            stage.log.thing("a", 1)
            _, _, payload = await message(stream)
            resume = payload["extensions"]["resume"]  # type: ignore[index]  # of this shape
            assert resume["prev"] == start
        stage.log.thing("a", 2)
        async with shared(stage, **{"Resume-Version": "1"}) as (stream, token):
            await begin(stage, token, "again", asked(after=resume["cursor"]))
            assert await stream.signal() == f"{resume['cursor']} again"
            _, _, payload = await message(stream)
            assert payload["data"] == {"things": {"id": "a", "n": 2}}  # type: ignore[index]  # of this shape


async def test_an_operation_that_is_stopped_gets_no_more_and_its_id_is_free() -> None:
    async with http_stage() as stage, shared(stage) as (stream, token):
        await begin(stage, token, "1")
        assert (await begin(stage, token, "1"))[0] == 409
        assert await stop(stage, token, "1") == 200
        assert await stop(stage, token, "1") == 200
        stage.log.thing("a", 1)
        stage.gateway.flush()
        assert (await begin(stage, token, "1"))[0] == 202
        stage.log.thing("a", 2)
        assert await message(stream) == ("next", "1", {"data": {"things": {"id": "a", "n": 2}}})


async def test_a_query_is_answered_on_the_stream_and_completed() -> None:
    async with http_stage() as stage, shared(stage) as (stream, token):
        assert await begin(stage, token, "q", asked("{ nothing }")) == (202, "")
        assert await message(stream) == ("next", "q", {"data": {"nothing": None}})
        assert await message(stream) == ("complete", "q", None)
        assert (await begin(stage, token, "q", asked("{ nothing }")))[0] == 202


async def test_a_query_that_is_stopped_is_cancelled() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def execute(_document: Document, *_given: object, **_more: object) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    async with http_stage(execute=execute) as stage, shared(stage) as (_, token):
        await begin(stage, token, "q", asked("{ nothing }"))
        await begun.wait()
        assert (await begin(stage, token, "q", asked("{ nothing }")))[0] == 409
        assert await stop(stage, token, "q") == 200
        await cancelled.wait()


async def test_a_stream_that_ends_cancels_its_queries_and_forgets_its_token() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def execute(_document: Document, *_given: object, **_more: object) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    async with http_stage(execute=execute) as stage:
        async with shared(stage) as (_, token):
            await begin(stage, token, "q", asked("{ nothing }"))
            await begin(stage, token, "s")
            await begun.wait()
        await cancelled.wait()
        assert (await begin(stage, token, "x"))[0] == 404
        await until(lambda: not stage.gateway.channels)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (asked("subscription { nothing }"), 400, "nothing"),
        (asked("subscription {"), 400, "Syntax Error"),
        (asked(ONE_THING), 400, "$id"),
    ],
)
async def test_an_invalid_operation_is_refused_by_its_request(
    body: dict[str, object], status: int, text: str
) -> None:
    async with http_stage() as stage, shared(stage) as (_, token):
        got = await begin(stage, token, "1", body)
        assert got[0] == status
        assert text in got[1]
        assert (await begin(stage, token, "1"))[0] == 202


@pytest.mark.parametrize("after", ["rubbish", 7])
async def test_a_gap_is_told_on_the_stream(after: object) -> None:
    async with http_stage() as stage, shared(stage) as (stream, token):
        assert await begin(stage, token, "1", asked(after=after)) == (202, "")
        kind, operation_id, payload = await message(stream)
        assert (kind, operation_id) == ("next", "1")
        assert "RESUME_GAP" in str(payload)
        assert await message(stream) == ("complete", "1", None)


@pytest.mark.parametrize("operation_id", [None, 1, "", "a\nb", "a\x00", "x" * 200, {"a": 1}])
async def test_an_operation_needs_an_id_that_can_be_written(operation_id: object) -> None:
    async with http_stage() as stage, shared(stage) as (_, token):
        status, text = await begin(stage, token, operation_id)
        assert status == 400
        assert "extensions.operationId" in text


async def test_tokens_are_tickets_for_one_stream_each() -> None:
    async with http_stage() as stage:
        url = stage.root + "/graphql/stream"
        async with stage.http.get(url, params={"token": "no such token"}) as answer:
            assert answer.status == 404
        assert (await begin(stage, "no such token", "1"))[0] == 404
        assert await stop(stage, "no such token", "1") == 404
        async with shared(stage) as (_, token):
            async with stage.http.get(url, params={"token": token}) as answer:
                assert answer.status == 409
            async with stage.http.delete(url, headers={TOKEN: token}) as answer:
                assert answer.status == 400


async def test_an_operation_waits_for_its_stream_to_be_opened() -> None:
    async with http_stage(settings={"init_timeout_seconds": 0.05}) as stage:
        token = await reserved(stage)
        status, text = await begin(stage, token, "1")
        assert status == 409
        assert "not open" in text
        url = stage.root + "/graphql/stream"
        async with stage.http.get(url, params={"token": token}) as answer:
            stream = Stream(answer)
            assert (await begin(stage, token, "1", asked("{ nothing }")))[0] == 202
            assert (await message(stream))[:2] == ("next", "1")


async def test_operations_and_reservations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_streams, "_MAX_RESERVED_LATELY", 3)
    monkeypatch.setattr(shared_streams, "_RESERVED_SECONDS", 0.2)
    async with http_stage(settings={"max_operations": 2}) as stage:
        async with shared(stage) as (_, token):
            assert [(await begin(stage, token, str(n)))[0] for n in range(3)] == [202, 202, 429]
        for _ in range(2):
            await reserved(stage)
        url = stage.root + "/graphql/stream"
        async with stage.http.put(url) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "30")
        async with asyncio.timeout(10):
            status = 429
            while status == 429:
                async with stage.http.put(url) as answer:
                    status = answer.status
        assert status == 201
