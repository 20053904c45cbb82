"""Nodes that are killed: under load, and in the moment in which work was begun at them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from tests.system.chaos.nodes.node_stage import NodeStage, node_stage
from tests.system.chaos.nodes.node_world import NodeWorld
from tests.system.chaos.nodes.work_at_node import AT_ONCE, WorkAtNode
from tests.system.chaos.result import Result
from tests.system.chaos.world import ServerProcess

__all__ = ["node_killed", "node_killed_as_work_begins"]

_GOAL_MS: Final = 1500.0
_CALM_SECONDS: Final = 1.0
_AWAY_SECONDS: Final = 14.0
"""Long enough to be declared gone."""


async def node_killed(directory: Path, seed: int, *, long: bool) -> Result:
    """Kill a node (SIGKILL) and start it again, 3 (20) times; every fifth time once it is declared gone.

    A subscriber of the node gets an event that was published after the kill at another node, soon.
    """
    result = Result(experiment="node killed", seed=seed)
    kills, hit = 20 if long else 3, 0
    async with NodeWorld(directory, seed=seed) as world, node_stage(world, result) as stage:
        for number in range(kills):
            await asyncio.sleep(_CALM_SECONDS)
            victim = _one_with_subscribers(stage)
            hit += await stage.kill(victim)
            went = await stage.goes_on("a node was killed")
            if long and number % 5 == 4:
                await asyncio.sleep(_AWAY_SECONDS)
            await world.start(victim)
            if not went:
                break
    p99 = result.recovery_ms.p99
    result.detail |= {"kills": kills, "subscribers hit": hit, "goal p99, ms": _GOAL_MS}
    result.require(hit, "no subscriber was at a node that was killed")
    result.require(
        p99 is not None and p99 <= _GOAL_MS,
        f"p99 from a kill to the next event is {p99} ms, over {_GOAL_MS:g}",
    )
    return result


def _one_with_subscribers(stage: NodeStage) -> ServerProcess:
    """Choose a node by chance among those that have subscribers."""
    found = {id(node): node for s in stage.audience if (node := stage.world.at(s.url)) is not None}
    return stage.world.random.choice(list(found.values()))


async def node_killed_as_work_begins(directory: Path, seed: int, *, long: bool) -> Result:
    """Kill a node as runs and completions are begun at it, 6 (60) times.

    Every other time as soon as the first start of a run is answered, else at any moment within 50 ms of the
    sending. All are sent again, to any node.
    """
    result = Result(experiment="node killed as work begins", seed=seed)
    kills = 60 if long else 6
    answered = 0
    async with NodeWorld(directory, seed=seed) as world, node_stage(world, result) as stage:
        for number in range(kills):
            await asyncio.sleep(_CALM_SECONDS / 2)
            victim = world.random.choice(world.nodes)
            begun = await WorkAtNode.begun(stage, victim)
            await (begun.until_answered() if number % 2 else begun.any_moment())
            await stage.kill(victim)
            answered += await begun.settle()
            went = await stage.goes_on("a node was killed")
            await world.start(victim)
            if not went:
                break
    result.detail |= {"kills": kills, "starts of runs": kills * AT_ONCE, "answered before": answered}
    return result
