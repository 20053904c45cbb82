"""Brokers that die while events flow: the leader of the stream, a follower, all of them."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path
from typing import Final

from tests.system.chaos.keyed_stage import keyed_stage
from tests.system.chaos.result import Result
from tests.system.chaos.world import World

_GOAL_SECONDS: Final = 8.0
# What the server may add to an election, whose length is up to the brokers: the append and the tail each ask
# again after half a second, the one behind the other, and are answered a moment later.
_BEHIND_ELECTION_SECONDS: Final = 1.5
_CALM_SECONDS: Final = 1.0


async def leader_killed(directory: Path, seed: int, *, long: bool) -> Result:
    """Kill the leader of the stream again and again; each time it is started again."""
    return await _one_killed("broker leader killed", directory, seed, 20 if long else 3, is_leader=True)


async def follower_killed(directory: Path, seed: int, *, long: bool) -> Result:
    """Kill one that is not the leader, again and again; each time it is started again."""
    return await _one_killed("broker follower killed", directory, seed, 20 if long else 3, is_leader=False)


async def _one_killed(name: str, directory: Path, seed: int, kills: int, *, is_leader: bool) -> Result:
    result = Result(experiment=name, seed=seed)
    leaders: set[str] = set()
    elections: list[float] = []
    waits: list[float] = []
    async with World(directory, seed=seed) as world:
        brokers = world.brokers
        async with keyed_stage(world, result) as stage:
            for _ in range(kills):
                await asyncio.sleep(_CALM_SECONDS)
                leader = await brokers.leader()
                leaders.add(leader)
                others = sorted(set(brokers.names) - {leader})
                stage.publisher.take_longest_wait()
                victim = leader if is_leader else world.random.choice(others)
                brokers.kill([victim])
                stage.fault()
                if is_leader:
                    began = time.monotonic()
                    await brokers.leader(but=victim)
                    elections.append(round(time.monotonic() - began, 2))
                goes_on = await stage.goes_on(f"{victim} was killed")
                waits.append(round(stage.publisher.take_longest_wait(), 2))
                await brokers.start([victim])
                if not goes_on:
                    break
    result.detail |= {"kills": kills, "leaders": len(leaders), "waits": waits}
    if is_leader:
        # What the brokers take of the waits, seen from beside the server.
        result.detail["elections"] = elections
        result.detail[f"waits over {_GOAL_SECONDS:g} s"] = sum(wait > _GOAL_SECONDS for wait in waits)
    for wait, election in itertools.zip_longest(waits, elections, fillvalue=0.0):
        result.require(
            wait <= election + _BEHIND_ELECTION_SECONDS,
            f"a mutation waited {wait:.2f} s, and an election took {election:.2f} s of it",
        )
    return result


async def all_brokers_restarted(directory: Path, seed: int, *, long: bool) -> Result:
    """Restart all, one after the other as for an upgrade; then kill all at once and start them again."""
    rounds = 8 if long else 1
    result = Result(experiment="all brokers restarted", seed=seed)
    one_by_one = at_once = 0.0
    async with World(directory, seed=seed) as world:
        brokers = world.brokers
        async with keyed_stage(world, result) as stage:
            for _ in range(rounds):
                for name in world.random.sample(brokers.names, len(brokers.names)):
                    await asyncio.sleep(_CALM_SECONDS)
                    stage.fault()
                    await brokers.stop([name])
                    await brokers.start([name])
                    await stage.goes_on(f"{name} was restarted")
                one_by_one = max(one_by_one, stage.publisher.take_longest_wait())
                await asyncio.sleep(_CALM_SECONDS)
                stage.fault()
                brokers.kill()
                await asyncio.sleep(world.random.uniform(0.0, 2.0))
                await brokers.start()
                await stage.goes_on("all were killed at once")
                at_once = max(at_once, stage.publisher.take_longest_wait())
                if result.failures:
                    break
    longest = {"one by one": round(one_by_one, 2), "at once": round(at_once, 2)}
    result.detail |= {"rounds": rounds, "longest_wait_seconds": longest}
    return result
