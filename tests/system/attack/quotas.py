"""Attacks of one tenant on what all tenants share: pools, tables, the rate of creation."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp

from tests.system.attack.attempt import Attack, Scale, must
from tests.system.attack.owned import OWNER, PROBER
from tests.system.attack.world import ALLOWED_PEER, World

__all__ = ["QUOTA_ATTACKS", "QUOTA_RIGHTS"]

_CREATE: Final = "mutation($i: CreateMcpServerInput!) { made: createMcpServer(input: $i) { id } }"
_DELETE: Final = "mutation($id: ID!) { deleteMcpServer(id: $id) { success } }"
_STATUS: Final = "query($id: ID!) { mcpServer(id: $id) { status } }"
_TEST: Final = "mutation($id: ID!) { testMcpConnection(serverId: $id) { success error } }"
_SIGN_IN: Final = "mutation($i: InitiateMcpOAuthInput!) { initiateMcpOAuth(input: $i) { authorizationUrl } }"
_CONFIGURE: Final = "mutation($i: LlmProviderConfigInput!) { configureLlmProvider(input: $i) { id } }"
_COMPLETE: Final = "mutation($i: LlmChatCompletionInput!) { llmChatCompletion(input: $i) { id } }"
_TENANTS: Final[Mapping[str, str]] = {PROBER: "other", OWNER: "acme"}
_FILLER: Final = "phil"
QUOTA_RIGHTS: Final[Mapping[str, tuple[str, list[str]]]] = {_FILLER: ("filled", ["provider:admin:*"])}
_SOON_SECONDS: Final = 15.0
"""Within which a victim is served: half of what passes between two checks of an MCP server."""
_CLOSED: Final = f"http://{ALLOWED_PEER}:9/mcp"
_OAUTH: Final = {
    "providerId": "github",
    "clientId": "id",
    "clientSecret": "secret",
    "scopes": [],
    "redirectUri": "https://app.example/back",
}


@contextlib.asynccontextmanager
async def _tarpit() -> AsyncIterator[str]:
    """Accept whatever connects, and never answer; yield where."""
    held: list[asyncio.StreamWriter] = []

    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    async with await asyncio.start_server(hold, ALLOWED_PEER, 0) as server:
        try:
            yield f"http://{ALLOWED_PEER}:{server.sockets[0].getsockname()[1]}/v1"
        finally:
            for writer in held:
                writer.close()


def _code(answer: Mapping[str, Any]) -> str:
    return str(answer["errors"][0]["extensions"]["code"]) if answer.get("errors") else "done"


def _wait_of(answer: Mapping[str, Any]) -> float:
    wait = answer["errors"][0]["extensions"].get("retryAfter")
    must(isinstance(wait, (int, float)) and wait > 0, f"RATE_LIMITED does not say until when: {answer}")
    return float(wait)


async def _insist(world: World, http: aiohttp.ClientSession, who: str, query: str, **given: object) -> Any:
    """Ask again after each ``RATE_LIMITED``, as soon as it allows."""
    while _code(answer := await world.ask(http, who, query, **given)) == "RATE_LIMITED":
        await asyncio.sleep(_wait_of(answer))
    return answer


async def _server(world: World, http: aiohttp.ClientSession, who: str, url: str, **more: object) -> str:
    config = {"endpoint": url, "retry": {"maxAttempts": 1}}
    given = {"name": "tools", "type": "REMOTE", "tenantId": _TENANTS[who], "config": config}
    answer = await _insist(world, http, who, _CREATE, i={**given, **more})
    must(_code(answer) == "done", f"{who} cannot create: {answer}")
    return str(answer["data"]["made"]["id"])


async def _delete(world: World, http: aiohttp.ClientSession, who: str, ids: list[str]) -> None:
    for server_id in ids:
        await world.ask(http, who, _DELETE, id=server_id)


@contextlib.asynccontextmanager
async def _asked_at_once(
    world: World, http: aiohttp.ClientSession, query: str, times: int, **given: object
) -> AsyncIterator[set[asyncio.Task[dict[str, Any]]]]:
    """Let the attacker ask the same many times, and hang up in the end."""
    asking = {asyncio.create_task(world.ask(http, PROBER, query, **given)) for _ in range(times)}
    try:
        await asyncio.wait(asking, timeout=1.0)
        yield asking
    finally:
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)


async def servers_that_hang(world: World, _scale: Scale) -> str:
    async with _tarpit() as url, world.http() as http, world.http("127.0.0.1") as victim:
        made = [await _server(world, http, PROBER, url) for _ in range(40)]
        own = await _server(world, victim, OWNER, _CLOSED)
        try:
            async with asyncio.timeout(_SOON_SECONDS):
                while True:
                    answer = await world.ask(victim, OWNER, _STATUS, id=own)
                    if answer["data"]["mcpServer"]["status"] == "ERROR":
                        break
                    await asyncio.sleep(0.05)
        except TimeoutError:
            must(False, "the victim's MCP server is not checked")
        await _delete(world, http, PROBER, made)
        await _delete(world, victim, OWNER, [own])
    return "the victim's MCP server is checked"


async def tests_that_hang(world: World, _scale: Scale) -> str:
    async with _tarpit() as url, world.http() as http, world.http("127.0.0.1") as victim:
        bad = await _server(world, http, PROBER, url, enabled=False)
        own = await _server(world, victim, OWNER, _CLOSED, enabled=False)
        async with _asked_at_once(world, http, _TEST, 90, id=bad) as asking:
            refused = Counter(_code(task.result()) for task in asking if task.done())
            must(set(refused) == {"RATE_LIMITED"}, f"the tests of one tenant: {refused}")
            async with asyncio.timeout(_SOON_SECONDS):
                answer = await world.ask(victim, OWNER, _TEST, id=own)
        must(_code(answer) == "done", f"the victim's test: {answer}")
        await _delete(world, http, PROBER, [bad])
        await _delete(world, victim, OWNER, [own])
    return f"the victim's test is made; {refused.total()} of the attacker's are RATE_LIMITED"


async def long_timeout(world: World, _scale: Scale) -> str:
    given = {"name": "tools", "type": "REMOTE", "tenantId": "other"}
    config = {"endpoint": _CLOSED, "timeoutSeconds": 300}
    async with world.http() as http:
        answer = await _insist(world, http, PROBER, _CREATE, i={**given, "config": config})
    must(_code(answer) == "INVALID_INPUT", str(answer))
    return "INVALID_INPUT"


async def _until_refused(world: World, http: aiohttp.ClientSession, query: str, given: object) -> list[Any]:
    """Let the attacker ask until one is refused, 50 at a time; return the answers."""
    answers: list[Any] = []
    while len(answers) < 1_500 and all(_code(answer) == "done" for answer in answers):
        answers += await asyncio.gather(*(world.ask(http, PROBER, query, i=given) for _ in range(50)))
    codes = Counter(map(_code, answers))
    must(codes["RATE_LIMITED"] and set(codes) == {"done", "RATE_LIMITED"}, f"one principal: {codes}")
    _wait_of(next(answer for answer in answers if _code(answer) != "done"))
    return [answer for answer in answers if _code(answer) == "done"]


async def servers_without_end(world: World, _scale: Scale) -> str:
    given = {"name": "tools", "type": "REMOTE", "tenantId": "other", "enabled": False}
    async with world.http() as http, world.http("127.0.0.1") as victim:
        made = await _until_refused(world, http, _CREATE, {**given, "config": {"endpoint": _CLOSED}})
        answer = await world.ask(
            victim, OWNER, _CREATE, i={**given, "tenantId": "acme", "config": {"endpoint": _CLOSED}}
        )
        must(_code(answer) == "done", f"the victim cannot create: {answer}")
        await _delete(world, http, PROBER, [each["data"]["made"]["id"] for each in made])
        await _delete(world, victim, OWNER, [answer["data"]["made"]["id"]])
    return f"RATE_LIMITED after {len(made)}; the victim's is created"


async def sign_ins_without_end(world: World, _scale: Scale) -> str:
    async with world.http() as http, world.http("127.0.0.1") as victim:
        bad = await _server(world, http, PROBER, _CLOSED, auth={"oauth": _OAUTH})
        own = await _server(world, victim, OWNER, _CLOSED, auth={"oauth": _OAUTH})
        begun = await _until_refused(world, http, _SIGN_IN, {"serverId": bad, "userId": PROBER})
        answer = await world.ask(victim, OWNER, _SIGN_IN, i={"serverId": own, "userId": OWNER})
        must(_code(answer) == "done", f"the victim cannot sign in: {answer}")
        await _delete(world, http, PROBER, [bad])
        await _delete(world, victim, OWNER, [own])
    return f"RATE_LIMITED after {len(begun)}; the victim's begins"


def _provider(url: str, model: str) -> dict[str, object]:
    listed = {
        "id": model,
        "name": model,
        "maxTokens": 100,
        "contextWindow": 1_000,
        "costPerInputToken": 0.0,
        "costPerOutputToken": 0.0,
        "supportsStreaming": True,
        "supportsFunctionCalling": False,
        "capabilities": [],
    }
    return {"providerType": "other", "name": model, "baseUrl": url, "apiKeyId": "", "models": [listed]}


async def providers_without_end(world: World, _scale: Scale) -> str:
    async with world.http() as http, world.http("127.0.0.1") as victim:
        for made in itertools.count():
            given = _provider(_CLOSED, f"model-{uuid.uuid4().hex}")
            answer = await _insist(world, http, _FILLER, _CONFIGURE, i=given)
            if _code(answer) != "done" or made > 200:
                break
        must(_code(answer) == "INVALID_INPUT", f"after {made} providers: {answer}")
        text = answer["errors"][0]["message"]
        must("tenant 'filled'" in text, f"the caller's tenant is not named: {text}")
        given = _provider(_CLOSED, "model-of-the-victim")
        answer = await world.ask(victim, OWNER, _CONFIGURE, i=given)
        must(_code(answer) == "done", f"the victim cannot configure: {answer}")
    return f"INVALID_INPUT: {text}"


async def completions_that_hang(world: World, _scale: Scale) -> str:
    model = f"model-{uuid.uuid4().hex}"
    async with _tarpit() as url, world.http() as http, world.http("127.0.0.1") as victim:
        answer = await _insist(world, http, PROBER, _CONFIGURE, i=_provider(url, model))
        must(_code(answer) == "done", f"the peer cannot be configured: {answer}")
        messages = [{"role": "user", "content": "hi"}]
        given = {"model": model, "messages": messages}
        async with _asked_at_once(world, http, _COMPLETE, 90, i=given), asyncio.timeout(_SOON_SECONDS):
            answer = await world.ask(victim, OWNER, _COMPLETE, i={"model": "echo", "messages": messages})
        must(_code(answer) == "done", f"the victim's completion: {answer}")
    return "the victim's completion is made"


QUOTA_ATTACKS: Final[Mapping[str, Attack]] = {
    "MCP servers that hang": servers_that_hang,
    "tests of an MCP server that hangs": tests_that_hang,
    "timeout of 300 s": long_timeout,
    "MCP servers without end": servers_without_end,
    "sign-ins without end": sign_ins_without_end,
    "completions that hang": completions_that_hang,
    "providers without end": providers_without_end,
}
"""Made by a principal of one tenant; the victim is of another. The providers stay, in a third."""
