"""What a long poll asks for, and where."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from circuit_breaker_sdk.connections import PollConnection
from tests.connections.raw_server import RecordingRoute, settings, subscribe


@asynccontextmanager
async def polled_server(asked: list[object]) -> AsyncIterator[int]:
    """Answer each poll with one event and the cursor of its number; note behind what was asked."""

    async def answer(request: web.BaseRequest) -> web.Response:
        (operation,) = json.loads(await request.read())["operations"]
        asked.append(operation.get("extensions"))
        cursor = f"c{len(asked)}"
        return web.json_response({"results": [{"events": [{"data": {"n": len(asked)}}], "cursor": cursor}]})

    server = web.Server(answer)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await server.shutdown()


async def test_each_poll_asks_behind_what_the_last_one_gave() -> None:
    asked: list[object] = []
    async with polled_server(asked) as port:
        connection, route = PollConnection(settings(port)), RecordingRoute()
        connection.subscribe(subscribe("1"), route)
        await route.until(7)  # where it starts, then an event and its cursor, three times
        await connection.aclose()
    assert asked[:3] == [None, {"resume": {"after": "c1"}}, {"resume": {"after": "c2"}}]
