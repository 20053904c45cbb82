"""Callbacks run in the context in which they were attached, and whatever they raise ends nothing else."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from circuit_breaker_sdk import Client, HandlerError, SubscriptionFilter
from circuit_breaker_sdk.callbacks import background_task, callback_name, in_own_context
from circuit_breaker_sdk.events import LLMResponse, LLMStreamChunk
from circuit_breaker_sdk.testing import FakeServer
from tests.waiting import until

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("REQUEST", default="none")
TICKS = "subscription { ticks }"


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[FakeServer, Client]]:
    async with FakeServer() as server, Client(server.url) as client:
        yield server, client


def test_in_an_empty_context_a_callback_is_called_as_it_is() -> None:
    assert contextvars.Context().run(in_own_context, print) is print


def test_a_wrapped_callback_is_named_as_the_callback() -> None:
    REQUEST.set("x")
    assert callback_name(in_own_context(print)) == "print"
    assert in_own_context(in_own_context(print)) is not print


async def test_a_callback_that_calls_one_of_the_same_context_is_no_error() -> None:
    REQUEST.set("x")
    seen: list[str] = []
    inner: list[Callable[[], object]] = []

    def look() -> None:
        seen.append(REQUEST.get())
        if len(seen) < 2:
            inner[0]()

    inner.append(in_own_context(look))
    inner[0]()
    assert seen == ["x", "x"]


async def test_a_background_task_has_none_of_the_callers_variables() -> None:
    REQUEST.set("caller")

    async def look() -> str:
        return REQUEST.get()

    assert await background_task(look(), name="look") == "none"


async def test_two_tasks_see_each_their_own_context_in_handlers_filters_and_errors() -> None:
    seen: list[tuple[str, str, str]] = []

    async def watch(client: Client, name: str, *, is_async: bool) -> None:
        REQUEST.set(name)
        ticks = await client.subscribe(TICKS, type=int)

        def noted(what: str) -> None:
            seen.append((name, what, REQUEST.get()))

        async def on_data(_value: int) -> None:
            noted("data")
            await asyncio.sleep(0)
            noted("data, after an await")
            raise ValueError("handlers may raise")

        def on_plain(_value: int) -> None:
            noted("data")
            raise ValueError("handlers may raise")

        def passes(_value: int) -> bool:
            noted("filter")
            return True

        ticks.filter(passes).on_error(lambda _error: noted("error"))
        ticks.on_data(on_data if is_async else on_plain)

    async with connected() as (server, client):
        await asyncio.create_task(watch(client, "first", is_async=False))
        await asyncio.create_task(watch(client, "second", is_async=True))
        server.publish({"ticks": 1})
        await until(lambda: sum(what == "error" for _, what, _ in seen) == 2)
    assert {each[1] for each in seen} == {"filter", "data", "data, after an await", "error"}
    assert all(name == found for name, _, found in seen)


@pytest.mark.parametrize("where", ["handler", "filter"])
async def test_a_cancelled_error_of_a_callback_is_a_handler_error_of_that_subscription(where: str) -> None:
    cancelled: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    cancelled.cancel()

    def raises(_value: int) -> int:
        return cancelled.result()

    async with connected() as (server, client):
        bad = await client.subscribe(TICKS, type=int)
        good = await client.subscribe(TICKS, type=int)
        if where == "handler":
            bad.on_data(raises)
        else:
            bad.filter(raises)
        for number in (1, 2):
            server.publish({"ticks": number})
        assert [await anext(good), await anext(good)] == [1, 2]
        assert bad.stats().handler_errors == 2
        assert isinstance(bad.last_error, HandlerError)
        assert client.state.value == "connected"


async def test_a_token_function_and_a_listener_run_in_the_context_of_the_client() -> None:
    seen: list[str] = []

    def token() -> str:
        seen.append(REQUEST.get())
        return "t"

    async with FakeServer() as server:
        REQUEST.set("maker")
        client = Client(server.url, token=token)
        client.on_connection_state(lambda _change: seen.append(REQUEST.get()))
        REQUEST.set("other")
        await client.subscribe(TICKS, type=int)
        await client.aclose()
    assert set(seen) == {"maker"}


@pytest.mark.parametrize("order", ["chunk first", "complete first"])
async def test_handlers_attached_in_any_order_get_the_whole_stream(order: str) -> None:
    chunks: list[str] = []
    wholes: list[object] = []

    def on_complete(response: LLMResponse) -> None:
        wholes.append(response.choices[0].message.content)

    async with connected() as (server, client):
        stream = await client.llm.subscribe_stream(request_id="r").subscribe()
        for text in ("a", "b", None):
            server.publish({"llmStream": chunk("r", text)})
        server.complete()
        await until(lambda: stream.state.value == "completed")
        if order == "chunk first":
            stream.on_chunk(lambda each: chunks.append(each.content)).on_complete(on_complete)
        else:
            stream.on_complete(on_complete).on_chunk(lambda each: chunks.append(each.content))
        await stream.wait_closed()
    assert "".join(chunks) == "ab"
    assert wholes == ["ab"]


def chunk(request_id: str, delta: str | None) -> dict[str, object]:
    return {
        "eventType": "STREAM_END" if delta is None else "CONTENT_DELTA",
        "requestId": request_id,
        "delta": delta,
        "token": None,
        "isComplete": delta is None,
        "timestamp": "2030-01-01T00:00:00.000Z",
        "usage": None,
        "error": None,
    }


async def test_a_handler_object_works_on_a_stream_of_a_completion_and_what_it_raises_is_reported() -> None:
    class Handler:
        def __init__(self) -> None:
            self.seen: list[object] = []

        def on_data(self, event: LLMStreamChunk, /) -> None:
            self.seen.append(event.content)

        def on_error(self, error: Exception, /) -> None:
            self.seen.append(type(error).__name__)

        def on_complete(self) -> None:
            self.seen.append("complete")
            raise ValueError("at the end")

    async with connected() as (server, client):
        stream = await client.llm.subscribe_stream(request_id="r").subscribe()
        handler = Handler()
        stream.handle(handler)
        server.publish({"llmStream": chunk("r", "a")})
        server.complete()
        await stream.wait_closed()
        assert handler.seen == ["a", "complete", "HandlerError"]
        assert isinstance(stream.last_error, HandlerError)


async def test_custom_filters_of_a_builder_run_in_the_context_of_their_attachment() -> None:
    seen: list[str] = []

    def passes(_event: object) -> bool:
        seen.append(REQUEST.get())
        return True

    async with connected() as (server, client):
        REQUEST.set("builder")
        part = SubscriptionFilter.Custom(passes)
        updates = await client.llm.subscribe_stream(request_id="r").filter(part).subscribe()
        REQUEST.set("later")
        server.publish({"llmStream": chunk("r", "a")})
        await anext(updates)
    assert seen == ["builder"]
