"""Experiment 8: a network that lets WebSockets through, then does not, again and again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.system.chaos.publishing import Publisher
from tests.system.chaos.result import Result, percentiles
from tests.system.chaos.subscribing import Subscriber, judge, until_all_have
from tests.system.chaos.world import World, until

_SUBSCRIBERS = 10


async def blocked_websocket(directory: Path, seed: int, *, long: bool) -> Result:
    """Cut and refuse upgrades, wait until all fell back, allow them, wait until all are back."""
    rounds = 50 if long else 3
    result = Result(experiment="blocked websocket", seed=seed)
    async with World(directory, seed=seed) as world:
        publisher = Publisher(world, per_second=500)
        audience = [Subscriber(world, critical=True) for _ in range(_SUBSCRIBERS)]
        for subscriber in audience:
            await subscriber.start()
        publishing = asyncio.create_task(publisher.publish())
        degraded: list[float] = []
        restored: list[float] = []
        try:
            for _ in range(rounds):
                for subscriber in audience:
                    subscriber.fault()
                    subscriber.proxy.refuses_upgrades = True
                    subscriber.proxy.cut()
                degraded.append(await _time_until(lambda: all(map(_is_degraded, audience))))
                seen = [len(s.seen) for s in audience]
                await until(lambda: all(len(s.seen) > n for s, n in zip(audience, seen, strict=True)), 30)  # noqa: B023 (awaited here)
                for subscriber in audience:
                    subscriber.proxy.refuses_upgrades = False
                restored.append(await _time_until(lambda: all(map(_is_back, audience))))
        finally:
            publisher.stop()
            await asyncio.wait((publishing,))
        await until_all_have(audience, publisher, 30)
        judge(result, publisher, audience)
        result.recovery_ms = percentiles([r for s in audience for r in s.recoveries])
        result.detail = {
            "rounds": rounds,
            "to_fallback_ms": percentiles(degraded),
            "back_to_websocket_ms": percentiles(restored),
        }
        for subscriber in audience:
            await subscriber.aclose()
    result.require_zeros()
    result.require(max(degraded) < _PATIENCE_SECONDS, "not all fell back")
    result.require(max(restored) < _PATIENCE_SECONDS, "not all went back to the WebSocket")
    return result


_PATIENCE_SECONDS = 20.0


async def _time_until(condition: object) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await until(condition, _PATIENCE_SECONDS)  # type: ignore[arg-type]  # a function
    return loop.time() - began


def _transport(subscriber: Subscriber) -> str | None:
    return subscriber.subscription.transport if subscriber.is_live and subscriber.subscription else None


def _is_degraded(subscriber: Subscriber) -> bool:
    return _transport(subscriber) in {"sse", "poll"}


def _is_back(subscriber: Subscriber) -> bool:
    return _transport(subscriber) == "websocket"
