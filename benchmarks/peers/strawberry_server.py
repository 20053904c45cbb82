"""Strawberry's own ASGI application, with the stream of the benchmarks."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import strawberry
from strawberry.asgi import GraphQL
from strawberry.scalars import JSON

from benchmarks.peers.broadcast import Broadcast

__all__ = ["application"]


@strawberry.type
class Resource:
    id: strawberry.ID
    workflow_id: strawberry.ID
    state: str
    data: JSON
    created_at: str
    updated_at: str


@strawberry.type
class Query:
    hello: str = "hello"


def application(broadcast: Broadcast) -> GraphQL[None, None]:
    """Make it."""

    @strawberry.type
    class Subscription:
        @strawberry.subscription
        async def resource_updates(
            self, workflow_id: strawberry.ID | None = None
        ) -> AsyncGenerator[Resource, None]:
            async for value in broadcast.follow(workflow_id or ""):
                yield Resource(
                    id=strawberry.ID(str(value["id"])),
                    workflow_id=strawberry.ID(str(value["workflowId"])),
                    state=str(value["state"]),
                    data=value["data"],  # type: ignore[arg-type]  # the scalar takes anything
                    created_at=str(value["createdAt"]),
                    updated_at=str(value["updatedAt"]),
                )

    return GraphQL(strawberry.Schema(query=Query, subscription=Subscription))
