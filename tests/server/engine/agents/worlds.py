"""Engines with agents in them, for tests of runs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import msgspec

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.agents.inputs import AgentInput, StateAgentConfigInput, TriggerInput
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.log.event_log import EventLog
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.memory_secrets import MemorySecrets
from tests.server.engine.worlds import clock, create_resource, create_workflow, plain

AGENT: dict[str, object] = {
    "name": "Reviewer",
    "description": "reads drafts",
    "llmProvider": {"providerType": "echo", "model": "echo", "apiKey": ""},
    "llmConfig": {"temperature": 0.0, "stopSequences": []},
    "prompts": {"system": "You are {role}.", "userTemplate": "Review {title} in {where}"},
    "capabilities": ["review"],
    "tools": [],
}
CONFIG: dict[str, object] = {
    "stateId": "draft",
    "inputMapping": {"title": "data.title", "where": "state", "role": "metadata.role", "no": "elsewhere"},
    "outputMapping": {"verdict": "content"},
    "enabled": True,
}
RETRY: dict[str, object] = {"maxAttempts": 3, "backoffSeconds": 0, "retryOnErrors": []}
ANSWER = "Review Plan in draft"


class World:
    """An engine with a workflow and a resource in it."""

    def __init__(self, engine: Engine, workflow: str, resource: str) -> None:
        self.engine = engine
        self.workflow = workflow
        self.resource = resource

    async def agent(self, **changes: object) -> str:
        given = msgspec.convert({**AGENT, **changes}, AgentInput)
        return str((await self.engine.agents.create_agent(given)).value["id"])

    async def asking(self, url: str, model: str) -> str:
        """Make an agent with an endpoint of its own."""
        return await self.agent(
            llmProvider={"providerType": "openai", "model": model, "apiKey": "top-secret", "baseUrl": url}
        )

    async def configure(self, agent: str, **changes: object) -> str:
        given = msgspec.convert({**CONFIG, "agentId": agent, **changes}, StateAgentConfigInput)
        return str((await self.engine.agents.create_state_config(given)).value["id"])

    async def trigger(self) -> list[str]:
        done = await self.engine.agents.trigger(TriggerInput(resource_id=self.resource))
        return [str(run["id"]) for run in done.value]

    def run_of(self, execution: str) -> dict[str, object]:
        return plain(self.engine.agents.execution(execution))

    async def over(self, log: MemoryLog, execution: str) -> dict[str, object]:
        await log.until(lambda: self.run_of(execution)["completedAt"] is not None)
        return self.run_of(execution)

    def resource_now(self) -> dict[str, object]:
        return plain(self.engine.workflows.resource(self.resource))


@contextlib.asynccontextmanager
async def running(
    log: EventLog,
    secrets: MemorySecrets | None = None,
    *,
    attempt_seconds: float = 5.0,
    limits: CallerLimits = CallerLimits(),  # noqa: B008 (a frozen value)
) -> AsyncIterator[Engine]:
    engine = Engine(
        log, now=clock(), secrets=secrets or MemorySecrets(), provider_seconds=attempt_seconds, limits=limits
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


@contextlib.asynccontextmanager
async def world(
    log: EventLog,
    secrets: MemorySecrets | None = None,
    *,
    attempt_seconds: float = 5.0,
    limits: CallerLimits = CallerLimits(),  # noqa: B008 (a frozen value)
) -> AsyncIterator[World]:
    async with running(log, secrets, attempt_seconds=attempt_seconds, limits=limits) as engine:
        workflow = await create_workflow(engine.workflows)
        resource = await create_resource(
            engine.workflows, workflow, data={"title": "Plan"}, metadata={"role": "strict"}
        )
        yield World(engine, workflow, resource)


def events(log: MemoryLog, stream: str = "agentExecutionStream") -> list[dict[str, object]]:
    return [event.whole for record in log.records for event in derive(record) if event.stream == stream]


def types(log: MemoryLog) -> list[object]:
    return [value["eventType"] for value in events(log)]
