"""Attacks on event streams: those of others, those that are not read, and reservations without end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from tests.system.attack.attempt import Attack, Scale, must
from tests.system.attack.world import Peer, World, token

__all__ = ["STREAM_ATTACKS"]

_TOKEN: Final = "X-GraphQL-Event-Stream-Token"
_EVERYTHING: Final = "subscription { resourceUpdates { id } }"


def _as(who: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(who)}", **more}


async def streams_without_credentials(world: World, _scale: Scale) -> str:
    """Ask for streams in every way, without a token, and with one in the URL."""
    url = world.url + "/stream"
    body = {"query": _EVERYTHING}
    requests: list[tuple[str, str, Mapping[str, Any]]] = [
        ("POST", url, {"json": body}),
        ("GET", url, {"params": {"query": _EVERYTHING}}),
        ("GET", url, {"params": {"query": _EVERYTHING, "access_token": token("eve")}}),
        ("PUT", url, {}),
        ("DELETE", url + "?operationId=1", {}),
        ("POST", url + "?token=guessed", {"json": body}),
        ("PUT", world.url, {}),
    ]
    async with world.http() as http:
        for method, target, more in requests:
            async with http.request(method, target, **more) as answer:
                must(answer.status == 401, f"{method} {target}: {answer.status}")
        async with http.get(url, params={"token": "guessed"}) as answer:
            must(answer.status == 404, f"a guessed token: {answer.status}")
    return "401, and 404 for a guessed token"


async def stream_of_another(world: World, _scale: Scale) -> str:
    """Use the stream that another principal has reserved, by its token."""
    url = world.url + "/stream"
    async with world.http("127.0.0.1") as theirs, world.http() as http:
        async with theirs.put(url, headers=_as("boss")) as answer:
            ticket = await answer.text()
        eve = _as("eve", **{_TOKEN: ticket})
        body = {"query": _EVERYTHING, "extensions": {"operationId": "1"}}
        async with http.get(url, headers=eve) as answer:
            must(answer.status == 404, f"opened: {answer.status}")
        async with http.post(url, json=body, headers=eve) as answer:
            must(answer.status == 404, f"begun: {answer.status}")
        async with http.delete(url + "?operationId=1", headers=eve) as answer:
            must(answer.status == 404, f"stopped: {answer.status}")
    return "404"


async def reservations_without_end(world: World, scale: Scale) -> str:
    """Reserve streams and never open one."""
    statuses: Counter[int] = Counter()
    async with world.http() as http:
        for _ in range(max(300, scale.connections)):
            async with http.put(world.url + "/stream", headers=_as("eve")) as answer:
                statuses[answer.status] += 1
    must(set(statuses) <= {201, 429}, f"{statuses}")
    must(statuses[201] <= 100, f"{statuses[201]} were reserved")
    must(statuses[429], "none was refused")
    return f"{statuses[201]} reserved, {statuses[429]} refused with 429"


async def streams_that_are_not_read(world: World, scale: Scale) -> str:
    """Open as many streams as one may have, from the beginning, and read none of them."""
    body = json.dumps(
        {"query": "subscription { resourceUpdates { id data } }", "extensions": {"resume": {"last": 1000}}}
    ).encode()
    head = (
        f"POST /graphql HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        f"Content-Type: application/json\r\nAuthorization: Bearer {token('eve')}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    before = world.weigh()
    held = []
    for _ in range(60):
        with contextlib.suppress(OSError):
            reader, writer = await Peer.connect(world)
            writer.write(head + body)
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket
            held.append((reader, writer))
    await asyncio.sleep(scale.flood_seconds)
    grown = world.weigh() - before
    for _, writer in held:
        writer.transport.abort()
    must(grown < 64 * 1024 * 1024, f"the server has grown by {grown // 1024:,} KiB")
    return f"{len(held)} streams, {max(0, grown) // 1024:,} KiB more"


async def bytes_behind_a_stream(world: World, _scale: Scale) -> str:
    """Send without end behind the request of an open stream."""
    body = json.dumps({"query": _EVERYTHING}).encode()
    reader, writer = await Peer.connect(world)
    writer.write(
        f"POST /graphql HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        f"Content-Type: application/json\r\nAuthorization: Bearer {token('eve')}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    must(b" 200 " in await reader.readline(), "not let in at first")
    sent = 0
    try:
        async with asyncio.timeout(10):
            while True:
                writer.write(b"x" * 16_384)
                sent += 16_384
                await writer.drain()
    except OSError:
        pass
    must(sent < 16 * 1024 * 1024, f"{sent} bytes were taken")
    return f"cut after {sent} bytes"


async def operation_ids_of_events(world: World, _scale: Scale) -> str:
    """Name an operation so that its id would end an event, and begin another."""
    url = world.url + "/stream"
    async with world.http() as http:
        async with http.put(url, headers=_as("eve")) as answer:
            ticket = await answer.text()
        async with http.get(url, headers=_as("eve", **{_TOKEN: ticket})) as stream:
            must(stream.status == 200, f"not let in at first: {stream.status}")
            for name in ("1\n\nevent: next\ndata: {}", "1\r", "1\x00", "", "x" * 500, {"a": 1}):
                body = {"query": _EVERYTHING, "extensions": {"operationId": name}}
                async with http.post(url, json=body, headers=_as("eve", **{_TOKEN: ticket})) as answer:
                    must(answer.status == 400, f"{name!r}: {answer.status}")
    return "400"


async def streams_from_another_origin(world: World, _scale: Scale) -> str:
    """Open streams as a page of another origin would."""
    origin = {"Origin": "https://evil.example"}
    url = world.url + "/stream"
    async with world.http() as http:
        for method, more in (
            ("GET", {"params": {"query": _EVERYTHING}}),
            ("PUT", {}),
            ("POST", {"json": {}}),
        ):
            asked: Mapping[str, Any] = more
            async with http.request(method, url, headers=_as("eve", **origin), **asked) as answer:
                must(answer.status == 403, f"{method}: {answer.status}")
    return "403"


STREAM_ATTACKS: Final[Mapping[str, Attack]] = {
    "event streams without credentials": streams_without_credentials,
    "event stream of another": stream_of_another,
    "event streams that are not read": streams_that_are_not_read,
    "bytes behind an event stream": bytes_behind_a_stream,
    "operation ids that are events": operation_ids_of_events,
    "event streams from another origin": streams_from_another_origin,
    # Last: for half a minute eve can reserve no other.
    "reservations without end": reservations_without_end,
}
