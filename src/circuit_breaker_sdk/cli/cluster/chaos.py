"""Kill a node, then a broker, again and again, and start each again two seconds later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Final, final

from circuit_breaker_sdk.cli.cluster.member import Kind, Member, State
from circuit_breaker_sdk.cli.cluster.processes import Cluster
from circuit_breaker_sdk.cli.demo.demo_part import Stage

__all__ = ["Chaos"]

_AWAY_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.2


@final
class Chaos:
    """The part of the demo that kills processes.

    At most one node and one broker are away at a time: with two of three brokers away there is no log.

    :param every: seconds between two kills.
    :param serving: names the node that the client is connected to: that one is killed, if it is live.
    :param tell: told of each kill and each return.
    """

    def __init__(
        self,
        stage: Stage,
        cluster: Cluster,
        *,
        every: float,
        serving: Callable[[], str],
        tell: Callable[[str, str], None],
    ) -> None:
        self._stage = stage
        self._members = {Kind.NODE: cluster.nodes, Kind.BROKER: cluster.brokers}
        self._every = every
        self._serving = serving
        self._tell = tell
        self._asked: asyncio.Queue[Kind] = asyncio.Queue()

    def ask(self, kind: Kind) -> None:
        """Have one of this kind killed now, unless another one of it is away."""
        if not self._stage.stop.is_set():
            self._asked.put_nowait(kind)

    def kills(self, kind: Kind) -> int:
        """Count the kills of this kind."""
        return sum(each.kills for each in self._members[kind])

    async def prepare(self) -> None:
        """Do nothing: it needs nothing made."""

    async def lead(self) -> None:
        """Kill until the stage says stop; then wait until all that were killed are back."""
        async with asyncio.TaskGroup() as returning:
            others = [
                returning.create_task(work)
                for work in (self._kill_as_asked(returning), self._look_after_all(returning))
            ]
            for number in count():
                await self._stage.pause(self._every)
                kind = (Kind.NODE, Kind.BROKER)[number % 2]
                while not self._stage.stop.is_set() and not self._kill(kind, returning):
                    await self._stage.pause(_LOOK_SECONDS)
                if self._stage.stop.is_set():
                    break
            for each in others:
                each.cancel()

    async def _kill_as_asked(self, returning: asyncio.TaskGroup) -> None:
        while True:
            self._kill(await self._asked.get(), returning)

    async def _look_after_all(self, returning: asyncio.TaskGroup) -> None:
        """Start what has ended by itself, as a supervisor does."""
        while True:
            for member in (each for members in self._members.values() for each in members):
                if member.has_ended:
                    self._tell("ended by itself", f"{member}: {member.last_words}")
                    member.ends += 1
                    member.state = State.KILLED
                    returning.create_task(self._bring_back(member))
            await asyncio.sleep(_LOOK_SECONDS)

    def _kill(self, kind: Kind, returning: asyncio.TaskGroup) -> bool:
        """Kill one of this kind, unless one is away already."""
        members = self._members[kind]
        if any(each.state is not State.LIVE for each in members):
            return False
        victim = self._victim(members)
        victim.kill()
        victim.kills += 1
        self._tell("killed", str(victim))
        returning.create_task(self._bring_back(victim))
        return True

    def _victim(self, members: Sequence[Member]) -> Member:
        for each in members:
            if each.kind is Kind.NODE and each.name == self._serving():
                return each
        return min(members, key=lambda each: each.kills)

    async def _bring_back(self, member: Member) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_AWAY_SECONDS):
                await self._stage.stop.wait()
        await member.start()
        self._tell("back", str(member))
