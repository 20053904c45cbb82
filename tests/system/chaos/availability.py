"""``make availability``: how much of the time a subscription is live that is cut once a minute."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from circuit_breaker_sdk.testing import Direction
from tests.system.chaos.cores import leave_the_server_alone
from tests.system.chaos.publishing import Publisher
from tests.system.chaos.result import Result, percentiles
from tests.system.chaos.subscribing import Subscriber, judge, until_all_have
from tests.system.chaos.world import World, until

_TARGET = 0.999
_HALF_OPEN_EVERY = 10


async def measure(directory: Path, *, minutes: float, every_seconds: float, seed: int) -> dict[str, object]:
    """Cut at random moments, every tenth time half-open; count the time from the fault to live again."""
    result = Result(experiment="availability", seed=seed)
    down: dict[str, list[float]] = {"clean": [], "half_open": []}
    async with World(directory, seed=seed) as world:
        publisher = Publisher(world, lanes=1, per_second=20)
        subscriber = Subscriber(world)
        await subscriber.start()
        publishing = asyncio.create_task(publisher.publish())
        began = time.monotonic()
        for k in range(1, round(minutes * 60 / every_seconds) + 1):
            due = began + (k - 1) * every_seconds + world.random.uniform(0.1, 0.9) * every_seconds / 2
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            kind = "half_open" if k % _HALF_OPEN_EVERY == 0 else "clean"
            down[kind].append(await _fault(world, subscriber, kind))
        await asyncio.sleep(max(0.0, began + minutes * 60 - time.monotonic()))
        seconds = time.monotonic() - began
        publisher.stop()
        await publishing
        await until_all_have([subscriber], publisher, 30)
        judge(result, publisher, [subscriber])
        await subscriber.aclose()
    result.require_zeros()
    clean = 1 - sum(down["clean"]) / seconds
    result.require(clean >= _TARGET, f"live for {clean:.3%} of the time")
    return {
        "minutes": round(seconds / 60, 1),
        "cuts": {kind: len(times) for kind, times in down.items()},
        "live_share_clean_cuts": round(clean, 6),
        "live_share_all_cuts": round(1 - sum(map(sum, down.values())) / seconds, 6),
        "down_ms_clean": percentiles(down["clean"]).p50,
        "down_ms_half_open": percentiles(down["half_open"]).p50,
        "events": result.events,
        "lost": result.lost,
        "duplicated": result.duplicated,
        "reordered": result.reordered,
        "target": _TARGET,
        "passed": not result.failures,
        "failures": result.failures,
    }


async def _fault(world: World, subscriber: Subscriber, kind: str) -> float:
    """Return the seconds until it is live on another connection."""
    attempts = subscriber.client.metrics.reconnection_attempts
    began = time.monotonic()
    if kind == "half_open":
        failures = subscriber.client.metrics.connection_failures
        subscriber.proxy.stall(world.random.choice(list(Direction)))
        await until(lambda: subscriber.client.metrics.connection_failures > failures, 60)
        subscriber.proxy.cut()
        subscriber.proxy.flow()
    else:
        subscriber.proxy.cut()
    await until(lambda: subscriber.client.metrics.reconnection_attempts > attempts and subscriber.is_live, 60)
    return time.monotonic() - began


def main() -> int:
    """Measure; 0 if the target is met and nothing was lost."""
    parser = argparse.ArgumentParser(prog="make availability", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every-seconds", type=float, default=60.0, help="between two cuts")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))  # noqa: S311 (chance)
    arguments = parser.parse_args()
    leave_the_server_alone()
    with (
        tempfile.TemporaryDirectory(prefix="circuit-breaker-availability-") as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        found = runner.run(
            measure(
                Path(directory),
                minutes=arguments.minutes,
                every_seconds=arguments.every_seconds,
                seed=arguments.seed,
            )
        )
    sys.stdout.write(json.dumps(found) + "\n")
    return int(not found["passed"])


if __name__ == "__main__":
    sys.exit(main())
