"""From sending a mutation to the handler, with a thousand subscriptions and a thousand events a second."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, cast

import uvloop

from benchmarks.machine import LOAD_CORE, on_core
from benchmarks.row import Row, Scale, at_most
from benchmarks.sending import our_server_process
from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.runtime import settle_memory
from circuit_breaker_sdk.types import Resource

__all__ = ["latency", "measure", "number_of", "percentile"]


def number_of(resource: Resource) -> int:
    """Return the number that an event carries."""
    return int(cast("dict[str, int]", resource.data)["n"])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that so great a share does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def measure(
    url: str, workflows: list[str], *, per_second: int, seconds: float, token: str | None = None
) -> list[float]:
    """Create resources, each of them two events; return the seconds from each mutation to its handlers."""
    taken: list[float] = []
    # By stream and workflow: when the mutations were sent whose events have not come yet.
    sent: dict[tuple[str, str], deque[float]] = {}

    def on_event(stream: str, workflow: str) -> None:
        taken.append(time.perf_counter() - sent[stream, workflow].popleft())

    async with Client(url, token=token) as client, Client(url, token=token) as publisher:
        for workflow in workflows:
            updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
            updates.on_data(lambda resource: on_event("updates", resource.workflow_id))
            events = await client.workflows.subscribe_workflow_events(workflow_id=workflow).subscribe()
            events.on_data(lambda event: on_event("events", event.workflow_id))
            sent["updates", workflow], sent["events", workflow] = deque(), deque()
        settle_memory()
        running: set[asyncio.Task[Any]] = set()
        began = time.perf_counter()
        mutations = int(per_second * seconds) // 2
        for number in range(mutations):
            due = began + number * 2 / per_second
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            workflow = workflows[number % len(workflows)]
            now = time.perf_counter()
            sent["updates", workflow].append(now)
            sent["events", workflow].append(now)
            create = publisher.workflows.create_resource(workflow_id=workflow, data={"n": number})
            task = asyncio.ensure_future(create)
            running.add(task)
            task.add_done_callback(running.discard)
        if running:
            await asyncio.wait(running)
        deadline = time.perf_counter() + 10
        while len(taken) < 2 * mutations and time.perf_counter() < deadline:
            await asyncio.sleep(0.01)
        if len(taken) < 2 * mutations:
            raise RuntimeError(f"{len(taken)} of {2 * mutations} events arrived")
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
                workflows = server.call("make", workflows=subscriptions // 2)
                url = f"http://127.0.0.1:{server.call('port')}/graphql"
                taken = uvloop.run(measure(url, workflows, per_second=per_second, seconds=seconds))
            p50s.append(percentile(taken, 0.5) * 1000)
            p99s.append(percentile(taken, 0.99) * 1000)
    p50, p99 = round(statistics.median(p50s), 2), round(statistics.median(p99s), 2)
    row = Row(
        benchmark=f"latency, mutation to handler, {subscriptions:,} subscriptions, {per_second:,} events/s",
        unit="ms, p50",
        ours=p50,
        detail={"p99 ms": p99},
        settings={
            "published": "createResource over HTTP; each is an update and a workflow event",
            "client process": "gc.freeze() and rare full collections once all are subscribed, as the server",
        },
    )
    yield row.aim({"p50 ms": at_most(3, p50), "p99 ms": at_most(10, p99)})
