"""``make coverage-api``: every field of the contract, executed through the SDK against a running server.

The table says of each field whether it is in the schema, what the server answered (the type that the SDK
made of it), and where in the SDK it is. Nothing is told from tables: each row is a call that is made now.
The status is 0 only if every query, every mutation and every stream is served and answered.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey

from circuit_breaker_sdk import Client, Subscription, SubscriptionBuilder
from circuit_breaker_sdk.events import (
    ActivityInput,
    AgentLLMProviderInput,
    AgentPromptsInput,
    ChatMessageInput,
    LLMConfigInput,
    MCPJwtConfigInput,
    MCPOAuthConfigInput,
    MCPRetryConfigInput,
    MCPServerConfigInput,
    MCPServerFeaturesInput,
    MCPServerType,
    RuleConditionInput,
    StateInput,
)
from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.config import OAuthProviderSettings
from circuit_breaker_server.graphql.schema import load_schema
from scripts import contract

NOT_SERVED: Final = ("ruleEvaluationStream", "systemHealthStream", "mcpAuthEvents")
ISSUER: Final = "https://issuer.example"
PATIENCE_SECONDS: Final = 15.0


@dataclass
class Row:
    """A field of the contract.

    :ivar answered: the type of the answer, or why there is none.
    """

    kind: str
    name: str
    in_schema: bool
    method: str = ""
    answered: str = ""
    is_met: bool = False


@dataclass
class World:
    """A client, and the ids of what was made so far."""

    client: Client
    endpoint: str
    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))
    ids: dict[str, str] = field(default_factory=dict)

    def token(self, user: str) -> str:
        claims = {"iss": ISSUER, "sub": user, "exp": int(time.time()) + 3600}
        return jwt.encode({"alg": "ES256"}, claims, self.key)

    def keep(self, name: str, value: object) -> object:
        """Remember the id of an answer, and return the answer."""
        self.ids[name] = str(getattr(value, "id", value))
        return value


Call = Callable[[World], Awaitable[object]]


def chat(text: str) -> list[ChatMessageInput]:
    return [ChatMessageInput(role="user", content=text)]


async def create_workflow(w: World) -> object:
    made = await w.client.workflows.create_workflow(
        name="Covered",
        initial_state="a",
        states=[StateInput(id="a", name="A"), StateInput(id="b", name="B")],
        activities=[ActivityInput(id="go", from_states=["a"], to_state="b")],
    )
    return w.keep("workflow", made)


async def create_resource(w: World) -> object:
    made = await w.client.workflows.create_resource(workflow_id=w.ids["workflow"], data={"n": 1})
    return w.keep("resource", made)


async def create_agent(w: World) -> object:
    made = await w.client.agents.create_agent(
        name="Agent",
        description="",
        llm_provider=AgentLLMProviderInput(provider_type="echo", model="echo", api_key=""),
        llm_config=LLMConfigInput(temperature=0.0, stop_sequences=[]),
        prompts=AgentPromptsInput(system="", user_template="look"),
        capabilities=[],
        tools=[],
    )
    return w.keep("agent", made)


async def cancel_execution(w: World) -> object:
    """Cancel a run that hangs: its endpoint accepts and says nothing."""
    agent = await w.client.agents.create_agent(
        name="Slow",
        description="",
        llm_provider=AgentLLMProviderInput(provider_type="own", model="m", api_key="", base_url=w.endpoint),
        llm_config=LLMConfigInput(temperature=0.0, stop_sequences=[]),
        prompts=AgentPromptsInput(system="", user_template="look"),
        capabilities=[],
        tools=[],
    )
    await w.client.agents.create_state_agent_config(
        state_id="b", agent_id=agent.id, input_mapping={}, output_mapping={}, enabled=True
    )
    (run,) = await w.client.agents.trigger_state_agents(resource_id=w.ids["resource"])
    return await w.client.agents.cancel_agent_execution(execution_id=run.id)


async def trigger(w: World) -> object:
    (run,) = runs = await w.client.agents.trigger_state_agents(resource_id=w.ids["resource"])
    w.keep("execution", run)
    return runs


async def create_server(w: World) -> object:
    made = await w.client.mcp.create_server(
        name="Covered",
        type=MCPServerType.LOCAL,
        tenant_id="acme",
        config=MCPServerConfigInput(
            endpoint="http://127.0.0.1:1/mcp", timeout_seconds=1, retry=MCPRetryConfigInput(max_attempts=1)
        ),
    )
    return w.keep("server", made)


async def authenticate(w: World) -> object:
    made = await w.client.mcp.authenticate_jwt(server_id=w.ids["server"], user_id="ada", token=w.token("ada"))
    return w.keep("session", made)


async def initiate(w: World) -> object:
    begun = await w.client.mcp.initiate_oauth(server_id=w.ids["server"], user_id="ada")
    w.ids["state"] = begun.state
    return begun


async def create_instance(w: World) -> object:
    made = await w.client.nats.create_workflow_instance(workflow_id=w.ids["workflow"], triggered_by="me")
    return w.keep("instance", made)


# In an order in which each finds what it needs.
CALLS: Mapping[str, tuple[str, Call]] = {
    "health": ("server_health", lambda w: w.client.server_health()),
    "createWorkflow": ("workflows.create_workflow", create_workflow),
    "workflow": ("workflows.workflow", lambda w: w.client.workflows.workflow(id=w.ids["workflow"])),
    "workflows": ("workflows.workflows", lambda w: w.client.workflows.workflows()),
    "createState": (
        "workflows.create_state",
        lambda w: w.client.workflows.create_state(
            StateInput(id="c", name="C", workflow_id=w.ids["workflow"])
        ),
    ),
    "updateState": (
        "workflows.update_state",
        lambda w: w.client.workflows.update_state(workflow_id=w.ids["workflow"], state_id="c", name="See"),
    ),
    "state": (
        "workflows.state",
        lambda w: w.client.workflows.state(workflow_id=w.ids["workflow"], state_id="c"),
    ),
    "workflowStates": (
        "workflows.workflow_states",
        lambda w: w.client.workflows.workflow_states(workflow_id=w.ids["workflow"]),
    ),
    "createResource": ("workflows.create_resource", create_resource),
    "resource": ("workflows.resource", lambda w: w.client.workflows.resource(id=w.ids["resource"])),
    "resources": ("workflows.resources", lambda w: w.client.workflows.resources()),
    "availableActivities": (
        "workflows.available_activities",
        lambda w: w.client.workflows.available_activities(resource_id=w.ids["resource"]),
    ),
    "createAgent": ("agents.create_agent", create_agent),
    "agent": ("agents.agent", lambda w: w.client.agents.agent(id=w.ids["agent"])),
    "agents": ("agents.agents", lambda w: w.client.agents.agents()),
    "createStateAgentConfig": (
        "agents.create_state_agent_config",
        lambda w: w.client.agents.create_state_agent_config(
            state_id="a", agent_id=w.ids["agent"], input_mapping={}, output_mapping={}, enabled=True
        ),
    ),
    "stateAgentConfigs": (
        "agents.state_agent_configs",
        lambda w: w.client.agents.state_agent_configs(state_id="a"),
    ),
    "triggerStateAgents": ("agents.trigger_state_agents", trigger),
    "agentExecution": (
        "agents.agent_execution",
        lambda w: w.client.agents.agent_execution(id=w.ids["execution"]),
    ),
    "resourceExecutions": (
        "agents.resource_executions",
        lambda w: w.client.agents.resource_executions(resource_id=w.ids["resource"]),
    ),
    "executeActivity": (
        "workflows.execute_activity",
        lambda w: w.client.workflows.execute_activity(resource_id=w.ids["resource"], activity_id="go"),
    ),
    "cancelAgentExecution": ("agents.cancel_agent_execution", cancel_execution),
    "configureLlmProvider": (
        "llm.configure_provider",
        lambda w: w.client.llm.configure_provider(
            provider_type="own", name="own", base_url=w.endpoint, api_key_id="", models=[]
        ),
    ),
    "llmProviders": ("llm.providers", lambda w: w.client.llm.providers()),
    "llmProvider": ("llm.provider", lambda w: w.client.llm.provider(id="echo")),
    "setBudget": (
        "analytics.set_budget",
        lambda w: w.client.analytics.set_budget(
            user_id="ada", limit=1.0, period="daily", warning_threshold=0.5
        ),
    ),
    "llmChatCompletion": (
        "llm.chat_completion",
        lambda w: w.client.llm.chat_completion(
            model="echo", messages=chat("hello"), stream=True, request_id="covered", user="ada"
        ),
    ),
    "budgetStatus": ("analytics.budget_status", lambda w: w.client.analytics.budget_status(user_id="ada")),
    "costAnalytics": (
        "analytics.cost_analytics",
        lambda w: w.client.analytics.cost_analytics(start_date="2020-01-01", end_date="2100-01-01"),
    ),
    "applyCredit": (
        "analytics.apply_credit",
        lambda w: w.client.analytics.apply_credit(user_id="ada", amount=1.0),
    ),
    "createRule": (
        "rules.create_rule",
        lambda w: _kept(
            w,
            "rule",
            w.client.rules.create_rule(
                name="Rule",
                description="",
                condition=RuleConditionInput(condition_type="FieldExists", field="n"),
                tags=["t"],
            ),
        ),
    ),
    "updateRule": (
        "rules.update_rule",
        lambda w: w.client.rules.update_rule(
            id=w.ids["rule"],
            name="Rule",
            description="more",
            condition=RuleConditionInput(condition_type="FieldExists", field="m"),
        ),
    ),
    "rule": ("rules.rule", lambda w: w.client.rules.rule(id=w.ids["rule"])),
    "rules": ("rules.rules", lambda w: w.client.rules.rules()),
    "workflowRules": (
        "rules.workflow_rules",
        lambda w: w.client.rules.workflow_rules(workflow_id=w.ids["workflow"]),
    ),
    "evaluateRule": (
        "rules.evaluate_rule",
        lambda w: w.client.rules.evaluate_rule(rule_id=w.ids["rule"], data={"m": 1}),
    ),
    "deleteRule": ("rules.delete_rule", lambda w: w.client.rules.delete_rule(id=w.ids["rule"])),
    "createWorkflowInstance": ("nats.create_workflow_instance", create_instance),
    "natsResource": ("nats.nats_resource", lambda w: w.client.nats.nats_resource(id=w.ids["instance"])),
    "resourcesInState": (
        "nats.resources_in_state",
        lambda w: w.client.nats.resources_in_state(workflow_id=w.ids["workflow"], state_id="a"),
    ),
    "findResource": (
        "nats.find_resource",
        lambda w: w.client.nats.find_resource(workflow_id=w.ids["workflow"], resource_id=w.ids["instance"]),
    ),
    "executeActivityWithNats": (
        "nats.execute_activity_with_nats",
        lambda w: w.client.nats.execute_activity_with_nats(
            resource_id=w.ids["instance"], activity_id="go", new_state="b"
        ),
    ),
    "createMcpServer": ("mcp.create_server", create_server),
    "mcpServer": ("mcp.server", lambda w: w.client.mcp.server(id=w.ids["server"])),
    "mcpServers": ("mcp.servers", lambda w: w.client.mcp.servers()),
    "mcpServersByTenant": (
        "mcp.servers_by_tenant",
        lambda w: w.client.mcp.servers_by_tenant(tenant_id="acme"),
    ),
    "updateMcpServer": (
        "mcp.update_server",
        lambda w: w.client.mcp.update_server(id=w.ids["server"], name="Renamed"),
    ),
    "registerMcpCapabilities": (
        "mcp.register_capabilities",
        lambda w: w.client.mcp.register_capabilities(
            server_id=w.ids["server"],
            tools=[],
            resources=[],
            prompts=[],
            features=MCPServerFeaturesInput(
                streaming=True,
                file_operations=False,
                notifications=False,
                batch_operations=False,
                content_types=[],
            ),
            protocol_version="2025-06-18",
        ),
    ),
    "mcpServerCapabilities": (
        "mcp.server_capabilities",
        lambda w: w.client.mcp.server_capabilities(server_id=w.ids["server"]),
    ),
    "testMcpConnection": (
        "mcp.test_connection",
        lambda w: w.client.mcp.test_connection(server_id=w.ids["server"]),
    ),
    "mcpServerHealth": (
        "mcp.server_health",
        lambda w: w.client.mcp.server_health(server_id=w.ids["server"]),
    ),
    "configureMcpJwt": (
        "mcp.configure_jwt",
        lambda w: w.client.mcp.configure_jwt(
            server_id=w.ids["server"],
            config=MCPJwtConfigInput(
                issuer=ISSUER, public_key=w.key.as_pem(private=False).decode(), algorithm="ES256"
            ),
        ),
    ),
    "authenticateMcpJwt": ("mcp.authenticate_jwt", authenticate),
    "refreshMcpSession": (
        "mcp.refresh_session",
        lambda w: w.client.mcp.refresh_session(session_id=w.ids["session"]),
    ),
    "mcpSessions": ("mcp.sessions", lambda w: w.client.mcp.sessions(user_id="ada")),
    "revokeMcpSession": (
        "mcp.revoke_session",
        lambda w: w.client.mcp.revoke_session(session_id=w.ids["session"]),
    ),
    "mcpOAuthProviders": ("mcp.oauth_providers", lambda w: w.client.mcp.oauth_providers()),
    "configureMcpOAuth": (
        "mcp.configure_oauth",
        lambda w: w.client.mcp.configure_oauth(
            server_id=w.ids["server"],
            config=MCPOAuthConfigInput(
                provider_id="corp",
                client_id="c",
                client_secret="s",  # noqa: S106 (of an endpoint that takes anything)
                scopes=["a"],
                redirect_uri="https://app.example/back",
            ),
        ),
    ),
    "initiateMcpOAuth": ("mcp.initiate_oauth", initiate),
    "completeMcpOAuth": (
        "mcp.complete_oauth",
        lambda w: w.client.mcp.complete_oauth(
            server_id=w.ids["server"], user_id="ada", code="x", state=w.ids["state"]
        ),
    ),
    "toggleMcpServer": (
        "mcp.toggle_server",
        lambda w: w.client.mcp.toggle_server(id=w.ids["server"], enabled=False),
    ),
    "deleteMcpServer": ("mcp.delete_server", lambda w: w.client.mcp.delete_server(id=w.ids["server"])),
}

STREAMS: Mapping[str, tuple[str, Callable[[World], object]]] = {
    "resourceUpdates": (
        "workflows.subscribe_resource_updates",
        lambda w: w.client.subscriptions.resource_updates(),
    ),
    "workflowEvents": (
        "workflows.subscribe_workflow_events",
        lambda w: w.client.subscriptions.workflow_events(workflow_id=w.ids["workflow"]),
    ),
    "agentExecutionStream": (
        "agents.subscribe_execution_stream",
        lambda w: w.client.subscriptions.agent_execution_stream(execution_id=w.ids["execution"]),
    ),
    "llmStream": ("llm.subscribe_stream", lambda w: w.client.subscriptions.llm_stream(request_id="covered")),
    "costUpdates": ("analytics.subscribe_cost_updates", lambda w: w.client.subscriptions.cost_updates()),
    "mcpServerStatusUpdates": (
        "mcp.subscribe_server_status_updates",
        lambda w: w.client.subscriptions.mcp_server_status_updates(),
    ),
    "mcpSessionEvents": (
        "mcp.subscribe_session_events",
        lambda w: w.client.subscriptions.mcp_session_events(),
    ),
    "natsResourceStream": (
        "nats.subscribe_resource_stream",
        lambda w: w.client.subscriptions.nats_resource_stream(workflow_id=w.ids["workflow"]),
    ),
    "mcpCapabilityUpdates": (
        "mcp.subscribe_capability_updates",
        lambda w: w.client.subscriptions.mcp_capability_updates(server_id=w.ids["server"]),
    ),
}
WHEN: Mapping[str, str] = {
    "resourceUpdates": "health",
    "workflowEvents": "createWorkflow",
    "natsResourceStream": "createWorkflow",
    "agentExecutionStream": "triggerStateAgents",
    "llmStream": "health",
    "costUpdates": "health",
    "mcpServerStatusUpdates": "health",
    "mcpSessionEvents": "health",
    "mcpCapabilityUpdates": "createMcpServer",
}
"""After which call each stream is subscribed: what it needs is there, what it tells comes after."""


async def _kept(w: World, name: str, call: Awaitable[object]) -> object:
    return w.keep(name, await call)


def fields(text: str) -> list[str]:
    """Return the names of the contract's fields."""
    return [each.strip().partition("(")[0].partition(":")[0] for each in text.split(";")]


@asynccontextmanager
async def endpoints() -> AsyncIterator[str]:
    """Serve what the server asks: a model that never answers, and a token endpoint that always does."""
    over = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    async def tokens(_request: web.Request) -> web.Response:
        return web.json_response(
            {"access_token": "a", "refresh_token": "r", "token_type": "Bearer", "expires_in": 3600}
        )

    app = web.Application()
    app.router.add_post("/v1/chat/completions", hang)
    app.router.add_post("/v1/token", tokens)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        over.set()
        await runner.cleanup()


async def cover() -> list[Row]:
    """Execute everything; return a row for each field of the contract."""
    schema = load_schema()
    roots = {
        "Query": schema.query_type,
        "Mutation": schema.mutation_type,
        "Subscription": schema.subscription_type,
    }
    rows = {
        name: Row(kind, name, root is not None and name in root.fields)
        for kind, text in (
            ("Query", contract.QUERIES),
            ("Mutation", contract.MUTATIONS),
            ("Subscription", contract.SUBSCRIPTIONS),
        )
        for root in (roots[kind],)
        for name in fields(text)
    }
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-coverage-") as directory:
        async with endpoints() as endpoint:
            provider = OAuthProviderSettings(
                id="corp",
                name="Corp",
                authorization_endpoint="https://corp.example/auth",
                token_endpoint=f"{endpoint}/token",
            )
            settings = ServerSettings(data_dir=Path(directory), port=0, oauth_providers=(provider,))
            async with Server(settings) as server, Client(server.url) as client:
                await _cover(World(client, endpoint), rows)
    for name in NOT_SERVED:
        rows[name] = Row("Subscription", name, in_schema=False, answered="not served")
    return list(rows.values())


async def _cover(w: World, rows: Mapping[str, Row]) -> None:
    followed: dict[str, Subscription[object]] = {}
    for name, (method, call) in CALLS.items():
        row = rows[name]
        row.method = f"client.{method}"
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                row.answered = told(await call(w))
            row.is_met = row.in_schema
        except Exception as error:  # noqa: BLE001 (whatever it was is this row's answer)
            row.answered = f"{type(error).__name__}: {error}"
        for stream, after in WHEN.items():
            if after == name:
                builder = STREAMS[stream][1](w)
                if isinstance(builder, SubscriptionBuilder):
                    followed[stream] = await builder.subscribe()
    for name, subscription in followed.items():
        row = rows[name]
        row.method = f"client.{STREAMS[name][0]}"
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                row.answered = told(await anext(subscription))
            row.is_met = row.in_schema
        except Exception as error:  # noqa: BLE001 (as above)
            row.answered = f"{type(error).__name__}: {error}"
        await subscription.unsubscribe()


def told(value: object) -> str:
    """Name the type that the SDK made of an answer."""
    if isinstance(value, list):
        return f"list[{told(value[0])}]" if value else "list, empty"
    if value is None or isinstance(value, dict):
        raise TypeError(f"answered {value!r}: that is no type of the SDK")
    return type(value).__name__


def main() -> int:
    rows = asyncio.run(cover())
    columns = ("kind", "name", "method")
    widths = [max(len(str(getattr(row, column))) for row in rows) for column in columns]
    for row in rows:
        mark = "yes" if row.in_schema else "no"
        cells = f"{row.kind:{widths[0]}}  {row.name:{widths[1]}}  {mark:3}  {row.method:{widths[2]}}"
        print(f"{cells}  {row.answered}")
    missed = 0
    for kind in ("Query", "Mutation", "Subscription"):
        of_kind = [row for row in rows if row.kind == kind]
        met = sum(row.is_met for row in of_kind)
        missed += sum(not row.is_met for row in of_kind if row.name not in NOT_SERVED)
        print(f"{kind}: {met} of {len(of_kind)} in the schema, answered and typed")
    print("not served: " + ", ".join(NOT_SERVED))
    return 0 if not missed else 1


if __name__ == "__main__":
    sys.exit(main())
