"""A hundred thousand subscriptions of one client at one server; and one more than is allowed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import uvloop

from benchmarks.latency import number_of, percentile
from benchmarks.machine import LOAD_CORE, on_core
from benchmarks.row import Row, Scale, at_least, at_most
from benchmarks.sending import PATIENT, our_server_process
from circuit_breaker_sdk import Client, Heartbeat, SubscriptionFailed, Timeouts
from circuit_breaker_sdk.cli.runtime import settle_memory
from circuit_breaker_sdk.subscriptions import Subscription
from circuit_breaker_sdk.types import Resource

__all__ = ["concurrent", "limited"]

_EACH = 100
_PATIENT: dict[str, Any] = {**PATIENT, "ping_seconds": 60.0, "pong_seconds": 60.0}


async def _hold(url: str, workflows: list[str], connections: int, *, events: int) -> dict[str, Any]:
    """Subscribe all, publish to one workflow after the other, then to all of them at once."""
    got: list[int] = []
    sent: dict[int, float] = {}
    taken: list[float] = []

    def on_resource(resource: Resource) -> None:
        got.append(1)
        if (began := sent.get(number_of(resource))) is not None:
            taken.append(time.perf_counter() - began)

    settings: dict[str, Any] = {
        "heartbeat": Heartbeat(interval_seconds=60, timeout_seconds=60),
        "timeouts": Timeouts(subscribe_seconds=60.0),
    }
    clients = [Client(url, **settings) for _ in range(connections)]
    publisher = Client(url)
    settle_memory()
    try:
        began = time.perf_counter()

        async def subscribe(client: Client) -> list[Subscription[Resource]]:
            """One client's share: one of each hundredth workflow."""
            number = clients.index(client)
            mine = [workflows[(number * _EACH + k) % len(workflows)] for k in range(_EACH)]
            return await asyncio.gather(
                *(client.workflows.subscribe_resource_updates(workflow_id=id_).subscribe() for id_ in mine)
            )

        # Ten clients at a time: all at once would only wait for each other's handshakes.
        subscriptions: list[Subscription[Resource]] = []
        for first in range(0, connections, 10):
            for each in await asyncio.gather(*map(subscribe, clients[first : first + 10])):
                subscriptions += each
        subscribed = time.perf_counter() - began
        for subscription in subscriptions:
            subscription.on_data(on_resource)
        followers = len(subscriptions) // len(workflows)

        async def publish(number: int) -> None:
            sent[number] = time.perf_counter()
            await publisher.workflows.create_resource(
                workflow_id=workflows[number % len(workflows)], data={"n": number}
            )

        # The first mutation of a client makes its HTTP connection.
        await publisher.workflows.create_resource(workflow_id=workflows[0], data={"n": -1})
        # At 1,000 deliveries a second in all.
        began = time.perf_counter()
        for number in range(events):
            await asyncio.sleep(max(0.0, began + number * followers / 1000 - time.perf_counter()))
            await publish(number)
        await _until(lambda: len(taken) >= events * followers)
        steady = list(taken)
        # Whoever got nothing so far gets something now.
        await asyncio.gather(*(publish(events + k) for k in range(len(workflows))))
        await _until(lambda: len(got) >= (1 + events + len(workflows)) * followers)
        reached = sum(subscription.stats().handled > 0 for subscription in subscriptions)
    finally:
        await publisher.aclose()
        for first in range(0, connections, 50):
            await asyncio.gather(*(client.aclose() for client in clients[first : first + 50]))
    return {
        "live": len(subscriptions),
        "reached": reached,
        "seconds": subscribed,
        "p50": percentile(steady, 0.5) * 1000,
        "p99": percentile(steady, 0.99) * 1000,
    }


async def _until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def concurrent(scale: Scale) -> Iterator[Row]:
    """Yield the row of a hundred thousand; it takes minutes, so it is one run."""
    connections = scale.pick(1_000, 20)
    with on_core(LOAD_CORE), our_server_process(**_PATIENT) as server:
        workflows = server.call("make", workflows=scale.pick(1_000, 100))
        url = f"http://127.0.0.1:{server.call('port')}/graphql"
        found = uvloop.run(_hold(url, workflows, connections, events=scale.pick(200, 20)))
    row = Row(
        benchmark="concurrent subscriptions of one client process at one server process",
        unit="subscriptions",
        ours=found["live"],
        detail={
            "connections": connections,
            "seconds to subscribe all": round(found["seconds"], 1),
            "delivery p50 ms": round(found["p50"], 2),
            "delivery p99 ms": round(found["p99"], 2),
            "of whom so many got events": found["reached"],
        },
        settings={
            **_PATIENT,
            "heartbeat": "60 s",
            "subscribe_seconds": 60,
            "client process": "gc.freeze() and rare full collections, as the server does at its start",
            "runs": 1,
        },
    )
    yield row.aim(
        {
            "subscriptions": at_least(connections * _EACH, found["live"]),
            "got events": at_least(found["live"], found["reached"]),
            "seconds to subscribe all": at_most(30, round(found["seconds"], 1)),
            "delivery p99 ms": at_most(100, round(found["p99"], 2)),
        }
    )


async def _go_over(url: str, workflows: list[str], limit: int) -> dict[str, Any]:
    got = 0

    def on_resource(_: Resource) -> None:
        nonlocal got
        got += 1

    async with Client(url) as client, Client(url) as publisher:
        below = [
            (await client.workflows.subscribe_resource_updates(workflow_id=id_).subscribe()).on_data(
                on_resource
            )
            for id_ in (workflows * limit)[:limit]
        ]
        refusal = ""
        try:
            await client.workflows.subscribe_resource_updates(workflow_id=workflows[0]).subscribe()
        except SubscriptionFailed as error:
            refusal = str(error)
        for id_ in workflows:
            await publisher.workflows.create_resource(workflow_id=id_, data={"n": 0})
        await _until(lambda: got >= limit)
        return {
            "refusal": refusal,
            "live": sum(subscription.stats().handled == 1 for subscription in below),
            "reconnects": client.metrics.reconnection_attempts,
        }


def limited(scale: Scale) -> Iterator[Row]:
    """Yield the row of the first subscription over a limit."""
    limit = scale.pick(1_000, 50)
    with on_core(LOAD_CORE), our_server_process(max_operations=limit) as server:
        workflows = server.call("make", workflows=10)
        url = f"http://127.0.0.1:{server.call('port')}/graphql"
        found = uvloop.run(_go_over(url, workflows, limit))
    row = Row(
        benchmark="the first subscription over a limit",
        unit="subscriptions below it that feel nothing",
        ours=found["live"],
        detail={"the refusal": found["refusal"], "reconnects": found["reconnects"]},
        settings={"max_operations": limit},
    )
    yield row.aim(
        {
            "below it": at_least(limit, found["live"]),
            "refused with a reason": at_least(1, float(f"more than {limit} operations" in found["refusal"])),
            "reconnects": at_most(0, found["reconnects"]),
        }
    )
