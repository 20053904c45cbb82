"""Events by the thousand a second: runs of an agent that says numbers back, a word at a time."""

from __future__ import annotations

import asyncio
import time
from typing import final

from circuit_breaker_sdk.events import (
    AgentExecutionStatus,
    AgentLLMProviderInput,
    AgentPromptsInput,
    LLMConfigInput,
)
from tests.system.chaos.publishing import Publisher
from tests.system.chaos.world import World

__all__ = ["RunPublisher"]

_WORDS = 500


@final
class RunPublisher(Publisher):
    """As a :class:`Publisher`; a number is acknowledged when the server says that its run is completed.

    :ivar agent_id: whose stream has the numbers.
    """

    def __init__(self, world: World, *, per_second: float) -> None:
        super().__init__(world, lanes=1, per_second=per_second)
        self.agent_id = ""
        self._runs: dict[str, range] = {}

    async def prepare(self) -> None:
        """Make the agent."""
        agents = self.world.direct.agents
        agent = await agents.create_agent(
            name="Counter",
            description="Says numbers back",
            llm_provider=AgentLLMProviderInput(provider_type="echo", model="echo", api_key=""),
            llm_config=LLMConfigInput(temperature=0.0, stop_sequences=[]),
            prompts=AgentPromptsInput(system="Count.", user_template="{numbers}"),
            capabilities=[],
            tools=[],
        )
        self.agent_id = agent.id
        await agents.create_state_agent_config(
            state_id="new",
            agent_id=agent.id,
            input_mapping={"numbers": "data.numbers"},
            output_mapping={},
            enabled=True,
        )

    async def publish(self, count: int | None = None) -> None:
        """Begin a run every so often until :meth:`stop`, or so many events; return when all have ended."""
        self._stop = False
        self.started = time.monotonic()
        begin = self._next
        while not self._stop and (count is None or self._next - begin < count):
            numbers = range(self._next, self._next + _WORDS)
            self._next += _WORDS
            if self.per_second is not None:
                due = self.started + (numbers[0] - begin) / self.per_second
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            resource = await self.world.direct.workflows.create_resource(
                workflow_id=self.world.workflow, data={"numbers": " ".join(map(str, numbers))}
            )
            for run in await self.world.direct.agents.trigger_state_agents(resource_id=resource.id):
                self._runs[run.id] = numbers
        for id_, numbers in self._runs.items():
            await self._until_completed(id_, numbers)

    async def _until_completed(self, id_: str, numbers: range) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            run = await self.world.direct.agents.agent_execution(id=id_)
            if run is not None and run.status is AgentExecutionStatus.COMPLETED:
                self.acknowledged.update(numbers)
                return
            await asyncio.sleep(0.02)
        self.unknown.update(numbers)
