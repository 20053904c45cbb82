"""Experiment 5: connections of which one direction is dead, and nobody is told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from circuit_breaker_sdk import Heartbeat
from circuit_breaker_sdk.testing import Direction
from tests.system.chaos.publishing import Publisher
from tests.system.chaos.result import Result, percentiles
from tests.system.chaos.subscribing import Subscriber, judge, until_all_have
from tests.system.chaos.world import World, until

_HEARTBEAT = Heartbeat(interval_seconds=1.0, timeout_seconds=1.0)
_SLACK_SECONDS = 1.0
_SUBSCRIBERS = 6


async def half_open(directory: Path, seed: int, *, long: bool) -> Result:
    """Let each direction die in turn, and both; the client must notice, and come back whole."""
    rounds = 10 if long else 2
    result = Result(experiment="half-open", seed=seed)
    bound = _HEARTBEAT.interval_seconds + _HEARTBEAT.timeout_seconds + _SLACK_SECONDS
    noticed: dict[str, list[float]] = {}
    async with World(directory, seed=seed) as world:
        publisher = Publisher(world, lanes=1, per_second=100)
        audience = [Subscriber(world, heartbeat=_HEARTBEAT) for _ in range(_SUBSCRIBERS)]
        for subscriber in audience:
            await subscriber.start()
        publishing = asyncio.create_task(publisher.publish())
        try:
            for _ in range(rounds):
                for name, dead in (
                    ("to server", [Direction.TO_SERVER]),
                    ("to client", [Direction.TO_CLIENT]),
                    ("both", list(Direction)),
                ):
                    times = await asyncio.gather(*(_half_open(s, dead, bound) for s in audience))
                    noticed.setdefault(name, []).extend(times)
        finally:
            publisher.stop()
            await asyncio.wait((publishing,))
        await until_all_have(audience, publisher, 30)
        judge(result, publisher, audience)
        result.recovery_ms = percentiles([r for s in audience for r in s.recoveries])
        result.detail = {
            "noticed_ms": {name: percentiles(times) for name, times in noticed.items()},
            "bound_ms": bound * 1000,
        }
        for subscriber in audience:
            await subscriber.aclose()
    result.require_zeros()
    slowest = max(max(times) for times in noticed.values())
    result.require(slowest <= bound, f"noticed after {slowest:.2f} s, not within {bound:g} s")
    return result


async def _half_open(subscriber: Subscriber, dead: list[Direction], bound: float) -> float:
    """Stall, and return the seconds until the client has given the connection up."""
    failures = subscriber.client.metrics.connection_failures
    began = time.monotonic()
    subscriber.proxy.stall(*dead)
    await until(lambda: subscriber.client.metrics.connection_failures > failures, bound * 3)
    seconds = time.monotonic() - began
    subscriber.fault()
    subscriber.proxy.cut()  # what is stuck in the dead connection never arrives
    subscriber.proxy.flow()
    await until(lambda: subscriber.is_live and subscriber.fault_at is None, 30)
    return seconds
