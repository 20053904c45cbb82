"""Nodes that are silent: paused, cut off from the brokers, or all of them while the brokers are away."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from tests.system.chaos.nodes.node_stage import NodeStage, node_stage
from tests.system.chaos.nodes.node_world import NodeWorld
from tests.system.chaos.nodes.work_at_node import WorkAtNode
from tests.system.chaos.result import Result, percentiles

__all__ = ["brokers_away", "node_cut_off", "node_paused"]

_CALM_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 14.0
_LONG_PAUSE_SECONDS: Final = 30.0
_AWAY_SECONDS: Final = 12.0
_BACK_SECONDS: Final = 30.0


async def node_paused(directory: Path, seed: int, *, long: bool) -> Result:
    """Pause a node (SIGSTOP) for 14 (30) s, so that it is declared gone, and wake it, 1 (6) times."""
    rounds, seconds = (6, _LONG_PAUSE_SECONDS) if long else (1, _PAUSE_SECONDS)
    result = Result(experiment="node paused", seed=seed)
    async with NodeWorld(directory, seed=seed) as world, node_stage(world, result) as stage:
        for number in range(rounds):
            await asyncio.sleep(_CALM_SECONDS)
            victim = world.random.choice(world.nodes)
            begun = await WorkAtNode.begun(stage, victim)
            await (begun.any_moment() if number % 2 else begun.until_answered())
            began = time.monotonic()
            hit = stage.subscribers_at(victim)
            victim.pause()
            stage.fault(hit)
            settling = asyncio.create_task(begun.settle())
            try:
                await stage.goes_on("a node was paused", seconds)
                await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
            finally:
                victim.wake()
            await settling
            if not await stage.goes_on("a node woke"):
                break
    _require_gone_and_back(stage, rounds)
    result.detail |= {"rounds": rounds, "paused, s": seconds}
    return result


async def node_cut_off(directory: Path, seed: int, *, long: bool) -> Result:
    """Cut the network between a node and the brokers for 14 s, 1 (10) times; clients still reach it.

    A subscriber of that node has to find out, and go to another one.
    """
    rounds = 10 if long else 1
    result = Result(experiment="node cut off from the brokers", seed=seed)
    async with (
        NodeWorld(directory, seed=seed, cuts_off=True) as world,
        node_stage(world, result) as stage,
    ):
        victim = world.nodes[-1]
        hit = 0
        for number in range(rounds):
            await asyncio.sleep(_CALM_SECONDS)
            begun = await WorkAtNode.begun(stage, victim)
            await (begun.any_moment() if number % 2 else begun.until_answered())
            began = time.monotonic()
            settling = asyncio.create_task(begun.settle())
            for proxy in world.proxies:
                if number % 2:
                    proxy.stall()
                else:
                    proxy.refuses = True
                    proxy.cut()
            at_it = stage.subscribers_at(victim)
            hit += len(at_it)
            stage.fault(at_it)
            await asyncio.sleep(_PAUSE_SECONDS)
            while_cut_off = len(stage.recoveries)
            for proxy in world.proxies:
                proxy.refuses = False
                proxy.flow()
            await settling
            went = await stage.goes_on("a node was cut off", _BACK_SECONDS)
            result.detail["recovered while it was cut off"] = while_cut_off
            result.detail["until all went on, s"] = round(time.monotonic() - began, 1)
            if not went:
                break
    _require_gone_and_back(stage, rounds)
    result.detail |= {"rounds": rounds, "subscribers hit": hit}
    return result


def _require_gone_and_back(stage: NodeStage, rounds: int) -> None:
    """Require that the silent node was declared gone each time, and joined again, and no other one was."""
    ends, result, before = stage.ends, stage.result, len(stage.world.nodes)
    result.require(
        len(ends.gone) == rounds, f"{len(ends.gone)} nodes were declared gone, {rounds} were silent for long"
    )
    result.require(
        len(ends.joined) == before + rounds, f"nodes joined {len(ends.joined)} times, not {before + rounds}"
    )


async def brokers_away(directory: Path, seed: int, *, long: bool) -> Result:
    """Stop all brokers for 12 s and start them again, 1 (8) times: no node is declared gone."""
    rounds = 8 if long else 1
    result = Result(experiment="brokers away", seed=seed)
    until_all: list[float] = []
    async with NodeWorld(directory, seed=seed) as world, node_stage(world, result) as stage:
        for _ in range(rounds):
            await asyncio.sleep(_CALM_SECONDS)
            await world.brokers.stop()
            await asyncio.sleep(_AWAY_SECONDS)
            stage.fault()
            began = time.monotonic()
            await world.brokers.start()
            if not await stage.goes_on("all brokers were away"):
                break
            until_all.append(time.monotonic() - began)
    result.detail |= {"rounds": rounds, "from their start until all went on": percentiles(until_all)}
    result.require(not stage.ends.gone, f"nodes were declared gone: {stage.ends.gone}")
    joined = len(stage.ends.joined)
    result.require(joined == len(world.nodes), f"nodes joined {joined} times, not {len(world.nodes)}")
    return result
