"""``make bench``: each figure beside the limit of this machine and a peer, from the same run."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable

import msgspec
import picows
import uvloop
from gql import Client as GqlClient
from gql import gql
from gql.transport.websockets import WebsocketsTransport

from benchmarks.publisher import DOCUMENT, publishing
from circuit_breaker_sdk import BufferLimits, Client, Resource
from circuit_breaker_sdk.protocol.codec import decode_message, encode_message
from circuit_breaker_sdk.protocol.messages import ConnectionInit, Ping, Pong, Subscribe

Measurement = Callable[[str, int], Awaitable[float]]


class _Data(msgspec.Struct):
    value: Resource = msgspec.field(name="resourceUpdates")


class _Payload(msgspec.Struct):
    data: _Data


class _Message(msgspec.Struct):
    type: str
    payload: _Payload


async def limit(url: str, events: int) -> float:
    """Events/s of a bare picows listener that decodes each message to the same event type."""
    done = asyncio.get_running_loop().create_future()
    decode = msgspec.json.Decoder(_Message).decode
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
                    return
                subscribe = Subscribe("00000001", DOCUMENT, None, None, None)
                transport.send(picows.WSMsgType.TEXT, encode_message(subscribe))
                return
            if seen == events:
                if not done.done():
                    done.set_result(time.perf_counter() - started)
                return
            decode(data)
            seen += 1

    headers = {"Sec-WebSocket-Protocol": "graphql-transport-ws"}
    transport, _ = await picows.ws_connect(Listener, url, extra_headers=headers)
    init = ConnectionInit({"resume": {"version": 1}})
    transport.send(picows.WSMsgType.TEXT, encode_message(init))
    seconds: float = await done
    transport.disconnect(graceful=False)
    await transport.wait_disconnected()
    return events / seconds


async def handler(url: str, events: int) -> float:
    """Events/s of ``client.subscribe`` with a plain handler."""
    async with Client(url) as client:
        started = time.perf_counter()
        subscription = await client.subscribe(DOCUMENT, type=Resource)
        subscription.on_data(lambda _: None)
        await subscription.wait_closed()
        seconds = time.perf_counter() - started
        _require(subscription.stats().handled, events)
        return events / seconds


async def async_for(url: str, events: int) -> float:
    """Events/s of ``client.subscribe`` with ``async for``."""
    async with Client(url) as client:
        started = time.perf_counter()
        seen = 0
        # The publisher never waits for anybody: room for all that one turn of the loop may read.
        room = BufferLimits(max_events=events, max_bytes=1 << 30)
        async for _ in await client.subscribe(DOCUMENT, type=Resource, buffer=room):
            seen += 1
        seconds = time.perf_counter() - started
        _require(seen, events)
        return events / seconds


async def gql_client(url: str, events: int) -> float:
    """Events/s of the gql client: a dict per event."""
    async with GqlClient(transport=WebsocketsTransport(url=url)) as session:
        started = time.perf_counter()
        seen = 0
        async for _ in session.subscribe(gql(DOCUMENT)):
            seen += 1
        seconds = time.perf_counter() - started
    _require(seen, events)
    return events / seconds


def _require(seen: int, events: int) -> None:
    if seen != events:
        raise RuntimeError(f"{seen} of {events} events arrived: a figure of this would be wrong")


def measure(what: Measurement, *, events: int, runs: int, publisher_core: int | None) -> float:
    """Return the median of some runs, each with a publisher process of its own, after one to warm up."""
    figures = []
    for run in range(runs + 1):
        with publishing(events, core=publisher_core) as url:
            figure = uvloop.run(what(url, events))
        if run:
            figures.append(figure)
    return statistics.median(figures)


def main() -> None:
    """Measure and print: a table, or with ``--json`` one object a line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--events", type=int, default=200_000, help="events a run, a multiple of 1000")
    parser.add_argument("--runs", type=int, default=5, help="the median of so many runs is printed")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    publisher_core = cores[1] if len(cores) > 1 else None
    if publisher_core is not None:
        os.sched_setaffinity(0, {cores[0]})

    def median(what: Measurement, events: int) -> float:
        return measure(what, events=events, runs=options.runs, publisher_core=publisher_core)

    bare = median(limit, options.events)
    peer = median(gql_client, max(options.events // 10_000, 1) * 1000)
    for name, what in (("client, plain handler", handler), ("client, async for", async_for)):
        ours = median(what, options.events)
        row = {
            "benchmark": name,
            "unit": "typed events/s",
            "ours": round(ours),
            "limit": round(bare),
            "peers": {"gql": round(peer)},
            "ratio_to_limit": round(ours / bare, 2),
            "ratio_to_best_peer": round(ours / peer, 1),
        }
        if options.json:
            print(json.dumps(row), flush=True)
        else:
            print(
                f"{name:24} {ours:>10,.0f}/s   limit {bare:>10,.0f}/s ({ours / bare:.2f})   "
                f"gql {peer:>8,.0f}/s ({ours / peer:.1f} times)",
                flush=True,
            )


if __name__ == "__main__":
    main()
