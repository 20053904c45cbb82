"""Measure the delivery latency of all fourteen operations under a load of 1,000 events a second.

The clock of an event starts when its record is durable, in the server's process, and stops when its handler
starts, in the client's; both read the machine's monotonic clock. Each stream has at least 1,000 events.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, final

import uvloop
from joserfc import jwt
from joserfc.jwk import ECKey

from benchmarks.machine import LOAD_CORE, MEASURED_CORE, on_core
from benchmarks.processes import Commands, run_commands, running
from circuit_breaker_sdk import Client, Subscription
from circuit_breaker_sdk.cli.runtime import settle_memory
from circuit_breaker_sdk.events import (
    ActivityInput,
    AgentLLMProviderInput,
    AgentPromptsInput,
    ChatMessageInput,
    LLMConfigInput,
    MCPJwtConfigInput,
    MCPServerConfigInput,
    MCPServerType,
    StateInput,
)
from circuit_breaker_server import RateSettings, Server, ServerSettings
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.log.event_log import Record
from circuit_breaker_server.log.tail_callbacks import TailCallbacks

__all__ = ["EVENTS_PER_STREAM", "Delivery", "measure_delivery"]

SECONDS: Final = 9.0
EVENTS_PER_STREAM: Final = 1_000
ISSUER: Final = "https://issuer.example"
WORDS: Final = " ".join(["word"] * 98)
COMPLETIONS: Final = 12
UNLIMITED: Final = RateSettings(
    operations_per_second=None, subscribes_per_second=None, connects_per_second=None
)
UNREACHABLE: Final = "http://127.0.0.1:1/mcp"


@dataclass(frozen=True)
class Delivery:
    """The latencies of one operation.

    :ivar events: how many events it delivered; ``expected`` is how many there were.
    :ivar p99_ms: from the durable record to the start of the handler.
    """

    operation: str
    events: int
    expected: int
    p50_ms: float
    p99_ms: float


# --- the server's process ----------------------------------------------------------------------------


def _serve(pipe: Connection, directory: str) -> None:
    run_commands(pipe, lambda: _commands(Path(directory)))


@contextlib.asynccontextmanager
async def _commands(directory: Path) -> AsyncIterator[Commands]:
    durable: list[tuple[float, Record]] = []
    call_tails = TailCallbacks.call  # the moment at which a group is durable

    def noting(tails: TailCallbacks, records: Sequence[Record]) -> None:
        now = time.monotonic()
        durable.extend((now, record) for record in records)
        call_tails(tails, records)

    TailCallbacks.call = noting  # type: ignore[method-assign, assignment]
    settings = ServerSettings(
        data_dir=directory, port=0, rates=UNLIMITED, mcp_check_seconds=3600.0, log_level="error"
    )
    async with Server(settings) as server:
        settle_memory()

        async def port() -> int:
            return server.port

        async def begin() -> None:
            durable.clear()

        async def times() -> dict[str, list[float]]:
            """Return when the events of each stream became durable, in their order."""
            found: dict[str, list[float]] = defaultdict(list)
            for at, record in durable:
                for event in derive(record):
                    key = event.stream
                    if key == "llmStream":
                        key = f"{key} {event.value['requestId']}"
                    found[key].append(at)
            return dict(found)

        yield {"port": port, "begin": begin, "times": times}


# --- the client's process ----------------------------------------------------------------------------


@final
@dataclass
class Load:
    """What the load is made of, and when the handlers were started."""

    client: Client
    workflow: str = ""
    resources: list[str] = field(default_factory=list)
    servers: list[str] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    agent: str = ""
    arrived: dict[str, list[float]] = field(default_factory=dict)

    async def prepare(self) -> None:
        client, key = self.client, ECKey.generate_key("P-256")
        made = await client.workflows.create_workflow(
            name="Load",
            initial_state="a",
            states=[StateInput(id="a", name="A"), StateInput(id="b", name="B")],
            activities=[
                ActivityInput(id="go", from_states=["a"], to_state="b"),
                ActivityInput(id="back", from_states=["b"], to_state="a"),
            ],
        )
        self.workflow = made.id
        self.resources = [
            (await client.workflows.create_resource(workflow_id=made.id)).id for _ in range(100)
        ]
        agent = await client.agents.create_agent(
            name="Echo",
            description="",
            llm_provider=AgentLLMProviderInput(provider_type="echo", model="echo", api_key=""),
            llm_config=LLMConfigInput(temperature=0.0, stop_sequences=[]),
            prompts=AgentPromptsInput(system="", user_template=WORDS),
            capabilities=[],
            tools=[],
        )
        await client.agents.create_state_agent_config(
            state_id="a", agent_id=agent.id, input_mapping={}, output_mapping={}, enabled=True
        )
        self.agent = agent.id
        claims = {"iss": ISSUER, "sub": "ada", "exp": int(time.time()) + 3600}
        token = jwt.encode({"alg": "ES256"}, claims, key)
        # What is being changed is not changed by another one: each has a second for it.
        for number in range(80):
            server = await client.mcp.create_server(
                name=f"s{number}",
                type=MCPServerType.LOCAL,
                tenant_id="t",
                enabled=False,
                config=MCPServerConfigInput(endpoint=UNREACHABLE),
            )
            self.servers.append(server.id)
        signed_in = await client.mcp.create_server(
            name="signed-in",
            type=MCPServerType.LOCAL,
            tenant_id="t",
            config=MCPServerConfigInput(endpoint=UNREACHABLE),
        )
        await client.mcp.configure_jwt(
            server_id=signed_in.id,
            config=MCPJwtConfigInput(
                issuer=ISSUER, public_key=key.as_pem(private=False).decode(), algorithm="ES256"
            ),
        )
        for _ in range(110):
            session = await client.mcp.authenticate_jwt(server_id=signed_in.id, user_id="ada", token=token)
            self.sessions.append(session.id)

    async def subscribe(self) -> None:
        """Subscribe to each stream through its domain client and through the consolidated one."""
        c, s = self.client, self.client.subscriptions
        builders: list[tuple[str, str, Any]] = [
            ("resourceUpdates", "", c.workflows.subscribe_resource_updates(workflow_id=self.workflow)),
            ("resourceUpdates", "", s.resource_updates(workflow_id=self.workflow)),
            ("workflowEvents", "", c.workflows.subscribe_workflow_events(workflow_id=self.workflow)),
            ("workflowEvents", "", s.workflow_events(workflow_id=self.workflow)),
            ("agentExecutionStream", "", c.agents.subscribe_execution_stream(agent_id=self.agent)),
            ("agentExecutionStream", "", s.agent_execution_stream(agent_id=self.agent)),
            ("costUpdates", "", c.analytics.subscribe_cost_updates()),
            ("costUpdates", "", s.cost_updates()),
            ("mcpServerStatusUpdates", "", c.mcp.subscribe_server_status_updates()),
            ("mcpServerStatusUpdates", "", s.mcp_server_status_updates()),
            ("mcpSessionEvents", "", c.mcp.subscribe_session_events()),
            ("mcpSessionEvents", "", s.mcp_session_events()),
        ]
        for number in range(COMPLETIONS):
            id_ = f"load-{number}"
            builders.append(("llmStream", f" {id_}", c.llm.subscribe_stream(request_id=id_)))
            builders.append(("llmStream", f" {id_}", s.llm_stream(request_id=id_)))
        for number, (stream, of, builder) in enumerate(builders):
            way = "domain client" if number % 2 == 0 else "consolidated client"
            subscription: Subscription[Any] = await builder.subscribe()
            arrived = self.arrived.setdefault(f"{stream}{of}, {way}", [])
            subscription.on_data(_noting(arrived))

    # Each makes its events at a pace of its own; together there are about 1,000 a second, before fan-out.

    async def activities(self, number: int) -> None:
        resource, back = self.resources[number % 100], number // 100 % 2
        await self.client.workflows.execute_activity(
            resource_id=resource, activity_id="back" if back else "go"
        )

    async def agents(self, number: int) -> None:
        await self.client.agents.trigger_state_agents(resource_id=self.idle[number % len(self.idle)])

    async def completions(self, number: int) -> None:
        message = ChatMessageInput(role="user", content=WORDS)
        await self.client.llm.chat_completion(
            model="echo", messages=[message], stream=True, request_id=f"load-{number}", user="ada"
        )

    async def costs(self, _number: int) -> None:
        message = ChatMessageInput(role="user", content="hi")
        await self.client.llm.chat_completion(model="echo", messages=[message], user="ada")

    async def toggles(self, number: int) -> None:
        on = number // len(self.servers) % 2 == 0
        await self.client.mcp.toggle_server(id=self.servers[number % len(self.servers)], enabled=on)

    async def refreshes(self, number: int) -> None:
        await self.client.mcp.refresh_session(session_id=self.sessions[number % len(self.sessions)])

    async def run(self) -> None:
        self.idle = [
            (await self.client.workflows.create_resource(workflow_id=self.workflow)).id for _ in range(5)
        ]
        await asyncio.gather(
            _paced(self.activities, count=1_200),
            _paced(self.agents, count=12),
            _paced(self.completions, count=COMPLETIONS),
            _paced(self.costs, count=1_100),
            _paced(self.toggles, count=800),
            _paced(self.refreshes, count=1_100),
        )


def _noting(arrived: list[float]) -> Callable[[object], None]:
    return lambda _event: arrived.append(time.monotonic())


async def _paced(make: Callable[[int], Coroutine[Any, Any, None]], *, count: int) -> None:
    """Call so often in :data:`SECONDS`, evenly, whether or not the calls before have ended."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due = began + number * SECONDS / count
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            group.create_task(make(number))


def measure_delivery() -> list[Delivery]:
    """Run the load once; return the latencies of each of the fourteen operations.

    :raises RuntimeError: events were lost or doubled.
    """
    with (
        tempfile.TemporaryDirectory(prefix="circuit-breaker-delivery-") as directory,
        on_core(LOAD_CORE),
        running(_serve, directory, core=MEASURED_CORE) as server,
    ):
        server.receive()
        url = f"http://127.0.0.1:{server.call('port')}/graphql"

        async def load() -> tuple[dict[str, list[float]], dict[str, list[float]]]:
            async with Client(url) as client:
                load = Load(client)
                await load.prepare()
                await load.subscribe()
                settle_memory()
                server.call("begin")
                await load.run()
                await asyncio.sleep(2.0)  # the last events are on their way
                return server.call("times"), load.arrived

        durable, arrived = uvloop.run(load())
    latencies: dict[str, list[float]] = defaultdict(list)
    expected: dict[str, int] = defaultdict(int)
    for name, times in arrived.items():
        key, _, way = name.partition(", ")
        operation = f"{key.partition(' ')[0]}, {way}"
        began = durable.get(key, [])
        expected[operation] += len(began)
        latencies[operation] += [stop - start for start, stop in zip(began, times, strict=False)]
    return [_delivery(name, sorted(found), expected[name]) for name, found in sorted(latencies.items())]


def _delivery(operation: str, seconds: Sequence[float], expected: int) -> Delivery:
    if not seconds:
        return Delivery(operation, 0, expected, float("inf"), float("inf"))
    p50, p99 = (seconds[min(len(seconds) - 1, int(len(seconds) * share))] * 1000 for share in (0.5, 0.99))
    return Delivery(operation, len(seconds), expected, round(p50, 2), round(p99, 2))
