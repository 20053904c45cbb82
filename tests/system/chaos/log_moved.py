"""The event log is moved from the brokers to a SQLite file, and back, between two events of a stream."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

from tests.system.chaos.publishing import Publisher
from tests.system.chaos.result import Result, percentiles
from tests.system.chaos.subscribing import IMPATIENT, Subscriber, judge, require_replay, until_all_have
from tests.system.chaos.world import World

_SUBSCRIBERS: Final = 5
_EVENTS: Final = 3_000
_EVENTS_LONG: Final = 200_000
_MORE: Final = 500
"""So many are published after each move."""
_SETTLE_SECONDS: Final = 60.0
_COPIED: Final = re.compile(r"copied (\d+) records, .*SHA-256 ([0-9a-f]{64})")


class _Copied(NamedTuple):
    """What ``log copy`` says that it has copied."""

    records: int
    digest: str


async def log_moved(directory: Path, seed: int, *, long: bool) -> Result:
    """Stop the server, copy its log with ``log copy``, and start it on the copy; then the same way back.

    Subscribers come back with the cursors that the log before had given them.
    """
    result = Result(experiment="log moved", seed=seed)
    async with World(directory, seed=seed) as world:
        publisher = Publisher(world)
        audience = [Subscriber(world, **IMPATIENT) for _ in range(_SUBSCRIBERS)]
        began = time.monotonic()
        try:
            for subscriber in audience:
                await subscriber.start(on_gap=subscriber.gaps.append)
            first = audience[0].subscription
            start = (first.cursor if first is not None else None) or ""
            await _publish(world, publisher, audience, _EVENTS_LONG if long else _EVENTS)
            brokers, file = ",".join(world.server.urls), str(world.server.data_dir)

            await world.server.stop()
            to_file = await _copy(brokers, file)
            world.server.urls = ()
            await _publish(world, publisher, audience, _MORE)

            await world.server.stop()
            await world.brokers.wipe()
            to_brokers = await _copy(file, brokers)
            read_back = await _copy(brokers, str(directory / "back"))
            world.server.urls = world.brokers.urls
            await _publish(world, publisher, audience, _MORE)

            judge(result, publisher, audience)
            await require_replay(result, start, audience)
        finally:
            for subscriber in audience:
                await subscriber.aclose()
    result.recovery_ms = percentiles([r for s in audience for r in s.recoveries])
    result.detail |= {
        "records to the file": to_file.records,
        "records to the brokers": to_brokers.records,
        "records read back": read_back.records,
        "seconds": round(time.monotonic() - began, 1),
    }
    result.require_zeros()
    result.require(not result.gaps_signalled, f"{result.gaps_signalled} gaps were told")
    result.require(to_brokers == read_back, "what was copied to the brokers is not what they hold")
    result.require(to_file.records >= result.events - 2 * _MORE, "not all records were copied to the file")
    result.require(to_brokers.records >= to_file.records + _MORE, "not all were copied back")
    return result


async def _publish(world: World, publisher: Publisher, audience: list[Subscriber], count: int) -> None:
    """Start the server if it does not run; publish, and wait until all subscribers have what there is."""
    if not world.server.up.is_set():
        await world.server.start()
    for subscriber in audience:
        subscriber.fault()
    await publisher.publish(count)
    await until_all_have(audience, publisher, _SETTLE_SECONDS)


async def _copy(source: str, target: str) -> _Copied:
    """Run ``circuit-breaker log copy``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "circuit_breaker_sdk.cli", "log", "copy", source, target),
        *("--set", "cluster.replicas=3"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if (found := _COPIED.match(out.decode())) is None:
        raise RuntimeError(f"log copy {source} {target}: {err.decode().strip() or out.decode()}")
    return _Copied(int(found[1]), found[2])
