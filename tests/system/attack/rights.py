"""Many principals, whose rights change all the while: nobody sees what he may not, nobody misses what he may.

Within a second of a change either answer is right. What is judged is what arrived, against the times at which
the policy was written and the mutations were sent and answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

from circuit_breaker_sdk import Subscription
from circuit_breaker_sdk.types import Resource
from circuit_breaker_server import RateSettings
from tests.system.attack.attacks import workflow
from tests.system.attack.world import World, opened

__all__ = ["rights_under_load"]

_GRACE_SECONDS: Final = 1.0
_LIMITS: Final[Mapping[str, Any]] = {
    "max_connections_per_address": 2_000,
    "rates": RateSettings(connects_per_second=None),
}


@final
class _Principal:
    """One of them.

    :ivar allowed: at which time which workflows came to be his.
    :ivar seen: when which event arrived.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.allowed: list[tuple[float, frozenset[str]]] = []
        self.seen: dict[int, float] = {}
        self.twice = 0
        self.start: str | None = None
        self.updates: Subscription[Resource] | None = None

    def arrived(self, resource: Resource) -> None:
        number = int(resource.data["n"])  # type: ignore[call-overload, index, arg-type]  # of our making
        self.twice += number in self.seen
        self.seen[number] = time.monotonic()

    def ever_allowed(self, what: str, begin: float, end: float) -> bool:
        """Tell whether it was his at any time between."""
        return any(what in own for own in self._between(begin, end))

    def always_allowed(self, what: str, begin: float, end: float) -> bool:
        """Tell whether it was his all the time between."""
        return all(what in own for own in self._between(begin, end))

    def _between(self, begin: float, end: float) -> list[frozenset[str]]:
        found = [own for when, own in self.allowed if begin <= when <= end]
        before = [own for when, own in self.allowed if when < begin]
        return [*before[-1:], *found]


@final
class _Load:
    """The events: of which workflow, when sent, when answered."""

    def __init__(self, world: World, workflows: list[str], seed: int) -> None:
        self._world = world
        self._workflows = workflows
        self._random = random.Random(seed)
        self.events: dict[int, tuple[str, float, float]] = {}

    async def publish(self, seconds: float, per_second: int) -> None:
        until = time.monotonic() + seconds
        async with self._world.client("boss") as boss:
            while time.monotonic() < until:
                number = len(self.events)
                id_ = self._random.choice(self._workflows)
                sent = time.monotonic()
                self.events[number] = (id_, sent, sent)
                await boss.workflows.create_resource(workflow_id=id_, data={"n": number})
                self.events[number] = (id_, sent, time.monotonic())
                await asyncio.sleep(max(0.0, 1 / per_second - (time.monotonic() - sent)))


def _scopes(own: frozenset[str]) -> tuple[str, list[str]]:
    return ("acme", [f"workflow:read:{id_}" for id_ in sorted(own)])


async def rights_under_load(directory: Path, seed: int, *, short: bool) -> tuple[str, int, list[str]]:
    """Run it; return a line of text, how many events leaked, and what is wrong."""
    count, seconds = (200, 10.0) if short else (1_000, 60.0)
    chance = random.Random(seed)
    people = {f"p{number:04d}": ("acme", list[str]()) for number in range(count)}
    with opened(directory, people, **_LIMITS) as world:
        workflows = [await workflow(world) for _ in range(20)]
        principals = [_Principal(name) for name in people]

        def change(some: list[_Principal]) -> None:
            new = {p.name: frozenset(chance.sample(workflows, chance.randint(1, 4))) for p in some}
            # Noted before and after the writing: in between either is true.
            for p in some:
                last = p.allowed[-1][1] if p.allowed else frozenset()
                p.allowed.append((time.monotonic(), last | new[p.name]))
            world.allow(**{name: _scopes(own) for name, own in new.items()})
            for p in some:
                p.allowed.append((time.monotonic(), new[p.name]))

        change(principals)
        await asyncio.sleep(1.5)
        async with contextlib.AsyncExitStack() as stack:
            for p in principals:
                client = await stack.enter_async_context(world.client(p.name))
                p.updates = await client.workflows.subscribe_resource_updates().subscribe()
                p.start = p.updates.cursor
                p.updates.on_data(p.arrived)
            load = _Load(world, workflows, seed)
            publishing = asyncio.create_task(load.publish(seconds, 20))
            while not publishing.done():
                change(chance.sample(principals, max(1, count // 20)))
                await asyncio.sleep(0.5)
            await publishing
            await asyncio.sleep(2.0)
            forbidden, missed, twice = _judge(principals, load)
            replayed, wrong = await _replay(world, principals, load, chance.sample(principals, 25))
            ended = sum(p.updates is not None and p.updates.error is not None for p in principals)
    text = (
        f"rights: {count} principals, {len(load.events)} events, "
        f"{sum(len(p.allowed) for p in principals) // 2} changes of rights, "
        f"{sum(len(p.seen) for p in principals)} deliveries: {forbidden} forbidden later than 1 s, "
        f"{missed} permitted missed, {twice} twice; replayed {replayed}: {wrong} wrong; {ended} ended; "
        f"raised: {dict(_LIMITS)}"
    )
    problems = [
        f"rights: {n} events {what}"
        for n, what in ((missed, "missed"), (twice, "twice"), (ended, "ended"))
        if n
    ]
    return text, forbidden + wrong, problems


def _judge(principals: list[_Principal], load: _Load) -> tuple[int, int, int]:
    forbidden = missed = 0
    for p in principals:
        for number, (id_, sent, answered) in load.events.items():
            arrived = p.seen.get(number)
            if arrived is None:
                missed += p.always_allowed(id_, sent - _GRACE_SECONDS, answered + _GRACE_SECONDS)
            elif not p.ever_allowed(id_, arrived - _GRACE_SECONDS, arrived):
                forbidden += 1
    return forbidden, missed, sum(p.twice for p in principals)


async def _replay(
    world: World, principals: list[_Principal], load: _Load, some: list[_Principal]
) -> tuple[int, int]:
    """Read everything again, by the rights of now; return how many came, and how many were wrong."""
    del principals
    replayed = wrong = 0
    for p in some:
        own = p.allowed[-1][1]
        expected = [number for number, (id_, _, _) in load.events.items() if id_ in own]
        async with world.client(p.name) as client:
            updates = await client.workflows.subscribe_resource_updates().after(str(p.start)).subscribe()
            found: list[int] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(20):
                    while len(found) < len(expected):
                        found.append(int((await anext(updates)).data["n"]))  # type: ignore[call-overload, index, arg-type]
        replayed += len(found)
        wrong += found != expected
    return replayed, wrong
