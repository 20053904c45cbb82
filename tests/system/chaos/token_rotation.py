"""Experiment 7: tokens that end, and are renewed, under load."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import OctKey

from tests.system.chaos.publishing import Publisher
from tests.system.chaos.result import Result
from tests.system.chaos.subscribing import Subscriber, judge, until_all_have
from tests.system.chaos.world import RING, World

_KEY = "the key of one experiment, long enough"
_SUBSCRIBERS = 20
_LIFE_SECONDS = 2.0


async def token_rotation(directory: Path, seed: int, *, long: bool) -> Result:
    """Let every token live 2 s; half of the clients come too late, so that the server closes first."""
    seconds = 300.0 if long else 12.0
    result = Result(experiment="token rotation", seed=seed)
    settings = {**RING, "token_key": _KEY}
    async with World(directory, seed=seed, settings=settings, token=_token(3600)) as world:
        publisher = Publisher(world, per_second=1_000)
        given = [0]

        def source() -> str:
            given[0] += 1
            return _token(_LIFE_SECONDS)

        audience = [Subscriber(world, token=source) for _ in range(_SUBSCRIBERS)]
        for subscriber in audience:
            await subscriber.start()
        for late in audience[::2]:
            # As with a clock that is slow: it believes that the token lasts longer than it does.
            late.client._parts.first._tokens._clock = lambda: time.time() - _LIFE_SECONDS
        publishing = asyncio.create_task(publisher.publish())
        await asyncio.sleep(seconds)
        publisher.stop()
        await publishing
        await until_all_have(audience, publisher, 30)
        judge(result, publisher, audience)
        closed = sum(s.client.metrics.connection_failures for s in audience)
        result.detail = {
            "tokens": given[0],
            "connections": sum(s.proxy.connections_made for s in audience),
            "closed_by_server": closed,
            "events_per_second": round(result.events / seconds),
        }
        punctual = [s.client.metrics.connection_failures for s in audience[1::2]]
        for subscriber in audience:
            await subscriber.aclose()
    result.require_zeros()
    result.require(not any(punctual), f"a client that was in time lost its connection: {punctual}")
    result.require(closed >= _SUBSCRIBERS / 2, "the server never closed first")
    result.require(given[0] >= _SUBSCRIBERS * seconds / _LIFE_SECONDS / 2, "hardly any token was renewed")
    return result


def _token(life_seconds: float) -> str:
    claims = {"sub": "chaos", "exp": time.time() + life_seconds}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(_KEY), algorithms=["HS256"])
