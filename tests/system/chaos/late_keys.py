"""Keys that come again behind the brokers' memory of ids, or before their records are stored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from circuit_breaker_sdk.testing import Direction
from tests.system.chaos.broker_cut_off import restore, silence
from tests.system.chaos.keyed_runs import KeyedRuns
from tests.system.chaos.keyed_stage import KeyedStage, keyed_stage
from tests.system.chaos.result import Result
from tests.system.chaos.world import Refused, World, until

_WINDOW_SECONDS: Final = 1.0
_LATER_SECONDS: Final = 3.0
"""When a refused mutation is sent again: behind the window."""
_AT_ONCE_SECONDS: Final = 0.05
_PATIENCE_SECONDS: Final = 1.0
_LANES: Final = 32
_PER_SECOND: Final = 600.0
_AGAIN: Final = 400
_DELAY_SECONDS: Final = 0.02
"""The brokers are so far away that many records are under way at once."""
_CALM_SECONDS: Final = 0.5
_OPEN_SECONDS: Final = 5.0


async def late_keys(directory: Path, seed: int, *, long: bool) -> Result:
    """Leave it open whether mutations have happened; send their keys again behind the window.

    The stream remembers ids for 1 s. Mutations give up after 1 s, and are sent again 3 s later: also after
    the server was killed, and so has nothing but its log.
    """
    rounds = 5 if long else 1
    result = Result(experiment="keys after the window", seed=seed)
    again = stored = 0
    ways = (_lose_acknowledgements, _lose_acknowledgements, _kill_the_server_too, _lose_the_quorum)
    async with World(
        directory, seed=seed, is_proxied=True, cluster={"write_patience_seconds": _PATIENCE_SECONDS}
    ) as world:
        await world.brokers.set_duplicate_window(_WINDOW_SECONDS)
        for proxy in world.brokers.proxies:
            proxy.delay_seconds = _DELAY_SECONDS
        async with keyed_stage(
            world, result, is_unbroken=False, per_second=_PER_SECOND, lanes=_LANES
        ) as stage:
            sender, runs = stage.publisher.sender, KeyedRuns(world, stage.publisher.sender)
            await runs.prepare()
            running = asyncio.create_task(runs.run())
            try:
                for way in ways * rounds:
                    await asyncio.sleep(_CALM_SECONDS)
                    sender.delay_seconds = _LATER_SECONDS
                    stage.fault()
                    stored += await way(stage)
                    went_on = await stage.goes_on(f"it was left open by: {way.__name__.strip('_')}")
                    await asyncio.sleep(_WINDOW_SECONDS)
                    known = sorted(stage.publisher.acknowledged)
                    chosen = world.random.sample(known, min(len(known), _AGAIN))
                    again += await stage.publisher.send_again(chosen)
                    if not went_on:
                        break
            finally:
                runs.stop()
                await asyncio.wait((running,))
            await running
            for proxy in world.brokers.proxies:
                proxy.delay_seconds = 0.0  # the judge reads the whole log
            again += await runs.send_again()
            await runs.judge(result)
    result.detail |= {
        "answered_and_sent_again": again,
        "runs": len(runs.started),
        "stored_without_acknowledgement": stored,
    }
    result.require(sender.open_refusals, "no mutation was left open")
    result.require(stored, "nothing was stored whose acknowledgement was lost")
    return result


async def _lose_acknowledgements(stage: KeyedStage[World]) -> int:
    """Keep the brokers' answers from the server until mutations are left open."""
    stored = await _silent_until_left_open(stage)
    _let_through(stage)
    return stored


async def _kill_the_server_too(stage: KeyedStage[World]) -> int:
    """Do the same, and kill the server, which forgets what it has left open."""
    stored = await _silent_until_left_open(stage)
    await stage.world.server.kill()
    _let_through(stage)
    await _start(stage.world)
    return stored


async def _lose_the_quorum(stage: KeyedStage[World]) -> int:
    """Let the leader hold what it cannot store yet, and kill the server; the keys come again at once.

    When the other brokers are back, the leader may store what a server sent that is gone, while the next one
    starts.
    """
    brokers, server = stage.world.brokers, stage.world.server
    stage.publisher.sender.delay_seconds = _AT_ONCE_SECONDS
    leader = await brokers.leader()
    others = [name for name in brokers.names if name != leader]
    brokers.kill(others)
    await _until_left_open(stage)
    await server.kill()
    await asyncio.gather(brokers.start(others), _start(stage.world))
    return 0


async def _silent_until_left_open(stage: KeyedStage[World]) -> int:
    """Count the records that are stored, and of which the server has not heard."""
    silence(stage.world.brokers, Direction.TO_CLIENT)
    await _until_left_open(stage)
    world = stage.world
    in_log = await world.brokers.records_by_subject(f"resource.{world.workflow}.>")
    return len(in_log) - len(stage.publisher.acknowledged)


async def _until_left_open(stage: KeyedStage[World]) -> None:
    sender = stage.publisher.sender
    before = sender.open_refusals
    await until(lambda: sender.open_refusals > before, _OPEN_SECONDS)


def _let_through(stage: KeyedStage[World]) -> None:
    for proxy in stage.world.brokers.proxies:
        proxy.cut()  # what was held back never arrives
    restore(stage.world.brokers)


async def _start(world: World) -> None:
    """Start the server, as a supervisor does: again, while the brokers let it not."""
    while True:
        try:
            await world.server.start()
        except Refused:
            await asyncio.sleep(_AT_ONCE_SECONDS)
        else:
            return
