"""Keys that come again when the brokers have long forgotten the ids of their records."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from circuit_breaker_sdk.testing import Direction
from tests.system.chaos.broker_cut_off import restore, silence
from tests.system.chaos.broker_stage import BrokerStage, broker_stage
from tests.system.chaos.result import Result
from tests.system.chaos.world import World, until

_WINDOW_SECONDS: Final = 1.0
_LATER_SECONDS: Final = 3.0
"""When a refused mutation is sent again: behind the window."""
_PATIENCE_SECONDS: Final = 1.0
_OPEN: Final = 8
_AGAIN: Final = 400
_CALM_SECONDS: Final = 0.5


async def late_keys(directory: Path, seed: int, *, long: bool) -> Result:
    """Let records be stored whose acknowledgements are lost; send their keys again behind the window.

    The stream remembers ids for 1 s. Mutations give up after 1 s, and are sent again 3 s later: also after
    the server was killed, and so has nothing but its log.
    """
    rounds = 10 if long else 1
    result = Result(experiment="keys after the window", seed=seed)
    again = stored = 0
    async with World(
        directory, seed=seed, is_proxied=True, cluster={"write_patience_seconds": _PATIENCE_SECONDS}
    ) as world:
        await world.brokers.set_duplicate_window(_WINDOW_SECONDS)
        async with broker_stage(world, result, is_unbroken=False) as stage:
            stage.publisher.delay_seconds = _LATER_SECONDS
            for _ in range(rounds):
                for is_killed in (False, True):
                    await asyncio.sleep(_CALM_SECONDS)
                    stored += await _lose_acknowledgements(stage, is_server_killed=is_killed)
                    await stage.goes_on("acknowledgements were lost")
                    await asyncio.sleep(_WINDOW_SECONDS)
                    known = sorted(stage.publisher.acknowledged)
                    chosen = world.random.sample(known, min(len(known), _AGAIN))
                    again += await stage.publisher.send_again(chosen)
                if result.failures:
                    break
        stage.result.require(stage.publisher.open_refusals, "no mutation was left open")
    result.detail |= {"answered_and_sent_again": again, "stored_without_acknowledgement": stored}
    result.require(stored, "nothing was stored whose acknowledgement was lost")
    return result


async def _lose_acknowledgements(stage: BrokerStage, *, is_server_killed: bool) -> int:
    """Keep the brokers' answers from the server until mutations were left open; count what was stored."""
    world, publisher = stage.world, stage.publisher
    refused = publisher.open_refusals
    before = await world.brokers.messages()
    answered = len(publisher.acknowledged)
    stage.fault()
    silence(world.brokers, Direction.TO_CLIENT)
    await until(lambda: publisher.open_refusals >= refused + _OPEN, 10)
    if is_server_killed:
        await world.server.kill()
    stored = await world.brokers.messages() - before - (len(publisher.acknowledged) - answered)
    for proxy in world.brokers.proxies:
        proxy.cut()  # what was held back never arrives
    restore(world.brokers)
    if is_server_killed:
        await world.server.start()
    return stored
