"""What operators do to nodes: restart all, add one; and clocks that nobody has set."""

from __future__ import annotations

import asyncio
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import aiohttp

from tests.system.chaos.nodes.node_stage import node_stage
from tests.system.chaos.nodes.node_world import NodeWorld
from tests.system.chaos.result import Result

__all__ = ["clocks_apart", "node_added", "rolling_restart"]

_CALM_SECONDS: Final = 1.0
_FLOW_SECONDS: Final = 5.0
_AHEAD_SECONDS: Final = 600
_LATE_SECONDS: Final = 5.0
"""By how much a node that has just started may be wrong about the brokers' clock."""


async def rolling_restart(directory: Path, seed: int, *, long: bool) -> Result:
    """Restart all nodes one after the other (SIGTERM: each drains), 1 (10) times; nobody is declared gone."""
    rounds = 10 if long else 1
    result = Result(experiment="rolling restart", seed=seed)
    longest = 0.0
    async with NodeWorld(directory, seed=seed) as world, node_stage(world, result) as stage:
        for node in world.nodes * rounds:
            await asyncio.sleep(_CALM_SECONDS)
            stage.fault(stage.subscribers_at(node))
            began = time.monotonic()
            await node.stop()
            longest = max(longest, time.monotonic() - began)
            result.require(node.returncode == 0, f"a node ended with {node.returncode} on SIGTERM")
            await world.start(node)
            if not await stage.goes_on("a node was restarted"):
                break
    result.require(not stage.ends.gone, f"nodes were declared gone: {stage.ends.gone}")
    result.detail |= {"restarts": len(world.nodes) * rounds, "longest drain, s": round(longest, 1)}
    return result


async def node_added(directory: Path, seed: int, *, long: bool) -> Result:
    """Start one more node while everything flows, 1 (5) times; it is asked and subscribed to at once."""
    rounds = 5 if long else 1
    result = Result(experiment="node added", seed=seed)
    until_ready: list[float] = []
    async with NodeWorld(directory, seed=seed) as world, node_stage(world, result) as stage:
        before = len(world.nodes)
        for _ in range(rounds):
            await asyncio.sleep(_CALM_SECONDS)
            stage.fault()
            began = time.monotonic()
            added = await world.add()
            until_ready.append(round(time.monotonic() - began, 1))
            await stage.listen_at(added)
            if not await stage.goes_on("a node was added"):
                break
            await asyncio.sleep(_CALM_SECONDS)
    joined = len(stage.ends.joined)
    result.require(joined == before + rounds, f"nodes joined {joined} times, not {before + rounds}")
    result.require(not stage.ends.gone, f"nodes were declared gone: {stage.ends.gone}")
    result.detail |= {"added": rounds, "until it was ready, s": until_ready}
    return result


async def clocks_apart(directory: Path, seed: int, *, long: bool) -> Result:
    """Let the clock of each node be ten minutes ahead of the next one's, and kill each once (ten times)."""
    rounds = 10 if long else 1
    result = Result(experiment="clocks apart", seed=seed)
    apart = (0, _AHEAD_SECONDS, -_AHEAD_SECONDS)
    async with (
        NodeWorld(directory, seed=seed, clocks_ahead=apart) as world,
        node_stage(world, result) as stage,
    ):
        own = [round(await _clock_ahead(node.url)) for node in world.nodes]
        await asyncio.sleep(_FLOW_SECONDS)
        for node in world.nodes * rounds:
            await stage.kill(node)
            went = await stage.goes_on("a node was killed")
            await world.start(node)
            await asyncio.sleep(_CALM_SECONDS)
            if not went:
                break
    result.require(not stage.ends.gone, f"nodes were declared gone: {stage.ends.gone}")
    clocks = stage.ends.clocks
    far = [name for name in world.names if name not in clocks]
    result.require(not far, f"nodes whose clock is not in the log: {far}")
    result.detail |= {
        "own clocks ahead, s": own,
        "ahead in the log, s": {name: round(ahead, 1) for name, ahead in sorted(clocks.items())},
    }
    spread = max(own) - min(own)
    result.require(spread > _AHEAD_SECONDS, f"the clocks of the nodes are only {spread} s apart")
    wrong = {name: ahead for name, ahead in clocks.items() if abs(ahead) > _LATE_SECONDS}
    result.require(not wrong, f"nodes that do not go by the brokers' clock: {wrong}")
    return result


async def _clock_ahead(url: str) -> float:
    """Return by how many seconds a node's own clock is ahead, which dates its answers."""
    async with aiohttp.ClientSession() as http, http.get(url.replace("/graphql", "/health/live")) as answer:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()
