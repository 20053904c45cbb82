"""Every table of the state that grows with use is bounded, or forgets what ended long ago."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from circuit_breaker_server.engine.agents.inputs import AgentInput, StateAgentConfigInput, TriggerInput
from circuit_breaker_server.engine.costs.inputs import CostAnalyticsInput
from circuit_breaker_server.engine.costs.state import KEPT_SPENDING_DAYS
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.expiry_table import EndedKeys
from circuit_breaker_server.engine.llm.inputs import ChatCompletion
from circuit_breaker_server.engine.mcp import state as mcp_state
from circuit_breaker_server.engine.mcp.inputs import CreateServer
from circuit_breaker_server.engine.mcp.session_deadlines import Due
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.worlds import create_resource, create_workflow

BEGAN = datetime(2030, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> datetime:
        return self.now


@contextlib.asynccontextmanager
async def running(log: MemoryLog, clock: Clock) -> AsyncIterator[Engine]:
    engine = Engine(log, now=clock, mcp_check_seconds=3600.0)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


async def complete(engine: Engine, user: str) -> None:
    given = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "user": user}
    await engine.llm.complete(msgspec.convert(given, ChatCompletion))


async def configured_resource(engine: Engine) -> str:
    """Make a resource with an agent that runs in its state; return its id."""
    resource = await create_resource(engine.workflows, await create_workflow(engine.workflows))
    agent = {
        "name": "a",
        "description": "",
        "llmProvider": {"providerType": "echo", "model": "echo", "apiKey": ""},
        "llmConfig": {"temperature": 0.0, "stopSequences": []},
        "prompts": {"system": "", "userTemplate": "look"},
        "capabilities": [],
        "tools": [],
    }
    made = await engine.agents.create_agent(msgspec.convert(agent, AgentInput))
    config = {
        "stateId": "draft",
        "agentId": made.value["id"],
        "inputMapping": {},
        "outputMapping": {},
        "enabled": True,
    }
    await engine.agents.create_state_config(msgspec.convert(config, StateAgentConfigInput))
    return resource


def ended(engine: Engine) -> bool:
    return all(entry.completed_at is not None for entry in engine.agents._state.executions.values())


async def test_runs_that_ended_a_day_ago_are_forgotten() -> None:
    log, clock = MemoryLog(), Clock()
    async with running(log, clock) as engine:
        resource = await configured_resource(engine)
        for _ in range(20):
            await engine.agents.trigger(TriggerInput(resource_id=resource))
        await log.until(lambda: ended(engine))
        assert len(list(engine.agents.resource_executions(resource))) == 20
        clock.now += timedelta(hours=25)
        await engine.agents.trigger(TriggerInput(resource_id=resource))
        await log.until(lambda: ended(engine))
        assert len(list(engine.agents.resource_executions(resource))) == 1
    async with running(log, clock) as again:
        clock.now += timedelta(hours=25)
        await again.agents.trigger(TriggerInput(resource_id=resource))
        assert len(list(again.agents.resource_executions(resource))) == 1


async def test_what_was_spent_more_than_a_year_ago_is_forgotten() -> None:
    log, clock = MemoryLog(), Clock()
    async with running(log, clock) as engine:
        for day in range(KEPT_SPENDING_DAYS + 30):
            clock.now = BEGAN + timedelta(days=day)
            await complete(engine, f"user-{day}")
        assert len(engine.costs._state.spending) == KEPT_SPENDING_DAYS + 1
        given = CostAnalyticsInput(start_date="2030-01-01", end_date="2040-01-01")
        assert engine.costs.analytics(given)["totalTokens"] == 2 * (KEPT_SPENDING_DAYS + 1)


async def test_locks_of_accounts_are_not_kept() -> None:
    log, clock = MemoryLog(), Clock()
    async with running(log, clock) as engine:
        for number in range(50):
            await complete(engine, f"user-{number}")
        assert len(engine.costs._turns._locks) == 0


async def test_tenants_of_deleted_mcp_servers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_state, "MAX_DELETED_TENANTS", 3)
    given = {
        "name": "s",
        "type": "LOCAL",
        "tenantId": "acme",
        "enabled": False,
        "config": {"endpoint": "http://127.0.0.1:1/mcp"},
    }
    async with running(MemoryLog(), Clock()) as engine:
        made = [
            str((await engine.mcp.servers.create(msgspec.convert(given, CreateServer))).value["id"])
            for _ in range(10)
        ]
        for server_id in made[:8]:
            await engine.mcp.delete_server(server_id)
        assert [engine.mcp.tenant_of(id_) for id_ in made] == [None] * 5 + ["acme"] * 5


async def test_a_tenant_that_deletes_without_end_makes_no_other_tenants_be_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mcp_state, "MAX_DELETED_TENANTS", 3)
    log = MemoryLog()

    async def make_and_delete(engine: Engine, tenant: str) -> str:
        given = {
            "name": "s",
            "type": "LOCAL",
            "tenantId": tenant,
            "enabled": False,
            "config": {"endpoint": "http://127.0.0.1:1/mcp"},
        }
        made = await engine.mcp.servers.create(msgspec.convert(given, CreateServer))
        await engine.mcp.delete_server(str(made.value["id"]))
        return str(made.value["id"])

    async with running(log, Clock()) as engine:
        own = await make_and_delete(engine, "acme")
        bad = [await make_and_delete(engine, "bad") for _ in range(5)]
        assert [engine.mcp.tenant_of(id_) for id_ in (own, *bad)] == ["acme", None, None, None, "bad", "bad"]
    async with running(log, Clock()) as again:
        last = await make_and_delete(again, "bad")
        known = [again.mcp.tenant_of(id_) for id_ in (own, *bad, last)]
    assert known == ["acme", None, None, None, None, "bad", "bad"]


def test_a_moment_that_is_set_again_and_again_is_one_entry() -> None:
    due = Due()
    for second in range(10_000):
        due.add(BEGAN + timedelta(seconds=second), "s")
    assert len(due._heap) < 50
    assert [*due.take(BEGAN + timedelta(seconds=9_998))] == []
    assert [*due.take(BEGAN + timedelta(seconds=9_999))] == ["s"]
    assert "s" not in due


def test_what_ended_first_is_forgotten_first_and_only_once() -> None:
    ended = EndedKeys()
    ended.restore([("c", None), ("b", "2030-01-02T00:00:00.000Z"), ("a", "2030-01-01T00:00:00.000Z")])
    ended.put("d", "2030-01-03T00:00:00.000Z")
    assert ended.take_old("2030-01-02T00:00:00.001Z") == ["a"]
    assert ended.take_old("2030-01-09T00:00:00.000Z") == ["b", "d"]
    assert ended.take_old("2040-01-01T00:00:00.000Z") == []
