"""Attacks on what belongs to other tenants: their keys, their prompts, their money, their ids."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from joserfc.jwk import RSAKey

from tests.system.attack.attempt import Attack, Scale, must
from tests.system.attack.naming import NOBODYS
from tests.system.attack.outbound import HEAD, peer
from tests.system.attack.owned import OWNER, PROBER
from tests.system.attack.world import ALLOWED_PEER, ISSUERS, Peer, World, token

__all__ = ["OWNERSHIP_ATTACKS", "OWNERSHIP_RIGHTS"]

_COLLEAGUE: Final = "zoe"
"""Of the victim's tenant, who may change its MCP servers and does not know their secrets."""
_NARROW: Final = "nina"
"""Of the attacker's tenant: every scope is for itself, or for one name."""
_RUNNER: Final = "rudi"
"""Of the attacker's tenant: makes agents and runs them."""
_NAME: Final = "narrow"
OWNERSHIP_RIGHTS: Final[Mapping[str, tuple[str, list[str]]]] = {
    _COLLEAGUE: ("acme", ["mcp:admin:server/*", "mcp:admin:session/*", "provider:read:*"]),
    _NARROW: (
        "other",
        [
            *(f"{kind}:admin:{_NAME}" for kind in ("workflow", "nats", "agent", "rule", "provider")),
            *(
                "llm:admin:self",
                "mcp:admin:self",
                "cost:read:self",
                "agent:admin:self",
                "workflow:admin:self",
            ),
        ],
    ),
    _RUNNER: ("other", ["agent:admin:*", "workflow:admin:*", "llm:write:self", "cost:read:self"]),
}

_CONFIGURE: Final = """mutation($i: LlmProviderConfigInput!) {
    made: configureLlmProvider(input: $i) { id baseUrl } }"""
_COMPLETE: Final = """mutation($i: LlmChatCompletionInput!) {
    made: llmChatCompletion(input: $i) { id provider choices { message { content } } } }"""
_PROVIDERS: Final = "{ llmProviders { id name baseUrl healthStatus { lastError } } }"
_AGENT: Final = "mutation($i: AgentDefinitionInput!) { made: createAgent(input: $i) { id } }"
_CREATE: Final = "mutation($i: CreateMcpServerInput!) { made: createMcpServer(input: $i) { id } }"
_UPDATE: Final = (
    "mutation($id: ID!, $i: UpdateMcpServerInput!) { made: updateMcpServer(id: $id, input: $i) { id } }"
)
_TEST: Final = "mutation($id: ID!) { made: testMcpConnection(serverId: $id) { success } }"
_SIGN_IN: Final = """mutation($i: InitiateMcpOAuthInput!) {
    made: initiateMcpOAuth(input: $i) { authorizationUrl state } }"""
_COMPLETE_SIGN_IN: Final = "mutation($i: CompleteMcpOAuthInput!) { made: completeMcpOAuth(input: $i) { id } }"
_OAUTH: Final = (
    """mutation($i: ConfigureMcpOAuthInput!) { made: configureMcpOAuth(input: $i) { clientId } }"""
)
_REFRESH: Final = "mutation($id: ID!) { made: refreshMcpSession(sessionId: $id) { id } }"
_REVOKE: Final = "mutation($id: ID!) { made: revokeMcpSession(sessionId: $id) { success } }"
_BUDGET: Final = "mutation($i: BudgetInput!) { made: setBudget(input: $i) { isExhausted } }"
_USED: Final = "query($u: String!) { budgetStatus(userId: $u) { used } }"
_TRIGGER: Final = "mutation($id: String!) { made: triggerStateAgents(input: {resourceId: $id}) { id } }"
_RUN: Final = "query($id: String!) { agentExecution(id: $id) { status errorMessage } }"

_REFUSED: Final = frozenset({"INVALID_INPUT", "FORBIDDEN", "NOT_FOUND", "AUTHENTICATION_FAILED"})


_NO_MCP: Final = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def _canary() -> str:
    return f"canary-{uuid.uuid4().hex}"


def _answer(content: str = "said") -> list[bytes]:
    said = {
        "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
    }
    return [HEAD % b"", b"data: " + json.dumps(said).encode() + b"\n\ndata: [DONE]\n\n"]


def _code(answer: Mapping[str, Any]) -> str:
    return str(answer["errors"][0]["extensions"]["code"]) if answer.get("errors") else "done"


async def _ask(world: World, who: str, query: str, **given: object) -> dict[str, Any]:
    """Ask, again after each ``RATE_LIMITED``."""
    async with world.http() as http:
        while _code(answer := await world.ask(http, who, query, **given)) == "RATE_LIMITED":
            await asyncio.sleep(0.1)
        return answer


async def _done(world: World, who: str, query: str, **given: object) -> Any:
    answer = await _ask(world, who, query, **given)
    must(_code(answer) == "done", f"{who} cannot: {answer}")
    return answer["data"]["made"]


def _provider(url: str, name: str, *, model: str = "", key: str = "", type_: str = "other") -> dict[str, Any]:
    listed = {
        "id": model or name,
        "name": model or name,
        "maxTokens": 100,
        "contextWindow": 1_000,
        "costPerInputToken": 0.01,
        "costPerOutputToken": 0.01,
        "supportsStreaming": True,
        "supportsFunctionCalling": False,
        "capabilities": [],
    }
    return {"providerType": type_, "name": name, "baseUrl": url, "apiKeyId": key, "models": [listed]}


def _prompt(model: str, text: str = "hi", **more: object) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def _grant(world: World, value: str, *, urls: Sequence[str] = (), tenants: Sequence[str] = ()) -> str:
    """Put an operator's key into the environment; return its id."""
    id_ = f"key-{uuid.uuid4().hex}"
    variable = id_.upper().replace("-", "_")
    world.set_variable(f"CIRCUIT_BREAKER_KEY_URLS_{variable}", ",".join(urls))
    world.set_variable(f"CIRCUIT_BREAKER_KEY_TENANTS_{variable}", ",".join(tenants))
    world.set_variable(f"CIRCUIT_BREAKER_API_KEY_{variable}", value)
    return id_


def _untold(asked: Sequence[bytes], *secrets: str) -> None:
    """:raises Breach: one of the secrets was sent."""
    for each in asked:
        for secret in secrets:
            must(secret.encode() not in each, f"leak: sent to the attacker: {each[:400]!r}")


async def _named_keys(world: World, url: str, ids: Sequence[str]) -> None:
    """Let the attacker name keys: each must be answered as one that is not there."""
    name = f"model-{uuid.uuid4().hex}"
    absent = json.dumps(await _ask(world, PROBER, _CONFIGURE, i=_provider(url, name, key=NOBODYS)))
    must("INVALID_INPUT" in absent, absent)
    for id_ in ids:
        answer = await _ask(world, PROBER, _CONFIGURE, i=_provider(url, name, key=id_))
        told = json.dumps(answer).replace(json.dumps(repr(id_))[1:-1], repr(NOBODYS))
        must(told == absent, f"{id_!r}: {told} is not {absent}")


async def key_of_nobody(world: World, _scale: Scale) -> str:
    """Name the operator's keys that are for the operator's own providers."""
    async with peer(ALLOWED_PEER, _answer()) as (url, asked):
        ids = [
            _grant(world, _canary()),
            _grant(world, _canary(), urls=[url]),
            _grant(world, _canary(), tenants=["other"]),
        ]
        await _named_keys(world, url, ids)
    must(not asked, "something was sent")
    return f"{len(ids)} keys, as if they were not there"


async def key_of_another_tenant(world: World, _scale: Scale) -> str:
    """Name a key of another tenant, which may even be sent to the attacker's address; in many spellings."""
    async with peer(ALLOWED_PEER, _answer()) as (url, asked):
        id_ = _grant(world, _canary(), urls=[url], tenants=["acme", "others", "Other", "other*"])
        spelled = [id_, id_.upper(), id_.replace("-", "."), id_.replace("-", "_")]
        await _named_keys(world, url, [*spelled, f"{id_}\u0000", f" {id_}", id_.replace("k", "\u212a")])
    must(not asked, "something was sent")
    return "as if it was not there"


async def key_of_the_server(world: World, _scale: Scale) -> str:
    """Name variables of the server's environment that are no keys of providers."""
    canary = _canary()
    world.set_variable("CIRCUIT_BREAKER_SECRET_KEY_COPY", canary)
    async with peer(ALLOWED_PEER, _answer()) as (url, _):
        variable = uuid.uuid4().hex.upper()
        world.set_variable(f"CIRCUIT_BREAKER_KEY_URLS_{variable}", url)
        world.set_variable(f"CIRCUIT_BREAKER_KEY_TENANTS_{variable}", "other")
        await _named_keys(world, url, ["../SECRET_KEY", "SECRET_KEY", "PATH", variable, "*", "%s", "{}"])
    return "as if they were not there"


async def keys_of_the_store(world: World, _scale: Scale) -> str:
    """Name everything in the store of secrets, by its ids: of agents, MCP servers, sessions, sign-ins."""
    canary = _canary()
    async with peer(ALLOWED_PEER, _answer()) as (url, asked):
        closed = f"http://{ALLOWED_PEER}:9/v1"
        await _done(world, "boss", _AGENT, i=_agent(closed, canary))
        server = await _server(world, closed, auth={"oauth": _oauth(ISSUERS[0])}, headers={"X-Key": canary})
        session, _ = await _signed_in(world, server)
        with contextlib.closing(sqlite3.connect(world.data_dir / "secrets.db")) as store:
            ids = [str(row[0]) for row in store.execute("SELECT id FROM secrets")]
        must(any(id_.endswith(session) for id_ in ids), f"no secret of a session: {ids[:20]}")
        must(any(id_.startswith("agent-") for id_ in ids), f"no secret of an agent: {ids[:20]}")
        await _named_keys(world, url, ids)
    must(not asked, "something was sent")
    return f"{len(ids)} ids, as if they were not there"


async def key_to_another_address(world: World, _scale: Scale) -> str:
    """Be granted a key for one address, and have it sent to another one."""
    canary, name = _canary(), f"model-{uuid.uuid4().hex}"
    async with (
        peer(ALLOWED_PEER, _answer()) as (good, at_good),
        peer(ALLOWED_PEER, _answer()) as (evil, at_evil),
    ):
        id_ = _grant(world, canary, urls=[good], tenants=["other"])
        await _done(world, PROBER, _CONFIGURE, i=_provider(good, name, key=id_))
        await _done(world, PROBER, _COMPLETE, i=_prompt(name))
        must(canary.encode() in at_good[0], "the key does not work where it is for")
        port = good.rpartition(":")[2].partition("/")[0]
        other_port = evil.rpartition(":")[2].partition("/")[0]
        wrong = (
            *(evil, f"{evil}?{good}", f"{evil}#{good}", f"{evil}/{good}"),
            *(f"http://{ALLOWED_PEER}:{port}@{ALLOWED_PEER}:{other_port}/v1",),
            *(f"http://{ALLOWED_PEER}:{other_port}\\@{ALLOWED_PEER}:{port}/v1",),
            *(f"http://{ALLOWED_PEER}:{other_port}#@{ALLOWED_PEER}:{port}/v1",),
            *(f"http://{ALLOWED_PEER}/v1", f"https://{ALLOWED_PEER}:{port}/v1"),
            *(f"http://{ALLOWED_PEER}:{port}0/v1", f"{good} @{ALLOWED_PEER}:{other_port}/v1"),
        )
        for url in wrong:
            answer = await _ask(world, PROBER, _CONFIGURE, i=_provider(url, name, key=id_))
            must(_code(answer) == "INVALID_INPUT", f"{url}: {answer}")
        await _done(world, PROBER, _CONFIGURE, i=_provider(evil, name))
        await _done(world, PROBER, _COMPLETE, i=_prompt(name))
        must(at_evil, "the changed provider was not asked")
        _untold(at_evil, canary)
    return f"{len(wrong)} addresses INVALID_INPUT; a change takes the key away"


async def key_along_a_redirect(world: World, _scale: Scale) -> str:
    canary, name = _canary(), f"model-{uuid.uuid4().hex}"
    async with peer(ALLOWED_PEER, _answer()) as (evil, at_evil):
        moved = (
            b"HTTP/1.1 308 Moved\r\nlocation: %b/chat/completions\r\ncontent-length: 0\r\n\r\n"
            % evil.encode()
        )
        async with peer(ALLOWED_PEER, [moved]) as (good, _):
            id_ = _grant(world, canary, urls=[good], tenants=["acme"])
            await _done(world, OWNER, _CONFIGURE, i=_provider(good, name, key=id_))
            answer = await _ask(world, OWNER, _COMPLETE, i=_prompt(name))
    must(not at_evil, f"followed: {at_evil}")
    must(_code(answer) == "PROVIDER_FAILED", str(answer))
    must(canary not in str(answer), "leak: the key is told")
    return "PROVIDER_FAILED, not followed"


def _same_name(owner: str) -> Attack:
    """Configure a provider of the name, type and models of another one, at an address of the attacker's."""

    async def attack(world: World, _scale: Scale) -> str:
        canary, name = _canary(), f"model-{uuid.uuid4().hex}"
        async with (
            peer(ALLOWED_PEER, _answer()) as (good, at_good),
            peer(ALLOWED_PEER, _answer()) as (evil, at_evil),
        ):
            id_ = _grant(world, canary, urls=[good], tenants=["acme"])
            await _done(world, owner, _CONFIGURE, i=_provider(good, name, key=id_))
            stolen = await _ask(world, PROBER, _CONFIGURE, i=_provider(evil, name, key=id_))
            must(_code(stolen) == "INVALID_INPUT", str(stolen))
            await _done(world, PROBER, _CONFIGURE, i=_provider(evil, name))
            for who in {owner, OWNER}:
                made = await _done(world, who, _COMPLETE, i=_prompt(name, "of the victim"))
                must(made["provider"] == name, str(made))
            must(len(at_good) == len({owner, OWNER}), f"{len(at_good)} prompts arrived where they belong")
            must(not at_evil, f"leak: a prompt of the victim: {at_evil}")
            await _done(world, PROBER, _COMPLETE, i=_prompt(name, "of the attacker"))
            must(len(at_evil) == 1, "the attacker's own provider does not serve it")
            _untold(at_evil, canary, "of the victim")
            found = await _ask(world, owner, _PROVIDERS)
            urls = {each["baseUrl"] for each in found["data"]["llmProviders"] if each["name"] == name}
            must(good in urls, f"the victim's provider was changed: {urls}")
        return "a provider of the attacker's tenant, for it alone"

    return attack


async def model_of_everybody(world: World, _scale: Scale) -> str:
    """Offer the models that others use by their prefix, or by a listed name."""
    name = f"model-{uuid.uuid4().hex}"
    models = ["gpt-4o", "o3", "claude-3", "gemini-2", "echo", name]
    async with peer(ALLOWED_PEER, _answer()) as (evil, at_evil):
        for type_ in ("openai", "anthropic", "google", "other"):
            given = _provider(evil, f"{name}-{type_}", model=name, type_=type_)
            given["models"] = [{**given["models"][0], "id": model, "name": model} for model in models]
            await _done(world, PROBER, _CONFIGURE, i=given)
        codes = [
            _code(await _ask(world, OWNER, _COMPLETE, i=_prompt(model, "of the victim"))) for model in models
        ]
        must(not at_evil, f"leak: a prompt of the victim: {at_evil}")
    must(Counter(codes) == {"NOT_FOUND": 5, "done": 1}, str(codes))
    return "serves nobody else"


async def model_of_another_tenant(world: World, _scale: Scale) -> str:
    canary, name = _canary(), f"model-{uuid.uuid4().hex}"
    async with peer(ALLOWED_PEER, _answer()) as (good, at_good):
        id_ = _grant(world, canary, urls=[good], tenants=["acme"])
        made = await _done(world, OWNER, _CONFIGURE, i=_provider(good, name, key=id_, type_="openai"))
        for model in (name, f"gpt-{name}", made["id"], f"openai/{name}"):
            answer = await _ask(world, PROBER, _COMPLETE, i=_prompt(model))
            absent = await _ask(world, PROBER, _COMPLETE, i=_prompt("absent"))
            must(_code(absent) == "NOT_FOUND", f"absent: {absent}")
            # By its prefix, a provider of the attacker's own may be asked.
            must(_code(answer) == "NOT_FOUND" or model.startswith("gpt-"), f"{model}: {answer}")
        must(not at_good, f"asked: {at_good}")
    return "NOT_FOUND"


async def error_of_a_shared_provider(world: World, _scale: Scale) -> str:
    """Read in a shared provider's last error what it said of another tenant's prompt."""
    secret, name = _canary(), f"model-{uuid.uuid4().hex}"
    said = json.dumps({"error": {"message": f"bad prompt: {secret}"}}).encode()
    failed = b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(said),
        said,
    )
    async with peer(ALLOWED_PEER, [failed]) as (url, asked):
        made = await _done(world, "boss", _CONFIGURE, i=_provider(url, name))
        answer = await _ask(world, OWNER, _COMPLETE, i=_prompt(name, secret))
        must(_code(answer) == "PROVIDER_FAILED" and asked, str(answer))
    found = json.dumps(await _ask(world, PROBER, _PROVIDERS))
    must(made["id"] in found, "the operator's provider is not listed")
    must(secret not in found, "leak: another tenant's prompt is in lastError")
    return "the error is told without what the provider said"


# MCP servers ------------------------------------------------------------------------------------------------


def _oauth(issuer: str, secret: str | None = None) -> dict[str, Any]:
    return {
        "providerId": issuer,
        "clientId": "id",
        "clientSecret": secret or _canary(),
        "scopes": [],
        "redirectUri": "https://app.example/back",
    }


async def _server(
    world: World, url: str, *, auth: object = None, headers: object = None, **config: object
) -> str:
    """Make an MCP server of the victim's; return its id."""
    given = {"endpoint": url, "headers": headers, "retry": {"maxAttempts": 1}, "timeoutSeconds": 5, **config}
    made = await _done(
        world,
        OWNER,
        _CREATE,
        i={"name": "tools", "type": "REMOTE", "tenantId": "acme", "config": given, "auth": auth},
    )
    return str(made["id"])


async def _moved(world: World, server: str, evil: str, **config: object) -> None:
    """Let a colleague move the MCP server to another address, and have it asked there."""
    once = {"retry": {"maxAttempts": 1}}
    for changed in ({"endpoint": evil, **once}, {"endpoint": evil, **once, **config}):
        answer = await _ask(world, _COLLEAGUE, _UPDATE, id=server, i={"config": changed})
        must(_code(answer) in {"done", "INVALID_INPUT"}, str(answer))
        await _ask(world, _COLLEAGUE, _TEST, id=server)


async def headers_of_a_server_that_moves(world: World, _scale: Scale) -> str:
    canary = _canary()
    async with (
        peer(ALLOWED_PEER, [_NO_MCP]) as (good, at_good),
        peer(ALLOWED_PEER, [_NO_MCP]) as (evil, at_evil),
    ):
        server = await _server(world, good, headers={"Authorization": f"Bearer {canary}", "X-Key": canary})
        await _ask(world, OWNER, _TEST, id=server)
        must(any(canary.encode() in each for each in at_good), "the headers are not sent where they are for")
        must(
            _code(await _ask(world, PROBER, _UPDATE, id=server, i={"config": {"endpoint": evil}}))
            == "NOT_FOUND",
            "changed by another tenant",
        )
        for headers in ({"Authorization": "(hidden)", "X-Key": "(hidden)"}, {}, None):
            await _moved(world, server, evil, headers=headers)
        must(at_evil, "the moved server was not asked")
        _untold(at_evil, canary)
    return "not sent to the new address"


async def private_key_of_a_server_that_moves(world: World, _scale: Scale) -> str:
    key = RSAKey.generate_key(2048)
    jwt = {
        "issuer": "us",
        "publicKey": key.as_pem(private=False).decode(),
        "privateKey": key.as_pem(private=True).decode(),
    }
    async with (
        peer(ALLOWED_PEER, [_NO_MCP]) as (good, at_good),
        peer(ALLOWED_PEER, [_NO_MCP]) as (evil, at_evil),
    ):
        server = await _server(world, good, auth={"jwt": jwt})
        await _ask(world, OWNER, _TEST, id=server)
        must(any(b"bearer ey" in each.lower() for each in at_good), "no token is signed where it is for")
        await _moved(world, server, evil)
        await _ask(
            world,
            _COLLEAGUE,
            _UPDATE,
            id=server,
            i={
                "config": {"endpoint": evil, "retry": {"maxAttempts": 1}},
                "auth": {"jwt": {**jwt, "privateKey": None}},
            },
        )
        await _ask(world, _COLLEAGUE, _TEST, id=server)
        must(at_evil, "the moved server was not asked")
        _untold(at_evil, "Bearer", "bearer")
    return "nothing is signed for the new address"


async def client_key_of_a_server_that_moves(world: World, _scale: Scale) -> str:
    """Move an MCP server that has a client key: the key must be gone, or be given anew."""
    key = RSAKey.generate_key(2048).as_pem(private=True).decode()
    query = "query($id: ID!) { mcpServer(id: $id) { config { endpoint ssl { clientCert clientKey } } } }"
    async with peer(ALLOWED_PEER, [_NO_MCP]) as (url, _):
        good, evil = url.replace("http:", "https:"), url.replace("http:", "https:") + "/evil"
        made = await _ask(
            world,
            OWNER,
            _CREATE,
            i={
                "name": "tools",
                "type": "REMOTE",
                "tenantId": "acme",
                "enabled": False,
                "config": {"endpoint": good, "ssl": {"clientCert": _certificate(key), "clientKey": key}},
            },
        )
        must(_code(made) == "done", str(made))
        server = made["data"]["made"]["id"]
        for ssl in (None, {"verify": False}, {"clientCert": _certificate(key), "clientKey": "(hidden)"}):
            await _ask(world, _COLLEAGUE, _UPDATE, id=server, i={"config": {"endpoint": evil, "ssl": ssl}})
            found = (await _ask(world, OWNER, query, id=server))["data"]["mcpServer"]["config"]
            kept = (found["ssl"] or {}).get("clientKey")
            must(found["endpoint"] == good or kept is None, f"the key goes along: {found}")
    return "the key does not go along"


def _certificate(key: str) -> str:
    private: Any = serialization.load_pem_private_key(key.encode(), None)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "client")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, private.public_key(), 1, now, now + timedelta(days=1))
    return made.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _tokens(access: str, refresh: str) -> list[bytes]:
    said = json.dumps(
        {"access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": 3600}
    ).encode()
    return [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n",
        b"content-length: %d\r\n\r\n%b" % (len(said), said),
    ]


@contextlib.asynccontextmanager
async def _issuers(world: World, *answers: list[bytes]) -> AsyncIterator[list[list[bytes]]]:
    """Listen at the token endpoints of the operator's OAuth providers; yield what each was asked."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(peer(ALLOWED_PEER, parts, port=port))
            for parts, port in zip(answers, world.issuer_ports, strict=True)
        ]
        yield [asked for _, asked in opened]


async def _signed_in(world: World, server: str) -> tuple[str, str]:
    """Sign the victim in at the first provider; return the session's id, and its refresh token."""
    refresh = _canary()
    async with _issuers(world, _tokens("access", refresh), []):
        begun = await _done(world, OWNER, _SIGN_IN, i={"serverId": server, "userId": OWNER})
        given = {"serverId": server, "userId": OWNER, "code": "code", "state": begun["state"]}
        made = await _done(world, OWNER, _COMPLETE_SIGN_IN, i=given)
    return str(made["id"]), refresh


async def provider_swapped_in_a_sign_in(world: World, _scale: Scale) -> str:
    """Have a code that one OAuth provider gave, or a refresh token of it, sent to another one."""
    code, secret = _canary(), _canary()
    server = await _server(
        world, f"http://{ALLOWED_PEER}:9/mcp", auth={"oauth": _oauth(ISSUERS[0], secret=secret)}
    )
    swapped = {"serverId": server, "config": _oauth(ISSUERS[1], secret=_canary())}
    async with _issuers(world, _tokens("a", "r"), _tokens("a", "r")) as (first, second):
        begun = await _done(world, OWNER, _SIGN_IN, i={"serverId": server, "userId": OWNER})
        verifier_of = parse_qs(urlsplit(begun["authorizationUrl"]).query)["state"][0]
        must(verifier_of == begun["state"], "the state is not the URL's")
        await _done(world, _COLLEAGUE, _OAUTH, i=swapped)
        given = {"serverId": server, "userId": OWNER, "code": code, "state": begun["state"]}
        answer = await _ask(world, OWNER, _COMPLETE_SIGN_IN, i=given)
        must(_code(answer) == "AUTHENTICATION_FAILED", str(answer))
        must(not second and not first, f"leak: the code was sent: {first} {second}")
    await _done(
        world, _COLLEAGUE, _OAUTH, i={"serverId": server, "config": _oauth(ISSUERS[0], secret=secret)}
    )
    session, refresh = await _signed_in(world, server)
    await _done(world, _COLLEAGUE, _OAUTH, i=swapped)
    async with _issuers(world, _tokens("a", "r"), _tokens("a", "r")) as (first, second):
        answer = await _ask(world, OWNER, _REFRESH, id=session)
        must(_code(answer) in _REFUSED, str(answer))
        _untold(second, refresh, secret)
        must(not second, f"asked: {second}")
    return "AUTHENTICATION_FAILED; a refresh is refused"


async def sign_in_of_another(world: World, _scale: Scale) -> str:
    """Complete, with the state of another user's sign-in, a session of one's own; and the other way round."""
    server = await _server(world, f"http://{ALLOWED_PEER}:9/mcp", auth={"oauth": _oauth(ISSUERS[0])})
    async with _issuers(world, _tokens("a", "r"), []) as (first, _):
        begun = await _done(world, OWNER, _SIGN_IN, i={"serverId": server, "userId": OWNER})
        tries = [
            (PROBER, {"serverId": server, "userId": PROBER}),
            (PROBER, {"serverId": server, "userId": OWNER}),
            (_COLLEAGUE, {"serverId": server, "userId": _COLLEAGUE}),
        ]
        for who, given in tries:
            answer = await _ask(
                world, who, _COMPLETE_SIGN_IN, i={**given, "code": "x", "state": begun["state"]}
            )
            must(_code(answer) in _REFUSED, f"{who}: {answer}")
        must(not first, f"asked: {first}")
    return "refused"


# Who pays ---------------------------------------------------------------------------------------------------


async def _used(world: World, user: str) -> float:
    answer = await _ask(world, "boss", _USED, u=user)
    return float(answer["data"]["budgetStatus"]["used"])


async def somebody_else_pays(world: World, _scale: Scale) -> str:
    name = f"model-{uuid.uuid4().hex}"
    async with peer(ALLOWED_PEER, _answer()) as (url, asked):
        await _done(world, PROBER, _CONFIGURE, i=_provider(url, name))
        before = await _used(world, OWNER)
        for more in (
            {"user": OWNER},
            {"projectId": OWNER},
            {"projectId": "p"},
            {"user": PROBER, "projectId": "p"},
            {"user": f"{PROBER} "},
            {"user": f"user/{PROBER}"},
            {"user": "*"},
        ):
            answer = await _ask(world, PROBER, _COMPLETE, i=_prompt(name, **more))
            must(_code(answer) in _REFUSED, f"{more}: {answer}")
        must(not asked, "the provider was asked")
        must(await _used(world, OWNER) == before, "the victim pays")
        mine = await _used(world, PROBER)
        own: Sequence[dict[str, Any]] = ({}, {"user": None}, {"user": PROBER}, {"projectId": None})
        for each in own:
            await _done(world, PROBER, _COMPLETE, i=_prompt(name, **each))
        must(await _used(world, PROBER) > mine + 0.3, "the attacker does not pay")
    return "refused; who asks pays"


def _agent(url: str | None, key: str, *, model: str = "gpt-4o", type_: str = "openai") -> dict[str, Any]:
    return {
        "name": "agent",
        "description": "",
        "llmProvider": {"providerType": type_, "model": model, "apiKey": key, "baseUrl": url},
        "llmConfig": {"temperature": 0.0, "stopSequences": []},
        "prompts": {"system": "", "userTemplate": "look"},
        "capabilities": [],
        "tools": [],
    }


async def _run_of(world: World, agent_of: str, agent: Mapping[str, object]) -> dict[str, Any]:
    """Let an agent of somebody be run by the attacker; return the run once it is over."""
    state = f"s-{uuid.uuid4().hex}"
    definition = {
        "name": "w",
        "initialState": state,
        "activities": [{"id": "stay", "fromStates": [state], "toState": state, "conditions": []}],
        "states": [{"id": state, "name": state, "workflowId": "", "stateType": "NORMAL"}],
    }
    workflow = await _done(
        world,
        "boss",
        "mutation($i: WorkflowDefinitionInput!) { made: createWorkflow(input: $i) { id } }",
        i=definition,
    )
    resource = await _done(
        world,
        "boss",
        "mutation($i: ResourceCreateInput!) { made: createResource(input: $i) { id } }",
        i={"workflowId": workflow["id"], "data": {}, "metadata": {}},
    )
    made = await _done(world, agent_of, _AGENT, i=agent)
    config = {
        "stateId": state,
        "agentId": made["id"],
        "enabled": True,
        "inputMapping": {},
        "outputMapping": {},
    }
    await _done(
        world,
        agent_of,
        "mutation($i: StateAgentConfigInput!) { made: createStateAgentConfig(input: $i) { id } }",
        i=config,
    )
    (run,) = await _done(world, _RUNNER, _TRIGGER, id=resource["id"])
    async with asyncio.timeout(10):
        while True:
            found = (await _ask(world, "boss", _RUN, id=run["id"]))["data"]["agentExecution"]
            if found["status"] not in {"PENDING", "RUNNING"}:
                return dict(found)
            await asyncio.sleep(0.02)


async def run_that_somebody_else_pays(world: World, _scale: Scale) -> str:
    name = f"model-{uuid.uuid4().hex}"
    async with peer(ALLOWED_PEER, _answer()) as (url, asked):
        await _done(world, "boss", _CONFIGURE, i=_provider(url, name))
        boss, mine = await _used(world, "boss"), await _used(world, _RUNNER)
        found = await _run_of(world, "boss", _agent(None, "", model=name, type_="other"))
        must(found["status"] == "COMPLETED" and asked, str(found))
        async with asyncio.timeout(5):
            while await _used(world, _RUNNER) <= mine:
                await asyncio.sleep(0.02)
        must(await _used(world, "boss") == boss, "who made the agent pays")
        sent = len(asked)
        await _exhaust(world, _RUNNER)
        found = await _run_of(world, "boss", _agent(None, "", model=name, type_="other"))
        must(found["status"] == "FAILED" and "exhausted" in found["errorMessage"], str(found))
        must(len(asked) == sent, "the provider was asked")
    return "who starts it pays, and an exhausted budget ends it"


async def agent_with_an_address_of_its_own(world: World, _scale: Scale) -> str:
    """Have an agent at the attacker's address take the key of the provider whose type it names."""
    canary, name = _canary(), f"model-{uuid.uuid4().hex}"
    async with peer(ALLOWED_PEER, _answer()) as (good, _), peer(ALLOWED_PEER, _answer()) as (evil, at_evil):
        id_ = _grant(world, canary)
        await _done(world, "boss", _CONFIGURE, i=_provider(good, name, key=id_, type_="mine"))
        await _raise(world, _RUNNER)
        await _run_of(world, _RUNNER, _agent(evil, "", model=name, type_="mine"))
        must(at_evil, "the agent's address was not asked")
        _untold(at_evil, canary)
    return "no key is sent"


async def _exhaust(world: World, who: str) -> None:
    """Give somebody a budget that is used up."""
    budget = {"userId": who, "period": "daily", "warningThreshold": 0.5}
    await _done(world, "boss", _BUDGET, i={**budget, "limit": 1e-9})


async def _raise(world: World, who: str) -> None:
    budget = {"userId": who, "period": "daily", "warningThreshold": 0.5}
    await _done(world, "boss", _BUDGET, i={**budget, "limit": 1e9})


async def exhausted_budget(world: World, _scale: Scale) -> str:
    """Go on when the budget is exhausted: alone, ten side by side, by other names and other models."""
    name = f"model-{uuid.uuid4().hex}"
    async with peer(ALLOWED_PEER, _answer()) as (url, asked):
        free = _provider(url, name)
        free["models"].append(
            {**free["models"][0], "id": f"{name}-free", "costPerInputToken": 0.0, "costPerOutputToken": 0.0}
        )
        await _done(world, PROBER, _CONFIGURE, i=free)
        await _done(world, PROBER, _COMPLETE, i=_prompt(name))
        await _exhaust(world, PROBER)
        sent = len(asked)
        given = [
            _prompt(name),
            _prompt(name, user=PROBER),
            _prompt("echo"),
            _prompt(f"{name}-free"),
            _prompt(name, stream=True),
        ]
        answers = await asyncio.gather(*(_ask(world, PROBER, _COMPLETE, i=each) for each in given * 2))
        must({_code(answer) for answer in answers} == {"BUDGET_EXHAUSTED"}, str(answers)[:500])
        must(len(asked) == sent, f"the provider was asked {len(asked) - sent} times")
        await _raise(world, PROBER)
        await _done(world, PROBER, _COMPLETE, i=_prompt(name))
    return "BUDGET_EXHAUSTED, and the provider is not asked"


async def budget_that_is_nearly_exhausted(world: World, _scale: Scale) -> str:
    """Begin many at once with the rest of a budget: what is over its limit is bounded."""
    name = f"model-{uuid.uuid4().hex}"
    async with peer(ALLOWED_PEER, _answer()) as (url, asked):
        await _done(world, PROBER, _CONFIGURE, i=_provider(url, name))
        used = await _used(world, PROBER)
        budget = {"userId": PROBER, "period": "daily", "warningThreshold": 0.5, "limit": used + 0.05}
        await _done(world, "boss", _BUDGET, i=budget)
        answers = await asyncio.gather(*(_ask(world, PROBER, _COMPLETE, i=_prompt(name)) for _ in range(10)))
        done = sum(_code(answer) == "done" for answer in answers)
        must(len(asked) == done <= 10, f"{len(asked)} asked, {done} done")
        answer = await _ask(world, PROBER, _COMPLETE, i=_prompt(name))
        must(_code(answer) == "BUDGET_EXHAUSTED", f"afterwards: {answer}")
        await _raise(world, PROBER)
    return f"{done} of 10 that were asked at once, none afterwards"


# Scopes and ids ---------------------------------------------------------------------------------------------


async def narrow_scopes(world: World, _scale: Scale) -> str:
    """Make what has no name yet with scopes for oneself, or for one name."""
    url = f"http://{ALLOWED_PEER}:9/v1"
    state = {"id": "a", "name": "a", "workflowId": "", "stateType": "NORMAL"}
    rule = {"name": _NAME, "description": "", "condition": {"conditionType": "FieldExists", "field": "n"}}
    tries: Sequence[tuple[str, tuple[str, object]]] = (
        (
            "createWorkflow(input: $i) { id }",
            (
                "WorkflowDefinitionInput",
                {"name": _NAME, "initialState": "a", "states": [state], "activities": []},
            ),
        ),
        ("createRule(input: $i) { id }", ("RuleInput", rule)),
        ("createAgent(input: $i) { id }", ("AgentDefinitionInput", {**_agent(None, ""), "name": _NAME})),
        (
            "createMcpServer(input: $i) { id }",
            (
                "CreateMcpServerInput",
                {"name": _NAME, "type": "REMOTE", "tenantId": "other", "config": {"endpoint": url}},
            ),
        ),
        ("configureLlmProvider(input: $i) { id }", ("LlmProviderConfigInput", _provider(url, f"{_NAME}2"))),
        ("configureLlmProvider(input: $i) { id }", ("LlmProviderConfigInput", _provider(url, _NARROW))),
        ("configureLlmProvider(input: $i) { id }", ("LlmProviderConfigInput", _provider(url, "self"))),
        (
            "setBudget(input: $i) { used }",
            ("BudgetInput", {"userId": _NARROW, "limit": 9.0, "period": "daily", "warningThreshold": 0.5}),
        ),
        (
            "createStateAgentConfig(input: $i) { id }",
            (
                "StateAgentConfigInput",
                {"stateId": "a", "agentId": _NAME, "enabled": True, "inputMapping": {}, "outputMapping": {}},
            ),
        ),
    )
    for field, (type_, given) in tries:
        answer = await _ask(world, _NARROW, f"mutation($i: {type_}!) {{ made: {field} }}", i=given)
        must(_code(answer) in {"FORBIDDEN", "NOT_FOUND"}, f"{field}: {answer}")
    return f"{len(tries)} mutations FORBIDDEN"


async def guessed_references(world: World, _scale: Scale) -> str:
    """Read by id what others have: providers, sessions, MCP servers, streams of completions."""
    name = f"model-{uuid.uuid4().hex}"
    async with peer(ALLOWED_PEER, _answer("of the victim")) as (url, _):
        provider = (await _done(world, OWNER, _CONFIGURE, i=_provider(url, name)))["id"]
        completion = (await _done(world, OWNER, _COMPLETE, i=_prompt(name, stream=True)))["id"]
    server = await _server(world, f"http://{ALLOWED_PEER}:9/mcp", auth={"oauth": _oauth(ISSUERS[0])})
    session, _ = await _signed_in(world, server)
    asked = (
        ("query($id: String!) { llmProvider(id: $id) { name baseUrl } }", provider),
        (_REFRESH, session),
        (_REVOKE, session),
        ("query($id: ID!) { mcpServer(id: $id) { name } }", server),
        ("query($id: ID!) { mcpSessions(serverId: $id) { edges { node { id } } } }", server),
        ("query($id: String!) { mcpSessions(userId: $id) { edges { node { id } } } }", OWNER),
        (_TEST, server),
        ("mutation($id: ID!) { deleteMcpServer(id: $id) { success } }", server),
    )
    for query, id_ in asked:
        foreign = json.dumps(await _ask(world, PROBER, query, id=id_)).replace(id_, NOBODYS)
        absent = json.dumps(await _ask(world, PROBER, query, id=NOBODYS))
        must(foreign == absent, f"{query}: {foreign} is not {absent}")
    async with Peer.open(world) as socket:
        await socket.let_in(PROBER)
        for number, id_ in enumerate((completion, NOBODYS)):
            query = f"subscription {{ llmStream(requestId: {json.dumps(id_)}) {{ __typename }} }}"
            socket.text({"id": str(number), "type": "subscribe", "payload": {"query": query}})
        # A stream of a completion waits for it; that of another principal's must wait like one of none.
        told: dict[str, list[str]] = {"0": [], "1": []}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while "close" not in (message := await socket.read()):
                    told.get(str(message.get("id")), []).append(json.dumps(message["type"]))
    must(told["0"] == told["1"] and '"next"' not in told["0"], f"llmStream: {told}")
    return f"{len(asked) + 1} questions, answered as if nothing were there"


async def answer_under_a_key(world: World, _scale: Scale) -> str:
    """Send a mutation under the Idempotency-Key of another principal's: their answer must not come."""
    key, name = uuid.uuid4().hex, f"model-{uuid.uuid4().hex}"

    async def post(http: aiohttp.ClientSession, who: str) -> str:
        body = {"query": _COMPLETE, "variables": {"i": _prompt(name, "hi")}}
        headers = {"Authorization": f"Bearer {token(who)}", "Idempotency-Key": key}
        async with http.post(world.url, json=body, headers=headers) as answer:
            return await answer.text()

    async with peer(ALLOWED_PEER, _answer("for the victim alone")) as (url, asked), world.http() as http:
        await _done(world, OWNER, _CONFIGURE, i=_provider(url, name))
        must("for the victim alone" in await post(http, OWNER), "no answer")
        stolen = await post(http, PROBER)
        must("for the victim" not in stolen, f"leak: {stolen}")
        must(len(asked) == 1, "asked again")
    return "another principal's key is another key"


async def forged_tenant(world: World, _scale: Scale) -> str:
    """Say in a token, in headers and in inputs that one is of another tenant, or of every one."""
    name = f"model-{uuid.uuid4().hex}"
    async with peer(ALLOWED_PEER, _answer()) as (url, asked), world.http() as http:
        await _done(world, OWNER, _CONFIGURE, i=_provider(url, name))
        for tenant in ("acme", "*"):
            claims: dict[str, Any] = {
                "tenant": tenant,
                "tenantId": tenant,
                "scope": "llm:admin:*",
                "tenant_id": tenant,
            }
            headers = {
                "Authorization": f"Bearer {token(PROBER, **claims)}",
                "X-Tenant": tenant,
                "X-Tenant-Id": tenant,
            }
            body = {"query": _COMPLETE, "variables": {"i": _prompt(name)}, "extensions": {"tenant": tenant}}
            async with http.post(world.url, json=body, headers=headers) as answer:
                found = await answer.json(content_type=None)
            must(_code(found) == "NOT_FOUND", f"{tenant}: {found}")
            given = {"name": "t", "type": "REMOTE", "tenantId": tenant, "config": {"endpoint": url}}
            must(_code(await _ask(world, PROBER, _CREATE, i=given)) == "FORBIDDEN", "made in another tenant")
        must(not asked, "asked")
    return "the policy alone says whose tenant it is"


OWNERSHIP_ATTACKS: Final[Mapping[str, Attack]] = {
    "key of the operator alone": key_of_nobody,
    "key of another tenant": key_of_another_tenant,
    "variables that are no keys": key_of_the_server,
    "secrets of agents and MCP sessions": keys_of_the_store,
    "key sent to another address": key_to_another_address,
    "key sent along a redirect": key_along_a_redirect,
    "provider of the operator's name": _same_name("boss"),
    "provider of another tenant's name": _same_name(OWNER),
    "provider of everybody's models": model_of_everybody,
    "model of another tenant": model_of_another_tenant,
    "error of a shared provider": error_of_a_shared_provider,
    "headers of a server that moves": headers_of_a_server_that_moves,
    "private key of a server that moves": private_key_of_a_server_that_moves,
    "client key of a server that moves": client_key_of_a_server_that_moves,
    "OAuth provider that is swapped": provider_swapped_in_a_sign_in,
    "sign-in of somebody else": sign_in_of_another,
    "completion that others pay": somebody_else_pays,
    "run that others pay": run_that_somebody_else_pays,
    "agent at an address of its own": agent_with_an_address_of_its_own,
    "exhausted budget": exhausted_budget,
    "budget that is nearly exhausted": budget_that_is_nearly_exhausted,
    "scopes for oneself and one name": narrow_scopes,
    "guessed references": guessed_references,
    "answer under another's key": answer_under_a_key,
    "forged tenant": forged_tenant,
}
"""Made by a principal of one tenant; the victim, with keys and money, is of another."""
