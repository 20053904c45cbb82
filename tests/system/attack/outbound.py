"""Attacks through servers that a caller names: on what the server reaches, and on what it takes from them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from circuit_breaker_server.outbound import AddressRefused, AddressRules
from tests.system.attack.attacks import SEED
from tests.system.attack.attempt import Attack, Breach, Scale, must
from tests.system.attack.fuzz_http import MCP_ANSWERS, PROVIDER_ANSWERS, answering, fuzz_answers
from tests.system.attack.world import ALLOWED_PEER, World

__all__ = ["HEAD", "OUTBOUND_ATTACKS", "load_clients", "peer"]

_CONFIGURE: Final = "mutation($i: LlmProviderConfigInput!) { configureLlmProvider(input: $i) { id } }"
_COMPLETE: Final = """mutation($i: LlmChatCompletionInput!) {
    llmChatCompletion(input: $i) { usage { totalTokens estimatedCost } } }"""
_CREATE: Final = "mutation($i: CreateMcpServerInput!) { createMcpServer(input: $i) { id } }"
_TEST: Final = "mutation($id: ID!) { testMcpConnection(serverId: $id) { success error } }"
_SIGN_IN: Final = "mutation($i: InitiateMcpOAuthInput!) { initiateMcpOAuth(input: $i) { authorizationUrl } }"
HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n%b\r\n"
_MOST_BYTES: Final = 96 * 2**20
"""What an answer may cost the server in memory."""


@contextlib.asynccontextmanager
async def peer(
    address: str, parts: Iterable[bytes], *, port: int = 0
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answer the same to everybody at an address; yield where, and what was asked: heads with bodies."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            asked.append(b"")
            head = await reader.readuntil(b"\r\n\r\n")
            asked[-1] = head
            length = re.search(rb"content-length: ([0-9]+)", head.lower())
            asked[-1] += await reader.readexactly(0 if length is None else int(length[1]))
            for part in parts:
                writer.write(part)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, address, port) as server:
        yield f"http://{address}:{server.sockets[0].getsockname()[1]}/v1", asked


async def _ask(world: World, query: str, **variables: object) -> dict[str, Any]:
    async with world.http("127.0.0.1") as http:
        return await world.ask(http, "boss", query, **variables)


def _code(answer: Mapping[str, Any]) -> str:
    return str(answer["errors"][0]["extensions"]["code"]) if answer.get("errors") else "done"


async def _configure(world: World, url: str, model: str) -> dict[str, Any]:
    listed = {
        "id": model,
        "name": model,
        "maxTokens": 100,
        "contextWindow": 2**31 - 1,
        "costPerInputToken": 1.0,
        "costPerOutputToken": 1.0,
        "supportsStreaming": True,
        "supportsFunctionCalling": False,
        "capabilities": [],
    }
    given = {"providerType": "other", "name": model, "baseUrl": url, "apiKeyId": "", "models": [listed]}
    return await _ask(world, _CONFIGURE, i=given)


async def _complete(world: World, url: str) -> dict[str, Any]:
    model = f"model-{uuid.uuid4().hex}"
    made = await _configure(world, url, model)
    must(not made.get("errors"), f"the peer cannot be configured: {made}")
    given = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    return await _ask(world, _COMPLETE, i=given)


def _inside(host: str) -> Attack:
    """Name an address inside as provider and as MCP server, with a listener of ours behind it."""

    async def attack(world: World, _scale: Scale) -> str:
        async with peer("127.0.0.1", [HEAD % b""]) as (url, asked):
            port = url.rpartition(":")[2].partition("/")[0]
            target = f"http://{host}:{port}/v1"
            found = await _configure(world, target, f"model-{uuid.uuid4().hex}")
            given = {
                "name": "tools",
                "type": "REMOTE",
                "tenantId": "acme",
                "config": {"endpoint": target, "timeoutSeconds": 2},
            }
            made = await _ask(world, _CREATE, i=given)
        must(_code(found) == _code(made) == "INVALID_INPUT", f"{found}, {made}")
        must(not asked, f"connected to: {asked}")
        return "INVALID_INPUT, nothing was connected to"

    return attack


def _malformed(url: str) -> Attack:
    async def attack(world: World, _scale: Scale) -> str:
        found = await _configure(world, url, f"model-{uuid.uuid4().hex}")
        must(_code(found) == "INVALID_INPUT", str(found))
        must("baseUrl" in str(found), f"the field is not named: {found}")
        return "INVALID_INPUT"

    return attack


async def name_of_an_address_inside(_world: World, _scale: Scale) -> str:
    """Resolve a name to an address outside first, and inside afterwards."""
    answers = [["8.8.8.8"], ["8.8.8.8", "10.0.0.1"], ["169.254.169.254"], ["::ffff:127.0.0.1"]]

    async def resolve(_host: str, _port: int) -> list[str]:
        return answers.pop(0)

    rules = AddressRules(resolve=resolve)
    await rules.addresses("rebound.example", 80)
    while answers:
        address = answers[0]
        try:
            await rules.addresses("rebound.example", 80)
        except AddressRefused:
            continue
        raise Breach(f"allowed: {address}")
    return "refused whenever it is inside"


async def redirect_inside(world: World, _scale: Scale) -> str:
    async with peer("127.0.0.1", [HEAD % b""]) as (inside, asked):
        moved = b"HTTP/1.1 307 Moved\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % inside.encode()
        async with peer(ALLOWED_PEER, [moved]) as (url, _):
            answer = await _complete(world, url)
    must(not asked, "the redirect was followed")
    must(_code(answer) == "PROVIDER_FAILED", str(answer))
    return "PROVIDER_FAILED, not followed"


def _too_much(head: bytes, parts: Callable[[], Iterable[bytes]]) -> Attack:
    async def attack(world: World, _scale: Scale) -> str:
        before = world.weigh()

        async with peer(ALLOWED_PEER, itertools.chain([HEAD % head], parts())) as (url, _):
            answer = await _complete(world, url)
        must(_code(answer) == "PROVIDER_FAILED", str(answer)[:300])
        grown = world.weigh() - before
        must(grown < _MOST_BYTES, f"memory grew by {grown} bytes")
        return f"PROVIDER_FAILED: {answer['errors'][0]['message'][:60]}"

    return attack


def _chunk(text: str) -> bytes:
    said = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


async def figures(world: World, _scale: Scale) -> str:
    huge = 2**31 - 1
    said = {
        "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": huge, "completion_tokens": huge, "total_tokens": 2 * huge},
    }
    last = b"data: " + json.dumps(said).encode() + b"\n\ndata: [DONE]\n\n"
    async with peer(ALLOWED_PEER, [HEAD % b"", last]) as (url, _):
        answer = await _complete(world, url)
    must(_code(answer) == "done", str(answer))
    total = answer["data"]["llmChatCompletion"]["usage"]["totalTokens"]
    must(total < 100_000, f"{total} tokens are charged")
    return f"{total} tokens are charged"


async def _sign_in(world: World, **more: object) -> dict[str, Any]:
    oauth = {
        "providerId": "github",
        "clientId": "id",
        "clientSecret": "secret",
        "scopes": [],
        "redirectUri": "https://app.example/back",
    }
    given = {
        "name": "tools",
        "type": "REMOTE",
        "tenantId": "acme",
        "config": {"endpoint": f"http://{ALLOWED_PEER}:9/mcp"},
        "auth": {"oauth": oauth},
    }
    made = await _ask(world, _CREATE, i=given)
    server = made["data"]["createMcpServer"]["id"]
    return await _ask(world, _SIGN_IN, i={"serverId": server, "userId": "boss", **more})


async def redirect_of_a_sign_in(world: World, _scale: Scale) -> str:
    good = await _sign_in(world)
    must(_code(good) == "done", str(good))
    found = await _sign_in(world, redirectUri="https://evil.example/back")
    must(_code(found) == "INVALID_INPUT", str(found))
    return "INVALID_INPUT"


async def smuggled_parameters(world: World, _scale: Scale) -> str:
    for name in ("request_uri", "request", "response_mode", "registration"):
        found = await _sign_in(world, additionalParams={name: "https://evil.example/"})
        must(_code(found) == "INVALID_INPUT", f"{name}: {found}")
    return "INVALID_INPUT"


def _fuzzed(name: str, valid: Sequence[bytes]) -> Attack:
    """Answer the server's clients with mutated event streams and JSON."""

    async def attack(world: World, scale: Scale) -> str:
        async with answering(ALLOWED_PEER, SEED, valid) as (url, answered):
            if name == "providers":
                model = f"model-{uuid.uuid4().hex}"
                must(not (await _configure(world, url, model)).get("errors"), "cannot be configured")
                given = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
                ask, count = partial(_ask, world, _COMPLETE, i=given), scale.fuzzed_answers
            else:
                config = {"endpoint": url, "timeoutSeconds": 1, "retry": {"maxAttempts": 1}}
                server = {"name": "tools", "type": "REMOTE", "tenantId": "acme", "enabled": False}
                made = await _ask(world, _CREATE, i={**server, "config": config})
                id_ = made["data"]["createMcpServer"]["id"]
                ask, count = partial(_ask, world, _TEST, id=id_), scale.fuzzed_answers // 4
            result = await fuzz_answers(name, SEED, count, answered, ask)
        must(result.passed, f"crashed: {result.line()} {str(result.findings)[:2000]}")
        return f"{result.messages} answers to {count} questions, {result.closes.get(1, 0)} told as errors"

    return attack


async def load_clients(world: World) -> None:
    """Have the server load its clients of providers and MCP servers: some 40 MiB of libraries."""
    async with peer(ALLOWED_PEER, [b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n"]) as (url, _):
        await _complete(world, url)
        config = {"endpoint": url, "timeoutSeconds": 2, "retry": {"maxAttempts": 1}}
        given = {"name": "tools", "type": "REMOTE", "tenantId": "acme", "config": config}
        made = await _ask(world, _CREATE, i=given)
        id_ = made["data"]["createMcpServer"]["id"]
        await _ask(world, _TEST, id=id_)
        await _ask(world, "mutation($id: ID!) { deleteMcpServer(id: $id) { success } }", id=id_)


OUTBOUND_ATTACKS: Final[Mapping[str, Attack]] = {
    "peer on loopback": _inside("127.0.0.1"),
    "peer on loopback, decimal": _inside("2130706433"),
    "peer on loopback, octal": _inside("0177.0.0.1"),
    "peer on loopback, mapped": _inside("[::ffff:127.0.0.1]"),
    "peer on loopback, unspecified": _inside("[::]"),
    "peer named localhost": _inside("localhost"),
    "peer at a cloud's metadata": _inside("169.254.169.254"),
    "peer whose name is rebound": name_of_an_address_inside,
    "peer that redirects to loopback": redirect_inside,
    "peer at port 99999": _malformed("http://peer.example:99999/"),
    "peer with empty labels": _malformed("http://a..b/"),
    "peer with half a bracket": _malformed("http://[::1"),
    "peer with credentials": _malformed("http://a:b@peer.example/"),
    "answer that is a gzip bomb": _too_much(
        b"content-encoding: gzip\r\n", lambda: [gzip.compress(bytes(2**28), 1)]
    ),
    "answer that is an endless line": _too_much(b"", lambda: (b"x" * 65_536 for _ in range(50_000))),
    "answer in many big pieces": _too_much(b"", lambda: (_chunk("a" * 200_000) for _ in range(5_000))),
    "figures that cannot be": figures,
    "fuzzed answers of a provider": _fuzzed("providers", PROVIDER_ANSWERS),
    "fuzzed answers of an MCP server": _fuzzed("MCP servers", MCP_ANSWERS),
    "redirect of a sign-in": redirect_of_a_sign_in,
    "parameters of a sign-in": smuggled_parameters,
}
"""In the order in which they are made; peers that the server may connect to are at ``ALLOWED_PEER``."""
