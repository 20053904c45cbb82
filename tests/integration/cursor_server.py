"""GraphQL servers by others with cursors of their own, one dialect each, honest or not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, cast, final

import strawberry
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from strawberry.asgi import GraphQL
from strawberry.scalars import JSON

__all__ = ["COLUMN", "EXTENSION", "FIELD", "CursorServer", "EventIdServer", "ExtensionServer"]

FIELD: Final = "subscription($after: String) { orders(after: $after) { cursor number } }"
"""A cursor in each event, given back as an argument (ChilliCream Fusion, Sui)."""

COLUMN: Final = "subscription($cursor: JSON!) { ordersStream(cursor: $cursor, batchSize: 10) { id } }"
"""The cursor is a column of the last row (Hasura's streaming subscriptions)."""

EXTENSION: Final = "subscription { orders { number } }"
"""The cursor is in ``extensions`` of each result (a draft for Cosmo Streams)."""


@strawberry.type
class Order:
    cursor: str
    number: int


@strawberry.type
class Row:
    id: int


@strawberry.type
class Query:
    @strawberry.field
    def hello(self) -> str:
        return "hello"


class CursorServer:
    """A server of orders, which are numbered from 0; it can be killed and started again, on the same port.

    :ivar doubles: how many orders before its cursor a subscription gets once more.
    :ivar kept_from: cursors before this order are refused.
    """

    def __init__(self) -> None:
        self.count = 0
        self.doubles = 0
        self.kept_from = -1
        self.port = 0
        self._changed = asyncio.Event()
        self._server: uvicorn.Server | None = None

    def publish(self, count: int) -> None:
        """Add so many orders."""
        self.count += count
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def numbers(self, after: int | None) -> AsyncIterator[int]:
        """Yield the orders behind one, and those that come."""
        number = self.count if after is None else max(0, after + 1 - self.doubles)
        while True:
            while number < self.count:
                yield number
                number += 1
                if not number % 50:
                    await asyncio.sleep(0)
            await self._changed.wait()

    def check(self, after: int | None) -> None:
        """Refuse a cursor that is not kept."""
        if after is not None and after < self.kept_from:
            raise ValueError("The cursor is invalid")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/graphql"

    async def start(self) -> None:
        config = uvicorn.Config(
            self._app(),
            host="127.0.0.1",
            port=self.port,
            log_level="critical",
            lifespan="off",
            ws="websockets-sansio",
            timeout_graceful_shutdown=0,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup()
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Stop at once, whatever is under way."""
        server, self._server = self._server, None
        if server is not None:
            server.force_exit = True
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            await server.shutdown()
            for task in list(server.server_state.tasks):
                task.cancel()
            await asyncio.gather(*server.server_state.tasks, return_exceptions=True)

    async def __aenter__(self) -> CursorServer:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self.kill()

    def _app(self) -> GraphQL[None, None] | Starlette:
        return GraphQL(self._schema())

    def _schema(self) -> strawberry.Schema:
        server = self

        @strawberry.type
        class Subscription:
            @strawberry.subscription
            async def orders(self, after: str | None = None) -> AsyncGenerator[Order | None, None]:
                place = None if after is None else int(after.removeprefix("order-"))
                server.check(place)
                async for number in server.numbers(place):
                    yield Order(cursor=f"order-{number}", number=number)

            @strawberry.subscription
            async def orders_stream(self, cursor: JSON, batch_size: int) -> AsyncGenerator[list[Row], None]:
                place = cast("dict[str, dict[str, int]]", cursor)["initial_value"]["id"]
                server.check(place)
                rows: list[Row] = []
                async for number in server.numbers(place):
                    rows.append(Row(id=number))
                    if len(rows) == batch_size or number + 1 == server.count:
                        yield rows
                        rows = []

        return strawberry.Schema(query=Query, subscription=Subscription)


@final
class ExtensionServer(CursorServer):
    """A server that takes the cursor in ``extensions`` of the request and gives it in those of each result.

    :ivar guarantees: whether it gives cursors at all.
    """

    guarantees = True

    def _app(self) -> Starlette:
        return Starlette(routes=[WebSocketRoute("/graphql", self._serve)])

    async def _serve(self, socket: WebSocket) -> None:
        await socket.accept("graphql-transport-ws")
        streams: list[asyncio.Task[None]] = []
        try:
            while True:
                message = await socket.receive_json()
                if message["type"] == "connection_init":
                    await socket.send_json({"type": "connection_ack"})
                elif message["type"] == "ping":
                    await socket.send_json({"type": "pong"})
                elif message["type"] == "subscribe":
                    stream = self._stream(socket, message["id"], message["payload"].get("extensions") or {})
                    streams.append(asyncio.create_task(stream))
        except WebSocketDisconnect:
            for task in streams:
                task.cancel()

    async def _stream(self, socket: WebSocket, id_: str, extensions: dict[str, str]) -> None:
        async def refuse(code: str) -> None:
            error = {"message": "the guarantee 'cursor' cannot be given", "extensions": {"code": code}}
            await socket.send_json({"id": id_, "type": "error", "payload": [error]})

        if extensions.get("delivery-guarantee") != "cursor" or not self.guarantees:
            await refuse("DELIVERY_GUARANTEE_UNSUPPORTED")
            return
        after = extensions.get("cursor")
        place = None if after is None else int(after.removeprefix("signed-"))
        if place is not None and place < self.kept_from:
            await refuse("DELIVERY_GUARANTEE_UNSATISFIABLE")
            return
        told: dict[str, object] = {"at-least-once-capabilities": "cursor"}
        async for number in self.numbers(place):
            result = {"data": {"orders": {"number": number}}}
            payload = {**result, "extensions": {**told, "cursor": f"signed-{number}"}}
            with contextlib.suppress(RuntimeError):  # it is closed
                await socket.send_json({"id": id_, "type": "next", "payload": payload})
            told = {}


@final
class EventIdServer(CursorServer):
    """A server of server-sent events whose ids are cursors: ``Last-Event-ID`` resumes."""

    def _app(self) -> Starlette:
        return Starlette(routes=[Route("/graphql", self._answer, methods=["POST"])])

    async def _answer(self, request: Request) -> Response:
        last = request.headers.get("Last-Event-ID")
        place = int(last) if last else None
        if place is not None and place < self.kept_from:
            return JSONResponse({"errors": [{"message": "The cursor is invalid"}]}, status_code=400)
        return StreamingResponse(self._events(place), media_type="text/event-stream")

    async def _events(self, place: int | None) -> AsyncIterator[str]:
        yield ":\n\n"
        async for number in self.numbers(place):
            result = json.dumps({"data": {"orders": {"cursor": f"order-{number}", "number": number}}})
            yield f"id: {number}\nevent: next\ndata: {result}\n\n"
