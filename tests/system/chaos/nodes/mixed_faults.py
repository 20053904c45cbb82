"""All faults of nodes and brokers in one run, in an order by chance, under much load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.system.chaos.nodes.node_stage import NodeStage, node_stage
from tests.system.chaos.nodes.node_world import NodeWorld
from tests.system.chaos.result import Result

__all__ = ["mixed_faults"]

_CALM_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 14.0
_EVENTS: Final = 500_000
_PER_SECOND: Final = 1_500.0
_SHORT_PER_SECOND: Final = 150.0
_BROKER_AWAY_SECONDS: Final = 2.0


async def mixed_faults(directory: Path, seed: int, *, long: bool) -> Result:
    """Kill a node and a broker; 20 nodes and 10 brokers, and pause 10 nodes, over 500,000 events."""
    result = Result(experiment="mixed faults", seed=seed)
    faults: list[tuple[str, Callable[[NodeStage], Awaitable[None]]]] = [
        *[("a node was killed", _kill_node)] * (20 if long else 1),
        *[("a broker was killed", _kill_broker)] * (10 if long else 1),
        *[("a node was paused", _pause_node)] * (10 if long else 0),
    ]
    per_second = _PER_SECOND if long else _SHORT_PER_SECOND
    began = time.monotonic()
    async with (
        NodeWorld(directory, seed=seed) as world,
        node_stage(world, result, per_second=per_second) as stage,
    ):
        world.random.shuffle(faults)
        for number, (what, do) in enumerate(faults, start=1):
            await do(stage)
            if not await stage.goes_on(what):
                break
            # The faults are spread over the events.
            until = _EVENTS * number // len(faults) if long else 0
            while len(stage.publisher.acknowledged) < until:
                await asyncio.sleep(_CALM_SECONDS)
            await asyncio.sleep(_CALM_SECONDS)
        done = [what for what, _ in faults]
    seconds = time.monotonic() - began
    result.detail |= {what: done.count(what) for what in sorted(set(done))}
    result.detail |= {"mutations a second": round(result.events / seconds), "deliveries": result.events * 9}
    if long:
        result.require(result.events >= _EVENTS, f"{result.events} events, fewer than {_EVENTS}")
    return result


async def _kill_node(stage: NodeStage) -> None:
    victim = stage.world.random.choice(stage.world.nodes)
    await stage.kill(victim)
    await stage.world.start(victim)


async def _kill_broker(stage: NodeStage) -> None:
    brokers = stage.world.brokers
    victim = stage.world.random.choice(brokers.names)
    stage.fault()
    brokers.kill([victim])
    await asyncio.sleep(_BROKER_AWAY_SECONDS)
    await brokers.start([victim])


async def _pause_node(stage: NodeStage) -> None:
    victim = stage.world.random.choice(stage.world.nodes)
    hit = stage.subscribers_at(victim)
    victim.pause()
    stage.fault(hit)
    try:
        await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        victim.wake()
