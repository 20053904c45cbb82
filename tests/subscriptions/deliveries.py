"""A delivery on a connection that is not open, and execution results as a server writes them."""

from __future__ import annotations

import asyncio
from typing import final

import msgspec

from circuit_breaker_sdk.config import BufferLimits
from circuit_breaker_sdk.connections import Connection
from circuit_breaker_sdk.protocol.messages import Subscribe
from circuit_breaker_sdk.subscriptions.decoding import EventDecoder
from circuit_breaker_sdk.subscriptions.delivery import Delivery
from tests.transports.peers import PATIENCE_SECONDS


@final
class Rig:
    """A delivery of numbers, whose ends are counted."""

    def __init__(
        self, *, resume: bool = False, limits: BufferLimits | None = None, root_field: str | None = "tick"
    ) -> None:
        connection = Connection("ws://localhost/graphql", lambda _connection, _error: None)
        connection.resume_epoch = "e" if resume else None
        self.tasks: set[asyncio.Task[None]] = set()
        self.ends = 0
        self.delivery: Delivery[int] = Delivery(
            label="ticks",
            decoder=EventDecoder(int, root_field, with_resume=resume),
            limits=limits or BufferLimits(),
            connection=connection,
            request=Subscribe("00000001", "subscription { tick }"),
            on_lost=lambda _delivery, _error: False,
            on_end=self._ended,
            tasks=self.tasks,
        )

    def _ended(self, _delivery: Delivery[int]) -> None:
        self.ends += 1

    def receive(self, *values: int) -> None:
        """Deliver values as a server without resume writes them."""
        for value in values:
            assert self.delivery.deliver(result(value))

    def receive_chain(self, *cursors: str, prev: str | None = None, value: int = 0) -> None:
        """Deliver one event for each cursor, each after the one before; the first is after ``prev``."""
        for cursor in cursors:
            assert self.delivery.deliver(result(value, cursor=cursor, prev=prev))
            prev = cursor

    async def settled(self) -> None:
        """Wait until no handler has to be awaited any more."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.tasks:
                await asyncio.wait(tuple(self.tasks))

    async def aclose(self) -> None:
        self.delivery.unsubscribe()
        await self.delivery.handlers.aclose()


def result(
    value: object = None,
    *,
    cursor: str | None = None,
    prev: str | None = None,
    errors: list[object] | None = None,
    field: str = "tick",
) -> bytes:
    response: dict[str, object] = {"data": {field: value}}
    if errors is not None:
        response["errors"] = errors
    if cursor is not None:
        resume = {"cursor": cursor} if prev is None else {"cursor": cursor, "prev": prev}
        response["extensions"] = {"resume": resume}
    return msgspec.json.encode(response)
