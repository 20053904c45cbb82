"""Who starts runs of an agent under keys: records without an expectation of their subject's end."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final, final

import msgspec

from circuit_breaker_sdk.events import (
    ActivityInput,
    AgentLLMProviderInput,
    AgentPromptsInput,
    LLMConfigInput,
    StateInput,
)
from tests.system.chaos.keyed_publishing import CREATE, Created
from tests.system.chaos.keyed_sending import KeyedSender
from tests.system.chaos.result import Result
from tests.system.chaos.world import World

__all__ = ["KeyedRuns"]

_TRIGGER: Final = (
    "mutation Run($input: TriggerStateAgentsInput!) { triggerStateAgents(input: $input) { id } }"
)
_STATE: Final = "counted"
_LANES: Final = 8
_PAUSE_SECONDS: Final = 0.05


@final
class KeyedRuns:
    """Makes a resource and starts a run for it, again and again, each under a key of its own.

    The broker refuses a second resource, as its subject may hold nothing before it. It takes a second start
    of a run, unless it remembers the id.

    :ivar started: numbers whose start was answered, with the id of the resource.
    """

    def __init__(self, world: World, sender: KeyedSender) -> None:
        self.started: dict[int, str] = {}
        self._world = world
        self._sender = sender
        self._workflow = ""
        self._next = 0
        self._stop = False

    async def prepare(self) -> None:
        """Make a workflow of its own, and the agent."""
        workflow = await self._world.direct.workflows.create_workflow(
            name="runs",
            initial_state=_STATE,
            states=[StateInput(id=_STATE, name="Counted")],
            activities=[ActivityInput(id="stay", from_states=[_STATE], to_state=_STATE)],
        )
        self._workflow = workflow.id
        agents = self._world.direct.agents
        agent = await agents.create_agent(
            name="Counter",
            description="Says a number back",
            llm_provider=AgentLLMProviderInput(provider_type="echo", model="echo", api_key=""),
            llm_config=LLMConfigInput(temperature=0.0, stop_sequences=[]),
            prompts=AgentPromptsInput(system="Count.", user_template="1"),
            capabilities=[],
            tools=[],
        )
        await agents.create_state_agent_config(
            state_id=_STATE, agent_id=agent.id, input_mapping={}, output_mapping={}, enabled=True
        )

    async def run(self) -> None:
        """Start runs until :meth:`stop`; when this returns every answer is here."""
        await asyncio.gather(*(self._lane() for _ in range(_LANES)))

    def stop(self) -> None:
        """End :meth:`run` after what is under way."""
        self._stop = True

    async def send_again(self) -> int:
        """Send every start of a run that was answered once more; count them."""
        for number, resource in tuple(self.started.items()):
            await self._start_run(number, resource)
        return len(self.started)

    async def judge(self, result: Result) -> None:
        """Require that each run was started once."""
        prefix = f"trigger.{self._workflow}."
        counts: Counter[str] = Counter()
        for subject, count in (await self._world.brokers.records_by_subject(f"{prefix}>")).items():
            # Each start is a subject of its own: its resource, and an id.
            counts[subject.removeprefix(prefix).partition("%2F")[0]] += count
        several = [id_ for id_, count in counts.items() if count > 1]
        missing = [id_ for id_ in self.started.values() if not counts[id_]]
        result.require(not several, f"{len(several)} runs were started twice: {several[:3]}")
        result.require(
            not missing, f"{len(missing)} starts were answered and are not in the log: {missing[:3]}"
        )
        result.require(self.started, "no run was started")

    async def _lane(self) -> None:
        while not self._stop:
            number = self._next
            self._next += 1
            await self._world.server.up.wait()
            made: dict[str, object] = {"workflowId": self._workflow, "initialState": _STATE}
            variables: dict[str, object] = {"input": {**made, "data": {"n": number}, "metadata": {}}}
            answer = await self._sender.until_answered(f"counted-{number}", CREATE, variables)
            if answer is not None:
                await self._start_run(number, msgspec.json.decode(answer, type=Created).made.id)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _start_run(self, number: int, resource: str) -> None:
        variables: dict[str, object] = {"input": {"resourceId": resource}}
        if await self._sender.until_answered(f"run-{number}", _TRIGGER, variables) is not None:
            self.started[number] = resource
