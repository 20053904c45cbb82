"""Attacks with what comes in before anybody is asked who he is: requests that never end, or that lie."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Final

from tests.system.attack.attempt import Attack, Scale, must
from tests.system.attack.world import Peer, World, token

__all__ = ["INBOUND"]


_GET: Final = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
_POST: Final = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_CHUNKED: Final = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_UPGRADE: Final = (
    b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_GROWTH_BYTES: Final = 8 * 1024 * 1024
"""So much may the server's memory grow while somebody sends: less than what is sent."""
_SENT_BYTES: Final = 64 * 1024 * 1024


async def _said(reader: asyncio.StreamReader) -> str:
    """Read the first line of the answer, or how the connection ended without one."""
    try:
        async with asyncio.timeout(15):
            line = await reader.readline()
    except TimeoutError:
        return "held open"
    except (OSError, ValueError):
        return "reset"
    return line.decode("latin-1").strip() or "closed"


def _endless(before: bytes, again: bytes, *statuses: str, byte_by_byte: bool = False) -> Attack:
    """Send something again and again until the connection ends: memory must not follow."""

    async def attack(world: World, _scale: Scale) -> str:
        weight, sent = world.weigh(), 0
        reader, writer = await Peer.connect(world)
        answer = asyncio.create_task(_said(reader))
        piece = again if byte_by_byte else again * (1 + 65_536 // len(again))
        most = 100_000 if byte_by_byte else _SENT_BYTES
        try:
            writer.write(before)
            with contextlib.suppress(OSError):
                while sent < most and not answer.done():
                    for part in (piece[n : n + 1] for n in range(len(piece))) if byte_by_byte else (piece,):
                        writer.write(part)
                        await writer.drain()
                        await asyncio.sleep(0)
                    sent += len(piece)
            said = await answer
            grown = world.weigh() - weight
        finally:
            answer.cancel()
            writer.transport.abort()
        # Who still sends may read a reset instead of the answer.
        ended = said in ("reset", "closed") or any(f" {status} " in said for status in statuses)
        must(ended, f"{said} after {sent:,} bytes")
        must(sent < most, f"{sent:,} bytes were taken")
        must(grown < _GROWTH_BYTES, f"memory grew by {grown:,} bytes")
        return f"{said}; memory grew by {max(0, grown) // 1024} KiB"

    return attack


def _once(request: bytes, *statuses: str) -> Attack:
    """Send one request."""

    async def attack(world: World, _scale: Scale) -> str:
        reader, writer = await Peer.connect(world)
        try:
            writer.write(request)
            said = await _said(reader)
        finally:
            writer.transport.abort()
        must(any(f" {status} " in said for status in statuses), said)
        return said

    return attack


async def trailing_authorization(world: World, _scale: Scale) -> str:
    """Send the token, the type and a key as trailers: they count for nothing."""
    body = json.dumps({"query": "{ health }"}).encode()
    trailers = f"Authorization: Bearer {token('boss')}\r\nContent-Type: application/json\r\n\r\n".encode()
    head = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    return await _once(head + b"%x\r\n%b\r\n0\r\n" % (len(body), body) + trailers, "401")(world, _scale)


async def many_connections_of_headers(world: World, _scale: Scale) -> str:
    """Hold a head just under its bounds on many connections: what they take is bounded in all."""
    weight = world.weigh()
    held = [await Peer.connect(world) for _ in range(150)]
    try:
        for _, writer in held:
            writer.write(_GET + (b"X: " + b"v" * 8_000 + b"\r\n") * 3)
            with contextlib.suppress(OSError):
                await writer.drain()
        grown = world.weigh() - weight
        said = await asyncio.gather(*(_said(reader) for reader, _ in held))
    finally:
        for _, writer in held:
            writer.transport.abort()
    must("held open" not in said, "held open")
    must(grown < 32 * 1024 * 1024, f"memory grew by {grown:,} bytes")
    return f"{said[0]}; memory grew by {max(0, grown) // 1024} KiB"


async def long_integer(world: World, _scale: Scale) -> str:
    async with world.http() as http:
        answer = await world.ask(http, "eve", "query($a: Int = " + "9" * 5_000 + ") { health }")
    codes = {error["extensions"]["code"] for error in answer["errors"]}
    must("INTERNAL" not in codes, str(answer)[:300])
    return ", ".join(sorted(codes))


INBOUND: Final[Mapping[str, Attack]] = {
    "endless request line": _endless(b"GET /", b"x", "414"),
    "endless headers": _endless(_GET, b"X-Header: value\r\n", "431"),
    "endless headers, byte by byte": _endless(_GET, b"X-Header: value\r\n", "431", byte_by_byte=True),
    "one endless header": _endless(_GET + b"X: ", b"v", "431"),
    "one endless header, byte by byte": _endless(_GET + b"X: ", b"v", "431", byte_by_byte=True),
    "endless name of a header": _endless(_GET, b"x", "431"),
    "endless folded lines": _endless(_GET + b"X: v", b"\r\n v", "431", "400"),
    "endless blanks in a header": _endless(_GET + b"X:", b" ", "431"),
    "endless headers of an upgrade": _endless(_UPGRADE, b"X-Header: value\r\n", "431"),
    "endless trailers": _endless(_CHUNKED + b"0\r\n", b"X-Trailer: value\r\n", "431", "401"),
    "one endless trailer": _endless(_CHUNKED + b"0\r\nX: ", b"v", "431", "401"),
    "endless chunk extension": _endless(_CHUNKED + b"1;x=", b"x", "413", "401"),
    "extensions of many chunks": _endless(_CHUNKED, b"1;x=" + b"x" * 900 + b"\r\nx\r\n", "413", "401"),
    "endless body that is not read": _endless(
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n", b"x", "200", "413"
    ),
    "requests sent ahead": _endless(
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 30_000,
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "200",
    ),
    "broken request behind a good one": _endless(
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + _GET, b"X-Header: value\r\n", "200", "431"
    ),
    "101 headers": _once(_GET + b"X: v\r\n" * 100 + b"\r\n", "431"),
    "no host": _once(b"GET /health HTTP/1.1\r\n\r\n", "400"),
    "two hosts": _once(b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
    "length and chunks at once": _once(
        _POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"
    ),
    "token in a trailer": trailing_authorization,
    "heads held under the bounds": many_connections_of_headers,
    "integer of 5,000 digits": long_integer,
}
"""Each is refused in bytes, not in time."""
