"""Attacks with work: legal requests that cost the server as much as may be, beside victims who go on.

The runner measures what the victims feel, and how soon ``/health`` answers meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import aiohttp

from tests.system.attack.attempt import Attack, Scale, must
from tests.system.attack.world import ATTACKER, Peer, World, token

__all__ = ["WORK_ATTACKS", "WORK_RIGHTS", "fill"]

_STRANGERS: Final = tuple(f"stranger{number:02d}" for number in range(60))
_READER: Final = "rita"
WORK_RIGHTS: Final[Mapping[str, tuple[str, list[str]]]] = {
    **dict.fromkeys(_STRANGERS, ("other", ["workflow:read:nothing"])),
    _READER: ("other", ["workflow:read:*", "nats:read:*"]),
}
"""Of strangers, who may see nothing, and of one who may read every resource."""

_STAY: Final = {
    "name": "crowd",
    "initialState": "here",
    "states": [{"id": "here", "name": "here", "workflowId": "", "stateType": "NORMAL"}],
    "activities": [{"id": "stay", "fromStates": ["here"], "toState": "here", "conditions": []}],
}
_BIG_BYTES: Final = 250_000
_ALIASES: Final = 100
_HELD_SECONDS: Final = 2.0
_UNWANTED: Final = frozenset({"INTERNAL", "HTTP 500", "HTTP 502"})


async def fill(world: World, scale: Scale) -> None:
    """Make what the attacks ask for: many resources, large ones, and some with long histories."""
    query = "mutation($i: WorkflowDefinitionInput!) { made: createWorkflow(input: $i) { id } }"
    async with world.http("127.0.0.1") as http:
        for name, count, data_bytes, moves in (
            ("crowd", scale.crowd, 10, 0),
            ("big", 40, _BIG_BYTES, 0),
            ("long", 5, 10, scale.moves),
        ):
            made = await world.ask(http, "boss", query, i={**_STAY, "name": name})
            id_ = made["data"]["made"]["id"]
            world.fill(id_, count=count, data_bytes=data_bytes, moves=moves)
            world.crowds[name] = id_


async def _post(
    http: aiohttp.ClientSession, world: World, who: str, body: Mapping[str, Any], path: str = ""
) -> str:
    """Post; return the code of the answer, without decoding a large one."""
    headers = {"Authorization": f"Bearer {token(who)}"}
    async with http.post(world.url + path, json=body, headers=headers) as answer:
        said = await answer.read()
    if answer.status not in (200, 400, 429):
        return f"HTTP {answer.status}"
    if b'"errors"' not in said[:200] and b'"errors"' not in said[-5_000:]:
        return "done"
    found = json.loads(said) if len(said) < 1_000_000 else {}
    errors = found.get("errors") if isinstance(found, dict) else None
    return str(errors[0].get("extensions", {}).get("code", "no code")) if errors else "done"


def _told(codes: Counter[str]) -> str:
    must(codes, "nothing was answered")
    must(not _UNWANTED & set(codes), f"crashed: {codes}")
    return ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))


async def _flood(
    world: World, scale: Scale, people: Sequence[str], bodies: Iterator[Mapping[str, Any]], path: str = ""
) -> str:
    """Let each of them post one body after the other, as soon as the one before is answered."""
    codes: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    until = loop.time() + scale.flood_seconds

    async def go_on(who: str) -> None:
        while loop.time() < until:
            codes[await _post(http, world, who, next(bodies), path)] += 1

    connector = aiohttp.TCPConnector(local_addr=(ATTACKER, 0), limit=0)
    async with aiohttp.ClientSession(connector=connector) as http, asyncio.timeout(60):
        await asyncio.gather(*(go_on(who) for who in people))
    return _told(codes)


def _aliases(field: str) -> str:
    return "{ " + " ".join(f"a{number}: {field}" for number in range(_ALIASES)) + " }"


def _posted(
    people: Sequence[str], write: Callable[[World], Callable[[int], str]], *, path: str = ""
) -> Attack:
    """Post a document for each number, again and again."""

    async def attack(world: World, scale: Scale) -> str:
        document = write(world)
        bodies = ({"query": document(number)} for number in itertools.count())
        return await _flood(world, scale, people, bodies, path)

    return attack


def _always(text: str) -> Callable[[World], Callable[[int], str]]:
    return lambda _world: lambda _number: text


def _distinct(text: str) -> Callable[[World], Callable[[int], str]]:
    """Make a document differ each time, so that it has to be parsed and validated anew."""
    return lambda _world: lambda number: text.replace("NUMBER", str(number))


def _padded(number: int, characters: int) -> str:
    """Return a valid document of so many characters that differs from all others."""
    begin = f"query q{number} {{ workflows(first: 1) {{ "
    return begin + "id " * ((characters - len(begin)) // 3) + "} }"


async def poll_of_many_documents(world: World, scale: Scale) -> str:
    """Send polls of 2,000 distinct documents, and of as many as a poll may have."""
    numbers = itertools.count()

    def bodies() -> Iterator[Mapping[str, Any]]:
        for size in itertools.cycle((2_000, 100, 1_000)):
            documents = [f"subscription s{next(numbers)} {{ resourceUpdates {{ id }} }}" for _ in range(size)]
            yield {"operations": [{"query": each} for each in documents], "waitMs": 0}

    return await _flood(world, scale, _STRANGERS[:4], bodies(), "/poll")


def _socket(characters: int) -> Attack:
    """Subscribe with distinct documents over a WebSocket, as fast as it takes them."""

    async def attack(world: World, scale: Scale) -> str:
        loop = asyncio.get_running_loop()
        codes: Counter[str] = Counter()

        async def read(peer: Peer) -> None:
            while "close" not in (message := await peer.read()):
                payload = message.get("payload")
                if message.get("type") == "error" and isinstance(payload, list):
                    codes[str(payload[0].get("extensions", {}).get("code"))] += 1
                elif message.get("type") == "next":
                    codes["done"] += 1

        async with Peer.open(world) as peer:
            await peer.let_in(_STRANGERS[0])
            reading = asyncio.create_task(read(peer))
            sent, until = 0, loop.time() + scale.flood_seconds
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout_at(until):
                    while True:
                        query = _padded(sent, characters)
                        peer.text({"id": str(sent), "type": "subscribe", "payload": {"query": query}})
                        sent += 1
                        await peer.writer.drain()
                        await asyncio.sleep(0)
            await asyncio.sleep(0.2)
            reading.cancel()
            await asyncio.wait((reading,))
            peer.writer.transport.abort()
        return f"{sent} sent; {_told(codes)}"

    return attack


_OVERLAPPING: Final = (
    "query qNUMBER { workflows { " + " ".join(f"states {{ id name a{n}: id }}" for n in range(90)) + " } }"
)
_OVERLAPPING_FRAGMENTS: Final = (
    "query qNUMBER { workflows { "
    + " ".join(f"...f{n}" for n in range(60))
    + " } } "
    + " ".join(
        f"fragment f{n} on WorkflowGQL {{ id name states {{ id name stateType }} }}" for n in range(60)
    )
)
_MISSPELT: Final = (
    "mutation qNUMBER { "
    + " ".join(
        f"createResource(input: {{workflowIx: 1, datta{n}: 2, metdata: 3, initialStat: 4}}) "
        f"{{ idd{n} stat datta }}"
        for n in range(60)
    )
    + " }"
)
_CHAIN: Final = (
    "query qNUMBER { workflows { ...f0 } } "
    + " ".join(f"fragment f{n} on WorkflowGQL {{ id name ...f{n + 1} ...f{n + 2} }}" for n in range(15))
    + " fragment f15 on WorkflowGQL { id } fragment f16 on WorkflowGQL { id }"
)
_INTROSPECTION: Final = (
    "query qNUMBER { __schema { types { name fields { name type { name ofType { name ofType { name } } } "
    "args { name type { name } } } inputFields { name } enumValues { name } possibleTypes { name } } } }"
)
_VARIABLES: Final = "query qNUMBER(" + " ".join(f"$v{n}: [[[[Int]]]]" for n in range(200)) + ") { health }"
_HEAVY: Final = _aliases("resources { id data metadata state stateDefinition { id name } history { data } }")


def _pages(world: World) -> Callable[[int], str]:
    """Ask for pages behind wrong, foreign and ever new places."""
    del world
    return lambda number: _aliases(f'resources(first: 1000, after: "{number}") {{ id }}')


def _histories(world: World) -> Callable[[int], str]:
    given = f'first: 5, workflowId: "{world.crowds["long"]}"'
    field = f"resources({given}) {{ id history {{ timestamp activity data }} }}"
    few = " ".join(f"a{number}: {field}" for number in range(10))
    return lambda number: f"query q{number} {{ {few} }}"


def _large(world: World) -> Callable[[int], str]:
    return lambda number: (
        f'query q{number} {{ resources(first: 12, workflowId: "{world.crowds["big"]}") {{ id data }} }}'
    )


async def walk_of_pages(world: World, scale: Scale) -> str:
    """Walk through all pages of the crowd, the first of every size, several at once."""
    crowd = world.crowds["crowd"]
    query = (
        "query($w: String!, $a: String, $n: Int) { resources(workflowId: $w, first: $n, after: $a) { id } }"
    )
    codes: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    until = loop.time() + scale.flood_seconds

    async def walk(size: int) -> None:
        after = None
        while loop.time() < until:
            answer = await world.ask(http, _READER, query, w=crowd, a=after, n=size)
            if answer.get("errors"):
                codes[str(answer["errors"][0]["extensions"]["code"])] += 1
                continue
            codes["done"] += 1
            found = answer["data"]["resources"]
            after = found[-1]["id"] if len(found) == size else None

    async with world.http() as http:
        await asyncio.gather(*(walk(size) for size in (1, 10, 100, 1_000, 1_000)))
    return _told(codes)


async def answers_that_are_not_read(world: World, scale: Scale) -> str:
    """Ask for large answers, and read nothing of them: what waits for the reader is bounded."""
    weight = world.weigh()
    body = json.dumps({"query": _large(world)(0)}).encode()
    head = (
        f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token(_READER)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    held = [await Peer.connect(world) for _ in range(20)]
    try:
        for reader, writer in held:
            del reader
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
            writer.write(head + body)
        most = weight
        for _ in range(int(max(_HELD_SECONDS, scale.flood_seconds) * 5)):
            await asyncio.sleep(0.2)
            most = max(most, world.weigh())
    finally:
        for _, writer in held:
            writer.transport.abort()
    grown = most - weight
    must(grown < 256 * 2**20, f"memory grew by {grown:,} bytes")
    return f"memory grew by {max(0, grown) // 2**20} MiB meanwhile"


WORK_ATTACKS: Final[Mapping[str, Attack]] = {
    "100 lists of what a stranger may not see": _posted(
        _STRANGERS[:10], _always(_aliases("resources { id }"))
    ),
    "100 lists of what a reader may see": _posted((_READER,) * 10, _always(_aliases("resources { id }"))),
    "60 strangers with heavy requests": _posted(_STRANGERS, _always(_HEAVY)),
    "polls of 2,000 documents": poll_of_many_documents,
    "documents of 1,000 characters": _socket(1_000),
    "documents of 8,000 characters": _socket(8_000),
    "fields that overlap": _posted(_STRANGERS[:8], _distinct(_OVERLAPPING)),
    "fragments that overlap": _posted(_STRANGERS[:8], _distinct(_OVERLAPPING_FRAGMENTS)),
    "names that are nearly right": _posted(_STRANGERS[:8], _distinct(_MISSPELT)),
    "fragments in a chain": _posted(_STRANGERS[:8], _distinct(_CHAIN)),
    "200 variables of nested lists": _posted(_STRANGERS[:8], _distinct(_VARIABLES)),
    "introspection in many documents": _posted(_STRANGERS[:8], _distinct(_INTROSPECTION)),
    "pages behind wrong places": _posted((*_STRANGERS[:4], _READER), _pages),
    "walk of all pages": walk_of_pages,
    "long histories": _posted((_READER,) * 4, _histories),
    "large answers": _posted((_READER,) * 5, _large),
    "large answers that are not read": answers_that_are_not_read,
}
"""All but the last for as long as the floods last."""
