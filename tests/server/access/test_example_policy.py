"""The example of a policy gives an operator, a tenant's admin and a viewer what it says."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp
import pytest

from circuit_breaker_sdk.cli.policy_reach import reach_of
from circuit_breaker_server import Server, ServerSettings, TokenSettings, logs
from circuit_breaker_server.security.policy import Policy
from tests.server.tokens import SECRET, token

POLICY: Final = Path(__file__).parents[3] / "examples" / "policy.toml"
CREATE_WORKFLOW: Final = """mutation {
  createWorkflow(input: {
    name: "review", initialState: "draft",
    activities: [{id: "finish", fromStates: ["draft"], toState: "done", conditions: []}],
    states: [
      {id: "draft", name: "draft", workflowId: "", stateType: NORMAL},
      {id: "done", name: "done", workflowId: "", stateType: NORMAL}
    ]
  }) { id }
}"""
CONFIGURE: Final = """mutation {
  configureLlmProvider(input: {
    name: "work", providerType: "openai", baseUrl: "https://llm.example/v1", apiKeyId: "",
    models: [{
      id: "m1", name: "m1", maxTokens: 100, contextWindow: 1000, costPerInputToken: 0, costPerOutputToken: 0,
      supportsStreaming: true, supportsFunctionCalling: false, capabilities: []
    }]
  }) { name }
}"""
SET_BUDGET: Final = """mutation($p: String!) {
  setBudget(input: {projectId: $p, limit: 1.0, period: "daily", warningThreshold: 0.8}) { __typename }
}"""

Ask: TypeAlias = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture(autouse=True)
def quiet_logs(default_log_level: None) -> None:
    logs.configure("critical")


@contextlib.asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Ask]:
    """Ask a server that has the policy of the example, as a principal."""
    settings = ServerSettings(
        data_dir=tmp_path,
        port=0,
        log_level="critical",
        token_keys=TokenSettings(key=SECRET),
        policy_file=POLICY,
    )
    async with Server(settings) as server, aiohttp.ClientSession() as http:

        async def ask(principal: str, query: str, **variables: object) -> dict[str, Any]:
            headers = {"Authorization": f"Bearer {token(sub=principal, exp=time.time() + 3600)}"}
            body = {"query": query, "variables": variables}
            async with http.post(server.url, json=body, headers=headers) as answer:
                found: dict[str, Any] = await answer.json(content_type=None)
                return found

        yield ask


def code(answer: dict[str, Any]) -> str:
    found: str = answer["errors"][0]["extensions"]["code"]
    return found


async def test_the_operator_makes_workflows_and_viewers_see_them(tmp_path: Path) -> None:
    async with serving(tmp_path) as ask:
        made = (await ask("olga", CREATE_WORKFLOW))["data"]["createWorkflow"]
        for principal in ("olga", "ada", "user-7", "a stranger with a token"):
            assert (await ask(principal, "{ workflows { id } }"))["data"] == {"workflows": [made]}
        for principal in ("ada", "user-7", "a stranger with a token"):
            assert code(await ask(principal, CREATE_WORKFLOW)) == "FORBIDDEN"


async def test_the_admin_of_a_tenant_configures_its_providers_and_viewers_do_not(tmp_path: Path) -> None:
    async with serving(tmp_path) as ask:
        made = await ask("ada", CONFIGURE)
        assert made["data"]["configureLlmProvider"] == {"name": "work"}
        listed = await ask("ada", "{ llmProviders { name } }")
        assert {"name": "work"} in listed["data"]["llmProviders"]
        for principal in ("user-7", "a stranger with a token"):
            assert code(await ask(principal, CONFIGURE)) == "FORBIDDEN"
            assert (await ask(principal, "{ llmProviders { name } }"))["data"] == {"llmProviders": []}


async def test_the_admin_of_a_tenant_sets_budgets_of_its_projects_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as ask:
        assert (await ask("ada", SET_BUDGET, p="acme-web"))["data"] is not None
        assert code(await ask("ada", SET_BUDGET, p="rival-web")) == "FORBIDDEN"
        assert code(await ask("user-7", SET_BUDGET, p="acme-web")) == "FORBIDDEN"


def test_the_operator_of_the_example_reaches_every_field() -> None:
    reach = reach_of(Policy.load(POLICY), "olga")
    assert reach.tenant == "*"
    assert {root: len(fields) for root, fields in reach.fields.items()} == reach.totals


def test_the_viewer_of_the_example_changes_nothing_but_their_sessions() -> None:
    reach = reach_of(Policy.load(POLICY), "user-7")
    assert set(reach.fields["mutations"]) == {
        "initiateMcpOAuth",
        "completeMcpOAuth",
        "authenticateMcpJwt",
        "refreshMcpSession",
        "revokeMcpSession",
    }
