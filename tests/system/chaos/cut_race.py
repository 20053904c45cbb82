"""Experiment 2: resumes as fast as they can be made, into a stream that never rests."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from tests.system.chaos.result import Result, percentiles
from tests.system.chaos.run_publishing import RunPublisher
from tests.system.chaos.subscribing import Subscriber, judge, until_all_have
from tests.system.chaos.world import World, until

_RATE = 5_000
_SUBSCRIBERS = 10


async def cut_race(directory: Path, seed: int, *, long: bool) -> Result:
    """Cut each connection as soon as its subscription has come back, again and again."""
    resumes = 10_000 if long else 2_000
    result = Result(experiment="cut race", seed=seed)
    async with World(directory, seed=seed) as world:
        publisher = RunPublisher(world, per_second=_RATE)
        await publisher.prepare()
        audience = [Subscriber(world) for _ in range(_SUBSCRIBERS)]
        for subscriber in audience:
            await subscriber.start_on_agent(publisher.agent_id)
        publishing = asyncio.create_task(publisher.publish())
        began = asyncio.get_running_loop().time()
        try:
            await asyncio.gather(*(_race(world, s, resumes // _SUBSCRIBERS) for s in audience))
        finally:
            seconds = asyncio.get_running_loop().time() - began
            publisher.stop()
            await asyncio.wait((publishing,))
        await until_all_have(audience, publisher, 60)
        judge(result, publisher, audience)
        made = sum(s.client.metrics.reconnection_attempts for s in audience)
        result.recovery_ms = percentiles([r for s in audience for r in s.recoveries])
        result.detail = {"resumes": made, "events_per_second": round(result.events / seconds)}
        for subscriber in audience:
            await subscriber.aclose()
    result.require_zeros()
    result.require(made >= resumes, f"{made} resumes instead of {resumes}")
    return result


async def _race(world: World, subscriber: Subscriber, resumes: int) -> None:
    for _ in range(resumes):
        attempts = subscriber.client.metrics.reconnection_attempts
        subscriber.fault()
        # Anywhere: in the middle of a frame, between two, at once.
        subscriber.proxy.cut(after_bytes=world.random.choice((None, world.random.randrange(1, 2_000))))
        if not await until(partial(_is_back, subscriber, attempts), 30):
            return


def _is_back(subscriber: Subscriber, attempts: int) -> bool:
    made = subscriber.client.metrics.reconnection_attempts
    return made > attempts and subscriber.is_live and subscriber.fault_at is None
