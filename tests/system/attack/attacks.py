"""The attacks: each tries what must not work, and tells what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from circuit_breaker_sdk import Client
from circuit_breaker_server.config import ServerSettings
from circuit_breaker_server.security.api_key_file import ApiKeyFile
from tests.system.attack.attempt import Attack, Breach, Scale, must
from tests.system.attack.fuzz import (
    FuzzResult,
    fuzz_client_protocol,
    fuzz_server_protocol,
    fuzz_server_socket,
)
from tests.system.attack.fuzz_http import fuzz_polls, fuzz_requests
from tests.system.attack.world import ALLOWED_PEER, LIMITS, SECRET, Peer, World, token

__all__ = [
    "ATTACKS",
    "SUSTAINED",
    "Attack",
    "Breach",
    "Scale",
    "connect_elsewhere",
    "workflow",
    "workflow_of",
]


SEED: Final = 4711
WORKFLOW: Final = "mutation($input: WorkflowDefinitionInput!) { createWorkflow(input: $input) { id } }"
_ANYTHING: Final = {"query": "{ workflows { id } }"}
_UPDATES: Final = "subscription { resourceUpdates { id } }"
_EXECUTE: Final = (
    'mutation($id: String!) { executeActivity(input: {resourceId: $id, activityId: "x"}) { id } }'
)
RESOURCE: Final = (
    "mutation($w: String!) { createResource(input: {workflowId: $w, data: {n: 1}, metadata: {}}) { id } }"
)


_REVIEW: Final = {
    "name": "review",
    "initialState": "draft",
    "states": [
        {"id": name, "name": name, "workflowId": "", "stateType": "NORMAL"} for name in ("draft", "done")
    ],
    "activities": [{"id": "finish", "fromStates": ["draft"], "toState": "done", "conditions": []}],
}


async def workflow_of(boss: Client) -> str:
    """Make a workflow; return its id."""
    made = await boss.execute(WORKFLOW, {"input": _REVIEW}, type=dict[str, dict[str, str]])
    return made["createWorkflow"]["id"]


async def workflow(world: World) -> str:
    """Make a workflow as ``boss``; return its id."""
    async with world.client("boss") as boss:
        return await workflow_of(boss)


def _unsigned() -> str:
    parts = ({"alg": "none"}, {"sub": "boss", "exp": time.time() + 3600, "aud": "circuit-breaker"})
    return ".".join(urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts) + "."


def _forged() -> str:
    head, _, signature = token("eve").split(".")
    return ".".join((head, token("boss").split(".")[1], signature))


BAD_TOKENS: Final[Mapping[str, Callable[[], str | None]]] = {
    "missing token": lambda: None,
    "expired token": lambda: token("boss", seconds=-120),
    "forged token": _forged,
    "token of another key": lambda: token("boss", secret=SECRET[::-1]),
    "unsigned token": _unsigned,
    "token for another audience": lambda: token("boss", aud="elsewhere"),
    "rubbish for a token": lambda: "cbk_aaaaaaaaaaaa_" + "A" * 43,
}


def _bad_token(make: Callable[[], str | None]) -> Attack:
    async def attack(world: World, _scale: Scale) -> str:
        shown = make()
        payload = {} if shown is None else {"Authorization": f"Bearer {shown}"}
        async with Peer.open(world) as peer:
            peer.text({"type": "connection_init", "payload": payload})
            closed = await peer.read_until("connection_ack")
        must(closed.get("close") == 4403, f"websocket: {closed}")
        must(shown is None or shown not in str(closed), "the close tells the token")
        async with world.http() as http:
            headers = {} if shown is None else {"Authorization": f"Bearer {shown}"}
            async with http.post(
                world.url, json={"query": "{ workflows { id } }"}, headers=headers
            ) as answer:
                said = await answer.text()
                must(answer.status == 401, f"HTTP {answer.status}: {said}")
                must(shown is None or shown not in said, "the answer tells the token")
        return f"4403 {closed['reason']}, HTTP 401"

    return attack


async def token_in_the_url(world: World, _scale: Scale) -> str:
    async with Peer.open(
        world, query=f"?token={token('boss')}&Authorization=Bearer%20{token('boss')}"
    ) as peer:
        peer.text({"type": "connection_init"})
        closed = await peer.read_until("connection_ack")
    must(closed.get("close") == 4403, f"let in: {closed}")
    return f"4403 {closed['reason']}"


async def foreign_origin(world: World, _scale: Scale) -> str:
    for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example"):
        async with Peer.open(world, headers={"Origin": origin}) as peer:
            must(peer.status == 403, f"websocket of {origin}: {peer.status}")
        async with world.http() as http:
            headers = {"Origin": origin, "Authorization": f"Bearer {token('boss')}"}
            async with http.post(world.url, json={"query": "{ health }"}, headers=headers) as answer:
                must(answer.status == 403, f"POST of {origin}: {answer.status}")
    return "HTTP 403"


async def _closes(world: World, send: Callable[[Peer], object], code: int, *, as_who: str | None) -> str:
    async with Peer.open(world) as peer:
        if as_who is not None:
            await peer.let_in(as_who)
        send(peer)
        closed = await peer.read_until("nothing")
    must(closed.get("close") == code, f"{closed}, {code} expected")
    return f"{code} {closed['reason']}"


def _subscribe(
    id_: str, query: str = "subscription { resourceUpdates { id } }", **more: object
) -> dict[str, Any]:
    return {"id": id_, "type": "subscribe", "payload": {"query": query, **more}}


async def subscribe_before_ack(world: World, _scale: Scale) -> str:
    return await _closes(world, lambda peer: peer.text(_subscribe("1")), 4401, as_who=None)


async def second_init(world: World, _scale: Scale) -> str:
    return await _closes(world, lambda peer: peer.text({"type": "connection_init"}), 4429, as_who="eve")


async def id_reused(world: World, _scale: Scale) -> str:
    def send(peer: Peer) -> None:
        peer.text(_subscribe("1"))
        peer.text(_subscribe("1"))

    return await _closes(world, send, 4409, as_who="eve")


async def long_id(world: World, _scale: Scale) -> str:
    return await _closes(world, lambda peer: peer.text(_subscribe("x" * 129)), 4400, as_who="eve")


async def compression(world: World, _scale: Scale) -> str:
    async with Peer.open(world, headers={"Sec-WebSocket-Extensions": "permessage-deflate"}) as peer:
        must(b"deflate" not in peer.answer.lower(), "compression was agreed on")
        peer.frame(b"\xaa" * 50, first=0xC1)
        closed = await peer.read_until("nothing")
    must(closed.get("close") == 1002, f"{closed}")
    return f"not agreed on; 1002 {closed['reason']}"


async def oversized(world: World, _scale: Scale) -> str:
    return await _closes(world, lambda peer: peer.frame(b"x" * (64 * 1024 + 1)), 1009, as_who="eve")


async def announced_size(world: World, _scale: Scale) -> str:
    def send(peer: Peer) -> None:
        peer.writer.write(b"\x81\xff" + (2**62).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 1000)

    return await _closes(world, send, 1009, as_who="eve")


async def fragments(world: World, _scale: Scale) -> str:
    async with Peer.open(world) as peer:
        await peer.let_in("eve")
        with contextlib.suppress(ConnectionError):
            peer.frame(b"{", first=0x01)
            for _ in range(100_000):
                peer.frame(b" ", first=0x00)
                if peer.writer.transport.is_closing():
                    break
        closed = await peer.read_until("nothing")
    must(closed.get("close") in (1002, 1008, 1009, 1006), f"{closed}")
    return f"{closed['close']} {closed['reason']}"


def _flood(first: int, payload: bytes) -> Attack:
    """Send one frame again and again: what is taken is bounded, and the rest stays with the sender."""
    hundred = Peer.framed(payload, first=first) * 100

    async def attack(world: World, scale: Scale) -> str:
        loop = asyncio.get_running_loop()
        async with Peer.open(world) as peer:
            await peer.let_in("eve")
            began, sent, answers = loop.time(), 0, 0

            async def count() -> None:
                nonlocal answers
                while "close" not in await peer.read():
                    answers += 1

            counting = asyncio.create_task(count())
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(scale.flood_seconds):
                    while True:
                        peer.writer.write(hundred)
                        sent += 100
                        await peer.writer.drain()
            counting.cancel()
            await asyncio.wait((counting,))
            seconds = loop.time() - began
            # Closing would first send the rest.
            peer.writer.transport.abort()
        settings = ServerSettings(data_dir=Path())
        # 100 at once; and what one read has brought is taken, whatever is allowed.
        allowed = 100 + (settings.rates.frames_per_second or 0) * seconds
        must(answers <= allowed + 500, f"{answers} answers, {allowed:.0f} allowed")
        return f"{sent:,} sent in {seconds:.1f} s, {answers:,} answered"

    return attack


def _too_complex(query: str) -> Attack:
    async def attack(world: World, _scale: Scale) -> str:
        async with world.http() as http:
            answer = await world.ask(http, "eve", query)
        code = answer["errors"][0]["extensions"]["code"]
        must("data" not in answer, f"executed: {str(answer)[:200]}")
        return str(code)

    return attack


def _bomb() -> str:
    levels = 40
    parts = [f"fragment f{n} on WorkflowGQL {{ ...f{n + 1} ...f{n + 1} }}" for n in range(levels)]
    return "{ workflows { ...f0 } } " + " ".join(parts) + f" fragment f{levels} on WorkflowGQL {{ id }}"


async def _end_of(reader: asyncio.StreamReader) -> bytes | None:
    """Read how the server ends a connection: a status line, nothing, or a reset; ``None``: it does not."""
    try:
        async with asyncio.timeout(10):
            return (await reader.read(100)).partition(b"\r\n")[0]
    except TimeoutError:
        return None
    except OSError:
        return b"reset"


async def half_open(world: World, scale: Scale) -> str:
    """Connect and say nothing, or half a request: others must get in."""
    held: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    began = time.monotonic()
    for number in range(scale.connections):
        with contextlib.suppress(OSError):
            reader, writer = await Peer.connect(world)
            if number % 2:
                writer.write(b"GET /graphql HTTP/1.1\r\nHost: x\r\n")
            held.append((reader, writer))
    try:
        async with world.http("127.0.0.1") as http, asyncio.timeout(5):
            answer = await world.ask(http, "boss", "{ health }")
        must(answer == {"data": {"health": "ok"}}, str(answer))
        ends = await asyncio.gather(*(_end_of(reader) for reader, _ in held))
    finally:
        for _, writer in held:
            writer.transport.abort()
    must(None not in ends, f"{ends.count(None)} of {len(held)} are held open")
    # Who is refused and has sent something may read a reset; who is let in is closed at its deadline.
    refused = sum(end == b"reset" or end.startswith(b"HTTP/1.1 429") for end in ends if end is not None)
    # 200 at a time, each until its deadline: for others of the flood there is room again then.
    allowed = 200 * (1 + int((time.monotonic() - began) / LIMITS["head_seconds"]))
    must(len(held) - refused <= allowed, f"{len(held) - refused} of {len(held)} let in, {allowed} allowed")
    await asyncio.sleep(0.5)
    return f"{refused} of {len(held)} refused, others let in"


async def slow_loris(world: World, _scale: Scale) -> str:
    reader, writer = await Peer.connect(world)
    began = time.monotonic()
    writer.write(b"POST /graphql HTTP/1.1\r\n")
    said = b""
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - began < 20 and not said and not reader.at_eof():
            writer.write(b"X-Drip: 1\r\n")
            with contextlib.suppress(TimeoutError):
                said = await asyncio.wait_for(reader.read(100), 0.25)
                break
    seconds = time.monotonic() - began
    writer.transport.abort()
    must(seconds < 10, f"held for {seconds:.1f} s")
    first = said.split(b"\r\n")[0].decode()
    return f"closed after {seconds:.1f} s: {first or 'without a word'}"


async def subscribe_flood(world: World, scale: Scale) -> str:
    async with Peer.open(world) as peer:
        await peer.let_in("eve")
        count = max(4_000, scale.frames)
        for number in range(count):
            peer.text(_subscribe(f"s{number:07d}"))
            if number % 200 == 0:
                await peer.writer.drain()
        refused: dict[str, int] = {}
        while sum(refused.values()) < count - 2_000:
            message = await peer.read_until("error")
            if "close" in message:
                refused[f"close {message['close']}"] = refused.get(f"close {message['close']}", 0) + 1
                break
            code = message["payload"][0]["extensions"]["code"]
            refused[code] = refused.get(code, 0) + 1
    must(refused, "nothing was refused")
    return ", ".join(f"{code} {times}" for code, times in sorted(refused.items()))


async def guessed_ids(world: World, _scale: Scale) -> str:
    """Ask for what is somebody else's: the answers must be those of what is not there."""
    theirs = await workflow(world)
    unknown = "00000000-0000-4000-8000-000000000000"
    asked = 0
    async with world.http("127.0.0.1") as http:
        made = await world.ask(http, "boss", RESOURCE, w=theirs)
    resource = made["data"]["createResource"]["id"]
    async with world.http() as http:
        for query, id_ in (
            ("query($id: String!) { workflow(id: $id) { id name } }", theirs),
            ("query($id: String!) { resources(workflowId: $id) { id } }", theirs),
            ("query($id: String!) { resource(id: $id) { id data } }", resource),
            ("query($id: String!) { natsResource(id: $id) { id } }", resource),
            (_EXECUTE, resource),
        ):
            foreign = json.dumps(await world.ask(http, "eve", query, id=id_)).replace(id_, unknown)
            absent = json.dumps(await world.ask(http, "eve", query, id=unknown))
            must(foreign == absent, f"{query}: {foreign} is not {absent}")
            asked += 1
    async with Peer.open(world) as peer:
        await peer.let_in("eve")
        for number, id_ in enumerate((theirs, unknown)):
            query = f'subscription {{ workflowEvents(workflowId: "{id_}") {{ eventType }} }}'
            peer.text(_subscribe(f"g{number}", query))
        said = [await peer.read_until("error", "next") for _ in range(2)]
        texts = {json.dumps(each["payload"]).replace(theirs, unknown) for each in said}
        must(len(texts) == 1, f"streams: {texts}")
    return f"{asked + 1} questions, answered as if nothing were there"


async def _events_after(world: World, who: str, cursor: str | None, *, count: int) -> list[dict[str, Any]]:
    async with Peer.open(world) as peer:
        await peer.let_in(who)
        more = {} if cursor is None else {"extensions": {"resume": {"after": cursor}}}
        peer.text(_subscribe("r", "subscription { resourceUpdates { id workflowId } }", **more))
        found: list[dict[str, Any]] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                while len(found) < count:
                    message = await peer.read_until("next", "error")
                    found.append(message)
                    if message.get("type") != "next":
                        break
        return found


async def _cursor_of(world: World, who: str) -> str:
    async with Peer.open(world) as peer:
        await peer.let_in(who)
        peer.text(_subscribe("c"))
        ping = await peer.read_until("ping")
        return str(ping["payload"]["resume"]["cursor"])


async def cursor_of_another(world: World, _scale: Scale) -> str:
    cursor = await _cursor_of(world, "boss")
    theirs, mine = await workflow(world), await workflow(world)
    await _settled(world, mine, eve=("other", [f"workflow:read:{mine}"]))
    async with world.http("127.0.0.1") as http:
        for id_ in (theirs, mine, theirs):
            await world.ask(http, "boss", RESOURCE, w=id_)
    found = await _events_after(world, "eve", cursor, count=3)
    seen = {each["payload"]["data"]["resourceUpdates"]["workflowId"] for each in found}
    must(seen == {mine}, f"seen: {seen}")
    return "only what is one's own was replayed"


async def cursor_changed(world: World, _scale: Scale) -> str:
    cursor = await _cursor_of(world, "boss")
    head, _, sealed = cursor.partition("~")
    must(
        len(sealed) == 32 and not any(part.isdecimal() for part in cursor.split(".")), f"not sealed: {cursor}"
    )
    tried = [sealed[:n] + ("0" if sealed[n] != "0" else "1") + sealed[n + 1 :] for n in range(32)]
    for text in (*(f"{head}~{each}" for each in tried), f"{head}.1.0.00000000", "", "x" * 2000):
        (answer,) = await _events_after(world, "boss", text, count=1) or [{}]
        code = (answer.get("payload") or [{}])[0].get("extensions", {}).get("code") if answer else None
        must(code == "RESUME_GAP", f"{text[:60]}: {answer}")
    return f"RESUME_GAP, {len(tried) + 3} times"


async def replay_after_revocation(world: World, _scale: Scale) -> str:
    was = await workflow(world)
    await _settled(world, was, eve=("other", [f"workflow:read:{was}"]))
    cursor = await _cursor_of(world, "eve")
    async with world.http("127.0.0.1") as http:
        await world.ask(http, "boss", RESOURCE, w=was)
    must(len(await _events_after(world, "eve", cursor, count=1)) == 1, "the event is not there at first")
    world.allow(eve=("other", ["workflow:read:nothing"]))
    await asyncio.sleep(1.0)
    found = await _events_after(world, "eve", cursor, count=1)
    must(not [each for each in found if each.get("type") == "next"], f"replayed: {found}")
    return "nothing was replayed"


async def revoked_key(world: World, _scale: Scale) -> str:
    keys = ApiKeyFile(world.data_dir)
    made = keys.create("eve", label="attack")
    world.allow(eve=("other", ["workflow:read:*"]))
    await asyncio.sleep(1.0)
    async with Peer.open(world) as peer:
        peer.text({"type": "connection_init", "payload": {"Authorization": f"Bearer {made.text}"}})
        first = await peer.read()
        must(first.get("type") == "connection_ack", f"the key is not taken: {first}")
        peer.text(_subscribe("1"))
        keys.revoke(made.key.id)
        began = time.monotonic()
        closed = await peer.read_until("nothing")
        seconds = time.monotonic() - began
    must(closed.get("close") == 4403, str(closed))
    must(seconds <= 1.0, f"after {seconds:.2f} s")
    async with Peer.open(world) as peer:
        peer.text({"type": "connection_init", "payload": {"Authorization": f"Bearer {made.text}"}})
        again = await peer.read()
    must(again.get("close") == 4403, f"let in again: {again}")
    return f"4403 {closed['reason']} after {seconds:.2f} s"


async def expired_stream(world: World, _scale: Scale) -> str:
    async with Peer.open(world) as peer:
        # The server's leeway is 30 s: this one ends in a second.
        payload = {"Authorization": f"Bearer {token('eve', seconds=-29.0)}"}
        peer.text({"type": "connection_init", "payload": payload})
        must((await peer.read()).get("type") == "connection_ack", "not let in at first")
        peer.text(_subscribe("1"))
        closed = await peer.read_until("nothing")
    must((closed.get("close"), closed["reason"]) == (4403, "token expired"), str(closed))
    return "4403 token expired"


async def secrets_by_alias(world: World, _scale: Scale) -> str:
    canary = "canary-of-a-secret"
    given = {
        "name": "tools",
        "type": "LOCAL",
        "tenantId": "acme",
        "enabled": False,
        "config": {
            "endpoint": f"http://{ALLOWED_PEER}:9/mcp",
            "headers": {"Authorization": canary},
        },
        "auth": {
            "oauth": {
                "providerId": "github",
                "clientId": "id",
                "clientSecret": canary,
                "scopes": [],
                "redirectUri": "https://app.example/back",
            }
        },
    }
    query = """
        { mcpServers { edges { node { ...A b: config { ...C } auth { ...O } } } } }
        fragment O on McpOAuthConfig { clientId metadata }
        fragment A on McpServer { x: name y: metadata config { h: headers ssl { k: clientKey } } }
        fragment C on McpServerConfig { headers ssl { clientKey k: clientKey } }
    """
    sessions = """{ mcpSessions { edges { node { a: accessToken b: refreshToken ...S } } } }
        fragment S on McpSession { accessToken refreshToken }"""
    async with world.http("127.0.0.1") as http:
        made = await world.ask(
            http, "boss", "mutation($i: CreateMcpServerInput!) { createMcpServer(input: $i) { id } }", i=given
        )
        must("data" in made and made["data"], str(made))
        for each in (query, sessions):
            answer = await world.ask(http, "boss", each)
            must(answer.get("data"), str(answer)[:300])
            must(canary not in json.dumps(answer), "a secret was told")
    must(canary.encode() not in (world.data_dir / "events.db").read_bytes(), "a secret is in the log")
    return "null or (hidden), and not in the log"


async def log_injection(world: World, _scale: Scale) -> str:
    name = 'eve"\n{"seq": 1, "action": "forged"}\r\n\x1b[2J\u2028'
    async with world.http() as http:
        answer = await world.ask(http, name, "mutation { applyCredit(amount: 1.0) { limit } }")
        must("errors" in answer, str(answer))
        must("Traceback" not in json.dumps(answer), "a trace")
    await asyncio.sleep(0.5)
    lines = (world.data_dir / "audit" / "audit.jsonl").read_bytes().split(b"\n")
    must(not any(b'"action": "forged"' in line or b"\x1b" in line for line in lines), "a line was forged")
    for line in lines[:-1]:
        json.loads(line)
    return "escaped; every line is whole"


async def forbidden_body(world: World, _scale: Scale) -> str:
    async with world.http() as http:
        headers = {"Authorization": f"Bearer {token('eve')}"}
        async with http.post(
            world.url,
            data=b"{" + b" " * (1024 * 1024),
            headers={**headers, "Content-Type": "application/json"},
        ) as answer:
            must(answer.status == 413, f"{answer.status}")
        async with http.post(
            world.url,
            data="query={health}",
            headers={**headers, "Content-Type": "application/x-www-form-urlencoded"},
        ) as answer:
            must(answer.status == 415, f"{answer.status}")
        deep = '{"query":"{ health }","variables":' + '{"a":' * 50_000 + "1" + "}" * 50_001
        async with http.post(
            world.url, data=deep, headers={**headers, "Content-Type": "application/json"}
        ) as answer:
            must(answer.status in (400, 413), f"{answer.status}")
    return "HTTP 413, 415, 400"


def _fuzzed(fuzz: Callable[[int, int], FuzzResult]) -> Attack:
    async def attack(_world: World, scale: Scale) -> str:
        result = await asyncio.to_thread(fuzz, SEED, scale.fuzzed)
        must(result.passed, f"crashed: {result.line()} {str(result.findings)[:2000]}")
        return f"{result.messages} messages on {result.connections} connections, closes {dict(result.closes)}"

    return attack


async def fuzzed_sockets(world: World, scale: Scale) -> str:
    headers = {"Authorization": f"Bearer {token('eve')}"}
    result = await fuzz_server_socket(world.url, SEED, scale.fuzzed_frames, headers=headers)
    must(result.passed, f"crashed: {result.line()} {str(result.findings)[:2000]}")
    return f"{result.messages} frames on {result.connections} connections, closes {dict(result.closes)}"


def _fuzzed_http(fuzz: Callable[..., Awaitable[FuzzResult]]) -> Attack:
    async def attack(world: World, scale: Scale) -> str:
        result = await fuzz(world.port, SEED, scale.fuzzed_requests, token=token("eve"))
        must(result.passed, f"crashed: {result.line()} {str(result.findings)[:2000]}")
        return f"{result.messages} messages, statuses {dict(sorted(result.closes.items()))}"

    return attack


async def _settled(world: World, id_: str, **people: tuple[str, list[str]]) -> None:
    """Change the policy, and wait until it lets somebody see a workflow, whom nothing let see it before."""
    ((who, (tenant, _)),) = people.items()
    query = "query($id: String!) { workflow(id: $id) { id } }"
    async with world.http() as http, asyncio.timeout(10):
        world.allow(**{who: (tenant, ["workflow:read:nothing"])})
        while (await world.ask(http, who, query, id=id_))["data"]["workflow"] is not None:
            await asyncio.sleep(0.05)
        world.allow(**people)
        while (await world.ask(http, who, query, id=id_))["data"]["workflow"] is None:
            await asyncio.sleep(0.05)


async def connect_elsewhere(seconds: float) -> None:
    """Connect to a listener of our own, which refuses, as fast as half-open connections are made.

    What the victims feel of it is that they share a core with us, and nothing of the server.
    """

    def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\n\r\n")
        writer.close()

    until = time.monotonic() + seconds
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        while time.monotonic() < until:
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(500)]
            for _, writer in held:
                writer.close()


ATTACKS: Final[Mapping[str, Attack]] = {
    **{name: _bad_token(make) for name, make in BAD_TOKENS.items()},
    "token in the URL": token_in_the_url,
    "page of another origin": foreign_origin,
    "subscribe before the ack": subscribe_before_ack,
    "second init": second_init,
    "id in use": id_reused,
    "id of 129 bytes": long_id,
    "compression": compression,
    "message over the limit": oversized,
    "frame of 2^62 bytes": announced_size,
    "flood of fragments": fragments,
    "flood of pings": _flood(0x89, b"p" * 100),
    "flood of small pings": _flood(0x89, b""),
    "flood of messages": _flood(0x81, b'{"type":"ping"}'),
    "fuzzed server protocol": _fuzzed(fuzz_server_protocol),
    "fuzzed client protocol": _fuzzed(fuzz_client_protocol),
    "fuzzed frames": fuzzed_sockets,
    "fuzzed requests": _fuzzed_http(fuzz_requests),
    "fuzzed polls": _fuzzed_http(fuzz_polls),
    "bomb of aliases": _too_complex("{ " + " ".join(f"a{n}: health" for n in range(500)) + " }"),
    "bomb of depth": _too_complex("{ workflows " + "{ states " * 40 + "{ id }" + " }" * 41),
    "bomb of fragments": _too_complex(_bomb()),
    "cycle of fragments": _too_complex(
        "{ workflows { ...a } } fragment a on WorkflowGQL { ...b } fragment b on WorkflowGQL { ...a }"
    ),
    "bomb of directives": _too_complex("{ health " + "@include(if: true) " * 300 + "}"),
    "bodies that are none": forbidden_body,
    "half-open connections": half_open,
    "slow headers": slow_loris,
    "flood of subscribes": subscribe_flood,
    "guessed ids of another tenant": guessed_ids,
    "another's cursor": cursor_of_another,
    "changed cursors": cursor_changed,
    "replay after a revocation": replay_after_revocation,
    "stream of a revoked key": revoked_key,
    "stream of an expired token": expired_stream,
    "secrets by aliases and fragments": secrets_by_alias,
    "injection into logs": log_injection,
}
"""In the order in which they are made, all from :data:`ATTACKER`."""

SUSTAINED: Final = frozenset({"fuzzed frames", "half-open connections", "flood of subscribes"})
"""Attacks that are made again and again for as long as the floods last."""
