"""Ariadne's own ASGI application, with the stream of the benchmarks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ariadne import SubscriptionType, make_executable_schema
from ariadne.asgi import GraphQL
from ariadne.asgi.handlers import GraphQLTransportWSHandler

from benchmarks.peers.broadcast import Broadcast

__all__ = ["application"]

_SCHEMA = """
    scalar JSON
    type Query { hello: String }
    type Resource {
        id: ID! workflowId: ID! state: String! data: JSON createdAt: String! updatedAt: String!
    }
    type Subscription { resourceUpdates(workflowId: ID): Resource! }
"""


def application(broadcast: Broadcast) -> GraphQL:
    """Make it."""
    subscription = SubscriptionType()

    @subscription.source("resourceUpdates")
    async def source(
        _root: object,
        _info: object,
        workflowId: str | None = None,  # noqa: N803 (the schema's)
    ) -> AsyncGenerator[Any, None]:
        async for value in broadcast.follow(workflowId or ""):
            yield value

    @subscription.field("resourceUpdates")
    def resolve(value: object, _info: object, **_arguments: object) -> object:
        return value

    return GraphQL(
        make_executable_schema(_SCHEMA, subscription), websocket_handler=GraphQLTransportWSHandler()
    )
