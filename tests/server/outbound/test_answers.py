"""How much comes back: peers that answer too much, compressed, or with figures that cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
from collections.abc import AsyncIterator, Iterable

import msgspec
import pytest

from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.llm.endpoints import Outcome
from circuit_breaker_server.engine.llm.inputs import ChatCompletion, ModelInput, ProviderConfig
from circuit_breaker_server.engine.mcp.health_probe import check
from circuit_breaker_server.log.event_log import MAX_DATA_BYTES
from circuit_breaker_server.outbound import AddressRules, AnswerLimits, Outbound
from circuit_breaker_server.outbound.addresses import LOOPBACK
from tests.server.engine.llm.inputs import MODEL, PLAIN
from tests.server.engine.mcp.health_target import target
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.memory_secrets import MemorySecrets
from tests.server.outbound.name_lookup import Names

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(delta: object, finish: str | None = None, **more: object) -> bytes:
    said = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


def usage(prompt: int, completion: int) -> bytes:
    counted = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return chunk({"content": "hi"}, "stop", usage=counted) + DONE


@contextlib.asynccontextmanager
async def answering(parts: Iterable[bytes]) -> AsyncIterator[str]:
    """Serve the same to everybody until it hangs up; yield the URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: ([0-9]+)", head.lower())
            await reader.readexactly(0 if length is None else int(length[1]))
            for part in parts:
                writer.write(part)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@contextlib.asynccontextmanager
async def asking(
    url: str,
    log: MemoryLog | None = None,
    *,
    limits: AnswerLimits | None = None,
    rules: AddressRules | None = None,
) -> AsyncIterator[Engine]:
    outbound = Outbound(rules=rules or AddressRules(LOOPBACK), limits=limits or AnswerLimits())
    engine = Engine(log or MemoryLog(), secrets=MemorySecrets({"work": "key"}), outbound=outbound)
    await engine.start()
    try:
        given = {
            "providerType": "openai",
            "name": "work",
            "baseUrl": url,
            "apiKeyId": "work",
            "models": [MODEL],
        }
        await engine.llm.configure_provider(msgspec.convert(given, ProviderConfig))
        yield engine
    finally:
        await engine.aclose()


def ask(**more: object) -> ChatCompletion:
    return msgspec.convert({**PLAIN, "model": "gpt-good", "stream": True, **more}, ChatCompletion)


async def failure(engine: Engine) -> EngineError:
    with pytest.raises(EngineError) as failed:
        await engine.llm.complete(ask())
    return failed.value


async def test_a_compressed_answer_is_refused_and_not_unpacked() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    head = STREAM.replace(b"connection", b"content-encoding: gzip\r\nconnection")
    async with answering([head, bomb]) as url, asking(url) as engine:
        error = await failure(engine)
        finding = await check(target(url))
    assert (error.code, error.facts["kind"]) == (ErrorCode.PROVIDER_FAILED, "too_big")
    assert "compressed" in str(error)
    assert "compressed" in str(finding.error)


@pytest.mark.parametrize(
    ("limits", "parts", "text"),
    [
        (AnswerLimits(), [STREAM, b"data: ", *[b"x" * 65_536] * 40], "a line of more than 1048576 bytes"),
        (AnswerLimits(max_pieces=100), [STREAM, *[chunk({"content": "a"})] * 200], "more than 100 pieces"),
        (AnswerLimits(), [STREAM, *[chunk({"content": "a" * 200_000})] * 40], "2097152 bytes of text"),
        (AnswerLimits(max_stream_bytes=1_000), [STREAM, *[b": no event\n\n"] * 200], "more than 1000 bytes"),
    ],
)
async def test_a_completion_beyond_a_bound_fails_as_the_provider_s(
    limits: AnswerLimits, parts: list[bytes], text: str
) -> None:
    async with answering(parts) as url, asking(url, limits=limits) as engine:
        error = await failure(engine)
    assert (error.code, error.facts["kind"]) == (ErrorCode.PROVIDER_FAILED, "too_big")
    assert text in str(error)


async def test_no_record_is_bigger_than_the_log_takes() -> None:
    log = MemoryLog()
    big = [chunk({"content": "\x01" * 30_000})] * 10
    async with answering([STREAM, *big, chunk({}, "stop"), DONE]) as url, asking(url, log) as engine:
        await engine.llm.complete(ask())
    assert max(len(record.data) for record in log.records) < MAX_DATA_BYTES / 2


async def test_an_mcp_server_that_answers_a_line_without_an_end_is_an_error() -> None:
    async with answering([STREAM, b"data: ", *[b"x" * 65_536] * 40]) as url:
        finding = await check(target(url))
    assert "a line of more than 1048576 bytes" in str(finding.error)


async def test_a_name_that_is_resolved_to_an_address_inside_is_refused_where_it_is_asked() -> None:
    rules = AddressRules(resolve=Names(["127.0.0.1"]))
    async with answering([STREAM, usage(1, 1)]) as url:
        outside = url.replace("127.0.0.1", "peer.example")
        async with asking(outside, rules=rules) as engine:
            error = await failure(engine)
        finding = await check(target(outside, outbound=Outbound(rules=rules)))
    assert (error.code, error.facts["kind"]) == (ErrorCode.PROVIDER_FAILED, "address")
    assert "127.0.0.1" not in str(error)
    assert (finding.dns, finding.tcp) == (False, False)
    assert "may not connect to peer.example" in str(finding.error)


async def test_tokens_that_cannot_be_are_cut_down_before_they_are_charged() -> None:
    async with answering([STREAM, usage(2**31 - 1, 2**31 - 1)]) as url, asking(url) as engine:
        done = await engine.llm.complete(ask(maxTokens=5))
    assert done.value["usage"] == {
        "promptTokens": 20,
        "completionTokens": 5,
        "totalTokens": 25,
        "estimatedCost": 0.7,
    }


def test_tokens_are_bounded_by_bytes_the_window_and_what_was_asked_for() -> None:
    def counted(prompt: int, completion: int, max_tokens: int | None, window: int | None) -> tuple[int, int]:
        model = None if window is None else msgspec.convert({**MODEL, "contextWindow": window}, ModelInput)
        return Outcome(prompt_tokens=prompt, completion_tokens=completion).tokens(
            prompt_characters=100, completion_characters=10, max_tokens=max_tokens, model=model
        )

    assert counted(30, 3, None, None) == (30, 3)
    assert counted(2**31 - 1, 2**31 - 1, None, None) == (400 + 16_384, 40 + 65_536)
    assert counted(2**31 - 1, 2**31 - 1, 7, 2**31 - 1) == (400 + 16_384, 7)
    assert counted(9_000, 9_000, None, 8_192) == (8_192, 8_192)


@pytest.mark.parametrize("given", [{"max_pieces": 0}, {"max_line_bytes": 2**21}, {"max_text_bytes": 2**22}])
def test_limits_that_cannot_be_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        AnswerLimits(**given)
