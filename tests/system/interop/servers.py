"""Our client with servers by others: over WebSockets, modern and legacy, and over server-sent events."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, final

import aiohttp
import msgspec

from circuit_breaker_sdk import (
    AuthenticationFailed,
    CircuitBreakerPolicy,
    Client,
    Continuity,
    ErrorRecoveryPolicy,
    Heartbeat,
    OperationError,
    Subscription,
    SubscriptionFailed,
    SubscriptionState,
)
from circuit_breaker_sdk.config import TransportKind
from circuit_breaker_sdk.testing import FaultProxy
from tests.integration.strawberry_server import TickEvent
from tests.system.interop.cells import PATIENCE_SECONDS, NotOk, NotPossible, Table, require, until
from tests.system.interop.programs import Runtime
from tests.system.interop.programs import server as run_server

__all__ = ["run_servers"]

_TICKS = "subscription($upto: Int!, $every: Int) { ticks(upto: $upto, everyMs: $every) { number label } }"
_ENDLESS: dict[str, object] = {"upto": 1_000_000, "every": 10}
_CUTS = 5
_IDLE_MS = 1500


_QUERY, _REFUSED_INIT = "a query over HTTP", "a refused connection_init"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Peer:
    """A server by others, and what differs between it and the rest.

    :ivar program: its program, which is given the name and a port.
    :ivar runtime: what the program runs on.
    :ivar transport: what brings the events.
    :ivar is_legacy: it speaks the legacy protocol, whose `connection_init` has no extensions of ours.
    :ivar client: the name of our client, with these settings.
    :ivar answers_queries: it answers queries over HTTP.
    :ivar shares_streams: it lets subscriptions share one stream of server-sent events.
    :ivar closes_at_syntax_errors: it closes the connection over a document that cannot be parsed, so that the
        neighbour begins anew.
    :ivar refusal: its text where it refuses a ``connection_init``; ``None``: its program refuses none.
    :ivar syntax_error: a part of its text about a document that cannot be parsed.
    :ivar missing_variable: a part of its text about a variable that is not given.
    :ivar impossible: why a scenario cannot be run, by the scenario's name.
    """

    name: str
    program: str
    runtime: Runtime = Runtime.NODE
    transport: TransportKind = TransportKind.WEBSOCKET
    is_legacy: bool = False
    client: str = "ours"
    settings: Mapping[str, Any] = field(default_factory=dict)
    answers_queries: bool = True
    shares_streams: bool = False
    closes_at_syntax_errors: bool = False
    refusal: str | None = None
    syntax_error: str = "Syntax Error"
    missing_variable: str = "$upto"
    impossible: Mapping[str, str] = field(default_factory=dict)

    def run(self, port: int) -> AbstractAsyncContextManager[int]:
        """Run it on a port, 0 for any; give the port."""
        return run_server(self.runtime, self.program, self.name, str(port))

    def scenarios(self) -> list[str]:
        """Return the scenarios that it has a part in."""
        left_out = {_QUERY: not self.answers_queries, _REFUSED_INIT: self.refusal is None}
        return [scenario for scenario in _SCENARIOS if not left_out.get(scenario)]


_SSE: Final[dict[str, Any]] = {"transport": TransportKind.SSE, "settings": {"transports": ("sse",)}}
_UNVALIDATED: Final = "it does not validate subscriptions: it leaves an unknown field out of each event"
_GQLGEN: Final[dict[str, Any]] = {
    "program": "server",
    "runtime": Runtime.GO,
    "syntax_error": "Expected Name, found <EOF>",
    "missing_variable": "must be defined",
}
_ASYNC_GRAPHQL: Final[dict[str, Any]] = {
    "program": "server",
    "runtime": Runtime.RUST,
    "syntax_error": "expected",
    "missing_variable": "upto",
}
_PEERS: Final = (
    _Peer(
        name="graphql-sse, single connection",
        program="sse_server.mjs",
        answers_queries=False,
        shares_streams=True,
        **_SSE,
    ),
    _Peer(name="graphql-sse, distinct connections", program="sse_server.mjs", answers_queries=False, **_SSE),
    _Peer(name="graphql-yoga", program="sse_server.mjs", **_SSE),
    _Peer(
        name="graphql-yoga",
        program="sse_server.mjs",
        transport=TransportKind.SSE,
        client="ours, told of no transport",
    ),
    _Peer(name="Strawberry, server-sent events", program="python_server", runtime=Runtime.PYTHON, **_SSE),
    _Peer(
        name="graphql-ws",
        program="websocket_server.mjs",
        answers_queries=False,
        closes_at_syntax_errors=True,
        refusal="Forbidden",
    ),
    _Peer(name="graphql-yoga, WebSocket", program="websocket_server.mjs", refusal="Forbidden"),
    _Peer(
        name="Apollo Server", program="apollo_server.mjs", closes_at_syntax_errors=True, refusal="Forbidden"
    ),
    _Peer(
        name="mercurius",
        program="mercurius_server.mjs",
        refusal="Forbidden",
        impossible={"an unknown field": _UNVALIDATED},
    ),
    _Peer(name="Strawberry", program="python_server", runtime=Runtime.PYTHON, closes_at_syntax_errors=True),
    _Peer(name="Ariadne", program="python_server", runtime=Runtime.PYTHON),
    _Peer(
        name="Strawberry, legacy protocol", program="python_server", runtime=Runtime.PYTHON, is_legacy=True
    ),
    _Peer(
        name="Ariadne, legacy protocol",
        program="python_server",
        runtime=Runtime.PYTHON,
        is_legacy=True,
        impossible={
            "unsubscribe": "it closes a stream that waits for its next value, fails over that, and hangs up"
        },
    ),
    _Peer(
        name="subscriptions-transport-ws",
        program="websocket_server.mjs",
        is_legacy=True,
        answers_queries=False,
        refusal="not you",
    ),
    _Peer(
        name="mercurius, legacy protocol",
        program="mercurius_server.mjs",
        is_legacy=True,
        refusal="Forbidden",
        impossible={"an unknown field": _UNVALIDATED},
    ),
    _Peer(name="gqlgen", refusal="Forbidden", **_GQLGEN),
    _Peer(name="gqlgen, legacy protocol", is_legacy=True, refusal="Forbidden", **_GQLGEN),
    _Peer(name="gqlgen, server-sent events", **_GQLGEN, **_SSE),
    _Peer(name="async-graphql", refusal="not you", **_ASYNC_GRAPHQL),
    _Peer(name="async-graphql, legacy protocol", is_legacy=True, refusal="not you", **_ASYNC_GRAPHQL),
)


class _Asked(msgspec.Struct):
    methods: dict[str, int]
    readers: int
    inits: list[dict[str, Any] | None]


@final
class _Server:
    """A server of others, which can be killed and started again on its port."""

    def __init__(self, peer: _Peer) -> None:
        self.peer = peer
        self.port = 0
        self._life = AsyncExitStack()

    async def start(self) -> None:
        self.port = await self._life.enter_async_context(self.peer.run(self.port))

    async def kill(self) -> None:
        await self._life.aclose()

    async def asked(self) -> _Asked:
        """Return its requests and inits in this life, and how many streams of ticks it has."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{self.port}/asked") as answer,
        ):
            return msgspec.json.decode(await answer.read(), type=_Asked)


@final
class _Stage:
    """A server of others behind a proxy."""

    def __init__(self, server: _Server, proxy: FaultProxy) -> None:
        self.peer = server.peer
        self.server = server
        self.proxy = proxy

    @property
    def is_websocket(self) -> bool:
        return self.peer.transport is TransportKind.WEBSOCKET

    def client(self, **settings: Any) -> Client:
        return Client(
            f"http://127.0.0.1:{self.proxy.port}/graphql",
            recovery=ErrorRecoveryPolicy(base_delay=0.01, max_delay=0.1),
            circuit_breaker=CircuitBreakerPolicy(failure_threshold=1_000_000, open_seconds=0.5),
            **{**self.peer.settings, **settings},
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


async def _query(stage: _Stage) -> None:
    async with stage.client() as client:
        answer = await client.execute("query Greet { hello }", type=dict)
        require(answer == {"hello": "hello"}, f"the answer is {answer}")
        try:
            answer = await client.execute("{ nothing }", type=dict)
        except OperationError as error:
            require("nothing" in str(error), f"it fails with {error}")
        else:
            raise NotOk(f"an unknown field is answered with {answer}")


async def _events(stage: _Stage) -> None:
    async with stage.client(connection_params={"locale": "en"}) as client:
        both = [
            await client.subscribe(_TICKS, {**_ENDLESS, "every": every}, type=TickEvent) for every in (1, 2)
        ]
        for ticks in both:
            require([await _next(ticks) for _ in range(50)] == list(range(50)), "not in order")
            require(ticks.transport is stage.peer.transport, f"they came by {ticks.transport}")
    asked = await stage.server.asked()
    is_shared = asked.methods.get("PUT") == 1 and asked.methods.get("GET") == 1
    require(is_shared or not stage.peer.shares_streams, f"it has not shared a stream: {asked.methods}")
    if stage.is_websocket:
        extension = {} if stage.peer.is_legacy else {"resume": {"version": 1}}
        require(asked.inits == [{"locale": "en", **extension}], f"it was shown {asked.inits}")


async def _unknown_field(stage: _Stage) -> None:
    await _refused(stage, "subscription { ticks(upto: 1) { nothing } }", "nothing")


async def _missing_variable(stage: _Stage) -> None:
    await _refused(stage, _TICKS, stage.peer.missing_variable)


async def _syntax_error(stage: _Stage) -> None:
    await _refused(stage, "subscription {", stage.peer.syntax_error)


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
        begins_anew = stage.peer.closes_at_syntax_errors and 0 in numbers
        anew = numbers.index(0) if begins_anew else len(numbers)
        expected = [*range(1, anew + 1), *range(len(numbers) - anew)]
        require(numbers == expected, f"the neighbour had {numbers}")
        another = await client.subscribe(_TICKS, _ENDLESS, type=TickEvent)
        require(await _next(another) == 0, "the next subscription does not begin")


async def _refused_init(stage: _Stage) -> None:
    try:
        async with stage.client(connection_params={"refuse": True}) as client:
            await _next(await client.subscribe(_TICKS, _ENDLESS, type=TickEvent))
    except AuthenticationFailed as error:
        require(str(stage.peer.refusal) in str(error), f"it fails with {error}")
    else:
        raise NotOk("an event came")


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
    require(ticks.continuity is Continuity.UNKNOWN, f"its continuity is {ticks.continuity}")


async def _cuts(stage: _Stage) -> None:
    async with stage.live() as (_, ticks):
        for _ in range(_CUTS):
            numbers = [await _next(ticks) for _ in range(3)]
            require(numbers == [1, 2, 3], f"not in order: {numbers}")
            id_ = ticks.id
            stage.proxy.cut()
            await _until_anew(ticks, id_)
        require(ticks.transport is stage.peer.transport, f"they come by {ticks.transport}")


async def _idle(stage: _Stage) -> None:
    # The silence is longer than the heartbeat: pongs, or the `ka` of a legacy server, are all there is.
    heartbeat = Heartbeat(interval_seconds=0.2, timeout_seconds=0.2) if stage.is_websocket else Heartbeat()
    async with stage.client(heartbeat=heartbeat) as client:
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
    _QUERY: _query,
    "events in order, by variables": _events,
    "an unknown field": _unknown_field,
    "a syntax error beside a live neighbour": _syntax_error,
    "a missing variable": _missing_variable,
    _REFUSED_INIT: _refused_init,
    "an error in mid-stream": _middle_error,
    "completion": _completion,
    "unsubscribe": _unsubscribe,
    "five cuts": _cuts,
    "idle": _idle,
    "kill and restart": _kill,
}


async def _run(scenario: str, stage: _Stage) -> None:
    if reason := stage.peer.impossible.get(scenario):
        raise NotPossible(reason)
    await _SCENARIOS[scenario](stage)


async def run_servers(table: Table, runtimes: Collection[Runtime]) -> None:
    """Run all scenarios with each server on one of the runtimes."""
    for peer in _PEERS:
        if peer.runtime not in runtimes:
            continue
        server = _Server(peer)
        await server.start()
        try:
            async with FaultProxy("127.0.0.1", server.port) as proxy:
                for scenario in peer.scenarios():
                    stage = _Stage(server, proxy)
                    await table.run(peer.client, peer.name, scenario, _run(scenario, stage))
        finally:
            await server.kill()
