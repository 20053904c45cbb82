"""What a subscription and an idle connection weigh: the process's memory, divided."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import statistics
from collections.abc import AsyncIterator, Callable, Iterator
from multiprocessing.connection import Connection

import uvloop

from benchmarks.event import DOCUMENT
from benchmarks.machine import LOAD_CORE, MEASURED_CORE, on_core, resident_bytes
from benchmarks.processes import Commands, run_commands, running
from benchmarks.publisher import publish
from benchmarks.row import Row, Scale, at_most
from benchmarks.sending import PATIENT, our_server_process
from benchmarks.sockets import Sockets
from circuit_breaker_sdk import Client
from circuit_breaker_sdk.types import Resource

__all__ = ["memory"]

_OF_USER = "subscription($u: String) { costUpdates(userId: $u) { eventType totalCost } }"
_KIB = 1024
_AT_ONCE = 100


def _weigh_client(pipe: Connection, port: int, subscriptions: int) -> None:
    pipe.send(("answer", uvloop.run(_weigh(port, subscriptions))))


async def _weigh(port: int, subscriptions: int) -> float:
    """Return the bytes of each subscription beyond the first."""
    async with Client(f"ws://127.0.0.1:{port}/graphql") as client:
        held = [await client.subscribe(DOCUMENT, type=Resource)]
        gc.collect()
        before = resident_bytes()
        # A hundred at a time: ten thousand tasks at once are not what is to be weighed.
        for first in range(1, subscriptions, _AT_ONCE):
            held += await asyncio.gather(
                *(
                    client.subscribe(DOCUMENT, type=Resource)
                    for _ in range(min(_AT_ONCE, subscriptions - first))
                )
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
        yield _soak(scale)


def _subscription_weight(
    sockets_: int, each: int, variables: Callable[[int, int], dict[str, object]]
) -> float:
    """Return the KiB of each subscription; a fresh server each time: what was freed before would hide it."""
    with (
        our_server_process() as server,
        Sockets(server.call("port"), sockets_, resume=True) as sockets,
    ):
        sockets.subscribe(_OF_USER, lambda _: {"u": "u"})
        before = server.call("weigh")
        sockets.subscribe_more(_OF_USER, variables, each, first=1)
        grown: int = server.call("weigh") - before
        return grown / (sockets_ * each) / _KIB


def _server_subscriptions(scale: Scale) -> Row:
    sockets_, each = 10, scale.pick(1_000, 100)
    shared = [_subscription_weight(sockets_, each, lambda _n, _k: {"u": "u"}) for _ in range(scale.long_runs)]
    own = [
        _subscription_weight(sockets_, each, lambda n, k: {"u": f"user-{n}-{k}"})
        for _ in range(scale.long_runs)
    ]
    figure = round(statistics.median(shared), 2)
    row = Row(
        benchmark="memory, server, per subscription",
        unit="KiB",
        ours=figure,
        detail={
            "subscriptions": sockets_ * each,
            "each in a channel of its own, KiB": round(statistics.median(own), 2),
        },
        settings={
            "channels": "one that all share",
            **PATIENT,
        },
    )
    return row.aim({"KiB": at_most(2, figure)})


def _server_connections(scale: Scale) -> Row:
    count = scale.pick(10_000, 500)
    figures = []
    for _ in range(scale.long_runs):
        with our_server_process() as server:
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
        settings=PATIENT,
    )
    return row.aim({"KiB": at_most(11, figure)})


def _soak(scale: Scale) -> Row:
    """Begin and end so many subscriptions, and see that both sides weigh what they did."""
    cycles, warm_up = scale.pick(100_000, 2_000), scale.pick(40_000, 1_000)
    with our_server_process() as server:
        (workflow,) = server.call("make", workflows=1)
        url = f"http://127.0.0.1:{server.call('port')}/graphql"
        with running(_cycle_client, url, workflow, core=LOAD_CORE) as client:
            client.receive()
            client.call("cycle", count=warm_up)
            before, server_before = client.call("weigh"), server.call("weigh")
            client.call("cycle", count=cycles)
            after, server_after = client.call("weigh"), server.call("weigh")
    grown = (after["bytes"] - before["bytes"], server_after - server_before)
    figure = round(max(grown) / cycles, 2)
    row = Row(
        benchmark=f"soak: {cycles:,} subscriptions begun and ended",
        unit="bytes that each leaves behind, on the side where it is more",
        ours=figure,
        detail={
            "client, KiB in all": round(grown[0] / _KIB),
            "server, KiB in all": round(grown[1] / _KIB),
            "objects more in the client": after["objects"] - before["objects"],
        },
        settings={
            "before it": f"{warm_up:,} to warm up",
            "at once": _AT_ONCE,
            "max_connections_per_address": 100_000,
        },
    )
    return row.aim(
        {"bytes": at_most(10, figure), "objects": at_most(100, after["objects"] - before["objects"])}
    )


def _cycle_client(pipe: Connection, url: str, workflow: str) -> None:
    run_commands(pipe, lambda: _cycling(url, workflow))


@contextlib.asynccontextmanager
async def _cycling(url: str, workflow: str) -> AsyncIterator[Commands]:
    async with Client(url) as client:

        async def one() -> None:
            updates = client.workflows.subscribe_resource_updates(workflow_id=workflow)
            async with updates as subscription:
                subscription.on_data(lambda _: None)

        async def cycle(count: int) -> None:
            for _ in range(count // _AT_ONCE):
                await asyncio.gather(*(one() for _ in range(_AT_ONCE)))

        async def weigh() -> dict[str, int]:
            gc.collect()
            return {"bytes": resident_bytes(), "objects": len(gc.get_objects())}

        yield {"cycle": cycle, "weigh": weigh}
