"""Clients that resume at servers with cursors of their own, through a proxy that cuts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from circuit_breaker_sdk import CircuitBreakerPolicy, Client, ErrorRecoveryPolicy, Gap, ResumeBy, Subscription
from circuit_breaker_sdk.streams import ResumeByExtension
from circuit_breaker_sdk.testing import FaultProxy
from tests.integration.cursor_server import EXTENSION, FIELD, CursorServer
from tests.waiting import until

__all__ = [
    "BY_COLUMN",
    "BY_FIELD",
    "Numbered",
    "Order",
    "Row",
    "World",
    "forget",
    "go_through",
    "numbered",
    "orders",
    "streamed",
    "world",
]


class Order(msgspec.Struct):
    """An event with its cursor."""

    cursor: str
    number: int


class Numbered(msgspec.Struct):
    """An event without one."""

    number: int


class Row(msgspec.Struct):
    """A row whose id is the cursor."""

    id: int


def cursor_of(rows: list[Row]) -> object:
    """Return the variable that resumes behind rows."""
    return {"initial_value": {"id": rows[-1].id}} if rows else None


BY_FIELD: ResumeBy[Order] = ResumeBy(argument="after", cursor=lambda order: order.cursor)
BY_COLUMN = ResumeBy(argument="cursor", cursor=cursor_of)


class World(NamedTuple):
    """A server, a proxy before it, a client behind that."""

    server: CursorServer
    proxy: FaultProxy
    client: Client


@asynccontextmanager
async def world(
    kind: type[CursorServer] = CursorServer, *, transports: Sequence[str] = ("websocket", "sse", "poll")
) -> AsyncIterator[World]:
    """Run a server behind a proxy, and a client that is patient."""
    async with (
        kind() as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(
            f"ws://127.0.0.1:{proxy.port}/graphql",
            recovery=ErrorRecoveryPolicy(base_delay=0.01, max_delay=0.02),
            circuit_breaker=CircuitBreakerPolicy(failure_threshold=1000),
            transports=transports,
        ) as client,
    ):
        yield World(server, proxy, client)


async def orders(w: World) -> Subscription[Order]:
    """Subscribe by field and argument."""
    subscription = await w.client.subscribe(FIELD, type=Order, resume=BY_FIELD)
    while not subscription.stats().received:
        w.server.publish(1)
        await asyncio.sleep(0.02)  # nothing says when such a server is ready
    return subscription


async def go_through(w: World, seen: list[int], *, events: int, cuts: int, kills: int) -> None:
    """Publish up to so many events, and cut and kill, again once all that was published has come."""
    faults = ["cut"] * cuts + ["kill"] * kills
    for number, fault in enumerate(faults):
        w.server.publish(max(1, events * (number + 1) // len(faults) - w.server.count))
        if fault == "cut":
            w.proxy.cut(after_bytes=None if number % 2 else 100 + number % 700)
        else:
            await w.server.kill()
            await w.server.start()
        await until(lambda: seen and seen[-1] == w.server.count - 1)


async def numbered(w: World, seen: list[int]) -> Subscription[Numbered]:
    """Subscribe by extensions; ``seen`` gets the numbers."""
    builder = w.client.subscribe(EXTENSION, type=Numbered, resume=ResumeByExtension())
    subscription = await builder.subscribe()
    subscription.on_data(lambda order: seen.append(order.number))
    await publish_until(w, lambda: seen)
    return subscription


async def forget(w: World, seen: list[int], gaps: list[Gap]) -> None:
    """Let the server keep no cursor any more, and cut: the handler is told, and events come again."""
    await publish_until(w, lambda: seen)
    w.server.kept_from = 1_000_000
    w.proxy.cut()
    await until(lambda: gaps)
    assert gaps[0].reason == "cursor"
    count = len(seen)
    await publish_until(w, lambda: len(seen) > count)


async def publish_until(w: World, condition: Callable[[], object]) -> None:
    """Publish an event after the other until this holds: nothing says when such a server is ready."""
    while not condition():
        w.server.publish(1)
        await asyncio.sleep(0.02)


async def streamed(w: World, seen: list[int]) -> Subscription[Numbered]:
    """Subscribe over server-sent events, whose ids are the cursors."""
    subscription = await w.client.subscribe(EXTENSION, type=Numbered)
    subscription.on_data(lambda order: seen.append(order.number))
    await publish_until(w, lambda: seen)
    return subscription
