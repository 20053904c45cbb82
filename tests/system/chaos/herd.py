"""Experiment 10: everyone comes back at the same moment."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from circuit_breaker_sdk import Client, Subscription, SubscriptionState
from tests.system.chaos.publishing import Publisher
from tests.system.chaos.result import Result, percentiles
from tests.system.chaos.world import RING, World, until

_DOCUMENT = "subscription Herd($w: String) { resourceUpdates(workflowId: $w) { id } }"
_PER_CLIENT = 20


async def herd(directory: Path, seed: int, *, long: bool) -> Result:
    """Kill the server under thousands of subscriptions and start it again."""
    subscriptions, bound = (10_000, 30.0) if long else (2_000, 10.0)
    result = Result(experiment="herd", seed=seed)
    # All clients of the long form are one address.
    settings = {**RING, "max_connections_per_address": 10_000}
    async with World(directory, seed=seed, settings=settings) as world:
        publisher = Publisher(world, lanes=4)
        clients = [Client(world.server.url) for _ in range(subscriptions // _PER_CLIENT)]
        seen: list[list[str]] = []
        everyone: list[Subscription[dict[str, str]]] = []

        async def subscribe(client: Client) -> None:
            for _ in range(_PER_CLIENT):
                mine: list[str] = []
                subscription = await client.subscribe(_DOCUMENT, {"w": world.workflow}, type=dict[str, str])
                subscription.on_data(lambda event, into=mine: into.append(event["id"]))  # type: ignore[misc]
                seen.append(mine)
                everyone.append(subscription)

        await asyncio.gather(*map(subscribe, clients))
        await publisher.publish(100)
        before = world.server.resident_bytes
        await world.server.kill()
        await until(lambda: all(s.state is SubscriptionState.RECONNECTING for s in everyone), 30)
        await world.server.start()
        came_back: list[float] = []
        most = 0
        while len(came_back) < subscriptions and time.monotonic() - world.server.starts[-1] < bound * 2:
            live = sum(s.state is SubscriptionState.LIVE for s in everyone)
            came_back += [time.monotonic() - world.server.starts[-1]] * (live - len(came_back))
            most = max(most, world.server.resident_bytes)
            await asyncio.sleep(0.02)
        await publisher.publish(100)
        wanted = len(publisher.acknowledged)
        await until(lambda: all(len(mine) >= wanted for mine in seen), 30)
        result.events = wanted
        reference = seen[0]
        for mine in seen:
            result.lost += max(0, wanted - len(set(mine)))
            result.duplicated += len(mine) - len(set(mine))
            result.reordered += mine != reference
        result.recovery_ms = percentiles(came_back)
        in_time = [seconds for seconds in came_back if seconds <= bound]
        p95 = came_back[int(subscriptions * 0.95) - 1] if len(in_time) >= subscriptions * 0.95 else None
        result.detail = {
            "subscriptions": subscriptions,
            "p95_seconds": None if p95 is None else round(p95, 2),
            "server_mib": {"before": before >> 20, "at_most": most >> 20},
        }
        for client in clients:
            await client.aclose()
    result.require_zeros()
    result.require(p95 is not None, f"95 % were not back within {bound:g} s")
    result.require(most <= 2 * before, "the server's memory more than doubled")
    return result
