"""The client of gql: ``gql_client <subprotocol> <URL>``, told what to do as the clients on Node are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import ClientSession, TraceConfig, TraceRequestStartParams
from gql import Client, GraphQLRequest
from gql.client import ReconnectingAsyncClientSession
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.exceptions import TransportConnectionFailed, TransportError
from gql.transport.websockets import WebsocketsTransport
from graphql import GraphQLError

_PAUSE_SECONDS: Final = 0.05


def _say(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _again(connect: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Connect again after a short pause, for as long as it takes; by default gql waits ever longer."""

    async def connected() -> None:
        while True:
            try:
                return await connect()
            except (OSError, TransportError):
                await asyncio.sleep(_PAUSE_SECONDS)

    return connected


class _Transport(WebsocketsTransport):
    """A transport that tells each connection that it opens."""

    async def connect(self) -> None:
        await super().connect()
        _say({"name": "", "opened": True})


async def _say_method(_session: ClientSession, _context: object, request: TraceRequestStartParams) -> None:
    _say({"name": "", "method": request.method})


class _Clients:
    """A client of WebSockets, connected at its first subscription, and one of HTTP."""

    def __init__(self, subprotocol: str, url: str) -> None:
        tracing = TraceConfig()
        tracing.on_request_start.append(_say_method)
        transport = _Transport(url.replace("http", "ws", 1), subprotocols=[subprotocol])
        self._sockets = Client(transport=transport)
        self._http = Client(transport=AIOHTTPTransport(url, client_session_args={"trace_configs": [tracing]}))
        self._connected: asyncio.Task[ReconnectingAsyncClientSession] | None = None

    async def _session(self) -> ReconnectingAsyncClientSession:
        if self._connected is None:
            self._connected = asyncio.create_task(
                self._sockets.connect_async(reconnecting=True, retry_connect=_again)  # type: ignore[no-untyped-call]
            )
        return await asyncio.shield(self._connected)

    async def execute(self, name: str, query: str, variables: dict[str, Any]) -> None:
        async with self._http as session:
            data = await session.execute(GraphQLRequest(query, variable_values=variables))
        _say({"name": name, "next": {"data": data}})

    async def subscribe(self, name: str, query: str, variables: dict[str, Any]) -> None:
        session = await self._session()
        request = GraphQLRequest(query, variable_values=variables)
        while True:
            try:
                async for data in session.subscribe(request):
                    _say({"name": name, "next": {"data": data}})
            except TransportConnectionFailed:
                # Its session connects again, and leaves it to the program to subscribe again.
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return


async def main(subprotocol: str, url: str) -> None:
    """Follow the orders to their end."""
    clients = _Clients(subprotocol, url)
    running: dict[str, asyncio.Task[None]] = {}

    async def run(name: str, order: dict[str, Any]) -> None:
        begin = clients.execute if order.get("execute") else clients.subscribe
        try:
            await begin(name, order["query"], order["variables"])
        except (GraphQLError, TransportError) as error:
            _say({"name": name, "end": str(error)})
        else:
            _say({"name": name, "end": "complete"})

    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        name = order.pop("name")
        if "query" in order:
            running[name] = asyncio.create_task(run(name, order))
        else:
            running[name].cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running[name]
            _say({"name": name, "end": "complete"})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
