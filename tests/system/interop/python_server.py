"""Servers by others in Python: ``python_server <which> <port, 0 for any>``; the schema is that of Node's."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, NamedTuple

import strawberry
import uvicorn
from ariadne import ObjectType, QueryType, SubscriptionType, make_executable_schema
from ariadne.asgi import GraphQL as AriadneApp
from ariadne.asgi.handlers import GraphQLTransportWSHandler, GraphQLWSHandler
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from strawberry.asgi import GraphQL as StrawberryApp
from strawberry.subscriptions import GRAPHQL_SSE_PROTOCOL, GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_WS_PROTOCOL

_CANNOT_BE_TOLD: Final = "this one cannot be told"
_SDL: Final = """
    type Query { hello: String }
    type Tick { number: Int! label: String! }
    type Subscription { ticks(upto: Int!, everyMs: Int): Tick! faulty: Tick }
"""
_readers = 0
_inits: Final[list[object]] = []


async def _numbers(upto: int, every_ms: int | None) -> AsyncGenerator[int, None]:
    global _readers  # noqa: PLW0603 (one server in a process)
    _readers += 1
    try:
        for number in range(upto):
            yield number
            await asyncio.sleep((every_ms or 0) / 1000)
    finally:
        _readers -= 1


@strawberry.type
class Tick:
    label: str
    value: strawberry.Private[int]
    is_faulty: strawberry.Private[bool] = False

    @strawberry.field
    def number(self) -> int:
        if self.is_faulty and self.value == 1:
            raise ValueError(_CANNOT_BE_TOLD)
        return self.value


@strawberry.type
class Query:
    @strawberry.field
    def hello(self) -> str:
        return "hello"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(self, upto: int, every_ms: int | None = None) -> AsyncGenerator[Tick, None]:
        async for number in _numbers(upto, every_ms):
            yield Tick(label=f"tick {number}", value=number)

    @strawberry.subscription
    async def faulty(self) -> AsyncGenerator[Tick | None, None]:
        async for number in _numbers(3, 20):
            yield Tick(label=f"tick {number}", value=number, is_faulty=True)


class _Strawberry(StrawberryApp[Any, None]):
    async def on_ws_connect(self, context: Any) -> Any:
        _inits.append(context["connection_params"])
        return await super().on_ws_connect(context)


def _strawberry(protocol: str) -> _Strawberry:
    schema = strawberry.Schema(query=Query, subscription=Subscription)
    return _Strawberry(schema, subscription_protocols=[protocol], keep_alive=True, keep_alive_interval=0.1)


def _note_init(_socket: object, payload: object) -> None:
    _inits.append(payload)


class Value(NamedTuple):
    number: int
    label: str


def _ariadne(handler: GraphQLTransportWSHandler | GraphQLWSHandler) -> AriadneApp:
    query, subscription, tick = QueryType(), SubscriptionType(), ObjectType("Tick")
    query.set_field("hello", lambda _root, _info: "hello")

    @subscription.source("ticks")
    async def ticks(
        _root: object,
        _info: object,
        upto: int,
        everyMs: int | None = None,  # noqa: N803 (the schema's)
    ) -> AsyncGenerator[int, None]:
        async for number in _numbers(upto, everyMs):
            yield number

    @subscription.source("faulty")
    async def faulty(_root: object, _info: object) -> AsyncGenerator[int, None]:
        async for number in _numbers(3, 20):
            yield number

    @subscription.field("ticks")
    def value(number: int, _info: object, **_arguments: object) -> Value:
        return Value(number, f"tick {number}")

    @subscription.field("faulty")
    def faulty_value(number: int, _info: object) -> Value:
        if number == 1:
            raise ValueError(_CANNOT_BE_TOLD)
        return Value(number, f"tick {number}")

    return AriadneApp(make_executable_schema(_SDL, query, subscription, tick), websocket_handler=handler)


_APPS: Final[dict[str, Callable[[], Any]]] = {
    "Strawberry": lambda: _strawberry(GRAPHQL_TRANSPORT_WS_PROTOCOL),
    "Strawberry, legacy protocol": lambda: _strawberry(GRAPHQL_WS_PROTOCOL),
    "Strawberry, server-sent events": lambda: _strawberry(GRAPHQL_SSE_PROTOCOL),
    "Ariadne": lambda: _ariadne(GraphQLTransportWSHandler(on_connect=_note_init)),
    "Ariadne, legacy protocol": lambda: _ariadne(GraphQLWSHandler(keepalive=0.1, on_connect=_note_init)),
}


async def _asked(_request: Request) -> Response:
    return Response(json.dumps({"methods": {}, "readers": _readers, "inits": _inits}))


async def main(which: str, port: int) -> None:
    """Serve until killed; say the port as soon as it listens."""
    logging.disable(logging.ERROR)  # they log a traceback for each connection that is cut
    app = Starlette(routes=[Route("/asked", _asked), Mount("/", _APPS[which]())])
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="critical", lifespan="off", ws="websockets-sansio"
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    sys.stdout.write(f"ready: {server.servers[0].sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.main_loop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
