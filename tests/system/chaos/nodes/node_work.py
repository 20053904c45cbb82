"""Work that belongs to nodes: runs of an agent, completions, sessions that expire; begun at any of them."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Final, final

import msgspec
from joserfc import jwt
from joserfc.jwk import RSAKey

from circuit_breaker_sdk.events import (
    ActivityInput,
    AgentLLMProviderInput,
    AgentPromptsInput,
    LLMConfigInput,
    StateInput,
)
from tests.system.chaos.keyed_publishing import CREATE, Created
from tests.system.chaos.keyed_sending import KeyedSender
from tests.system.chaos.nodes.node_world import NodeWorld

__all__ = ["COMPLETION_SENDING", "NodeWork"]

COMPLETION_SENDING: Final = frozenset({"CONFLICT"})
"""What a completion may be answered that is sent again: it has begun, and is not run again."""

_TRIGGER: Final = (
    "mutation Run($input: TriggerStateAgentsInput!) { triggerStateAgents(input: $input) { id } }"
)
_COMPLETE: Final = (
    "mutation Complete($input: LlmChatCompletionInput!) { llmChatCompletion(input: $input) { id } }"
)
_SERVER: Final = "mutation Make($input: CreateMcpServerInput!) { createMcpServer(input: $input) { id } }"
_SIGN_IN: Final = "mutation In($input: AuthenticateMcpJwtInput!) { authenticateMcpJwt(input: $input) { id } }"
_STATE: Final = "counted"
_WORDS: Final = " ".join(map(str, range(4000)))
"""What the agent says, a word at a time: long enough that its node dies in the middle."""


@final
class NodeWork:
    """Begins runs, completions and sessions at any node, again and again, until each is answered.

    :ivar runs: how many starts of runs were answered.
    :ivar completions: how many completions were sent.
    """

    def __init__(
        self, world: NodeWorld, sender: KeyedSender, completing: KeyedSender, *, per_second: float
    ) -> None:
        """``completing`` sends the completions: its ``ends_with`` is :data:`COMPLETION_SENDING`."""
        self.runs = 0
        self.completions = 0
        self._world = world
        self._sender = sender
        self._completing = completing
        self._pause_seconds = 1 / per_second
        self._numbers = itertools.count()
        self._workflow = ""
        self._server = ""
        self._key = RSAKey.generate_key(2048)
        self._stop = False

    async def prepare(self) -> None:
        """Make a workflow of its own, the agent, and the MCP server that users sign in at."""
        direct = self._world.direct
        workflow = await direct.workflows.create_workflow(
            name="work",
            initial_state=_STATE,
            states=[StateInput(id=_STATE, name="Counted")],
            activities=[ActivityInput(id="stay", from_states=[_STATE], to_state=_STATE)],
        )
        self._workflow = workflow.id
        agent = await direct.agents.create_agent(
            name="Counter",
            description="Says numbers",
            llm_provider=AgentLLMProviderInput(provider_type="echo", model="echo", api_key=""),
            llm_config=LLMConfigInput(temperature=0.0, stop_sequences=[]),
            prompts=AgentPromptsInput(system="Count.", user_template=_WORDS),
            capabilities=[],
            tools=[],
        )
        await direct.agents.create_state_agent_config(
            state_id=_STATE, agent_id=agent.id, input_mapping={}, output_mapping={}, enabled=True
        )

        public = self._key.as_pem(private=False).decode()
        made = await direct.execute(
            _SERVER,
            {
                "input": {
                    "name": "tools",
                    "type": "LOCAL",
                    "tenantId": "work",
                    "config": {"endpoint": "http://127.0.0.1:9/mcp"},
                    "auth": {"jwt": {"issuer": "us", "publicKey": public}},
                }
            },
        )
        self._server = made["createMcpServer"]["id"]

    async def run(self) -> None:
        """Begin one of each every so often until :meth:`stop`; return when all are answered."""
        under_way: set[asyncio.Task[None]] = set()
        while not self._stop:
            for begin in (self._begin_run(), self._complete(), self._sign_in()):
                task = asyncio.create_task(begin)
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.sleep(self._pause_seconds)
        await asyncio.gather(*under_way)

    def stop(self) -> None:
        """End :meth:`run` after what is under way."""
        self._stop = True

    def number(self) -> int:
        """Return a number that was not used before."""
        return next(self._numbers)

    async def resource(self) -> tuple[int, str | None]:
        """Make a resource that an agent may run for; return its number and its id."""
        number = next(self._numbers)
        made: dict[str, object] = {"workflowId": self._workflow, "initialState": _STATE}
        variables: dict[str, object] = {"input": {**made, "data": {"n": number}, "metadata": {}}}
        answer = await self._sender.until_answered(f"work-{number}", CREATE, variables)
        return number, None if answer is None else msgspec.json.decode(answer, type=Created).made.id

    async def trigger_at(self, url: str, number: int, resource: str) -> bool:
        """Begin a run at one node, once; tell whether it was answered."""
        key = f"run-{number}"
        answer = await self._sender.send_once(url, key, _TRIGGER, _resource(resource))
        if answer is not None:
            self._sender.answers[key] = answer
        return answer is not None

    async def trigger(self, number: int, resource: str) -> None:
        """Begin a run at any node; under the same key as :meth:`trigger_at`."""
        if await self._sender.until_answered(f"run-{number}", _TRIGGER, _resource(resource)) is not None:
            self.runs += 1

    async def complete_at(self, url: str, number: int) -> None:
        """Ask for a completion at one node, once."""
        self.completions += 1
        await self._completing.send_once(url, f"completion-{number}", _COMPLETE, _completion(number))

    async def complete(self, number: int) -> None:
        """Ask for a completion at any node; under the same key as :meth:`complete_at`."""
        await self._completing.until_answered(f"completion-{number}", _COMPLETE, _completion(number))

    async def _begin_run(self) -> None:
        number, resource = await self.resource()
        if resource is not None:
            await self.trigger(number, resource)

    async def _sign_in(self) -> None:
        claims = {"iss": "us", "sub": "ada", "exp": int(time.time()) + 86_400}
        token = jwt.encode({"alg": "RS256"}, claims, self._key, algorithms=["RS256"])
        given: dict[str, object] = {"serverId": self._server, "userId": "ada", "token": token}
        await self._sender.until_answered(f"session-{next(self._numbers)}", _SIGN_IN, {"input": given})

    async def _complete(self) -> None:
        self.completions += 1
        await self.complete(next(self._numbers))


def _resource(id_: str) -> dict[str, object]:
    return {"input": {"resourceId": id_}}


def _completion(number: int) -> dict[str, object]:
    given = {"model": "echo", "stream": True, "requestId": f"completion-{number}"}
    return {"input": {**given, "messages": [{"role": "user", "content": _WORDS}]}}
