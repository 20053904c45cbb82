"""What a subscription and an idle connection weigh: the process's memory, divided."""

from __future__ import annotations

import asyncio
import gc
import statistics
from collections.abc import Iterator
from multiprocessing.connection import Connection

import uvloop

from benchmarks.event import DOCUMENT
from benchmarks.machine import LOAD_CORE, MEASURED_CORE, on_core, resident_bytes
from benchmarks.processes import running
from benchmarks.publisher import publish
from benchmarks.row import Row, Scale, at_most
from benchmarks.sending import our_server_process
from benchmarks.sockets import Sockets
from circuit_breaker_sdk import Client, Resource

__all__ = ["memory"]

_OF_WORKFLOW = "subscription($w: String) { resourceUpdates(workflowId: $w) { id state } }"
_KIB = 1024


def _weigh_client(pipe: Connection, port: int, subscriptions: int) -> None:
    pipe.send(("answer", uvloop.run(_weigh(port, subscriptions))))


async def _weigh(port: int, subscriptions: int) -> float:
    """Return the bytes of each subscription beyond the first."""
    async with Client(f"ws://127.0.0.1:{port}/graphql") as client:
        held = [await client.subscribe(DOCUMENT, type=Resource)]
        gc.collect()
        before = resident_bytes()
        held += await asyncio.gather(
            *(client.subscribe(DOCUMENT, type=Resource) for _ in range(subscriptions - 1))
        )
        gc.collect()
        grown = resident_bytes() - before
        return grown / (len(held) - 1)


def memory(scale: Scale) -> Iterator[Row]:
    """Yield the rows of memory; they are of Linux, which tells a process's memory."""
    count = scale.pick(10_000, 1_000)
    figures = []
    with on_core(LOAD_CORE):
        for _ in range(scale.runs):
            with running(publish, 1, count, core=LOAD_CORE) as publisher:
                port, _events = publisher.receive()
                with running(_weigh_client, port, count, core=MEASURED_CORE) as client:
                    figures.append(client.receive() / _KIB)
        each = round(statistics.median(figures), 2)
        row = Row(
            benchmark="memory, client, per subscription beyond the first",
            unit="KiB",
            ours=each,
            detail={"subscriptions": count, "on": "one connection, none has events waiting"},
        )
        yield row.aim({"KiB": at_most(2, each)})
        yield _server_subscriptions(scale)
        yield _server_connections(scale)


def _server_subscriptions(scale: Scale) -> Row:
    sockets_, each = 10, scale.pick(1_000, 100)
    shared, own = [], []
    for _ in range(scale.long_runs):
        with our_server_process(ping_seconds=3600.0) as server:
            workflows = server.call("make", workflows=sockets_ * each)
            port = server.call("port")
            with Sockets(port, sockets_, resume=True) as sockets:
                sockets.subscribe(_OF_WORKFLOW, lambda _: {"w": workflows[0]})
                before = server.call("weigh")
                sockets.subscribe_more(_OF_WORKFLOW, lambda _n, _k: {"w": workflows[0]}, each, first=1)
                shared.append((server.call("weigh") - before) / (sockets_ * each) / _KIB)
            with Sockets(port, sockets_, resume=True) as sockets:
                before = server.call("weigh")
                sockets.subscribe_more(_OF_WORKFLOW, lambda n, k: {"w": workflows[n * each + k]}, each)
                own.append((server.call("weigh") - before) / (sockets_ * each) / _KIB)
    figure = round(statistics.median(shared), 2)
    row = Row(
        benchmark="memory, server, per subscription",
        unit="KiB",
        ours=figure,
        detail={
            "subscriptions": sockets_ * each,
            "each in a channel of its own, KiB": round(statistics.median(own), 2),
        },
        settings={"channels": "one that all share"},
    )
    return row.aim({"KiB": at_most(2, figure)})


def _server_connections(scale: Scale) -> Row:
    count = scale.pick(10_000, 500)
    figures = []
    for _ in range(scale.long_runs):
        with our_server_process(ping_seconds=3600.0) as server:
            port = server.call("port")
            with Sockets(port, 10, resume=True):
                before = server.call("weigh")
                with Sockets(port, count, resume=True):
                    figures.append((server.call("weigh") - before) / count / _KIB)
    figure = round(statistics.median(figures), 2)
    row = Row(
        benchmark="memory, server, per idle connection",
        unit="KiB",
        ours=figure,
        detail={"connections": count, "on": "acknowledged, resume negotiated, nothing subscribed"},
    )
    return row.aim({"KiB": at_most(11, figure)})
