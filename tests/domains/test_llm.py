"""``client.llm``: completions whole and in pieces, from the real server."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from circuit_breaker_sdk import (
    Client,
    Continuity,
    OperationError,
    SubscriptionFailed,
    SubscriptionState,
    UsageError,
)
from circuit_breaker_sdk.streams import LLMStream
from circuit_breaker_sdk.types import (
    ChatMessageInput,
    LLMModelInput,
    LLMResponse,
    LLMStreamChunk,
    LLMStreamChunkType,
)
from tests.domains.worlds import served
from tests.server.engine.llm.endpoint import serving_provider

WORDS = " ".join(f"w{n}" for n in range(2_000))


def say(text: str) -> list[ChatMessageInput]:
    return [ChatMessageInput(role="user", content=text)]


async def collect(client: Client, request_id: str) -> list[LLMStreamChunk]:
    stream = await client.subscriptions.llm_stream(request_id=request_id).subscribe()
    chunks = [chunk async for chunk in stream]
    assert stream.continuity is Continuity.OK
    return chunks


async def read_all(stream: LLMStream, chunks: list[LLMStreamChunk]) -> None:
    async for chunk in stream:
        chunks.append(chunk)  # noqa: PERF401 (what came before the error is kept)


async def test_a_completion_is_answered_typed(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        answer = await client.llm.chat_completion(model="echo", messages=say("a b"), user="ada")
        assert answer.content == "a b"
        assert answer.usage is not None
        assert answer.usage.total_tokens == 4
        assert answer.routing_info is not None
        assert answer.routing_info.selected_provider == "echo"


async def test_one_call_streams_a_completion_and_has_it_whole_at_the_end(tmp_path: Path) -> None:
    async with served(tmp_path) as client, client.llm.stream(model="echo", messages=say("a b c")) as stream:
        chunks = [chunk async for chunk in stream]
        assert [chunk.type for chunk in chunks] == [
            LLMStreamChunkType.STREAM_START,
            *[LLMStreamChunkType.CONTENT_DELTA] * 3,
            LLMStreamChunkType.STREAM_END,
        ]
        assert "".join(chunk.content for chunk in chunks) == "a b c"
        answer = await stream.response()
        assert (answer.content, answer.id, answer.model) == ("a b c", stream.request_id, "echo")


async def test_two_thousand_chunks_reach_a_hundred_readers_whole_whenever_they_come(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        before = [asyncio.create_task(collect(client, "r1")) for _ in range(40)]
        while client.metrics.active_subscriptions < 40:  # noqa: ASYNC110 (being live has no other observer)
            await asyncio.sleep(0)
        during: list[asyncio.Task[list[LLMStreamChunk]]] = []
        async with client.llm.stream(model="echo", messages=say(WORDS), request_id="r1") as stream:
            own = []
            async for chunk in stream:
                own.append(chunk)
                if len(own) % 100 == 1 and len(during) < 20:
                    during.append(asyncio.create_task(collect(client, "r1")))
        after = [asyncio.create_task(collect(client, "r1")) for _ in range(40)]
        assert (len(own), "".join(chunk.content for chunk in own)) == (2_002, WORDS)
        for reader in (*before, *during, *after):
            assert await reader == own


async def test_on_complete_gets_the_response_put_together(tmp_path: Path) -> None:
    done: asyncio.Queue[LLMResponse] = asyncio.Queue()
    pieces: list[str] = []
    async with served(tmp_path) as client:
        stream = await client.llm.subscribe_stream(request_id="r1").subscribe()
        stream.on_chunk(lambda chunk: pieces.append(chunk.content)).on_complete(done.put_nowait)
        await client.llm.chat_completion(model="echo", messages=say("a b"), stream=True, request_id="r1")
        async with asyncio.timeout(5):
            response = await done.get()
        assert (response.id, response.content, "".join(pieces)) == ("r1", "a b", "a b")
        assert response.usage is not None
        assert response.choices[0].finish_reason == "stop"
        assert stream.state is SubscriptionState.COMPLETED


@pytest.mark.parametrize(
    ("given", "code"),
    [({"model": "unknown"}, "NOT_FOUND"), ({"model": "echo", "temperature": 9.0}, "INVALID_INPUT")],
)
async def test_a_stream_that_is_refused_says_so_at_once(
    tmp_path: Path, given: dict[str, object], code: str
) -> None:
    async with served(tmp_path) as client:
        stream = client.llm.stream(messages=say("x"), **given)  # type: ignore[arg-type]  # the test's words
        with pytest.raises(OperationError) as refused:
            await anext(stream)
        assert refused.value.code == code
        assert client.metrics.active_subscriptions == 0


async def test_an_id_that_was_used_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        assert (
            len([c async for c in client.llm.stream(model="echo", messages=say("x"), request_id="r1")]) == 3
        )
        again = client.llm.stream(model="echo", messages=say("y"), request_id="r1")
        with pytest.raises(OperationError) as refused:
            await read_all(again, [])
        assert refused.value.code == "CONFLICT"


async def test_a_provider_that_breaks_off_gives_its_chunks_then_an_error_chunk_then_raises(
    tmp_path: Path,
) -> None:
    async with serving_provider() as fake, served(tmp_path) as client:
        model = LLMModelInput(
            id="gpt-cut",
            name="Cut",
            max_tokens=1,
            context_window=1,
            cost_per_input_token=0.0,
            cost_per_output_token=0.0,
            supports_streaming=True,
            supports_function_calling=False,
            capabilities=[],
        )
        provider = await client.llm.configure_provider(
            provider_type="openai", name="work", base_url=fake.url, api_key_id="", models=[model]
        )
        assert await client.llm.provider(id=provider.id) == provider
        assert [each.name for each in await client.llm.providers()] == ["echo", "work"]
        chunks: list[LLMStreamChunk] = []
        stream = client.llm.stream(model="gpt-cut", messages=say("x"))
        with pytest.raises(OperationError) as failed:
            await read_all(stream, chunks)
        assert failed.value.code == "PROVIDER_FAILED"
        assert chunks[-1].type is LLMStreamChunkType.STREAM_ERROR
        assert chunks[-1].error is not None
        assert "broke off" in chunks[-1].error


async def test_a_request_that_never_comes_is_an_error_after_the_servers_patience(tmp_path: Path) -> None:
    async with served(tmp_path, begin_seconds=0.01) as client:
        stream = await client.llm.subscribe_stream(request_id="never").subscribe()
        with pytest.raises(SubscriptionFailed, match="was requested in time") as missing:
            await anext(stream)
        assert missing.value.code == "NOT_FOUND"


async def test_a_stream_that_is_closed_or_dropped_leaves_nothing_behind(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        unstarted = client.llm.stream(model="echo", messages=say("x"))
        await unstarted.aclose()
        with pytest.raises(UsageError, match="closed"):
            await anext(unstarted)
        started = client.llm.stream(model="echo", messages=say(WORDS))
        await anext(started)
        await started.aclose()
        await started.aclose()
        assert client.metrics.active_subscriptions == 0
        dropped = client.llm.stream(model="echo", messages=say(WORDS))
        await anext(dropped)
        await dropped.response()
        del dropped
        gc.collect()
        async with asyncio.timeout(5):
            while client.metrics.active_subscriptions:  # noqa: ASYNC110 (its end has no other observer)
                await asyncio.sleep(0)
