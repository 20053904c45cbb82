"""Experiment 6: one who reads a kilobyte a second among hundreds."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from circuit_breaker_sdk import Client, Heartbeat, Subscription
from tests.system.chaos.publishing import Publisher
from tests.system.chaos.result import Result, percentiles
from tests.system.chaos.subscribing import Subscriber, judge, until_all_have
from tests.system.chaos.world import RING, World

_EVENTS, _RATE, _SIZE = 700, 100, 15_000
_MIB = 1024 * 1024
_MEMORY = Path("/dev/shm")  # noqa: S108 (a directory of its own in it)


async def slow_reader(directory: Path, seed: int, *, long: bool) -> Result:
    """Compare memory and latencies with and without it, then let it catch up.

    The log lies in memory where the system has a place for that: what a disk's syncs add to single latencies,
    with the slow reader and without, is more than what is measured here.
    """
    readers = 1_000 if long else 500
    result = Result(experiment="slow reader", seed=seed)
    p99s: dict[bool, list[float]] = {False: [], True: []}
    grown: dict[bool, list[int]] = {False: [], True: []}
    for _ in range(3):
        for is_slow in (False, True):
            with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else directory) as place:
                latencies, memory = await _run(Path(place), seed, readers, result, slow=is_slow)
            p99s[is_slow].append(percentiles(latencies).p99 or 0.0)
            grown[is_slow].append(memory)
    without, with_it = statistics.median(p99s[False]), statistics.median(p99s[True])
    cost = statistics.median(grown[True]) - statistics.median(grown[False])
    result.detail = {
        "p99_ms": {"without": without, "with": with_it},
        "server_cost_mib": round(cost / _MIB, 2),
        "readers": readers,
    }
    result.require_zeros()
    bound = max(1.2 * without, without + 5)
    result.require(with_it <= bound, f"the others' p99 is {with_it} ms, over {bound:.1f} ms")
    result.require(cost <= 2 * _MIB, f"it cost the server {cost / _MIB:.1f} MiB")
    return result


async def _run(
    directory: Path, seed: int, readers: int, result: Result, *, slow: bool
) -> tuple[list[float], int]:
    """Return the latencies of one of the others, and what the server grew by while it published."""
    settings = {**RING, "send_buffer_bytes": 64 * 1024}
    async with World(directory, seed=seed, settings=settings, measures_holds=False) as world:
        publisher = Publisher(world, lanes=1, per_second=_RATE, size=_SIZE)
        clients = [Client(world.server.url) for _ in range(readers // 20)]
        others: list[Subscription[object]] = []
        for client in clients:
            for _ in range(20):
                subscription: Subscription[object] = await client.subscribe(
                    "subscription S($w: String) { resourceUpdates(workflowId: $w) { id } }",
                    {"w": world.workflow},
                    type=dict[str, object],
                )
                others.append(subscription.on_data(lambda _event: None))
        watched = Subscriber(world)
        watched.publisher = publisher
        await watched.start()
        audience = [watched]
        if slow:
            # A pong waits behind all that it has not read yet: it is given the time.
            reader = Subscriber(world, heartbeat=Heartbeat(interval_seconds=60, timeout_seconds=60))
            audience.append(reader)
            await reader.start()
            reader.proxy.bytes_per_second = 1_000
        await publisher.publish(100)
        before = world.server.resident_bytes
        await publisher.publish(_EVENTS)
        memory = world.server.resident_bytes - before
        if slow:
            behind = len(publisher.acknowledged) - len(audience[1].seen)
            result.require(behind > _EVENTS / 2, f"the slow reader was only {behind} events behind")
            audience[1].proxy.bytes_per_second = None
        await until_all_have(audience, publisher, 60)
        one = Result(experiment="")
        judge(one, publisher, audience)
        result.events += one.events
        result.lost += one.lost
        result.duplicated += one.duplicated
        result.reordered += one.reordered
        result.failures += one.failures
        for subscriber in audience:
            await subscriber.aclose()
        for client in clients:
            await client.aclose()
    return watched.latencies, memory
