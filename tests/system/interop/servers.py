"""Our client with servers by others: over WebSockets, modern and legacy, and over server-sent events."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, final

import aiohttp
import msgspec

from circuit_breaker_sdk import (
    CircuitBreakerPolicy,
    Client,
    ErrorRecoveryPolicy,
    Subscription,
    SubscriptionFailed,
    SubscriptionState,
)
from circuit_breaker_sdk.config import TransportKind
from circuit_breaker_sdk.testing import FaultProxy
from tests.integration.strawberry_server import TickEvent
from tests.system.interop.cells import PATIENCE_SECONDS, NotOk, NotPossible, Table, require, until
from tests.system.interop.node import node_server, python_server

__all__ = ["run_servers"]

_SINGLE, _DISTINCT, _YOGA = (
    "graphql-sse, single connection",
    "graphql-sse, distinct connections",
    "graphql-yoga",
)
_PYTHON = ("Strawberry", "Ariadne", "Strawberry, legacy protocol", "Ariadne, legacy protocol")
_STRAWBERRY_SSE = "Strawberry, server-sent events"
_NODE = ("graphql-ws", "graphql-yoga, WebSocket")
_CLOSING = ("graphql-ws", "Strawberry")
"""They close the connection over a document that cannot be parsed: the neighbour begins anew."""
_TICKS = "subscription($upto: Int!, $every: Int) { ticks(upto: $upto, everyMs: $every) { number label } }"
_ENDLESS: dict[str, object] = {"upto": 1_000_000, "every": 10}
_CUTS = 5
_IDLE_MS = 1500


class _Asked(msgspec.Struct):
    methods: dict[str, int]
    readers: int


@final
class _Server:
    """A server of others, which can be killed and started again on its port."""

    def __init__(self, which: str) -> None:
        self.which = which
        self.port = 0
        self._life = AsyncExitStack()

    async def start(self) -> None:
        port = str(self.port)
        if self.which in (*_PYTHON, _STRAWBERRY_SSE):
            server = python_server("tests.system.interop.python_server", self.which, port)
        else:
            script = "websocket_server.mjs" if self.which in _NODE else "sse_server.mjs"
            server = node_server(script, self.which, port)
        self.port = await self._life.enter_async_context(server)

    async def kill(self) -> None:
        await self._life.aclose()

    async def asked(self) -> _Asked:
        """Return which requests it had in this life, and how many streams of ticks it has."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{self.port}/asked") as answer,
        ):
            return msgspec.json.decode(await answer.read(), type=_Asked)


@final
class _Stage:
    """A server of others behind a proxy; ``settings`` are those of our client."""

    def __init__(
        self, server: _Server, proxy: FaultProxy, transport: TransportKind, settings: dict[str, Any]
    ) -> None:
        self.transport = transport
        self.server = server
        self.proxy = proxy
        self._settings = settings

    def client(self) -> Client:
        return Client(
            f"http://127.0.0.1:{self.proxy.port}/graphql",
            recovery=ErrorRecoveryPolicy(base_delay=0.01, max_delay=0.1),
            circuit_breaker=CircuitBreakerPolicy(failure_threshold=1_000_000, open_seconds=0.5),
            **self._settings,
        )

    @asynccontextmanager
    async def live(self) -> AsyncIterator[tuple[Client, Subscription[TickEvent]]]:
        """Make a client with a subscription that has had an event and gets more all the time."""
        async with self.client() as client:
            ticks = await client.subscribe(_TICKS, _ENDLESS, type=TickEvent)
            await _next(ticks)
            yield client, ticks


async def _next(ticks: Subscription[TickEvent]) -> int:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return (await anext(ticks)).number


async def _events(stage: _Stage) -> None:
    async with stage.client() as client:
        both = [
            await client.subscribe(_TICKS, {**_ENDLESS, "every": every}, type=TickEvent) for every in (1, 2)
        ]
        for ticks in both:
            require([await _next(ticks) for _ in range(50)] == list(range(50)), "not in order")
            require(ticks.transport is stage.transport, f"they came by {ticks.transport}")
    methods = (await stage.server.asked()).methods
    is_shared = methods.get("PUT") == 1 and methods.get("GET") == 1
    require(is_shared or stage.server.which != _SINGLE, f"it has not shared a stream: {methods}")


async def _unknown_field(stage: _Stage) -> None:
    await _refused(stage, "subscription { ticks(upto: 1) { nothing } }", "nothing")


async def _missing_variable(stage: _Stage) -> None:
    await _refused(stage, _TICKS, "$upto")


async def _syntax_error(stage: _Stage) -> None:
    await _refused(stage, "subscription {", "Syntax Error")


async def _refused(stage: _Stage, document: str, text: str) -> None:
    """Subscribe to what is refused, beside a subscription that is live; then to something else."""
    async with stage.live() as (client, ticks):
        numbers = [await _next(ticks)]
        try:
            bad = await client.subscribe(document, type=TickEvent)
            n = await _next(bad)
        except SubscriptionFailed as error:
            require(text in str(error), f"it fails with {error}")
        else:
            raise NotOk(f"an event came: {n}")
        numbers += [await _next(ticks) for _ in range(10)]
        anew = numbers.index(0) if stage.server.which in _CLOSING and 0 in numbers else len(numbers)
        expected = [*range(1, anew + 1), *range(len(numbers) - anew)]
        require(numbers == expected, f"the neighbour had {numbers}")
        another = await client.subscribe(_TICKS, _ENDLESS, type=TickEvent)
        require(await _next(another) == 0, "the next subscription does not begin")


async def _middle_error(stage: _Stage) -> None:
    async with stage.client() as client:
        ticks = await client.subscribe("subscription { faulty { number label } }", type=TickEvent)
        errors: list[str] = []
        ticks.on_error(lambda error: errors.append(str(error)))
        require([await _next(ticks), await _next(ticks)] == [0, 2], "not the events around it")
        require(len(errors) == 1 and "this one cannot be told" in errors[0], f"errors: {errors}")
        await until(lambda: ticks.state is SubscriptionState.COMPLETED, "it does not complete")


async def _completion(stage: _Stage) -> None:
    async with stage.client() as client:
        ticks = await client.subscribe(_TICKS, {"upto": 5}, type=TickEvent)
        async with asyncio.timeout(PATIENCE_SECONDS):
            numbers = [tick.number async for tick in ticks]
        require(numbers == list(range(5)), f"told was {numbers}")
        require(ticks.state is SubscriptionState.COMPLETED, f"it is {ticks.state}")


async def _unsubscribe(stage: _Stage) -> None:
    if stage.server.which == "Ariadne, legacy protocol":
        raise NotPossible("it closes a stream that waits for its next value, fails over that, and hangs up")
    async with stage.live() as (client, ticks):
        second = await client.subscribe(_TICKS, _ENDLESS, type=TickEvent)
        await _next(second)
        require((await stage.server.asked()).readers == 2, "the server has not two streams")
        await second.unsubscribe()
        await _until_readers(stage, 1)
        numbers = [await _next(ticks) for _ in range(10)]
        require(numbers == list(range(1, 11)), f"the neighbour had {numbers}")
        await ticks.unsubscribe()
        await _until_readers(stage, 0)


async def _until_readers(stage: _Stage, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await stage.server.asked()).readers != count:
            await asyncio.sleep(0.02)


async def _until_anew(ticks: Subscription[TickEvent], id_: str) -> None:
    """Wait for the first event of a subscription that was made again: without cursors, that of all."""
    await until(lambda: ticks.id != id_ and ticks.state is SubscriptionState.LIVE, "it does not come back")
    numbers = [await _next(ticks)]
    while numbers[-1] != 0:
        numbers.append(await _next(ticks))
    require(all(b == a + 1 for a, b in itertools.pairwise(numbers[:-1])), f"not in order: {numbers}")


async def _cuts(stage: _Stage) -> None:
    async with stage.live() as (_, ticks):
        for _ in range(_CUTS):
            numbers = [await _next(ticks) for _ in range(3)]
            require(numbers == [1, 2, 3], f"not in order: {numbers}")
            id_ = ticks.id
            stage.proxy.cut()
            await _until_anew(ticks, id_)
        require(ticks.transport is stage.transport, f"they come by {ticks.transport}")


async def _idle(stage: _Stage) -> None:
    async with stage.client() as client:
        ticks = await client.subscribe(_TICKS, {"upto": 3, "every": _IDLE_MS}, type=TickEvent)
        id_ = ticks.id
        require([await _next(ticks), await _next(ticks)] == [0, 1], "not in order")
        require(ticks.id == id_, "it has subscribed anew meanwhile")


async def _kill(stage: _Stage) -> None:
    async with stage.live() as (_, ticks):
        id_ = ticks.id
        await stage.server.kill()
        await until(lambda: ticks.state is SubscriptionState.RECONNECTING, "the end is not noticed")
        await stage.server.start()
        await _until_anew(ticks, id_)


_SCENARIOS: dict[str, Callable[[_Stage], Awaitable[None]]] = {
    "events in order, by variables": _events,
    "an unknown field": _unknown_field,
    "a syntax error beside a live neighbour": _syntax_error,
    "a missing variable": _missing_variable,
    "an error in mid-stream": _middle_error,
    "completion": _completion,
    "unsubscribe": _unsubscribe,
    "five cuts": _cuts,
    "idle": _idle,
    "kill and restart": _kill,
}


async def run_servers(table: Table) -> None:
    """Run all scenarios with each server; with graphql-yoga also by a client that is told of no transport."""
    told: dict[str, Any] = {"transports": ("sse",)}
    sse, websocket = TransportKind.SSE, TransportKind.WEBSOCKET
    for name, which, transport, settings in (
        ("ours", _SINGLE, sse, told),
        ("ours", _DISTINCT, sse, told),
        ("ours", _YOGA, sse, told),
        ("ours, told of no transport", _YOGA, sse, {}),
        ("ours", _STRAWBERRY_SSE, sse, told),
        *(("ours", which, websocket, {}) for which in (*_NODE, *_PYTHON)),
    ):
        server = _Server(which)
        await server.start()
        try:
            async with FaultProxy("127.0.0.1", server.port) as proxy:
                for scenario, cell in _SCENARIOS.items():
                    stage = _Stage(server, proxy, transport, settings)
                    await table.run(name, which, scenario, cell(stage))
        finally:
            await server.kill()
