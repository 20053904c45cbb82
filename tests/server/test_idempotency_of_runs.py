"""Keys of mutations that are more than one record: completions, and runs of agents."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import msgspec
import pytest

from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.server.engine.llm.endpoint import FakeProvider, serving_provider
from tests.server.keyed import KeyLog, send, serving, unanswering
from tests.waiting import until

COMPLETE = """mutation($input: LlmChatCompletionInput!) {
    llmChatCompletion(input: $input) { id choices { message { content } } usage { totalTokens } }
}"""
CONFIGURE = "mutation($input: LlmProviderConfigInput!) { configureLlmProvider(input: $input) { id } }"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> KeyLog:
    return KeyLog.watch(monkeypatch)


def chat(model: str, **more: object) -> dict[str, object]:
    return {"input": {"model": model, "messages": [{"role": "user", "content": "one two"}], **more}}


async def configure(url: str, provider: FakeProvider, *models: str) -> None:
    described = [
        {
            "id": model,
            "name": model,
            "maxTokens": 1000,
            "contextWindow": 1000,
            "costPerInputToken": 0.001,
            "costPerOutputToken": 0.002,
            "supportsStreaming": True,
            "supportsFunctionCalling": False,
            "capabilities": [],
        }
        for model in models
    ]
    given = {
        "providerType": "own",
        "name": "own",
        "baseUrl": provider.url,
        "apiKeyId": "",
        "models": described,
    }
    reply = await send(url, CONFIGURE, {"input": given})
    assert "errors" not in reply.json, reply.body


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_runs_once_and_is_charged_once(tmp_path: Path, log: KeyLog, stream: bool) -> None:
    status = '{ budgetStatus(userId: "ada") { used } }'
    async with serving(tmp_path) as url:
        first = await send(url, COMPLETE, chat("echo", user="ada", stream=stream), key="k")
        used = (await send(url, status)).body
        again = await send(url, COMPLETE, chat("echo", user="ada", stream=stream), key="k")
        assert (again.body, again.replayed, first.replayed) == (first.body, True, False)
        assert b"one two" in first.body
        assert (await send(url, status)).body == used
        assert b'"used":0.0' not in used
        assert [record.subject.partition(".")[0] for record in log.records] == ["completion"] * 2
        assert first.cursor.offset == log.records[-1].offset


async def test_who_asks_again_while_a_completion_runs_waits_for_it(tmp_path: Path) -> None:
    async with serving_provider() as provider, serving(tmp_path) as url:
        await configure(url, provider, "x-hang")
        first = asyncio.create_task(send(url, COMPLETE, chat("x-hang"), key="k"))
        await until(lambda: provider.requests)
        second = asyncio.create_task(send(url, COMPLETE, chat("x-hang"), key="k"))
        assert (await send(url, COMPLETE, chat("echo"), key="k")).code == "IDEMPOTENCY_KEY_REUSED"
        provider.hold.set()
        replies = await asyncio.gather(first, second)
        assert replies[0].body == replies[1].body
        assert len(provider.requests) == 1


async def test_a_providers_failure_is_answered_again_and_not_asked_for_again(tmp_path: Path) -> None:
    async with serving_provider() as provider:
        async with serving(tmp_path) as url:
            await configure(url, provider, "x-400")
            first = await send(url, COMPLETE, chat("x-400"), key="k")
            again = await send(url, COMPLETE, chat("x-400"), key="k")
            assert first.code == "PROVIDER_FAILED"
            assert (again.body, again.replayed, first.replayed) == (first.body, True, False)
        async with serving(tmp_path) as url:
            assert (await send(url, COMPLETE, chat("x-400"), key="k")).body == first.body
        assert len(provider.requests) == 1


async def test_a_refusal_before_any_record_leaves_the_key_free(tmp_path: Path, log: KeyLog) -> None:
    async with serving(tmp_path) as url:
        assert (await send(url, COMPLETE, chat("nobody's"), key="k")).code == "NOT_FOUND"
        assert not log.records
        assert "errors" not in (await send(url, COMPLETE, chat("echo"), key="k")).json


async def test_a_completion_that_was_interrupted_is_not_run_again(tmp_path: Path) -> None:
    async with unanswering(tmp_path) as url:
        with pytest.raises(aiohttp.ClientError):
            await send(url, COMPLETE, chat("echo"), key="k")
    for _ in range(2):  # from the records, then from a snapshot
        async with serving(tmp_path) as url:
            again = await send(url, COMPLETE, chat("echo"), key="k")
            assert (again.status, again.code, again.replayed) == (409, "CONFLICT", False)
            assert "interrupted" in again.body.decode()
            assert (await send(url, COMPLETE, chat("other"), key="k")).code == "IDEMPOTENCY_KEY_REUSED"
            assert "errors" not in (await send(url, COMPLETE, chat("echo"), key=f"another{_}")).json


async def test_a_completion_that_was_running_when_the_server_stopped_is_not_run_again(tmp_path: Path) -> None:
    async with serving_provider() as provider:
        async with serving(tmp_path, execute_seconds=1.0) as url:
            await configure(url, provider, "x-hang")
            assert (await send(url, COMPLETE, chat("x-hang"), key="k")).code == "TIMEOUT"
        async with serving(tmp_path) as url:
            assert (await send(url, COMPLETE, chat("x-hang"), key="k")).code == "CONFLICT"
        assert len(provider.requests) == 1


async def test_what_a_trigger_leads_to_has_nothing_of_its_key(tmp_path: Path, log: KeyLog) -> None:
    made: dict[str, str] = {}

    async def make(url: str, name: str, kind: str, given: object) -> None:
        query = f"mutation($input: {kind}!) {{ {name}(input: $input) {{ id }} }}"
        made[name] = str((await send(url, query, {"input": given})).data[name]["id"])

    async with serving(tmp_path) as url:
        states = [{"id": s, "name": s, "workflowId": "", "stateType": "NORMAL"} for s in ("a", "b")]
        go = {"id": "go", "fromStates": ["a"], "toState": "b", "conditions": []}
        workflow = {"name": "w", "initialState": "a", "states": states, "activities": [go]}
        await make(url, "createWorkflow", "WorkflowDefinitionInput", workflow)
        await make(url, "createResource", "ResourceCreateInput", {"workflowId": made["createWorkflow"]})
        agent = {
            "name": "A",
            "description": "",
            "llmProvider": {"providerType": "echo", "model": "echo", "apiKey": ""},
            "llmConfig": {"temperature": 0.0, "stopSequences": []},
            "prompts": {"system": "", "userTemplate": "look"},
            "capabilities": [],
            "tools": [],
        }
        await make(url, "createAgent", "AgentDefinitionInput", agent)
        config = {
            "stateId": "a",
            "agentId": made["createAgent"],
            "inputMapping": {},
            "outputMapping": {},
            "autoActivity": "go",
            "enabled": True,
        }
        await make(url, "createStateAgentConfig", "StateAgentConfigInput", config)
        trigger = (
            "mutation($input: TriggerStateAgentsInput!) { triggerStateAgents(input: $input) { id status } }"
        )
        given = {"input": {"resourceId": made["createResource"]}}
        first = await send(url, trigger, given, key="k")
        run = msgspec.convert(first.json["data"], dict[str, list[dict[str, str]]])["triggerStateAgents"][0]
        assert run["status"] == "PENDING"
        execution = f'{{ agentExecution(id: "{run["id"]}") {{ status }} }}'
        async with asyncio.timeout(20):
            while b"COMPLETED" not in (await send(url, execution)).body:
                pass
        again = await send(url, trigger, given, key="k")
        assert (again.body, again.replayed) == (first.body, True)
        (record,) = log.records
        assert record.subject.startswith("trigger.")
    whole = await SqliteEventLog.open(tmp_path)
    records = [record async for record in whole.scan(after=0)]
    await whole.aclose()
    assert sum(record.subject.startswith("trigger.") for record in records) == 1
    assert sum(b'"activity_executed"' in record.data for record in records) == 1
