"""A delivery on a connection that is not open, and execution results as a server writes them."""

from __future__ import annotations

import asyncio
from typing import Any, final

import msgspec

from circuit_breaker_sdk.config import BufferLimits
from circuit_breaker_sdk.connections import Connection
from circuit_breaker_sdk.delivery.buffer import BufferBudget
from circuit_breaker_sdk.delivery.decoding import EventDecoder
from circuit_breaker_sdk.delivery.delivery import Delivery
from circuit_breaker_sdk.errors import GapError, StreamFailure
from circuit_breaker_sdk.protocol.messages import Subscribe
from tests.transports.peers import PATIENCE_SECONDS


@final
class Rig:
    """A delivery of numbers, whose ends are counted."""

    def __init__(
        self,
        *,
        resume: bool = False,
        limits: BufferLimits | None = None,
        max_client_bytes: int = 1 << 30,
        root_field: str | None = "tick",
        bridges_gaps: bool = False,
        kind: type[Delivery[int]] = Delivery,
    ) -> None:
        self.bridges_gaps = bridges_gaps
        connection = Connection("ws://localhost/graphql", lambda _connection, _error: None)
        connection.resume_epoch = "e" if resume else None
        self.tasks: set[asyncio.Task[None]] = set()
        self.ends = 0
        self.delivery: Delivery[int] = kind(
            label="ticks",
            decoder=EventDecoder(int, root_field, with_resume=resume),
            limits=limits or BufferLimits(),
            link=connection,
            request=Subscribe("00000001", "subscription { tick }"),
            budget=BufferBudget(max_client_bytes),
            owner=self,
            tasks=self.tasks,
        )
        self.resumed: list[str | None] = []
        self.gaps: list[str] = []

    # The owner of the delivery

    def lost(self, delivery: Delivery[Any], error: StreamFailure, *, after_seconds: float = 0.0) -> None:
        delivery.give_up(error)

    def resume(self, delivery: Delivery[Any], *, after_seconds: float = 0.0) -> None:
        assert not after_seconds
        self.resumed.append(delivery.received)

    def missed(self, delivery: Delivery[Any], error: GapError) -> None:
        self.gaps.append(error.reason)
        if self.bridges_gaps:
            delivery.await_bridge(error)
        else:
            delivery.give_up(error)

    def snapshot_of(self, _delivery: Delivery[Any]) -> None:
        return None

    def uncertain(self, _delivery: Delivery[Any]) -> None:
        self.gaps.append("unknown")

    def ended(self, _delivery: Delivery[Any]) -> None:
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
        await self.delivery.consumer.handlers.aclose()


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
