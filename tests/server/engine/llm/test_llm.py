"""Completions: recorded as they come, charged once, ended once; providers well configured or refused."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.command import Committed, Value
from circuit_breaker_server.engine.command_origin import ORIGIN, Origin
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.engine.llm.completion_supervisor import CompletionSupervisor
from circuit_breaker_server.engine.llm.echo import Echo
from circuit_breaker_server.engine.llm.endpoint_pool import MAX_ENDPOINTS
from circuit_breaker_server.engine.llm.endpoints import Piece
from circuit_breaker_server.engine.llm.inputs import ChatCompletion
from circuit_breaker_server.log.event_log import NewRecord
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.server.engine.llm.endpoint import FakeProvider, serving_provider
from tests.server.engine.llm.inputs import MODEL, PLAIN, ask, provider
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.memory_secrets import MemorySecrets
from tests.server.engine.worlds import clock, part
from tests.waiting import until


@contextlib.asynccontextmanager
async def running(
    log: MemoryLog | SqliteEventLog,
    *,
    timeout_seconds: float = 5.0,
    limits: CallerLimits = CallerLimits(),  # noqa: B008 (a frozen value)
) -> AsyncIterator[Engine]:
    engine = Engine(
        log,
        now=clock(),
        secrets=MemorySecrets({"work": "key-of-work"}),
        provider_seconds=timeout_seconds,
        limits=limits,
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


@contextlib.asynccontextmanager
async def with_endpoint(
    log: MemoryLog,
    *,
    timeout_seconds: float = 5.0,
    limits: CallerLimits = CallerLimits(),  # noqa: B008 (a frozen value)
) -> AsyncIterator[tuple[Engine, FakeProvider]]:
    async with (
        serving_provider() as fake,
        running(log, timeout_seconds=timeout_seconds, limits=limits) as engine,
    ):
        await engine.llm.configure_provider(provider(fake.url))
        yield engine, fake


def events(log: MemoryLog, stream: str) -> list[dict[str, object]]:
    return [event.value for record in log.records for event in derive(record) if event.stream == stream]


def types(log: MemoryLog, stream: str = "llmStream") -> list[object]:
    return [value["eventType"] for value in events(log, stream)]


# --- completions ---


async def test_a_streamed_completion_is_its_start_its_deltas_and_its_end_and_is_charged_once() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        done = await engine.llm.complete(ask(stream=True, requestId="r1", user="ada"))
    value = done.value
    assert value["id"] == "r1"
    assert part(value, "usage", dict)["totalTokens"] == 6
    (choice,) = part(value, "choices", list)
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": "one two three", "name": None},
        "finishReason": "stop",
    }
    assert types(log) == ["STREAM_START", *["CONTENT_DELTA"] * 3, "STREAM_END"]
    assert "".join(str(e["delta"] or "") for e in events(log, "llmStream")) == "one two three"
    assert [e["isComplete"] for e in events(log, "llmStream")] == [False] * 4 + [True]
    assert types(log, "costUpdates") == ["COST_INCURRED"]
    (cost,) = events(log, "costUpdates")
    assert (cost["userId"], cost["costDelta"], cost["totalCost"]) == ("ada", 9e-06, 9e-06)


async def test_one_that_is_not_streamed_has_no_events_but_is_charged() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        done = await engine.llm.complete(ask(projectId="p", user="ada"))
        finite = engine.llm.select_stream(str(done.value["id"])).finite
        assert finite is not None
        with pytest.raises(EngineError, match="is not streamed"):
            finite.start()
    assert types(log) == []
    (cost,) = events(log, "costUpdates")
    assert (cost["userId"], cost["projectId"]) == ("ada", "p")


async def test_pieces_that_come_while_the_log_writes_share_a_record() -> None:
    log = MemoryLog()
    words = " ".join(map(str, range(2_000)))
    async with running(log) as engine:
        await engine.llm.complete(ask(stream=True, messages=[{"role": "user", "content": words}]))
    assert types(log) == ["STREAM_START", *["CONTENT_DELTA"] * 2_000, "STREAM_END"]
    assert "".join(str(e["delta"] or "") for e in events(log, "llmStream")) == words


@pytest.mark.parametrize(
    ("given", "content", "finish", "tokens"),
    [
        ({"maxTokens": 2}, "one two ", "length", 2),
        ({"stop": ["tw"]}, "one ", "stop", 1),
        ({}, "one two three", "stop", 3),
    ],
)
async def test_the_echo_stops_where_it_is_told(
    given: dict[str, object], content: str, finish: str, tokens: int
) -> None:
    async with running(MemoryLog()) as engine:
        value = (await engine.llm.complete(msgspec.convert({**PLAIN, **given}, ChatCompletion))).value
    (choice,) = part(value, "choices", list)
    assert (choice["message"]["content"], choice["finishReason"]) == (content, finish)
    assert part(value, "usage", dict)["completionTokens"] == tokens


async def test_a_completion_whose_request_is_stored_late_is_begun_and_ends() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        log.is_away = True
        with pytest.raises(EngineError, match="may have happened") as lost:
            await engine.llm.complete(ask(stream=True, requestId="r1", user="ada"))
        assert lost.value.may_have_happened
        log.come_back()
        await log.until(lambda: "STREAM_END" in types(log))
    assert types(log) == ["STREAM_START", *["CONTENT_DELTA"] * 3, "STREAM_END"]


async def test_an_id_is_used_once() -> None:
    async with running(MemoryLog()) as engine:
        await engine.llm.complete(ask(requestId="r1"))
        with pytest.raises(EngineError, match="'r1' was used before") as raised:
            await engine.llm.complete(ask(requestId="r1", stream=True))
        assert raised.value.code is ErrorCode.CONFLICT


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": " "}, "model: must not be empty"),
        ({"messages": []}, "messages: a completion needs at least one"),
        ({"messages": [{"role": "", "content": "x"}]}, r"messages\[0\].role: must not be empty"),
        ({"messages": [{"role": "user", "content": "x" * 600_000}]}, "messages: 600000 characters"),
        ({"messages": [{"role": "user", "content": "x"}] * 1001}, "messages: 1001 of them"),
        ({"requestId": ""}, "requestId: must not be empty"),
        ({"requestId": "r" * 300}, "requestId: 300 characters"),
        ({"user": ""}, "user: must not be empty"),
        ({"projectId": "\n"}, "projectId: must not be empty"),
        ({"maxTokens": 0}, "maxTokens: 0 is less than 1"),
        ({"temperature": 2.5}, "temperature: 2.5 is not between 0 and 2"),
        ({"topP": -1}, "topP: -1 is not between 0 and 1"),
        ({"frequencyPenalty": 3}, "frequencyPenalty: 3 is not between -2 and 2"),
        ({"presencePenalty": -3}, "presencePenalty: -3 is not between -2 and 2"),
        ({"stop": [""]}, "stop: must not be empty"),
        ({"stop": list("abcde")}, "stop: 5 of them; at most 4"),
    ],
)
async def test_an_input_that_cannot_be_asked_for_is_refused_and_leaves_no_record(
    given: dict[str, object], message: str
) -> None:
    log = MemoryLog()
    async with running(log) as engine:
        with pytest.raises(EngineError, match=message) as raised:
            await engine.llm.complete(msgspec.convert({**PLAIN, **given}, ChatCompletion))
        assert raised.value.code is ErrorCode.INVALID_INPUT
    assert log.records == []


async def test_what_runs_when_the_server_stops_is_ended_as_interrupted_at_the_next_start() -> None:
    log = MemoryLog()
    async with with_endpoint(log) as (engine, _fake):
        asking = asyncio.create_task(engine.llm.complete(ask("gpt-hang", stream=True, requestId="r1")))
        await log.until(lambda: types(log) == ["STREAM_START", *["CONTENT_DELTA"] * 3])
        await engine.aclose()
        with pytest.raises(EngineError, match="server stopped") as raised:
            await asking
        assert raised.value.code is ErrorCode.UNAVAILABLE
    async with running(log) as again:
        assert types(log)[-1] == "STREAM_ERROR"
        assert events(log, "llmStream")[-1]["error"] == "interrupted: the server stopped"
        (_, entry) = again.llm.providers()
        assert part(entry, "healthStatus", dict)["errorRate"] == 0.0, "the provider is not to blame"
        finite = again.llm.select_stream("r1").finite
        assert finite is not None
        assert finite.is_over()
    count = len(log.records)
    async with running(log):
        assert len(log.records) == count, "it is ended once"


async def test_a_caller_that_gives_up_does_not_stop_the_completion() -> None:
    log = MemoryLog()
    async with with_endpoint(log) as (engine, fake):
        asking = asyncio.create_task(engine.llm.complete(ask("gpt-hang", stream=True)))
        await log.until(lambda: len(types(log)) == 4)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        fake.hold.set()
        await log.until(lambda: "STREAM_ERROR" in types(log))


# --- shares ---


def complete_as(engine: Engine, principal: str, given: ChatCompletion) -> asyncio.Task[Committed[Value]]:
    async def complete() -> Committed[Value]:
        ORIGIN.set(Origin(principal=principal))
        return await engine.llm.complete(given)

    return asyncio.create_task(complete())


async def started(log: MemoryLog, count: int) -> None:
    await log.until(lambda: types(log).count("STREAM_START") == count)


async def test_a_principal_whose_completions_hang_keeps_no_others_from_being_made() -> None:
    log = MemoryLog()
    limits = CallerLimits(completions=3, completions_per_principal=2)
    async with with_endpoint(log, limits=limits) as (engine, fake):
        hanging = [complete_as(engine, "mallory", ask("gpt-hang", stream=True)) for _ in range(4)]
        await started(log, 2)
        await until(lambda: len(fake.requests) == 2)
        done = await complete_as(engine, "ada", ask("gpt-good"))
        assert done.value["model"] == "gpt-good"
        asked = [request["model"] for request in fake.requests]
        fake.hold.set()
        await asyncio.wait(hanging)
    assert asked == ["gpt-hang", "gpt-hang", "gpt-good"]
    assert types(log).count("STREAM_START") == 4, "those that waited have had their turn"


async def test_a_completion_whose_turn_does_not_come_ends_and_blames_no_provider() -> None:
    log = MemoryLog()
    limits = CallerLimits(completions=1, completion_wait_seconds=0.01)
    async with with_endpoint(log, limits=limits) as (engine, fake):
        hanging = complete_as(engine, "mallory", ask("gpt-hang", stream=True))
        await started(log, 1)
        with pytest.raises(EngineError, match=r"no turn within 0\.01 s") as refused:
            await complete_as(engine, "ada", ask("gpt-good", stream=True, requestId="late"))
        assert refused.value.code is ErrorCode.RATE_LIMITED
        assert refused.value.facts["retryAfter"] == 1.0
        assert types(log)[-1] == "STREAM_ERROR"
        (_, entry) = engine.llm.providers()
        assert part(entry, "healthStatus", dict)["errorRate"] == 0.0
        fake.hold.set()
        await asyncio.wait((hanging,))


async def test_one_completion_more_than_may_wait_is_refused_and_leaves_no_record() -> None:
    log = MemoryLog()
    limits = CallerLimits(completions=1, completions_waiting=1)
    async with with_endpoint(log, limits=limits) as (engine, fake):
        first = complete_as(engine, "mallory", ask("gpt-hang", stream=True))
        await started(log, 1)
        second = complete_as(engine, "mallory", ask("gpt-good", requestId="second"))
        await until(lambda: engine.llm._completions._turns.waiting("mallory"))
        records = len(log.records)
        with pytest.raises(EngineError, match="1 completions of yours wait") as refused:
            await complete_as(engine, "mallory", ask("gpt-good"))
        assert refused.value.code is ErrorCode.RATE_LIMITED
        assert len(log.records) == records
        fake.hold.set()
        await asyncio.wait((first, second))


async def test_a_completion_that_never_comes_to_its_end_is_ended() -> None:
    log = MemoryLog()
    async with with_endpoint(log, limits=CallerLimits(completion_seconds=0.05)) as (engine, _fake):
        with pytest.raises(EngineError, match=r"not whole within 0\.05 s") as failed:
            await engine.llm.complete(ask("gpt-hang", stream=True))
        assert (failed.value.code, failed.value.facts["kind"]) == (ErrorCode.PROVIDER_FAILED, "timeout")
    assert types(log)[-1] == "STREAM_ERROR"


# --- endpoints ---


async def test_an_endpoint_gets_what_was_asked_with_its_key_and_its_pieces_are_recorded() -> None:
    log = MemoryLog()
    async with with_endpoint(log) as (engine, fake):
        given = ask(
            "gpt-good",
            stream=True,
            temperature=0.5,
            maxTokens=7,
            topP=0.9,
            frequencyPenalty=1,
            presencePenalty=-1,
            stop=["x"],
            user="ada",
        )
        done = await engine.llm.complete(given)
        (body,) = fake.requests
        assert body == {
            "model": "gpt-good",
            "messages": [{"role": "user", "content": "one two three"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.5,
            "max_tokens": 7,
            "top_p": 0.9,
            "frequency_penalty": 1.0,
            "presence_penalty": -1.0,
            "stop": ["x"],
            "user": "ada",
        }
        assert fake.keys == ["Bearer key-of-work"]
    assert [e["delta"] for e in events(log, "llmStream")] == [None, "Hello", ", ", "world", None]
    assert part(done.value, "usage", dict) == {
        "promptTokens": 11,
        "completionTokens": 3,
        "totalTokens": 14,
        "estimatedCost": pytest.approx(0.41),
    }
    routing = part(done.value, "routingInfo", dict)
    assert (routing["selectedProvider"], routing["routingStrategy"], routing["retryCount"]) == (
        "work",
        "model-prefix",
        0,
    )
    assert b"key-of-work" not in b"".join(record.data for record in log.records)


async def test_an_endpoint_that_does_not_count_is_estimated_and_a_function_call_is_an_event() -> None:
    log = MemoryLog()
    async with with_endpoint(log) as (engine, _fake):
        done = await engine.llm.complete(ask("gpt-uncounted"))
        assert part(done.value, "usage", dict)["completionTokens"] == 3  # 12 characters
        await engine.llm.complete(ask("gpt-call", stream=True))
    assert types(log) == ["STREAM_START", *["CONTENT_DELTA"] * 3, "FUNCTION_CALL", "STREAM_END"]
    assert '"name":"f"' in str(events(log, "llmStream")[4]["delta"])


@pytest.mark.parametrize(
    ("model", "code", "kind", "message", "asked"),
    [
        ("gpt-401", "PROVIDER_FAILED", "authentication", r"the key was refused \(401\)", 1),
        ("gpt-429", "RATE_LIMITED", "rate_limit", r"too many requests \(429\)", 3),
        ("gpt-500", "PROVIDER_FAILED", "server", "status 500", 3),
        ("gpt-400", "PROVIDER_FAILED", "request", "status 400: .*no such model", 1),
        ("gpt-broken", "PROVIDER_FAILED", "broken", "broke off", 1),
        ("gpt-cut", "PROVIDER_FAILED", "broken", "broke off", 1),
        ("gpt-garbled", "PROVIDER_FAILED", "broken", "broke off|cannot be read", 1),
        ("gpt-rubbish", "PROVIDER_FAILED", "broken", "broke off|cannot be read", 1),
        ("gpt-surrogate", "PROVIDER_FAILED", "broken", "cannot be read: .*ud800.* is no text", 1),
        ("gpt-list", "PROVIDER_FAILED", "broken", "cannot be read: a chunk that is none", 1),
        ("gpt-number", "PROVIDER_FAILED", "broken", "cannot be read: 7 is no text", 1),
        ("gpt-half", "PROVIDER_FAILED", "broken", "cannot be read: 1.5 tokens", 1),
        ("gpt-text", "PROVIDER_FAILED", "broken", "cannot be read: 'x' tokens", 1),
        ("gpt-negative", "PROVIDER_FAILED", "broken", "cannot be read: -5 tokens", 1),
        ("gpt-huge", "PROVIDER_FAILED", "broken", "cannot be read: 3000000000 tokens", 1),
        ("gpt-hang", "PROVIDER_FAILED", "timeout", "broke off|no answer within", 1),
    ],
)
async def test_an_endpoint_that_fails_ends_the_stream_with_an_error_and_is_counted(
    model: str, code: str, kind: str, message: str, asked: int
) -> None:
    log = MemoryLog()
    async with with_endpoint(log, timeout_seconds=0.3) as (engine, fake):
        with pytest.raises(EngineError, match=message) as raised:
            await engine.llm.complete(ask(model, stream=True))
        assert (raised.value.code.value, raised.value.facts["kind"]) == (code, kind)
        assert len(fake.requests) == asked
        health = part(engine.llm.providers()[1], "healthStatus", dict)
        assert (health["errorRate"], health["consecutiveFailures"]) == (1.0, 1)
        assert re.search(message.partition(": ")[0], str(health["lastError"]))
        # The provider's own text may quote the prompt, and others see the provider too.
        assert not re.search("no such model|ud800|: 7|1.5|'x'|-5|3000000000", str(health["lastError"]))
    assert types(log)[-1] == "STREAM_ERROR"
    last = events(log, "llmStream")[-1]
    assert last["isComplete"] is True
    assert re.search(message, str(last["error"]))
    assert types(log, "costUpdates") == []


@pytest.mark.parametrize(("model", "text"), [("gpt-null", "Hello, world"), ("gpt-emoji", "Hello, world😀!")])
async def test_what_is_odd_in_a_chunk_and_does_no_harm_is_taken(model: str, text: str) -> None:
    log = MemoryLog()
    async with with_endpoint(log) as (engine, _fake):
        done = await engine.llm.complete(ask(model, stream=True))
    (choice,) = part(done.value, "choices", list)
    assert choice["message"]["content"] == text
    assert "".join(str(e["delta"] or "") for e in events(log, "llmStream")) == text


async def test_what_the_caller_leaves_out_is_not_sent_to_the_provider() -> None:
    async with with_endpoint(MemoryLog()) as (engine, fake):
        await engine.llm.complete(ask("gpt-good"))
    (body,) = fake.requests
    assert sorted(body) == ["messages", "model", "stream", "stream_options"]


async def test_what_the_environment_holds_for_one_provider_is_sent_to_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "CUSTOM_HEADERS"):
        monkeypatch.setenv(f"OPENAI_{name}", "X-Hush: hush")
    async with with_endpoint(MemoryLog()) as (engine, fake):
        await engine.llm.complete(ask("gpt-good"))
    (headers,) = fake.headers
    assert "hush" not in str(headers)


async def test_the_endpoints_that_are_kept_are_bounded() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        made = [engine.llm.endpoints.endpoint(f"http://127.0.0.1:{port}/v1", None) for port in range(1, 200)]
        assert len(engine.llm.endpoints._endpoints) == MAX_ENDPOINTS
        assert engine.llm.endpoints.endpoint("http://127.0.0.1:199/v1", None) is made[-1]


def requested(id_: str) -> NewRecord:
    """Return a request that no caller of this server waits for."""
    body = {
        "type": "completion_requested",
        "v": 1,
        "requestId": id_,
        "at": "2030-01-01T00:00:00.000Z",
        "model": "echo",
        "providerId": "echo",
        "streaming": True,
    }
    return NewRecord(subject=f"completion.{id_}", id="a" * 32, data=msgspec.json.encode(body))


async def test_a_request_of_before_a_restart_that_is_stored_behind_it_ends_as_interrupted() -> None:
    log = MemoryLog()
    async with running(log):
        log.put(requested("late"))
        await log.until(lambda: "STREAM_ERROR" in types(log))
    assert types(log) == ["STREAM_ERROR"]


async def test_a_completion_that_never_ends_keeps_no_younger_one_from_being_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CompletionSupervisor, "_end_later", lambda *_: None)
    now = [datetime(2030, 1, 1, tzinfo=UTC)]
    log = MemoryLog()
    engine = Engine(log, now=lambda: now[0])
    await engine.start()
    log.put(requested("stuck"))
    for _ in range(10):
        await engine.llm.complete(ask())
    now[0] += timedelta(hours=25)
    await engine.llm.complete(ask())
    assert sorted(engine.llm._state.completions)[-1] == "stuck"
    assert len(engine.llm._state.completions) == 2
    await engine.aclose()
    again = Engine(log, now=lambda: now[0])
    await again.start()
    assert [e.ended_at is not None for e in again.llm._state.completions.values()] == [True, True]
    await again.aclose()


async def test_a_defect_of_ours_ends_the_stream_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(_self: Echo, _ask: object, _outcome: object) -> AsyncIterator[Piece]:
        yield Piece("one ")
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(Echo, "ask", breaks)
    log = MemoryLog()
    async with running(log) as engine:
        with pytest.raises(RuntimeError):
            await engine.llm.complete(ask(stream=True, requestId="r1"))
        assert part(engine.llm.providers()[0], "healthStatus", dict)["consecutiveFailures"] == 0
    assert types(log)[-1] == "STREAM_ERROR"
    last = events(log, "llmStream")[-1]
    assert (last["isComplete"], last["error"]) == (True, "internal error")


async def test_a_rate_limit_tells_when_to_come_again() -> None:
    async with with_endpoint(MemoryLog()) as (engine, _fake):
        with pytest.raises(EngineError) as raised:
            await engine.llm.complete(ask("gpt-429"))
        assert raised.value.facts["retryAfter"] == 7.0


async def test_an_endpoint_that_is_busy_once_is_asked_again_and_that_is_told() -> None:
    async with with_endpoint(MemoryLog()) as (engine, fake):
        done = await engine.llm.complete(ask("gpt-once"))
        assert len(fake.requests) == 2
        assert part(done.value, "routingInfo", dict)["retryCount"] == 1


async def test_an_endpoint_that_refuses_the_connection_is_a_failure_of_that_kind() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        await engine.llm.configure_provider(provider("http://127.0.0.1:1/v1"))
        with pytest.raises(EngineError, match="no connection") as raised:
            await engine.llm.complete(ask("gpt-good"))
        assert raised.value.facts["kind"] == "connection"


# --- providers ---


async def test_models_are_routed_by_prefix_then_by_list() -> None:
    async with serving_provider() as fake, running(MemoryLog()) as engine:
        for name, kind, models in (
            ("a", "openai", []),
            ("b", "anthropic", []),
            ("c", "own", [{**MODEL, "id": "llama"}]),
        ):
            await engine.llm.configure_provider(
                provider(fake.url, name=name, providerType=kind, apiKeyId="", models=models)
            )
        for model, name in (("gpt-x", "a"), ("o3", "a"), ("claude-y", "b"), ("llama", "c"), ("echo", "echo")):
            assert (await engine.llm.complete(ask(model))).value["provider"] == name
        for model in ("gemini-z", "unknown", "other"):
            with pytest.raises(EngineError, match="no provider serves") as raised:
                await engine.llm.complete(ask(model))
            assert raised.value.code is ErrorCode.NOT_FOUND


async def test_a_known_name_changes_the_provider_and_begins_its_health_anew() -> None:
    async with with_endpoint(MemoryLog()) as (engine, fake):
        with pytest.raises(EngineError):
            await engine.llm.complete(ask("gpt-500"))
        before = engine.llm.providers()[1]
        changed = (await engine.llm.configure_provider(provider(fake.url, models=[]))).value
        assert (changed["id"], changed["createdAt"]) == (before["id"], before["createdAt"])
        assert part(changed, "healthStatus", dict)["errorRate"] == 0.0
        assert engine.llm.provider(str(changed["id"])) == changed
        assert engine.llm.provider("nothing") is None
        assert [each["name"] for each in engine.llm.providers()] == ["echo", "work"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": ""}, "name: must not be empty"),
        ({"name": "echo"}, "built in"),
        ({"providerType": "echo"}, "built in"),
        ({"baseUrl": "ftp://x"}, "baseUrl: must be an absolute http or https URL"),
        ({"baseUrl": "llm.example"}, "baseUrl: must be an absolute"),
        ({"baseUrl": "http://[::1"}, "baseUrl: must be an absolute"),
        ({"baseUrl": "http://u:p@h/v1"}, "baseUrl: must not hold credentials"),
        ({"apiKeyId": "unknown"}, "apiKeyId: there is no key 'unknown' for this address"),
        ({"models": [{**MODEL, "id": str(n)} for n in range(501)]}, "models: 501 of them"),
        ({"models": [MODEL, MODEL]}, "models: 'gpt-good' is there twice"),
        ({"models": [{**MODEL, "maxTokens": 0}]}, r"models\[0\].maxTokens: 0 is less than 1"),
        ({"models": [{**MODEL, "costPerInputToken": -1.0}]}, r"models\[0\].costPerInputToken: -1"),
    ],
)
async def test_a_provider_that_cannot_be_is_refused(given: Mapping[str, object], message: str) -> None:
    log = MemoryLog()
    async with running(log) as engine:
        with pytest.raises(EngineError, match=message) as raised:
            await engine.llm.configure_provider(provider("http://h/v1", **given))
        assert raised.value.code is ErrorCode.INVALID_INPUT
    assert log.records == []


async def test_a_tenant_with_all_its_providers_leaves_the_next_tenant_its_own() -> None:
    async def configure(engine: Engine, name: str, tenant: str | None) -> None:
        ORIGIN.set(Origin(principal="mallory", tenant=tenant))
        await engine.llm.configure_provider(provider("http://127.0.0.1:9/v1", name=name, apiKeyId=""))

    async with running(MemoryLog(), limits=CallerLimits(providers=4, providers_per_tenant=1)) as engine:
        for tenant, owner in (("bad", "tenant 'bad'"), (None, "the operator"), ("acme", "tenant 'acme'")):
            await asyncio.create_task(configure(engine, "one", tenant))
            await asyncio.create_task(configure(engine, "one", tenant))  # changed, not added
            with pytest.raises(EngineError, match=f"^{owner} has 1 providers"):
                await asyncio.create_task(configure(engine, "two", tenant))


async def test_a_principal_that_creates_too_often_is_refused_and_no_other_is() -> None:
    async def configure(engine: Engine, principal: str) -> None:
        ORIGIN.set(Origin(principal=principal))
        await engine.llm.configure_provider(provider("http://127.0.0.1:9/v1", apiKeyId=""))

    limits = CallerLimits(creations_per_second=0.001, creations_at_once=2)
    async with running(MemoryLog(), limits=limits) as engine:
        for _ in range(2):
            await asyncio.create_task(configure(engine, "mallory"))
        with pytest.raises(EngineError) as refused:
            await asyncio.create_task(configure(engine, "mallory"))
        assert refused.value.code is ErrorCode.RATE_LIMITED
        assert "retryAfter" in refused.value.facts
        await asyncio.create_task(configure(engine, "ada"))


async def test_a_restart_finds_providers_completions_and_their_health(tmp_path: Path) -> None:
    async with serving_provider() as fake:
        for snapshot_every in (10_000, 2):
            directory = tmp_path / str(snapshot_every)
            log = await SqliteEventLog.open(directory)
            async with running(log) as engine:
                await engine.llm.configure_provider(provider(fake.url))
                await engine.llm.complete(ask("gpt-good", stream=True, requestId="r1"))
                before = engine.llm.providers()
            await log.aclose()
            log = await SqliteEventLog.open(directory)
            async with running(log) as engine:
                assert engine.llm.providers() == before
                finite = engine.llm.select_stream("r1").finite
                assert finite is not None
                assert finite.start() is not None
                assert finite.is_over()
                with pytest.raises(EngineError, match="was used before"):
                    await engine.llm.complete(ask(requestId="r1"))
            await log.aclose()
