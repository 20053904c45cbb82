"""Providers of language models belong to a tenant or to the operator, and keys to the operator alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast, final

import pytest

from circuit_breaker_server import logs
from circuit_breaker_server.access.fields import MUTATION_RULES, judge
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError
from circuit_breaker_server.security.rights import Rights
from circuit_breaker_server.security.scopes import parse_scope
from tests.server.access.office import Office, open_office
from tests.server.engine.llm.endpoint import FakeProvider, serving_provider

CONFIGURE = "mutation($input: LlmProviderConfigInput!) { configureLlmProvider(input: $input) { id baseUrl } }"
COMPLETE = "mutation($input: LlmChatCompletionInput!) { llmChatCompletion(input: $input) { provider } }"
LISTED = "{ llmProviders { id name baseUrl } }"
ONE = "query($id: String!) { llmProvider(id: $id) { baseUrl } }"
BUDGET = "mutation($input: BudgetInput!) { setBudget(input: $input) { isExhausted } }"
USED = "query($user: String!) { budgetStatus(userId: $user) { used } }"

MODEL = {
    "id": "gpt-good",
    "name": "good",
    "maxTokens": 100,
    "contextWindow": 1_000,
    "costPerInputToken": 0.001,
    "costPerOutputToken": 0.001,
    "supportsStreaming": True,
    "supportsFunctionCalling": False,
    "capabilities": [],
}
OWNER = ["provider:admin:*", "llm:write:self", "cost:read:self"]


@pytest.fixture(autouse=True)
def quiet_logs(default_log_level: None) -> None:
    logs.configure("critical")


@final
class World:
    """A server with tenants, and two endpoints that speak OpenAI's protocol.

    Of the operator's keys one is for acme at the first endpoint, and one for no tenant.
    """

    def __init__(self, office: Office, fake: FakeProvider, other: FakeProvider) -> None:
        self.ask = office.ask
        self.fake = fake
        self.other = other


@contextlib.asynccontextmanager
async def opened(
    directory: Path, patch: pytest.MonkeyPatch, settings: Mapping[str, Any] | None = None
) -> AsyncIterator[World]:
    people = {"ada": ("acme", OWNER), "ben": ("acme", ["llm:write:self"]), "eve": ("globex", OWNER)}
    async with serving_provider() as fake, serving_provider() as other:
        patch.setenv("CIRCUIT_BREAKER_API_KEY_SHARED", "key-of-acme")
        patch.setenv("CIRCUIT_BREAKER_KEY_TENANTS_SHARED", "acme, initech")
        patch.setenv("CIRCUIT_BREAKER_KEY_URLS_SHARED", fake.url)
        patch.setenv("CIRCUIT_BREAKER_API_KEY_WORK", "key-of-the-operator")
        async with open_office(directory, settings, **people) as office:
            yield World(office, fake, other)


def provider(url: str, *, key: str = "", name: str = "work") -> dict[str, object]:
    return {
        "providerType": "openai",
        "name": name,
        "baseUrl": url,
        "apiKeyId": key,
        "models": [MODEL],
    }


def ask(**more: object) -> dict[str, object]:
    return {"model": "gpt-good", "messages": [{"role": "user", "content": "hi"}], **more}


def code(answer: Mapping[str, Any]) -> object:
    assert "errors" in answer, answer
    (error,) = answer["errors"]
    return error["extensions"]["code"]


async def test_a_provider_of_a_tenant_serves_that_tenant_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, monkeypatch) as world:
        await world.ask("eve", CONFIGURE, input=provider(world.other.url))
        assert code(await world.ask("ada", COMPLETE, input=ask())) == "NOT_FOUND"
        await world.ask("boss", CONFIGURE, input=provider(world.fake.url, key="work"))
        assert (await world.ask("ben", COMPLETE, input=ask()))["data"] is not None
        assert (len(world.fake.requests), len(world.other.requests)) == (1, 0)
        assert (await world.ask("eve", COMPLETE, input=ask()))["data"] is not None
        assert (len(world.fake.requests), len(world.other.requests)) == (1, 1)


async def test_a_tenant_neither_sees_nor_changes_a_provider_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, monkeypatch) as world:
        theirs = (await world.ask("eve", CONFIGURE, input=provider(world.other.url)))["data"][
            "configureLlmProvider"
        ]
        ours = (await world.ask("boss", CONFIGURE, input=provider(world.fake.url, key="work")))["data"][
            "configureLlmProvider"
        ]
        mine = (await world.ask("ada", CONFIGURE, input=provider("http://127.0.0.1:9/v1")))["data"][
            "configureLlmProvider"
        ]
        assert len({theirs["id"], ours["id"], mine["id"]}) == 3
        listed = {each["id"] for each in (await world.ask("ada", LISTED))["data"]["llmProviders"]}
        assert listed == {"echo", ours["id"], mine["id"]}
        foreign = await world.ask("ada", ONE, id=theirs["id"])
        assert foreign == await world.ask("ada", ONE, id="unknown")
        # The operator's provider is as it was: neither its address nor its key has changed.
        seen = await world.ask("boss", ONE, id=ours["id"])
        assert seen["data"]["llmProvider"]["baseUrl"] == world.fake.url
        assert (await world.ask("ben", LISTED))["data"]["llmProviders"] == []


@pytest.mark.parametrize(
    "key",
    [
        "WORK",  # the operator's, for nobody else
        "SHARED",  # acme's
        "unknown",
        "agent-1",
        "mcp-access-1",
        "mcp-refresh-1",
        "work_",
    ],
)
async def test_a_key_that_is_not_for_a_tenant_is_as_one_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    async with opened(tmp_path, monkeypatch) as world:
        refused = await world.ask("eve", CONFIGURE, input=provider(world.fake.url, key=key))
        assert "errors" in refused, refused
        unknown = await world.ask("eve", CONFIGURE, input=provider(world.fake.url, key="x" * len(key)))
        assert refused["errors"][0]["message"].replace(key, "x" * len(key)) == unknown["errors"][0]["message"]
        assert code(refused) == code(unknown) == "INVALID_INPUT"


async def test_a_key_goes_to_the_addresses_that_it_is_for_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, monkeypatch) as world:
        await world.ask("ada", CONFIGURE, input=provider(world.fake.url, key="shared"))
        await world.ask("ada", COMPLETE, input=ask())
        assert world.fake.keys == ["Bearer key-of-acme"]
        assert (
            code(await world.ask("ada", CONFIGURE, input=provider(world.other.url, key="shared")))
            == "INVALID_INPUT"
        )
        assert (
            code(await world.ask("boss", CONFIGURE, input=provider(world.other.url, key="shared")))
            == "INVALID_INPUT"
        )
        # Where the address changes, the key does not go along.
        await world.ask("ada", CONFIGURE, input=provider(world.other.url))
        await world.ask("ada", COMPLETE, input=ask())
        assert world.other.keys == ["Bearer none"]


async def test_a_key_of_the_store_of_secrets_is_no_key_of_a_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, monkeypatch) as world:
        created = await world.ask(
            "boss",
            "mutation($input: AgentDefinitionInput!) { createAgent(input: $input) { id } }",
            input={
                "name": "a",
                "description": "",
                "llmProvider": {
                    "providerType": "openai",
                    "model": "gpt-good",
                    "apiKey": "key-of-an-agent",
                    "baseUrl": world.fake.url,
                },
                "llmConfig": {"temperature": 0.0, "stopSequences": []},
                "prompts": {"system": "", "userTemplate": "look"},
                "capabilities": [],
                "tools": [],
            },
        )
        key = f"agent-{created['data']['createAgent']['id']}"
        assert (
            code(await world.ask("boss", CONFIGURE, input=provider(world.fake.url, key=key)))
            == "INVALID_INPUT"
        )


async def test_a_completion_is_charged_to_its_principal_and_an_exhausted_budget_refuses_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, monkeypatch) as world:
        await world.ask("boss", CONFIGURE, input=provider(world.fake.url, key="work"))
        budget = {"userId": "ada", "limit": 0.001, "period": "daily", "warningThreshold": 0.5}
        assert not (await world.ask("boss", BUDGET, input=budget))["data"]["setBudget"]["isExhausted"]
        assert (await world.ask("ada", COMPLETE, input=ask()))["data"] is not None
        assert (await world.ask("ada", USED, user="ada"))["data"]["budgetStatus"]["used"] > 0.001
        refused = await world.ask("ada", COMPLETE, input=ask())
        assert code(refused) == "BUDGET_EXHAUSTED"
        assert len(world.fake.requests) == 1
        assert (await world.ask("ben", COMPLETE, input=ask()))["data"] is not None


async def test_budgets_that_are_not_enforced_refuse_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, monkeypatch, {"enforce_budgets": False}) as world:
        await world.ask("boss", CONFIGURE, input=provider(world.fake.url, key="work"))
        budget = {"userId": "ada", "limit": 0.001, "period": "daily", "warningThreshold": 0.5}
        await world.ask("boss", BUDGET, input=budget)
        for _ in range(2):
            assert (await world.ask("ada", COMPLETE, input=ask()))["data"] is not None


@pytest.mark.parametrize(
    ("field", "scopes"),
    [
        ("createAgent", ["agent:admin:self", "agent:admin:a1"]),
        ("createRule", ["rule:admin:self"]),
        ("createWorkflow", ["workflow:admin:self", "workflow:admin:wf_1"]),
        (
            "configureLlmProvider",
            ["llm:admin:*", "llm:admin:self", "provider:admin:another", "provider:read:*"],
        ),
    ],
)
def test_a_scope_for_a_name_does_not_let_make_what_gets_another(field: str, scopes: list[str]) -> None:
    rights = Rights.of(map(parse_scope, scopes), owner="eve", tenant="acme")
    given = {"input": {"name": "work"}}
    with pytest.raises(EngineError, match=f"{field} needs the scope"):
        judge(MUTATION_RULES[field], field, cast("Engine", None), rights, given, asker="eve")
