"""Experiment 3: the server kills itself at each boundary of append, commit and fan-out."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.system.chaos.crash_points import POINTS
from tests.system.chaos.event_logs import log_of_this_run
from tests.system.chaos.publishing import BATCH, Publisher
from tests.system.chaos.result import Result, percentiles
from tests.system.chaos.subscribing import IMPATIENT, Subscriber, judge, require_replay, until_all_have
from tests.system.chaos.world import World, until

_SUBSCRIBERS = 3
_MOST_PASSES = 120
_EVENTS_BETWEEN = 500
_REACH_SECONDS = 20.0


async def crash_boundaries(directory: Path, seed: int, *, long: bool) -> Result:
    """Let it die at every point, each at several passes; nothing is lost, nothing is invented."""
    rounds = 10 if long else 1
    result = Result(experiment="crash boundaries", seed=seed)
    crashes = 0
    async with World(directory, seed=seed) as world:
        publisher = Publisher(world, lanes=4)
        audience = [Subscriber(world, **IMPATIENT) for _ in range(_SUBSCRIBERS)]
        for subscriber in audience:
            await subscriber.start()
        start = audience[0].subscription.cursor if audience[0].subscription is not None else None
        publishing = asyncio.create_task(publisher.publish())
        points = [point for point in POINTS[log_of_this_run()] for _ in range(rounds)]
        world.random.shuffle(points)
        try:
            for point in points:
                passes = world.random.randrange(1, _MOST_PASSES)
                died = await _crash(world, point, passes)
                result.require(died, f"the server did not kill itself {point} (pass {passes})")
                crashes += died
                await world.server.start()
                for subscriber in audience:
                    subscriber.fault()
                went_on = len(publisher.acknowledged) + _EVENTS_BETWEEN
                goes_on = await until(
                    lambda: (
                        len(publisher.acknowledged) >= went_on  # noqa: B023 (awaited in this round)
                        and all(s.is_live and s.fault_at is None for s in audience)
                    ),
                    30,
                )
                result.require(goes_on, f"it did not go on after it died {point} (pass {passes})")
                if result.failures:
                    break
        finally:
            publisher.stop()
            await asyncio.wait((publishing,))
        await publisher.publish(BATCH)  # behind whatever was not acknowledged
        await until_all_have(audience, publisher, 60)
        judge(result, publisher, audience)
        result.require(start is not None, "no cursor was given at the start")
        if start is not None:
            await require_replay(result, start, audience)
        result.recovery_ms = percentiles([r for s in audience for r in s.recoveries])
        appeared = publisher.unknown & set(audience[0].seen)
        result.detail = {
            "crashes": crashes,
            "points": len(POINTS[log_of_this_run()]),
            "unknown": len(publisher.unknown),
            "unknown_and_in_the_log": len(appeared),
        }
        for subscriber in audience:
            await subscriber.aclose()
    result.require_zeros()
    return result


async def _crash(world: World, point: str, passes: int) -> bool:
    """Start the server again with the order to die; tell whether it has died of it."""
    server = world.server
    await server.kill()
    server.crash = (point, passes)
    await server.start()
    server.crash = None
    try:
        async with asyncio.timeout(_REACH_SECONDS):
            await server.wait_dead()
    except TimeoutError:
        await server.kill()
        return False
    return server.returncode == -signal.SIGKILL
