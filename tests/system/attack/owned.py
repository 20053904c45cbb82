"""What belongs to others: one of each kind, and a principal who may use none of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.system.attack.world import ALLOWED_PEER, World

__all__ = ["OWNER", "PROBER", "RIGHTS", "one_of_each"]

PROBER: Final = "mallory"
"""Of the tenant ``other``, with every right there that has to do with nothing of ``acme``."""
OWNER: Final = "ada"
"""Of the tenant ``acme``."""
_KINDS: Final = ("workflow:admin:{}", "nats:admin:{}", "agent:admin:{}", "rule:admin:{}")
RIGHTS: Final[Mapping[str, tuple[str, list[str]]]] = {
    PROBER: (
        "other",
        [
            *(kind.format("mine*") for kind in _KINDS),
            *("mcp:admin:server/*", "mcp:admin:session/*", "provider:admin:*", "llm:write:self"),
        ],
    ),
    OWNER: (
        "acme",
        ["provider:admin:*", "llm:write:self", "mcp:admin:server/*", "mcp:admin:session/*", "cost:read:self"],
    ),
}

_MAKE: Final = {
    "workflow": "mutation($i: WorkflowDefinitionInput!) { made: createWorkflow(input: $i) { id } }",
    "resource": "mutation($i: ResourceCreateInput!) { made: createResource(input: $i) { id } }",
    "agent": "mutation($i: AgentDefinitionInput!) { made: createAgent(input: $i) { id } }",
    "config": "mutation($i: StateAgentConfigInput!) { made: createStateAgentConfig(input: $i) { id } }",
    "rule": "mutation($i: RuleInput!) { made: createRule(input: $i) { id } }",
    "server": "mutation($i: CreateMcpServerInput!) { made: createMcpServer(input: $i) { id } }",
    "session": "mutation($i: AuthenticateMcpJwtInput!) { made: authenticateMcpJwt(input: $i) { id } }",
    "provider": "mutation($i: LlmProviderConfigInput!) { made: configureLlmProvider(input: $i) { id } }",
}
_TRIGGER: Final = "mutation($id: String!) { triggerStateAgents(input: {resourceId: $id}) { id } }"


async def one_of_each(world: World, http: aiohttp.ClientSession) -> dict[str, str]:
    """Make one of everything that has an id, none of which is for :data:`PROBER`; return the ids by kind."""
    key = RSAKey.generate_key(2048)
    ids: dict[str, str] = {}

    async def make(kind: str, who: str = "boss", **given: object) -> None:
        answer = await world.ask(http, who, _MAKE[kind], i=given)
        ids[kind] = _data(answer)["made"]["id"]

    states = [
        {"id": name, "name": name, "workflowId": "", "stateType": "NORMAL"} for name in ("left", "right")
    ]
    moves: list[object] = [{"id": "ping", "fromStates": ["left"], "toState": "right", "conditions": []}]
    await make("workflow", name="theirs", states=states, activities=moves, initialState="left")
    await make("resource", workflowId=ids["workflow"], data={}, metadata={})
    await make(
        "agent",
        name="theirs",
        description="",
        llmProvider={"providerType": "echo", "model": "echo", "apiKey": ""},
        llmConfig={"temperature": 0.0, "stopSequences": []},
        prompts={"system": "", "userTemplate": "look"},
        capabilities=[],
        tools=[],
    )
    mapping: dict[str, Any] = {"inputMapping": {"n": "$.n"}, "outputMapping": {}}
    await make("config", stateId="left", agentId=ids["agent"], enabled=True, **mapping)
    started = await world.ask(http, "boss", _TRIGGER, id=ids["resource"])
    ids["execution"] = _data(started)["triggerStateAgents"][0]["id"]
    await make(
        "rule", name="theirs", description="", condition={"conditionType": "FieldExists", "field": "n"}
    )
    auth = {"jwt": {"issuer": "us", "publicKey": key.as_pem(private=False).decode()}}
    config = {"endpoint": f"http://{ALLOWED_PEER}:9/mcp"}
    await make("server", OWNER, name="theirs", type="LOCAL", tenantId="acme", config=config, auth=auth)
    claims = {"iss": "us", "sub": OWNER, "exp": int(time.time()) + 600}
    signed = jwt.encode({"alg": "RS256"}, claims, key, algorithms=["RS256"])
    await make("session", OWNER, serverId=ids["server"], userId=OWNER, token=signed)
    url = f"http://{ALLOWED_PEER}:9/v1"
    await make("provider", OWNER, providerType="openai", name="theirs", baseUrl=url, apiKeyId="", models=[])
    return ids


def _data(answer: Mapping[str, Any]) -> dict[str, Any]:
    if answer.get("errors"):
        raise RuntimeError(f"what belongs to others could not be made: {answer['errors'][0]['message']}")
    data: dict[str, Any] = answer["data"]
    return data
