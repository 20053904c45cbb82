"""From sending a mutation to the handler, with a thousand subscriptions and a thousand events a second."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import uvloop

from benchmarks.machine import LOAD_CORE, on_core
from benchmarks.row import Row, Scale, at_most
from benchmarks.sending import our_server_process
from circuit_breaker_sdk import Client, Resource

__all__ = ["latency", "number_of", "percentile"]

_BATCH = 10
_PUBLISH = (
    "mutation Publish("
    + ", ".join(f"$i{k}: ResourceCreateInput!" for k in range(_BATCH))
    + ") { "
    + " ".join(f"e{k}: createResource(input: $i{k}) {{ id }}" for k in range(_BATCH))
    + " }"
)


def number_of(resource: Resource) -> int:
    """Return the number that an event carries."""
    return int(cast("dict[str, int]", resource.data)["n"])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that so great a share does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def _measure(url: str, workflows: list[str], *, per_second: int, seconds: float) -> list[float]:
    """Publish at a rate, so many events in a mutation; return the seconds from mutation to handler."""
    sent: dict[int, float] = {}
    taken: list[float] = []

    def on_resource(resource: Resource) -> None:
        now = time.perf_counter()
        number = number_of(resource)
        if (began := sent.pop(number, None)) is not None:
            taken.append(now - began)

    async with Client(url) as client, Client(url) as publisher:
        subscriptions = await asyncio.gather(
            *(client.workflows.subscribe_resource_updates(workflow_id=id_).subscribe() for id_ in workflows)
        )
        for subscription in subscriptions:
            subscription.on_data(on_resource)
        running: set[asyncio.Task[Any]] = set()
        began = time.perf_counter()
        total = int(per_second * seconds)
        for first in range(0, total, _BATCH):
            due = began + first / per_second
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            inputs = {
                f"i{k}": {
                    "workflowId": workflows[(first + k) % len(workflows)],
                    "data": {"n": first + k, "title": "Quarterly plan"},
                    "metadata": {},
                }
                for k in range(_BATCH)
            }
            now = time.perf_counter()
            sent.update(dict.fromkeys(range(first, first + _BATCH), now))
            task = asyncio.ensure_future(publisher.execute(_PUBLISH, inputs, type=dict[str, Any]))
            running.add(task)
            task.add_done_callback(running.discard)
        if running:
            await asyncio.wait(running)
        deadline = time.perf_counter() + 10
        while sent and time.perf_counter() < deadline:
            await asyncio.sleep(0.01)
        if sent:
            raise RuntimeError(f"{len(sent)} of {total} events did not arrive")
    # What the first second says is how the processes warm up.
    return taken[per_second:]


def latency(scale: Scale) -> Iterator[Row]:
    """Yield the row."""
    subscriptions = scale.pick(1_000, 100)
    per_second = scale.pick(1_000, 200)
    seconds = float(scale.pick(8, 2))
    p50s, p99s = [], []
    with on_core(LOAD_CORE):
        for _ in range(scale.long_runs):
            with our_server_process() as server:
                workflows = server.call("make", workflows=subscriptions)
                url = f"http://127.0.0.1:{server.call('port')}/graphql"
                taken = uvloop.run(_measure(url, workflows, per_second=per_second, seconds=seconds))
            p50s.append(percentile(taken, 0.5) * 1000)
            p99s.append(percentile(taken, 0.99) * 1000)
    p50, p99 = round(statistics.median(p50s), 2), round(statistics.median(p99s), 2)
    row = Row(
        benchmark=f"latency, mutation to handler, {subscriptions:,} subscriptions, {per_second:,} events/s",
        unit="ms, p50",
        ours=p50,
        detail={"p99 ms": p99},
        settings={"published": f"over HTTP, {_BATCH} resources in a mutation"},
    )
    yield row.aim({"p50 ms": at_most(3, p50), "p99 ms": at_most(10, p99)})
