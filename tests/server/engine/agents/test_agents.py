"""Runs of agents: each one exactly one end, its answer in the resource, its stream from the beginning."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.agents.inputs import AgentInput
from circuit_breaker_server.engine.agents.records import ExecutionStarted, execution_subject
from circuit_breaker_server.engine.command_origin import ORIGIN, Origin
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.record_bodies import encode_body
from circuit_breaker_server.engine.workflows.inputs import ExecuteActivity
from circuit_breaker_server.log.event_log import NewRecord
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.server.engine.agents.worlds import AGENT, ANSWER, RETRY, World, events, running, types, world
from tests.server.engine.llm.endpoint import serving_provider
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.memory_secrets import MemorySecrets
from tests.server.engine.worlds import part, plain
from tests.waiting import until


async def test_a_run_is_started_at_once_streams_its_answer_and_puts_it_into_the_resource() -> None:
    log = MemoryLog()
    async with world(log) as w:
        await w.configure(await w.agent())
        (execution,) = await w.trigger()
        assert w.run_of(execution)["status"] == "PENDING", "the mutation does not wait for the run"
        done = await w.over(log, execution)
        assert done["status"] == "COMPLETED"
        assert done["inputData"] == {"title": "Plan", "where": "draft", "role": "strict", "no": None}
        assert done["outputData"] == {"content": ANSWER, "output": None}
        assert part(done, "durationMs", int) > 0
        assert types(log) == ["STARTED", *["PROGRESS"] * 4, "COMPLETED"]
        said = [part(e, "data", dict)["delta"] for e in events(log) if e["eventType"] == "PROGRESS"]
        assert "".join(said) == ANSWER
        resource = w.resource_now()
        assert resource["data"] == {"title": "Plan", "verdict": ANSWER}
        assert (resource["state"], resource["history"]) == ("draft", [])
        assert list(w.engine.agents.resource_executions(w.resource)) == [w.engine.agents.execution(execution)]
    (triggered,) = [e for e in events(log, "workflowEvents") if e["eventType"] == "AGENT_TRIGGERED"]
    assert part(triggered, "data", dict) == {
        "executionId": execution,
        "agentId": done["agentId"],
        "stateId": "draft",
    }
    assert len([e for e in events(log, "resourceUpdates") if part(e, "data", dict).get("verdict")]) == 1
    (cost,) = events(log, "costUpdates")
    assert (cost["eventType"], cost["userId"], cost["projectId"]) == ("COST_INCURRED", None, None)


async def test_every_enabled_configuration_of_the_state_runs_and_no_other() -> None:
    log = MemoryLog()
    async with world(log) as w:
        agent = await w.agent()
        assert await w.trigger() == []
        await w.configure(agent)
        await w.configure(agent, outputMapping={})
        await w.configure(agent, enabled=False)
        await w.configure(agent, stateId="review")
        runs = await w.trigger()
        assert len(runs) == 2
        for run in runs:
            assert (await w.over(log, run))["status"] == "COMPLETED"
        assert len([c for c in w.engine.agents.state_configs("draft") if c]) == 3
        assert len([c for c in w.engine.agents.state_configs("review") if c]) == 1


async def test_an_activity_is_executed_with_the_answer_and_says_who_did_it() -> None:
    log = MemoryLog()
    async with world(log) as w:
        await w.configure(await w.agent(), autoActivity="submit")
        (execution,) = await w.trigger()
        await w.over(log, execution)
        resource = w.resource_now()
        assert (resource["state"], part(resource, "data", dict)["verdict"]) == ("review", ANSWER)
    changes = [e for e in events(log, "workflowEvents") if e["eventType"] == "RESOURCE_STATE_CHANGED"]
    assert [change["triggeredBy"] for change in changes] == [f"agent:{execution}"]


async def test_an_activity_that_is_refused_fails_the_run_and_says_why() -> None:
    log = MemoryLog()
    async with world(log) as w:
        await w.configure(await w.agent(), autoActivity="approve")
        (execution,) = await w.trigger()
        done = await w.over(log, execution)
        assert done["status"] == "FAILED"
        assert "activity 'approve' is not allowed" in str(done["errorMessage"])
    assert types(log)[-2:] == ["LOG", "FAILED"]


async def test_an_answer_that_is_json_can_be_mapped_by_key_and_a_placeholder_may_be_missing() -> None:
    log = MemoryLog()
    async with world(log) as w:
        agent = await w.agent(prompts={"system": "", "userTemplate": '{"grade": 2, "who": "{nobody}"}'})
        await w.configure(agent, outputMapping={"grade": "output.grade", "x": "output.missing"})
        (execution,) = await w.trigger()
        done = await w.over(log, execution)
        assert part(done, "outputData", dict)["output"] == {"grade": 2, "who": ""}
        assert w.resource_now()["data"] == {"title": "Plan", "grade": 2, "x": None}
    (line,) = [e for e in events(log) if e["eventType"] == "LOG"]
    assert part(line, "data", dict) == {"message": "the prompt has {nobody}, which the input does not have"}


@pytest.mark.parametrize(
    ("model", "retry", "status", "seen"),
    [
        ("gpt-400", None, "FAILED", ["STARTED", "FAILED"]),
        ("gpt-400", RETRY, "FAILED", ["STARTED", "RETRY", "RETRY", "FAILED"]),
        ("gpt-400", {**RETRY, "retryOnErrors": ["timeout"]}, "FAILED", ["STARTED", "FAILED"]),
        (
            "gpt-400",
            {**RETRY, "retryOnErrors": ["STATUS 4"]},
            "FAILED",
            ["STARTED", "RETRY", "RETRY", "FAILED"],
        ),
        ("gpt-cut", None, "FAILED", ["STARTED", *["PROGRESS"] * 3, "FAILED"]),
        ("gpt-hang", None, "TIMEOUT", ["STARTED", *["PROGRESS"] * 3, "FAILED"]),
    ],
)
async def test_an_attempt_that_fails_is_made_again_as_configured_and_the_run_has_one_end(
    model: str, retry: dict[str, object] | None, status: str, seen: list[str]
) -> None:
    log, secrets = MemoryLog(), MemorySecrets()
    # Only what hangs is to run out of time, however slow the machine is.
    seconds = 0.5 if status == "TIMEOUT" else 30.0
    async with serving_provider() as fake, world(log, secrets, attempt_seconds=seconds) as w:
        agent = await w.asking(fake.url, model)
        await w.configure(agent, retryConfig=retry)
        (execution,) = await w.trigger()
        done = await w.over(log, execution)
        assert (done["status"], done["retryCount"]) == (status, seen.count("RETRY"))
        assert done["errorMessage"]
        assert types(log) == seen
        assert events(log)[-1]["status"] == status
        assert fake.keys[0] == "Bearer top-secret"
        assert w.resource_now()["data"] == {"title": "Plan"}
    assert secrets.values == {f"agent-{agent}": "top-secret"}
    assert b"top-secret" not in b"".join(record.data for record in log.records)


async def test_an_agent_without_a_url_is_asked_where_its_model_is_configured() -> None:
    log = MemoryLog()
    async with world(log) as w:
        agent = await w.agent(llmProvider={"providerType": "openai", "model": "gpt-good", "apiKey": ""})
        await w.configure(agent)
        (execution,) = await w.trigger()
        done = await w.over(log, execution)
        assert (done["status"], "no provider serves" in str(done["errorMessage"])) == ("FAILED", True)
    assert types(log) == ["FAILED"]


async def test_a_run_can_be_cancelled_once_and_one_that_is_over_cannot() -> None:
    log = MemoryLog()
    async with serving_provider() as fake, world(log) as w:
        await w.configure(await w.asking(fake.url, "gpt-hang"))
        (execution,) = await w.trigger()
        await log.until(lambda: types(log) == ["STARTED", *["PROGRESS"] * 3])
        done = await w.engine.agents.cancel(execution)
        assert done.value["status"] == "CANCELLED"
        with pytest.raises(EngineError, match="is over") as raised:
            await w.engine.agents.cancel(execution)
        assert raised.value.code is ErrorCode.CONFLICT
        with pytest.raises(EngineError, match="there is no run 'x'"):
            await w.engine.agents.cancel("x")
    assert types(log) == ["STARTED", *["PROGRESS"] * 3, "CANCELLED"]


async def test_a_run_can_be_cancelled_while_its_record_is_on_the_way() -> None:
    log = MemoryLog()
    async with serving_provider() as fake, world(log) as w:
        await w.configure(await w.asking(fake.url, "gpt-hang"))
        (execution,) = await w.trigger()
        log.gate.clear()
        cancelling = asyncio.create_task(w.engine.agents.cancel(execution))
        await asyncio.sleep(0)
        # What the run was appending is committed all the same, before the end is.
        started = ExecutionStarted(
            execution_id=execution,
            agent_id=str(w.run_of(execution)["agentId"]),
            resource_id=w.resource,
            at="2030-01-01T00:00:00.000Z",
            input={},
        )
        subject = execution_subject(started.agent_id, w.resource, execution)

        def commit_first(_record: NewRecord) -> None:
            log.before_append = None
            log.put(NewRecord(subject=subject, id="0" * 32, data=encode_body(started), expected=None))

        log.before_append = commit_first
        log.gate.set()
        assert (await cancelling).value["status"] == "CANCELLED"
    assert types(log) == ["STARTED", "CANCELLED"]


async def trigger_as(world_: World, principal: str) -> list[str]:
    async def trigger() -> list[str]:
        ORIGIN.set(Origin(principal=principal))
        return await world_.trigger()

    return await asyncio.create_task(trigger())


async def test_a_principal_whose_runs_hang_keeps_no_others_from_being_made() -> None:
    log = MemoryLog()
    limits = CallerLimits(runs=2, runs_per_principal=1, runs_waiting=2)
    async with serving_provider() as fake, world(log, limits=limits) as made:
        hanging = await made.asking(fake.url, "gpt-hang")
        await made.configure(hanging)
        runs = [*await trigger_as(made, "mallory"), *await trigger_as(made, "mallory")]
        await log.until(lambda: types(log).count("PROGRESS") == 3)
        await trigger_as(made, "mallory")
        await until(lambda: made.engine.agents._runs._turns.waiting("mallory") == 2)
        with pytest.raises(EngineError, match="2 runs of agents of yours wait") as refused:
            await trigger_as(made, "mallory")
        assert refused.value.code is ErrorCode.RATE_LIMITED
        await trigger_as(made, "ada")
        await log.until(lambda: types(log).count("PROGRESS") == 6)
        assert len(fake.requests) == 2, "one of each principal"
        fake.hold.set()
        for run in runs:
            await made.over(log, run)


async def test_a_run_that_never_comes_to_its_end_is_ended() -> None:
    log = MemoryLog()
    async with serving_provider() as fake, world(log, limits=CallerLimits(run_seconds=0.05)) as made:
        await made.configure(await made.asking(fake.url, "gpt-hang"))
        (run,) = await made.trigger()
        ended = await made.over(log, run)
    assert (ended["status"], ended["errorMessage"]) == (
        "TIMEOUT",
        "not over within 0.05 s, with all attempts and the waits for them",
    )


async def test_a_run_that_was_going_on_when_the_server_stopped_is_failed_as_interrupted_once() -> None:
    log = MemoryLog()
    async with serving_provider() as fake:
        async with world(log) as w:
            await w.configure(await w.asking(fake.url, "gpt-hang"))
            (execution,) = await w.trigger()
            await log.until(lambda: len(types(log)) == 4)
        for _ in range(2):
            async with running(log) as engine:
                done = plain(engine.agents.execution(execution))
                assert (done["status"], done["errorMessage"]) == ("FAILED", "interrupted: the server stopped")
    assert types(log)[-1] == "FAILED"
    assert types(log).count("FAILED") == 1


async def test_runs_that_change_one_resource_at_once_all_get_their_change_in() -> None:
    log = MemoryLog()
    async with world(log) as w:
        agent = await w.agent()
        for n in range(5):
            await w.configure(agent, outputMapping={f"v{n}": "content"})
        for execution in await w.trigger():
            assert (await w.over(log, execution))["status"] == "COMPLETED"
        assert part(w.resource_now(), "data", dict).keys() == {"title", "v0", "v1", "v2", "v3", "v4"}


async def test_the_stream_of_one_run_begins_where_it_was_triggered_and_of_others_now() -> None:
    async with world(MemoryLog()) as w:
        agent = await w.agent()
        await w.configure(agent)
        (execution,) = await w.trigger()
        one = w.engine.agents.select_executions({"executionId": execution}).finite
        assert one is not None
        assert one.start() is not None
        unknown = w.engine.agents.select_executions({"executionId": "later"}).finite
        assert unknown is not None
        assert (unknown.start(), unknown.is_over()) == (None, False)
        assert w.engine.agents.select_executions({"agentId": agent}).finite is None
        assert w.engine.agents.select_executions({"resourceId": w.resource}).finite is None


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        ({}, "exactly one of", ErrorCode.INVALID_INPUT),
        ({"executionId": "a", "agentId": "b"}, "exactly one of", ErrorCode.INVALID_INPUT),
        ({"executionId": ""}, "executionId: must not be empty", ErrorCode.INVALID_INPUT),
        ({"agentId": "x"}, "there is no agent 'x'", ErrorCode.NOT_FOUND),
        ({"resourceId": "x"}, "there is no resource 'x'", ErrorCode.NOT_FOUND),
    ],
)
async def test_a_stream_of_nothing_is_refused(
    arguments: dict[str, object], message: str, code: ErrorCode
) -> None:
    async with world(MemoryLog()) as w:
        with pytest.raises(EngineError, match=message) as raised:
            w.engine.agents.select_executions(arguments)
        assert raised.value.code is code


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name: must not be empty"),
        ({"description": "d" * 10_001}, "description: 10001"),
        ({"tools": ["x"]}, "tools: this server gives agents no tools"),
        ({"capabilities": [str(n) for n in range(101)]}, "capabilities: 101 of them"),
        (
            {"llmProvider": {"providerType": "o", "model": "m", "apiKey": "k" * 4097, "baseUrl": "http://h"}},
            "llmProvider.apiKey: at most 4096",
        ),
        ({"capabilities": [""]}, r"capabilities\[0\]: must not be empty"),
        ({"llmConfig": {"temperature": 3.0, "stopSequences": []}}, "llmConfig.temperature: 3 is not"),
        ({"llmConfig": {"temperature": 0.0, "stopSequences": [""]}}, "llmConfig.stopSequences"),
        ({"llmConfig": {"temperature": 0.0, "maxTokens": 0, "stopSequences": []}}, "llmConfig.maxTokens: 0"),
        ({"prompts": {"system": "", "userTemplate": " "}}, "prompts.userTemplate: must not be empty"),
        ({"prompts": {"system": "s" * 70_000, "userTemplate": "u"}}, "prompts.system: 70000 characters"),
        ({"llmProvider": {"providerType": "echo", "model": "echo", "apiKey": "k"}}, "built in"),
        ({"llmProvider": {"providerType": "o", "model": "m", "apiKey": "k"}}, "llmProvider.baseUrl: must"),
        ({"llmProvider": {"providerType": "o", "model": "m", "apiKey": "", "baseUrl": "x"}}, "baseUrl"),
    ],
)
async def test_an_agent_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    async with world(MemoryLog()) as w:
        with pytest.raises(EngineError, match=message) as raised:
            await w.agent(**changes)
        assert raised.value.code is ErrorCode.INVALID_INPUT
        assert list(w.engine.agents.agents()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stateId": ""}, "stateId: must not be empty"),
        ({"inputMapping": []}, "inputMapping must be an object"),
        ({"inputMapping": {"a": "x" * 17_000}}, "inputMapping takes"),
        ({"inputMapping": {"a": 1}}, "inputMapping.a: must be a text, not a number"),
        ({"outputMapping": {"a": "elsewhere"}}, "outputMapping.a: 'elsewhere' is neither"),
        ({"schedule": {"intervalSeconds": 5}}, "schedule: this server starts no runs by time"),
        ({"autoActivity": ""}, "autoActivity: must not be empty"),
        ({"retryConfig": {**RETRY, "maxAttempts": 0}}, "maxAttempts: 0 is not between 1 and 10"),
        (
            {"retryConfig": {**RETRY, "backoffSeconds": 3600}},
            "retryConfig: 3 attempts with 3600 s between them take 7200 s; a run may take 3600 s",
        ),
        ({"retryConfig": {**RETRY, "backoffSeconds": -1}}, "backoffSeconds: -1 is not between"),
        ({"retryConfig": {**RETRY, "retryOnErrors": [""]}}, "retryOnErrors: must not be empty"),
    ],
)
async def test_a_configuration_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    async with world(MemoryLog()) as w:
        agent = await w.agent()
        with pytest.raises(EngineError, match=message) as raised:
            await w.configure(agent, **changes)
        assert raised.value.code is ErrorCode.INVALID_INPUT
        with pytest.raises(EngineError, match="there is no agent 'x'"):
            await w.configure("x")
        with pytest.raises(EngineError, match="there is no resource 'x'"):
            w.engine.agents.resource_executions("x")


def test_a_key_is_not_shown() -> None:
    provider = {"providerType": "o", "model": "m", "apiKey": "top-secret", "baseUrl": "http://h"}
    assert "top-secret" not in repr(msgspec.convert({**AGENT, "llmProvider": provider}, AgentInput))


async def test_a_restart_finds_agents_configurations_and_runs(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path)
    ended = asyncio.Event()
    log.tail(lambda records: ended.set() if b"execution_ended" in records[-1].data else None)
    async with world(log) as w:
        agent = await w.agent()
        await w.configure(agent, autoActivity="submit")
        (execution,) = await w.trigger()
        async with asyncio.timeout(5):
            await ended.wait()
        agents = w.engine.agents
        before = (list(agents.agents()), list(agents.state_configs("draft")), w.run_of(execution))
        resource = w.resource
    await log.aclose()
    log = await SqliteEventLog.open(tmp_path)
    async with running(log) as engine:
        agents, run = engine.agents, plain(engine.agents.execution(execution))
        assert (list(agents.agents()), list(agents.state_configs("draft")), run) == before
        assert run["status"] == "COMPLETED"
        assert agents.agent(agent) == before[0][0]
        await engine.workflows.execute_activity(ExecuteActivity(resource_id=resource, activity_id="reject"))
    await log.aclose()
