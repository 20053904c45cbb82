"""Experiment 4: the log under the subscribers is trimmed, wiped, or put back to an older copy."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import final

import msgspec

from circuit_breaker_sdk import Gap
from tests.system.chaos.publishing import Publisher
from tests.system.chaos.result import Result, percentiles
from tests.system.chaos.subscribing import IMPATIENT, Subscriber, count_behind
from tests.system.chaos.world import RING, World, until

_KEEP_RECORDS = 1000
_TRIMMED = {**RING, "keep_records": _KEEP_RECORDS, "trim_every_seconds": 0.1, "snapshot_every": 500}
_PRESENT = "query Present($after: String) { resources(after: $after) { id data } }"
_EVENTS = 300
_PER_SECOND = 500.0
_SETTLE_SECONDS = 15.0


class _Data(msgspec.Struct):
    n: int


class _Resource(msgspec.Struct):
    id: str
    data: _Data


class _Present(msgspec.Struct):
    resources: list[_Resource]


_State = dict[str, int]


@final
class _Follower:
    """Keeps a copy of all resources: snapshots replace it, events are put into it.

    :ivar model: the copy, number by id.
    :ivar expected: the gaps that must have come, by their reasons.
    """

    def __init__(self, world: World) -> None:
        self.subscriber = Subscriber(world, **IMPATIENT)
        self.model: _State = {}
        self.expected: Counter[str] = Counter()
        self._world = world
        self.subscriber.on_event = self._on_event

    async def start(self) -> None:
        await self.subscriber.start(everything=True, on_gap=self._on_gap, snapshot=self._snapshot)

    @property
    def offset(self) -> int:
        """Where its cursor stands; experiments may look inside."""
        subscription = self.subscriber.subscription
        cursor = subscription.cursor if subscription is not None else None
        return int(cursor.split(".")[1]) if cursor else 0

    def leave(self) -> None:
        """Cut it off until :meth:`come_back`."""
        self.subscriber.proxy.refuses = True
        self.subscriber.proxy.cut()

    def come_back(self) -> None:
        self.subscriber.proxy.refuses = False
        self.subscriber.fault()

    def has_heard(self) -> bool:
        """Tell whether as many gaps came as were to come."""
        return len(self.subscriber.gaps) >= self.expected.total()

    async def _snapshot(self) -> _State:
        return await _present(self._world)

    def _on_gap(self, gap: Gap) -> None:
        self.subscriber.gaps.append(gap)
        self.model = dict(gap.snapshot)

    def _on_event(self, id_: str, number: int) -> None:
        self.model[id_] = number


async def _present(world: World) -> _State:
    found: _State = {}
    while True:
        variables = {"after": next(reversed(found))} if found else None
        page = await world.direct.execute(_PRESENT, variables, type=_Present)
        if not page.resources:
            return found
        found |= {resource.id: resource.data.n for resource in page.resources}


@final
class _Course:
    """One world's part of the experiment.

    :ivar lost_with: numbers that went with a log that was taken away.
    """

    def __init__(self, result: Result, world: World, publisher: Publisher) -> None:
        self.result = result
        self.world = world
        self.publisher = publisher
        self.followers = [_Follower(world) for _ in range(5)]
        self.lost_with: set[int] = set()

    async def start(self) -> None:
        for follower in self.followers:
            await follower.start()

    async def publish(self, count: int) -> None:
        await self.publisher.publish(count)

    async def come_back(self, followers: Sequence[_Follower]) -> None:
        """Let them come back while events are published."""
        publishing = asyncio.create_task(self.publisher.publish())
        try:
            for follower in followers:
                follower.come_back()
            await until(lambda: all(f.has_heard() and f.subscriber.is_live for f in followers), 10)
            await asyncio.sleep(0.1)
        finally:
            self.publisher.stop()
            await asyncio.wait((publishing,))

    async def settle_present(self, followers: Sequence[_Follower] | None = None) -> None:
        """Wait until those who are connected have everything."""
        truth = await _present(self.world)
        for follower in self.followers if followers is None else followers:
            if follower.subscriber.proxy.refuses:
                continue
            whole = await until(lambda: follower.model == truth, _SETTLE_SECONDS)  # noqa: B023 (as above)
            self.result.require(whole, "one that is connected does not have everything")

    async def settle(self, case: str) -> None:
        """Require that every copy comes to equal the server's answer, and that it was told of its gaps."""
        result, publisher = self.result, self.publisher
        truth = await _present(self.world)
        numbers = set(truth.values())
        alive = publisher.acknowledged - self.lost_with
        result.lost += len(alive - numbers)
        phantom = numbers - alive - publisher.unknown
        result.require(not phantom, f"{case}: the server holds what was not published: {sorted(phantom)[:5]}")
        await until(lambda: all(f.model == truth for f in self.followers), _SETTLE_SECONDS)
        for follower in self.followers:
            missing, invented = truth.keys() - follower.model.keys(), follower.model.keys() - truth.keys()
            result.lost += len(missing)
            result.require(
                follower.model == truth, f"{case}: {len(missing)} missing, {len(invented)} invented"
            )
            told = Counter(gap.reason for gap in follower.subscriber.gaps)
            result.require(
                told == follower.expected,
                f"{case}: told of {dict(told)}, not of {dict(follower.expected)}",
            )
            # One wrong count is told once, not again in every later case.
            follower.expected = told

    def finish(self) -> None:
        """Write down what the followers saw."""
        for follower in self.followers:
            seen = follower.subscriber.seen
            self.result.duplicated += len(seen) - len(set(seen))
            self.result.reordered += count_behind(seen)
            self.result.gaps_signalled += len(follower.subscriber.gaps)
            subscription = follower.subscriber.subscription
            error = subscription.error if subscription is not None else None
            self.result.require(error is None, f"a subscription ended: {error}")
        self.result.events += len(self.publisher.acknowledged)

    async def aclose(self) -> None:
        for follower in self.followers:
            await follower.subscriber.aclose()


async def other_logs(directory: Path, seed: int, *, long: bool) -> Result:
    """Resume on a log that is not the one left: whole, or an explicit gap and a true copy after it."""
    rounds = 15 if long else 3
    result = Result(experiment="other logs", seed=seed)
    recoveries: list[float] = []
    gaps: Counter[str] = Counter()
    for name, settings, cases in (
        ("trimmed", _TRIMMED, (_trim,)),
        ("replaced", RING, (_wipe, _restore)),
    ):
        # One broker: what it keeps can be copied as a whole.
        async with World(directory / name, seed=seed, settings=settings, brokers=1) as world:
            course = _Course(result, world, Publisher(world, lanes=2, per_second=_PER_SECOND))
            await course.start()
            try:
                for _ in range(rounds):
                    for case in cases:
                        if not result.failures:
                            await case(course)
                course.finish()
            finally:
                await course.aclose()
            for follower in course.followers:
                recoveries += follower.subscriber.recoveries
                gaps.update(gap.reason for gap in follower.subscriber.gaps)
    result.recovery_ms = percentiles(recoveries)
    result.detail = {"rounds": rounds, "gaps": dict(gaps)}
    result.require_zeros()
    return result


async def _trim(course: _Course) -> None:
    """Cut some off until their cursor is trimmed, others shortly."""
    chance = course.world.random
    await course.publish(chance.randrange(10, _EVENTS))
    await course.settle("before trimming")
    long_away, shortly_away = course.followers[:2], course.followers[2:4]
    for follower in long_away:
        follower.leave()
    course.publisher.per_second = None
    for _ in range(0, _KEEP_RECORDS * 2, _EVENTS):
        # Not more at once than is kept: those who are connected may fall behind by that much.
        await course.publish(_EVENTS)
        await course.settle_present()
    course.publisher.per_second = _PER_SECOND
    oldest = max(follower.offset for follower in long_away)
    gone = await _is_trimmed(course.world, oldest + 1, 10)
    course.result.require(gone, "nothing was trimmed")
    for follower in long_away:
        follower.expected["trimmed"] += 1
    for follower in shortly_away:
        follower.leave()
    await course.publish(_KEEP_RECORDS // 4)
    await course.come_back([*long_away, *shortly_away])
    await course.settle("trimmed")


async def _is_trimmed(world: World, offset: int, seconds: float) -> bool:
    """Wait until the log begins behind an offset; ``False`` if it does not in time."""
    deadline = time.monotonic() + seconds
    while await world.log.first_offset() <= offset:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


async def _wipe(course: _Course) -> None:
    """Take the whole log away: some come back to an empty one, others to one that has grown past them."""
    server, late = course.world.server, course.followers[3:]
    await course.publish(course.world.random.randrange(10, _EVENTS))
    await course.settle("before wiping")
    for follower in late:
        follower.leave()
    await server.kill()
    course.lost_with |= course.publisher.acknowledged | course.publisher.unknown
    await course.world.log.wipe()
    for follower in course.followers:
        follower.expected["epoch"] += 1
    await server.start()
    await until(lambda: all(f.has_heard() for f in course.followers[:3]), 10)
    await course.world.make_workflow()
    await course.publish(course.followers[-1].offset + _EVENTS)
    await course.come_back(late)
    await course.settle("wiped")


async def _restore(course: _Course) -> None:
    """Put an older copy back.

    One was away since the copy and misses nothing; some come back before the log has grown past their
    cursors, others after it.
    """
    server, chance = course.world.server, course.world.random
    away, early, late = course.followers[:1], course.followers[1:3], course.followers[3:]
    await course.publish(chance.randrange(10, _EVENTS))
    await course.settle("before the copy")
    for follower in away:
        follower.leave()
    await server.kill()
    await course.world.log.copy()
    copied = set(course.publisher.acknowledged)
    await server.start()
    count = chance.randrange(10, _EVENTS)
    await course.publish(count)
    await course.settle_present(course.followers[1:])
    for follower in late:
        follower.leave()
    await server.kill()
    await course.world.log.put_back()
    course.lost_with |= (course.publisher.acknowledged - copied) | course.publisher.unknown
    for follower in early:
        follower.expected["future"] += 1
    for follower in late:
        follower.expected["rewritten"] += 1
    await server.start()
    await until(lambda: all(f.has_heard() for f in early), 10)
    # From exactly as long as it was on.
    await course.publish(count + chance.choice((0, chance.randrange(_EVENTS))))
    await course.come_back([*away, *late])
    await course.settle("restored")
