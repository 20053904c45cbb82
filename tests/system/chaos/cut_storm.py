"""Experiment 1: connections cut all the time, in mid-frame too, and the server killed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.system.chaos.publishing import Publisher
from tests.system.chaos.result import Result, percentiles
from tests.system.chaos.subscribing import Subscriber, judge, until_all_have
from tests.system.chaos.world import World, until

_CUT_EVERY_SECONDS = 0.2


async def cut_storm(directory: Path, seed: int, *, long: bool) -> Result:
    """Publish to many subscribers while one is cut every 200 ms on average and the server is killed."""
    size = (1_000_000, 100, 20) if long else (50_000, 20, 5)
    return await _storm("cut storm", directory, seed, size)


async def cut_storm_over_sse(directory: Path, seed: int, *, long: bool) -> Result:
    """Do the same to subscribers that have nothing but server-sent events."""
    size = (200_000, 50, 10) if long else (20_500, 10, 2)
    return await _storm("cut storm, sse", directory, seed, size, transports=("sse",))


async def cut_storm_over_polls(directory: Path, seed: int, *, long: bool) -> Result:
    """Do the same to subscribers that have nothing but long-polling."""
    size = (200_000, 50, 10) if long else (20_500, 10, 2)
    return await _storm("cut storm, poll", directory, seed, size, transports=("poll",))


async def _storm(
    name: str,
    directory: Path,
    seed: int,
    size: tuple[int, int, int],
    **settings: Any,  # of the client
) -> Result:
    """Run the storm; ``size``: events, subscribers, kills of the server."""
    events, subscribers, kills = size
    result = Result(experiment=name, seed=seed)
    async with World(directory, seed=seed) as world:
        publisher = Publisher(world)
        audience = [Subscriber(world, **settings) for _ in range(subscribers)]
        cuts: list[float] = []
        restarts: list[float] = []
        for subscriber in audience:
            await subscriber.start()
        publishing = asyncio.create_task(publisher.publish(events))
        cutting = asyncio.create_task(_cut(world, audience))
        try:
            for k in range(1, kills + 1):
                due = events * k // (kills + 1)
                await until(lambda: publisher.count >= due, 1200)  # noqa: B023 (awaited in this round)
                await world.server.kill()
                cuts += _take_recoveries(audience)
                for subscriber in audience:
                    subscriber.fault_at = None
                await world.server.start()
                for subscriber in audience:
                    subscriber.fault()
                await until(lambda: all(s.fault_at is None for s in audience), 30)
                restarts += _take_recoveries(audience)
            await publishing
        finally:
            cutting.cancel()
            await asyncio.wait((cutting,))
            publisher.stop()
            await asyncio.wait((publishing,))
        cuts += _take_recoveries(audience)
        await until_all_have(audience, publisher, 60)
        judge(result, publisher, audience)
        result.recovery_ms = percentiles(cuts)
        result.detail = {
            "cuts": len(cuts),
            "restart_ms": percentiles(restarts),
            "kills": kills,
            "reconnects": sum(s.client.metrics.reconnection_attempts for s in audience),
            "unknown": len(publisher.unknown),
        }
        for subscriber in audience:
            await subscriber.aclose()
    result.require_zeros()
    result.require(cuts and restarts, "no cut and no restart was measured")
    result.require((result.recovery_ms.p99 or 0) <= 1000, "cut to next event: p99 over 1 s")
    result.require((percentiles(restarts).p99 or 0) <= 3000, "restart to next event: over 3 s")
    return result


async def _cut(world: World, audience: list[Subscriber]) -> None:
    chance = world.random
    while True:
        await asyncio.sleep(chance.expovariate(1 / _CUT_EVERY_SECONDS))
        await world.server.up.wait()
        subscriber = chance.choice(audience)
        if subscriber.is_live and subscriber.fault_at is None:
            subscriber.fault()
            subscriber.proxy.cut(after_bytes=chance.choice((None, None, chance.randrange(1, 600))))


def _take_recoveries(audience: list[Subscriber]) -> list[float]:
    taken = [seconds for subscriber in audience for seconds in subscriber.recoveries]
    for subscriber in audience:
        subscriber.recoveries.clear()
    return taken
