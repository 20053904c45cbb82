"""Our server behind a proxy that cuts, with somebody who publishes numbers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import final

from circuit_breaker_sdk import Client, TransportError
from circuit_breaker_sdk.testing import FaultProxy
from tests.integration.workflows import create_review_workflow

__all__ = ["UPDATES", "Publisher", "World", "world_of"]

UPDATES = "subscription($w: String!) { resourceUpdates(workflowId: $w) { data } }"
"""A subscription whose events have the numbers that were published in a workflow."""

_PAUSE_SECONDS = 0.01


@final
class Publisher:
    """Publishes 0, 1, 2, … in one workflow."""

    def __init__(self, client: Client, workflow: str) -> None:
        self.workflow = workflow
        self._client = client
        self._numbers = itertools.count()

    async def publish(self) -> int:
        """Publish the next number."""
        n = next(self._numbers)
        await self._client.workflows.create_resource(workflow_id=self.workflow, data={"n": n})
        return n

    @contextlib.asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Publish all the time; what cannot be published is left out."""
        publishing = asyncio.create_task(self._publish())
        try:
            yield
        finally:
            publishing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await publishing

    async def _publish(self) -> None:
        while True:
            with contextlib.suppress(TransportError):
                await self.publish()
            await asyncio.sleep(_PAUSE_SECONDS)


@final
class World:
    """The stage of the cells with our server.

    :ivar direct: a client of ours that is never cut.
    """

    def __init__(self, proxy: FaultProxy, direct: Client, publisher: Publisher, other: Publisher) -> None:
        self.proxy = proxy
        self.direct = direct
        self.publisher = publisher
        self.other = other

    @property
    def url(self) -> str:
        """The URL through the proxy, without a path."""
        return f"http://127.0.0.1:{self.proxy.port}"

    @property
    def variables(self) -> dict[str, object]:
        """The variables of :data:`UPDATES`."""
        return {"w": self.publisher.workflow}


@contextlib.asynccontextmanager
async def world_of(port: int) -> AsyncIterator[World]:
    """Put a proxy before a server, and make two workflows to publish in."""
    async with (
        FaultProxy("127.0.0.1", port) as proxy,
        Client(f"http://127.0.0.1:{port}/graphql") as direct,
    ):
        first, second = [await create_review_workflow(direct) for _ in range(2)]
        yield World(proxy, direct, Publisher(direct, first.id), Publisher(direct, second.id))
