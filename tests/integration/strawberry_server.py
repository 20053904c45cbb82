"""A GraphQL server by others: Strawberry under uvicorn, with a few streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import msgspec
import strawberry
import uvicorn
from strawberry.asgi import GraphQL

__all__ = ["TickEvent", "strawberry_server"]


class TickEvent(msgspec.Struct):
    """The type that tests decode a tick to."""

    number: int
    label: str


@strawberry.type
class Tick:
    number: int
    label: str


@strawberry.type
class Query:
    @strawberry.field
    def hello(self) -> str:
        return "hello"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(self, upto: int) -> AsyncGenerator[Tick, None]:
        for number in range(upto):
            yield Tick(number=number, label=f"tick {number}")
            await asyncio.sleep(0)

    @strawberry.subscription
    async def breaking(self) -> AsyncGenerator[Tick, None]:
        yield Tick(number=0, label="the only one")
        raise ValueError("the source is gone")


@contextlib.asynccontextmanager
async def strawberry_server() -> AsyncIterator[str]:
    app: GraphQL[None, None] = GraphQL(strawberry.Schema(query=Query, subscription=Subscription))
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", lifespan="off", ws="websockets-sansio"
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/graphql"
    finally:
        await server.shutdown()
