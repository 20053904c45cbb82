"""Replay equals live: each stream, read again from the log's start, gives the same bytes, event for event."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.types import (
    AgentLLMProviderInput,
    AgentPromptsInput,
    ChatMessageInput,
    LLMConfigInput,
)
from circuit_breaker_server import Server, ServerSettings
from tests.domains.worlds import create_mcp_server, token
from tests.integration.workflows import create_review_workflow
from tests.server.engine.mcp.peers import real_server
from tests.server.stage import Client as Raw
from tests.transports.peers import raw_client

STREAMS = {
    "resourceUpdates": """subscription { resourceUpdates {
        id state data metadata updatedAt history { activity } } }""",
    "workflowEvents": """subscription($workflow: String!) { workflowEvents(workflowId: $workflow) {
        eventType workflowId resourceId timestamp data triggeredBy natsSequence } }""",
    "agentExecutionStream": """subscription($agent: String!) { agentExecutionStream(agentId: $agent) {
        eventType executionId status timestamp data error } }""",
    "llmStream": """subscription { llmStream(requestId: "r1") {
        eventType requestId delta isComplete timestamp usage { totalTokens estimatedCost } error } }""",
    "costUpdates": """subscription { costUpdates { eventType userId projectId costDelta totalCost timestamp
        provider model budget { used limit isWarning isExhausted message } tokenUsage { totalTokens } } }""",
    "mcpServerStatusUpdates": """subscription { mcpServerStatusUpdates {
        serverId oldStatus newStatus timestamp data } }""",
    "mcpSessionEvents": """subscription { mcpSessionEvents(userId: "ada") {
        sessionId type timestamp data session { id status expiresAt server { name status } } } }""",
}
ENDS = {
    "resourceUpdates": b'"data":{"n":"end"}',
    "workflowEvents": b'"data":{"state":"approved"}',
    "agentExecutionStream": b'"eventType":"COMPLETED"',
    "llmStream": b'"isComplete":true',
    "costUpdates": b'"eventType":"CREDIT_APPLIED"',
    "mcpServerStatusUpdates": b'"newStatus":"OFFLINE"',
    "mcpSessionEvents": b'"type":"REVOKED"',
}
"""What the last event of each stream has in it, and no other (but for the runs: there are three)."""
RUNS = 3

_RESUME = re.compile(rb'"extensions":\{"resume":\{"cursor":"([^"]+)","prev":"[^"]+"\}\}')


@contextlib.asynccontextmanager
async def raw(server: Server) -> AsyncIterator[tuple[Raw, str]]:
    """Open a socket; yield it and the epoch of the server's log."""
    client = Raw(await raw_client(server.port))
    assert "101" in await client.peer.read_head()
    ack = await client.init()
    try:
        yield client, msgspec.convert(ack["payload"], dict[str, dict[str, object]])["resume"]["epoch"]  # type: ignore[misc]  # a text
    finally:
        await client.leave()


def subscribe(client: Raw, name: str, variables: dict[str, str], *, after: str | None = None) -> None:
    used = {key: value for key, value in variables.items() if f"${key}:" in STREAMS[name]}
    client.subscribe(name, STREAMS[name], used, after=after)


async def payloads(client: Raw, name: str) -> list[bytes]:
    """Read the payloads of an operation up to the last event, as bytes."""
    found: list[bytes] = []
    missing = RUNS if name == "agentExecutionStream" else 1
    while missing:
        data = await client.receive_bytes()
        message = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        if bytes(message["type"]) == b'"ping"':
            continue
        assert bytes(message["type"]) == b'"next"', data
        found.append(bytes(message["payload"]))
        missing -= ENDS[name] in found[-1]
    return found


async def something_of_everything(client: Client, workflow: str) -> None:
    """Cause events of every stream, many of them."""
    for n in range(RUNS):
        resource = await client.workflows.create_resource(workflow_id=workflow, data={"n": n})
        await client.agents.trigger_state_agents(resource_id=resource.id)
    await client.analytics.set_budget(user_id="ada", limit=0.000_02, period="monthly", warning_threshold=0.5)
    for n in range(4):
        await client.llm.chat_completion(
            model="echo",
            messages=[ChatMessageInput(role="user", content="one two three")],
            stream=True,
            request_id=f"r{n}",
            user="ada",
        )
    await client.analytics.apply_credit(user_id="ada", amount=1.0)
    await client.workflows.create_resource(workflow_id=workflow, initial_state="approved", data={"n": "end"})
    with real_server("add") as port:
        server = await create_mcp_server(client, port)
        assert (await client.mcp.test_connection(server_id=server.id)).success
    session = await client.mcp.authenticate_jwt(server_id=server.id, user_id="ada", token=token("ada"))
    await client.mcp.refresh_session(session_id=session.id)
    await client.mcp.revoke_session(session_id=session.id)
    await client.mcp.delete_server(id=server.id)


@pytest.mark.timeout(120)
async def test_each_stream_read_again_from_the_start_gives_the_same_bytes(tmp_path: Path) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server, Client(server.url) as client:
        workflow = (await create_review_workflow(client)).id
        agent = await client.agents.create_agent(
            name="A",
            description="",
            llm_provider=AgentLLMProviderInput(provider_type="echo", model="echo", api_key=""),
            llm_config=LLMConfigInput(temperature=0.0, stop_sequences=[]),
            prompts=AgentPromptsInput(system="", user_template="look at {n}"),
            capabilities=[],
            tools=[],
        )
        await client.agents.create_state_agent_config(
            state_id="draft",
            agent_id=agent.id,
            input_mapping={"n": "data.n"},
            output_mapping={"seen": "content"},
            enabled=True,
        )
        variables = {"workflow": workflow, "agent": agent.id}
        async with contextlib.AsyncExitStack() as sockets:
            live, starts = {}, {}
            for name in STREAMS:
                live[name], epoch = await sockets.enter_async_context(raw(server))
                starts[name] = f"{epoch}.0.0.00000000"
                subscribe(live[name], name, variables)
                assert await live[name].live(name), "from here on nothing is missed"
            await something_of_everything(client, workflow)
            for name in STREAMS:
                seen = await payloads(live[name], name)
                socket, _ = await sockets.enter_async_context(raw(server))
                subscribe(socket, name, variables, after=starts[name])
                again = await payloads(socket, name)
                # Only the first event names another place before it: each subscriber began elsewhere.
                assert again[1:] == seen[1:], name
                assert without_prev(again[0]) == without_prev(seen[0]), name
                cursors = [found[1] for payload in again if (found := _RESUME.search(payload))]
                assert len(set(cursors)) == len(again), "each change makes each of its events once"


def without_prev(payload: bytes) -> bytes:
    return re.sub(rb',"prev":"[^"]+"', b"", payload)
