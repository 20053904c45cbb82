"""A server whose network to all brokers is cut, or silent, in one direction or in both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from circuit_breaker_sdk.testing import Direction
from tests.system.chaos.brokers import Brokers
from tests.system.chaos.keyed_stage import keyed_stage
from tests.system.chaos.result import Result
from tests.system.chaos.world import World

__all__ = ["restore", "server_cut_off", "silence"]

_CALM_SECONDS: Final = 1.0
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.5, 6.0
_SETTLED_SECONDS: Final = 0.3
_BACK_SECONDS: Final = 8.0


def _refuse(brokers: Brokers) -> None:
    for proxy in brokers.proxies:
        proxy.refuses = True
        proxy.cut()


def silence(brokers: Brokers, *directions: Direction) -> None:
    """Let nothing come through, in these directions or in both; nobody is told."""
    for proxy in brokers.proxies:
        proxy.stall(*directions)


def restore(brokers: Brokers) -> None:
    """Let everything come through again."""
    for proxy in brokers.proxies:
        proxy.refuses = False
        proxy.flow()


_WAYS: Final[dict[str, Callable[[Brokers], None]]] = {
    "cut": _refuse,
    "silent": silence,
    "silent to the brokers": lambda brokers: silence(brokers, Direction.TO_SERVER),
    "silent to the server": lambda brokers: silence(brokers, Direction.TO_CLIENT),
}


async def server_cut_off(directory: Path, seed: int, *, long: bool) -> Result:
    """Cut the server off in each way, for up to 6 s; the brokers live on, and so do the subscriptions."""
    rounds = 10 if long else 1
    result = Result(experiment="server cut off from the brokers", seed=seed)
    longest: dict[str, float] = {}
    late = 0.0
    async with World(directory, seed=seed, is_proxied=True) as world:
        brokers = world.brokers
        async with keyed_stage(world, result) as stage:
            ways = [*_WAYS.items()] * rounds
            world.random.shuffle(ways)
            for name, cut_off in ways:
                await asyncio.sleep(_CALM_SECONDS)
                stage.publisher.take_longest_wait()
                seconds = world.random.uniform(_SHORTEST_SECONDS, _LONGEST_SECONDS)
                stage.fault()
                cut_off(brokers)
                await asyncio.sleep(_SETTLED_SECONDS)
                answered = len(stage.publisher.acknowledged)
                await asyncio.sleep(seconds - _SETTLED_SECONDS)
                # Nobody goes round the proxies.
                went_round = len(stage.publisher.acknowledged) - answered
                result.require(not went_round, f"{name}: {went_round} mutations were answered all the same")
                restore(brokers)
                if not await stage.goes_on(f"{seconds:.1f} s of: {name}"):
                    break
                wait = stage.publisher.take_longest_wait()
                longest[name] = max(longest.get(name, 0.0), round(wait, 2))
                late = max(late, wait - seconds)
    result.detail |= {"rounds": len(ways), "longest_wait_seconds": longest, "after_the_end": round(late, 2)}
    result.require(late <= _BACK_SECONDS, f"a mutation waited {late:.2f} s longer than the cut lasted")
    return result
