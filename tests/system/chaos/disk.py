"""Experiment 9: a disk that is full, one that tore the last write, one that has flipped a bit since."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from circuit_breaker_sdk import OperationError, SubscriptionError, TransportError
from tests.system.chaos.publishing import BATCH, Publisher
from tests.system.chaos.result import Result, percentiles
from tests.system.chaos.subscribing import IMPATIENT, Subscriber, judge, require_replay, until_all_have
from tests.system.chaos.wal import commit_ends, torn_frame
from tests.system.chaos.world import RING, Refused, World, until

_SUBSCRIBERS = 3
_EVENTS = 300
_CHECKPOINT_FRAMES = 1000
_UNACKNOWLEDGED = "after the commit, before anyone knows"
_PROBE = "mutation Probe($input: ResourceCreateInput!) { createResource(input: $input) { id } }"
_PROBE_BYTES = 48 * 1024
_PROBES = 8
_PROMPT_STOP = {**RING, "shutdown_seconds": 0.3, "close_seconds": 0.3}
_FIRST_PROBE = 10**9


async def disk(directory: Path, seed: int, *, long: bool) -> Result:
    """Nothing acknowledged is lost while the disk refuses or tears; damage behind that is never served."""
    rounds = 15 if long else 2
    result = Result(experiment="disk", seed=seed)
    recoveries: list[float] = []
    for name, case in (("full", _full), ("torn", _torn), ("damaged", _damaged)):
        part = Result(experiment=name)
        async with World(directory / name, seed=seed, settings=_PROMPT_STOP) as world:
            publisher = Publisher(world, lanes=4, size=100)
            audience = [Subscriber(world, **IMPATIENT) for _ in range(_SUBSCRIBERS)]
            try:
                for subscriber in audience:
                    await subscriber.start()
                first = audience[0].subscription
                start = (first.cursor if first is not None else None) or ""
                part.require(start, "no cursor was given at the start")
                for _ in range(rounds):
                    await case(world, part, publisher, audience, start)
                    if part.failures:
                        break
                await publisher.publish(BATCH)
                await until_all_have(audience, publisher, 10)
                judge(part, publisher, audience)
                await require_replay(part, start, audience)
            finally:
                for subscriber in audience:
                    await subscriber.aclose()
            recoveries += [r for s in audience for r in s.recoveries]
        result.events += part.events
        result.lost += part.lost
        result.duplicated += part.duplicated
        result.reordered += part.reordered
        result.detail[name] = part.detail
        result.failures += [f"{name}: {failure}" for failure in part.failures]
    result.recovery_ms = percentiles(recoveries)
    result.require_zeros()
    return result


def _count(result: Result, **numbers: int) -> None:
    for name, number in numbers.items():
        before = result.detail.get(name, 0)
        result.detail[name] = number + (before if isinstance(before, int) else 0)


# A full disk -------------------------------------------------------------------------------------------


async def _full(
    world: World, result: Result, publisher: Publisher, audience: list[Subscriber], start: str
) -> None:
    """Let files grow no further: mutations are refused, all else goes on, and so do mutations afterwards."""
    server = world.server
    await publisher.publish(_EVENTS)
    await server.stop()  # which empties the write-ahead file: its growth is what meets the limit
    largest = max(path.stat().st_size for path in server.data_dir.iterdir())
    server.max_file_bytes = largest + world.random.randrange(64 * 1024, 512 * 1024)
    await server.start()
    for subscriber in audience:
        subscriber.fault()
    await until(lambda: all(s.is_live for s in audience), 10)
    refused_before = len(publisher.refusals)
    publishing = asyncio.create_task(publisher.publish())
    # A file that cannot take a checkpoint is noticed when the write-ahead file has grown as big as it.
    met = await until(lambda: len(publisher.refusals) > refused_before, 60)
    connections = [s.proxy.connections_made for s in audience]
    publisher.stop()
    await asyncio.wait((publishing,))
    result.require(met, "the limit was never met")
    if not met:
        return
    # A group was refused: one smaller resource, or some, may still have fitted.
    probes = _FIRST_PROBE + _PROBES * len(publisher.refusals)
    codes = [await _probe(world, publisher, probes + k) for k in range(_PROBES)]
    publisher.refusals += [code for code in codes if code is not None]
    result.require(codes[-1] is not None, "a full disk took mutation after mutation")
    wrong = set(publisher.refusals) - {"UNAVAILABLE"}
    result.require(not wrong, f"a full disk was answered with {wrong}")
    result.require(server.returncode is None, "the server died of a full disk")
    await until_all_have(audience, publisher, 10)
    stayed = all(s.is_live for s in audience) and connections == [s.proxy.connections_made for s in audience]
    result.require(stayed, "a live stream was lost to a full disk")
    await require_replay(result, start, audience)
    if server.lift_limit():
        before = len(publisher.acknowledged)
        await publisher.publish(_EVENTS)
        went = len(publisher.acknowledged) - before
        result.require(went == _EVENTS, f"with room again {went} of {_EVENTS} were acknowledged")
    await server.kill()
    server.max_file_bytes = None
    await server.start()
    _count(result, refused=len(publisher.refusals) - refused_before, rounds=1)
    await publisher.publish(_EVENTS)


async def _probe(world: World, publisher: Publisher, number: int) -> str | None:
    """Create one big resource; return the code with which that is refused, and then it must never be seen."""
    data = {"n": number, "text": "x" * _PROBE_BYTES}
    resource = {"workflowId": world.workflow, "data": data, "metadata": {}, "initialState": "new"}
    try:
        await world.direct.execute(_PROBE, {"input": resource}, type=dict[str, Any])
    except OperationError as error:
        return error.code or "no code"
    publisher.acknowledged.add(number)
    return None


# A torn tail -------------------------------------------------------------------------------------------


async def _torn(
    world: World, result: Result, publisher: Publisher, audience: list[Subscriber], start: str
) -> None:
    """Damage the write-ahead file behind what was acknowledged, as a power cut does; both ways."""
    del start
    server, chance = world.server, world.random
    wal = server.data_dir / "events.db-wal"
    publishing = asyncio.create_task(publisher.publish())
    try:
        await until(lambda: len(publisher.acknowledged) > chance.randrange(_EVENTS), 10)
        await asyncio.sleep(chance.uniform(0.05, 0.3))
        await server.kill()
        _scribble(wal, chance)
        await _go_on(world, result, publisher, audience)
        await server.stop()
        server.crash = (_UNACKNOWLEDGED, chance.randrange(3, 15))
        await server.start()
        server.crash = None
        async with asyncio.timeout(20):
            await server.wait_dead()
        ends = commit_ends(wal)
        frames_before_checkpoint = ends[-1] < _CHECKPOINT_FRAMES * 4096 if ends else False
        result.require(len(ends) > 1 and frames_before_checkpoint, "there is no last commit to tear")
        if len(ends) > 1 and frames_before_checkpoint:
            # The process has died before anybody was told of its last transaction.
            with wal.open("r+b") as file:
                file.truncate(chance.randrange(ends[-2], ends[-1]))
        await _go_on(world, result, publisher, audience)
    finally:
        publisher.stop()
        await asyncio.wait((publishing,))
    _count(result, scribbled=1, truncated=1)


def _scribble(wal: Path, chance: Random) -> None:
    """Write half a transaction behind the last one that was committed."""
    ends = commit_ends(wal)
    if not ends:
        return
    noise = chance.randbytes(chance.randrange(1, 3 * 4096))
    with wal.open("r+b") as file:
        file.seek(ends[-1])
        file.write(torn_frame(wal, noise))
        if chance.random() < 0.5:
            file.truncate()


async def _go_on(world: World, result: Result, publisher: Publisher, audience: list[Subscriber]) -> None:
    wanted = len(publisher.acknowledged) + _EVENTS
    await world.server.start()
    for subscriber in audience:
        subscriber.fault()
    goes_on = await until(
        lambda: (
            len(publisher.acknowledged) >= wanted and all(s.is_live and s.fault_at is None for s in audience)
        ),
        30,
    )
    result.require(goes_on, "it did not go on")


# Damage to what was whole ------------------------------------------------------------------------------


async def _damaged(
    world: World, result: Result, publisher: Publisher, audience: list[Subscriber], start: str
) -> None:
    """Flip a bit of a record: the start that reads it refuses, and no replay delivers it."""
    server, chance = world.server, world.random
    path = server.data_dir / "events.db"
    await publisher.publish(_EVENTS)
    await until_all_have(audience, publisher, 10)
    await server.kill()
    for _ in range(3):
        offset, _, place, bit = _pick(path, chance, above=_snapshot_offset(path))
        _flip(path, place, bit)
        try:
            await server.start()
        except Refused as refusal:
            named = f"record {offset} is damaged" in str(refusal)
            result.require(named, f"record {offset} was damaged, and the server says: {refusal}")
        else:
            result.require(False, f"the server started on a log whose record {offset} was damaged")
            await server.kill()
        _flip(path, place, bit)
    await server.start()
    await publisher.publish(BATCH)
    await until_all_have(audience, publisher, 10)
    await server.stop()  # which saves the state: the next start reads no record
    offset, number, place, bit = _pick(path, chance)
    _flip(path, place, bit)
    await server.start()
    replay = Subscriber(world, **IMPATIENT)
    try:
        await replay.start(after=start)
        await until(lambda: replay.subscription is not None and replay.subscription.error is not None, 10)
        ended = replay.subscription is not None and replay.subscription.error is not None
    except (TransportError, SubscriptionError):
        ended = True
    await replay.aclose()
    result.require(ended, f"record {offset} is damaged, and a replay did not end with an error")
    result.require(
        number not in replay.seen and replay.seen == audience[0].seen[: len(replay.seen)],
        f"record {offset} is damaged, and a replay went past it",
    )
    await publisher.publish(BATCH)
    await until_all_have(audience, publisher, 10)
    await server.kill()
    _flip(path, place, bit)
    await server.start()
    _count(result, refused_starts=3, refused_replays=1)


def _snapshot_offset(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        (offset,) = database.execute("SELECT snapshot_offset FROM log").fetchone()
        return int(offset)


def _pick(path: Path, chance: Random, *, above: int = 0) -> tuple[int, int, int, int]:
    """Choose a bit of a resource's record in the file: its offset, its number, the byte's place, the bit."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rows: list[tuple[int, bytes]] = database.execute(
            "SELECT offset, body FROM records WHERE subject GLOB 'resource.*' AND offset > ?", (above,)
        ).fetchall()
    content = path.read_bytes()
    while True:
        offset, body = chance.choice(rows)
        place, number = content.find(body), re.search(rb'"n":(\d+)', body)
        if place >= 0 and number is not None:
            return offset, int(number[1]), place + chance.randrange(len(body)), 1 << chance.randrange(8)


def _flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes((byte ^ bit,)))
