"""A network that changes: WebSockets are blocked, then event streams as well, then all is open again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from circuit_breaker_sdk import Continuity
from tests.system.chaos.publishing import Publisher
from tests.system.chaos.result import Result
from tests.system.chaos.subscribing import Subscriber, judge, until_all_have
from tests.system.chaos.world import World, until

_SUBSCRIBERS = 10
_PHASES = ((True, False, "sse"), (True, True, "poll"), (False, False, "websocket"))
"""Whether upgrades are refused, whether event streams are, and the transport that is left."""
_PATIENCE_SECONDS = 20.0


async def changing_network(directory: Path, seed: int, *, long: bool) -> Result:
    """Change the network every few seconds, and cut what is open; each time all find what is left."""
    rounds, seconds = (10, 5.0) if long else (2, 3.0)
    result = Result(experiment="changing network", seed=seed)
    async with World(directory, seed=seed) as world:
        publisher = Publisher(world, per_second=600)
        audience = [Subscriber(world, critical=True) for _ in range(_SUBSCRIBERS)]
        for subscriber in audience:
            await subscriber.start()
        publishing = asyncio.create_task(publisher.publish())
        used: set[str | None] = set()
        try:
            for _ in range(rounds):
                for refuses_upgrades, refuses_event_streams, left in _PHASES:
                    for subscriber in audience:
                        subscriber.proxy.refuses_upgrades = refuses_upgrades
                        subscriber.proxy.refuses_event_streams = refuses_event_streams
                        subscriber.fault()
                        subscriber.proxy.cut()
                    await asyncio.sleep(seconds)
                    await until(lambda: all(_transport(each) == left for each in audience), _PATIENCE_SECONDS)  # noqa: B023 (awaited here)
                    used |= {_transport(each) for each in audience}
        finally:
            publisher.stop()
            await asyncio.wait((publishing,))
        await until_all_have(audience, publisher, 30)
        judge(result, publisher, audience)
        continuities = {each.subscription.continuity for each in audience if each.subscription is not None}
        result.detail = {"rounds": rounds, "transports": sorted(map(str, used))}
        for subscriber in audience:
            await subscriber.aclose()
    result.require_zeros()
    result.require(used == {"websocket", "sse", "poll"}, f"not every transport was used, but {used}")
    result.require(continuities == {Continuity.OK}, f"continuity was not proven: {continuities}")
    return result


def _transport(subscriber: Subscriber) -> str | None:
    return subscriber.subscription.transport if subscriber.is_live and subscriber.subscription else None
