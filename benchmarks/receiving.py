"""What a client makes of events that come as fast as it reads: ours, the others, and a bare loop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import picows
import uvloop
import websockets.asyncio.client
from gql import Client as GqlClient
from gql import gql
from gql.transport.websockets import WebsocketsTransport

from benchmarks.event import DOCUMENT
from benchmarks.machine import LOAD_CORE, MEASURED_CORE, on_core
from benchmarks.peer_builds import RUST_CLIENT, may_build, program_of
from benchmarks.processes import node_process, prepare_node, running
from benchmarks.publisher import publish
from benchmarks.row import Rounds, Row, Scale, at_least
from circuit_breaker_sdk import BufferLimits, Client, SyncClient
from circuit_breaker_sdk.protocol.codec import decode_message, encode_message
from circuit_breaker_sdk.protocol.messages import ConnectionInit, Ping, Pong, Subscribe
from circuit_breaker_sdk.types import Resource

__all__ = ["rate_of", "received_by", "receiving"]

# A client under measurement: the URL, how many events come, and what makes them come. It returns the seconds.
Receive = Callable[[str, int, Callable[[], None]], Coroutine[Any, Any, float]]
_SUBPROTOCOL = "graphql-transport-ws"
_RUST = "graphql-ws-client in Rust"
_RUST_SAID = (
    "0.13.0 on tokio and async-tungstenite 0.32.1, one thread, release build; buffer of 5 events, its default"
)


class _Data(msgspec.Struct):
    value: Resource = msgspec.field(name="resourceUpdates")


class _Payload(msgspec.Struct):
    data: _Data


class _Message(msgspec.Struct):
    type: str
    payload: _Payload


_decode = msgspec.json.Decoder(_Message).decode


async def _bare(url: str, events: int, go: Callable[[], None]) -> float:
    """A bare picows listener that decodes each message to the same event type."""
    done = asyncio.get_running_loop().create_future()
    seen = 0
    started = 0.0

    class Listener(picows.WSListener):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            nonlocal seen, started
            data = frame.get_payload_as_bytes()
            if started == 0.0:
                message = decode_message(data)
                if isinstance(message, Ping):
                    transport.send(picows.WSMsgType.TEXT, encode_message(Pong(message.payload)))
                    started = time.perf_counter()
                    go()
                    return
                subscribe = Subscribe("00000001", DOCUMENT, None, None, None)
                transport.send(picows.WSMsgType.TEXT, encode_message(subscribe))
                return
            if seen == events:
                if not done.done():
                    done.set_result(time.perf_counter() - started)
                return
            _decode(data)
            seen += 1

    headers = {"Sec-WebSocket-Protocol": _SUBPROTOCOL}
    transport, _ = await picows.ws_connect(Listener, url, extra_headers=headers)
    init = ConnectionInit({"resume": {"version": 1}})
    transport.send(picows.WSMsgType.TEXT, encode_message(init))
    seconds: float = await done
    transport.disconnect(graceful=False)
    await transport.wait_disconnected()
    return seconds


def received_by(
    make: Callable[[str], Client],
    around: Callable[[Client], AbstractContextManager[object]] = lambda _: nullcontext(),
) -> Receive:
    """Our client with a plain handler.

    :param around: what is done meanwhile.
    """

    async def receive(url: str, events: int, go: Callable[[], None]) -> float:
        async with make(url) as client:
            subscription = await client.subscribe(DOCUMENT, type=Resource)
            with around(client):
                subscription.on_data(lambda _: None)
                started = time.perf_counter()
                go()
                await subscription.wait_closed()
                seconds = time.perf_counter() - started
            _require(subscription.stats().handled, events)
            return seconds

    return receive


def _many(subscriptions: int) -> Receive:
    """So many subscriptions on one connection, with a handler each."""

    async def receive(url: str, events: int, go: Callable[[], None]) -> float:
        async with Client(url) as client:
            started_all = await asyncio.gather(
                *(client.subscribe(DOCUMENT, type=Resource) for _ in range(subscriptions))
            )
            seen, whole = 0, asyncio.get_running_loop().create_future()

            def on_data(_: Resource) -> None:
                nonlocal seen
                seen += 1
                if seen == events:
                    whole.set_result(time.perf_counter())

            for subscription in started_all:
                subscription.on_data(on_data)
            started = time.perf_counter()
            go()
            seconds: float = await whole - started
            _require(sum(subscription.stats().handled for subscription in started_all), events)
            return seconds

    return receive


async def _async_for(url: str, events: int, go: Callable[[], None]) -> float:
    async with Client(url) as client:
        seen = 0
        # The publisher never waits for anybody: room for all that one turn of the loop may read.
        room = BufferLimits(max_events=events, max_bytes=1 << 30)
        subscription = await client.subscribe(DOCUMENT, type=Resource, buffer=room)
        started = time.perf_counter()
        go()
        async for _ in subscription:
            seen += 1
        seconds = time.perf_counter() - started
        _require(seen, events)
        return seconds


async def _gql(url: str, events: int, go: Callable[[], None]) -> float:
    """The gql client: a dict per event."""
    async with GqlClient(transport=WebsocketsTransport(url=url)) as session:
        seen = 0
        started = time.perf_counter()
        go()
        async for _ in session.subscribe(gql(DOCUMENT)):
            seen += 1
        seconds = time.perf_counter() - started
    _require(seen, events)
    return seconds


async def _websockets(url: str, events: int, go: Callable[[], None]) -> float:
    """A loop over ``websockets``, with the protocol written by hand and msgspec: no client of GraphQL."""
    async with websockets.asyncio.client.connect(url, subprotocols=[_SUBPROTOCOL], compression=None) as peer:  # type: ignore[list-item]
        await peer.send(json.dumps({"type": "connection_init"}))
        await peer.recv()
        await peer.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": DOCUMENT}}))
        started = time.perf_counter()
        go()
        for _ in range(events):
            _decode(await peer.recv(decode=False))
        return time.perf_counter() - started


async def _aiohttp(url: str, events: int, go: Callable[[], None]) -> float:
    """A loop over aiohttp's WebSocket, with the protocol written by hand and msgspec."""
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=[_SUBPROTOCOL]) as peer:
        await peer.send_json({"type": "connection_init"})
        await peer.receive()
        await peer.send_json({"id": "1", "type": "subscribe", "payload": {"query": DOCUMENT}})
        started = time.perf_counter()
        go()
        for _ in range(events):
            _decode((await peer.receive()).data)
        return time.perf_counter() - started


def _require(seen: int, events: int) -> None:
    if seen != events:
        raise RuntimeError(f"{seen} of {events} events arrived: a figure of this would be wrong")


def rate_of(what: Receive, events: int, subscriptions: int = 1) -> float:
    """Run once, against a publisher of its own; return events/s."""
    with running(publish, events, subscriptions, core=LOAD_CORE) as publisher:
        port, count = publisher.receive()
        seconds = uvloop.run(what(f"ws://127.0.0.1:{port}/graphql", count, lambda: publisher.tell("go")))
    return float(count / seconds)


def _blocking_rate(events: int) -> float:
    """Our client without asyncio: its loop runs in a thread of its own, on the same core."""
    with running(publish, events, core=LOAD_CORE) as publisher:
        port, count = publisher.receive()
        seen = 0
        room = BufferLimits(max_events=count, max_bytes=1 << 30)
        with (
            SyncClient(f"ws://127.0.0.1:{port}/graphql") as client,
            client.subscribe(DOCUMENT, type=Resource, buffer=room) as subscription,
        ):
            started = time.perf_counter()
            publisher.tell("go")
            for _ in subscription:
                seen += 1
            seconds = time.perf_counter() - started
    _require(seen, count)
    return float(count / seconds)


def _rate_on_node(events: int) -> float:
    """The client of graphql-ws on Node."""
    with running(publish, events, core=LOAD_CORE) as publisher:
        port, count = publisher.receive()
        publisher.tell("go")
        with node_process("client.mjs", f"ws://127.0.0.1:{port}/graphql", core=MEASURED_CORE) as client:
            found = client.receive()
    _require(found["events"], count)
    return float(count / found["seconds"])


def _rate_in_rust(program: Path, events: int) -> float:
    """The client of graphql-ws-client, on the core of this process."""
    with running(publish, events, core=LOAD_CORE) as publisher:
        port, count = publisher.receive()
        publisher.tell("go")
        url = f"ws://127.0.0.1:{port}/graphql"
        done = subprocess.run([program, url], stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    found = json.loads(done.stdout)
    _require(found["events"], count)
    return float(count / found["seconds"])


def receiving(scale: Scale) -> Iterator[Row]:
    """Yield the rows of the client."""
    events, many = scale.pick(400_000, 20_000), scale.pick(10_000, 500)
    measures: dict[str, Callable[[], float]] = {
        "limit": lambda: rate_of(_bare, events),
        "handler": lambda: rate_of(received_by(Client), events),
        "async for": lambda: rate_of(_async_for, events),
        "blocking": lambda: _blocking_rate(events),
        "many": lambda: rate_of(_many(many), events, many),
        "gql": lambda: rate_of(_gql, scale.pick(20_000, 2_000)),
        "websockets, by hand": lambda: rate_of(_websockets, scale.pick(100_000, 5_000)),
        "aiohttp, by hand": lambda: rate_of(_aiohttp, scale.pick(200_000, 5_000)),
    }
    if prepare_node():
        measures["graphql-ws on Node"] = lambda: _rate_on_node(scale.pick(200_000, 5_000))
    rust = program_of(RUST_CLIENT, allowed=may_build(scale))
    if isinstance(rust, Path):
        measures[_RUST] = lambda: _rate_in_rust(rust, scale.pick(400_000, 5_000))
    with on_core(MEASURED_CORE):
        rounds = Rounds(measures, scale.runs)
    peers = [name for name in measures if name not in ("limit", "handler", "async for", "blocking", "many")]
    unit = "typed events/s"
    row = rounds.row("client, plain handler", unit, ours="handler", limit="limit", peers=peers)
    row.detail = {_RUST: rust if isinstance(rust, str) else _RUST_SAID}
    yield row.aim(
        {
            "of the limit": at_least(0.8, row.ratio_to_limit),
            "times gql": at_least(10, row.times.get("gql")),
            "times graphql-ws on Node": at_least(2, row.times.get("graphql-ws on Node")),
        }
    )
    row = rounds.row("client, async for", unit, ours="async for", limit="limit", peers=peers)
    row.settings = {"buffer": "as big as the run: the load never waits"}
    yield row.aim(
        {
            "of the limit": at_least(0.6, row.ratio_to_limit),
            "times gql": at_least(8, row.times.get("gql")),
        }
    )
    row = rounds.row("client, blocking iteration", unit, ours="blocking", limit="limit", peers=())
    share = round(rounds.ratio("blocking", "async for"), 2)
    row.settings = {"buffer": "as big as the run: the load never waits"}
    yield row.aim({"of async for": at_least(0.5, share)})
    name = f"client, {many:,} subscriptions on one connection"
    row = rounds.row(name, unit, ours="many", limit="limit", peers=())
    share = round(rounds.ratio("many", "handler"), 2)
    yield row.aim({"of one subscription's": at_least(0.75, share)})
