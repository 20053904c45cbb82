"""What every experiment with nodes has: events and work at all nodes, subscribers everywhere, a judge."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Final, final

from circuit_breaker_sdk import Heartbeat
from tests.system.chaos.keyed_publishing import KeyedPublisher, judge_keys
from tests.system.chaos.keyed_sending import KeyedSender
from tests.system.chaos.nodes.node_records import Ends, until_ended
from tests.system.chaos.nodes.node_work import COMPLETION_SENDING, NodeWork
from tests.system.chaos.nodes.node_world import NodeWorld
from tests.system.chaos.result import Result, percentiles
from tests.system.chaos.subscribing import Subscriber, judge, require_replay, until_all_have
from tests.system.chaos.world import ServerProcess, until

__all__ = ["GOES_ON_SECONDS", "NodeStage", "node_stage"]

GOES_ON_SECONDS: Final = 30.0
"""How long it may take until everything goes on, before an experiment is given up."""
_REQUEST_SECONDS: Final = 5.0
_SUBSCRIBERS: Final = 9
_LANES: Final = 24
_PER_SECOND: Final = 150.0
_WORK_PER_SECOND: Final = 2.0
_MORE: Final = 40
_ENDS_SECONDS: Final = 30.0
_HEARTBEAT: Final = Heartbeat(interval_seconds=2.0, timeout_seconds=2.0)


@final
class NodeStage:
    """Mutations, runs, completions and subscriptions that flow while something is done to the nodes.

    :ivar events: ids and numbers, as one subscriber got them.
    :ivar recoveries: seconds from each fault to the next event of each subscriber that it hit.
    :ivar ends: what the log said at the end.
    :ivar start: the cursor from which on all is judged.
    """

    def __init__(self, world: NodeWorld, result: Result, publisher: KeyedPublisher, work: NodeWork) -> None:
        self.world = world
        self.result = result
        self.publisher = publisher
        self.work = work
        self.audience = [Subscriber(world, first=n, heartbeat=_HEARTBEAT) for n in range(_SUBSCRIBERS)]
        self.events: list[tuple[str, int]] = []
        self.recoveries: list[float] = []
        self.ends = Ends()
        self.start = ""
        self._hit: dict[int, tuple[float, float]] = {}
        for number, subscriber in enumerate(self.audience):
            subscriber.on_event = partial(self._on_event, number)

    def subscribers_at(self, node: ServerProcess) -> list[int]:
        """Number the subscribers that a node serves now."""
        return [n for n, s in enumerate(self.audience) if self.world.at(s.url) is node]

    def fault(self, hit: Iterable[int] | None = None) -> None:
        """Note that something is done now that hits these subscribers, or all."""
        numbers = range(len(self.audience)) if hit is None else hit
        now = time.monotonic()
        self._hit.update(dict.fromkeys(numbers, (now, now)))

    async def kill(self, node: ServerProcess) -> int:
        """Kill a node; count the subscribers that it served. The time to their next event is measured."""
        hit = self.subscribers_at(node)
        began = time.monotonic()
        await node.kill()
        self._hit.update(dict.fromkeys(hit, (began, time.monotonic())))
        return len(hit)

    def _on_event(self, subscriber: int, id_: str, number: int) -> None:
        if not subscriber:
            self.events.append((id_, number))
        began, ended = self._hit.get(subscriber, (0.0, math.inf))
        # What was published before may have been in its socket already.
        if self.publisher.published_at[number] > ended:
            del self._hit[subscriber]
            self.recoveries.append(time.monotonic() - began)

    async def listen_at(self, node: ServerProcess) -> None:
        """Let one more subscriber begin at a node; what came before is replayed to it."""
        number = len(self.audience)
        added = Subscriber(self.world, first=self.world.nodes.index(node), heartbeat=_HEARTBEAT)
        added.on_event = partial(self._on_event, number)
        self.audience.append(added)
        await added.start(after=self.start)
        self.fault([number])

    async def goes_on(self, what: str, seconds: float = GOES_ON_SECONDS) -> bool:
        """Wait until mutations are answered, and all whom a fault has hit have got an event since."""
        wanted = len(self.publisher.acknowledged) + _MORE
        went = await until(lambda: len(self.publisher.acknowledged) >= wanted and not self._hit, seconds)
        self.result.require(
            went, f"it did not go on within {seconds:g} s after {what}; {len(self._hit)} got nothing"
        )
        return went

    async def judge(self) -> None:
        """Require the zeros, one event for each key, one end for all that was begun."""
        result, publisher, audience = self.result, self.publisher, self.audience
        await until_all_have(audience, publisher, 30)
        judge(result, publisher, audience)
        await require_replay(result, self.start, audience)
        judge_keys(result, publisher, self.events)
        self.ends = await until_ended(self.world.brokers.own_urls, _ENDS_SECONDS)
        self.ends.judge(result)
        result.require(len(self.ends.begun) > self.ends.sessions, "no run and no completion was begun")
        result.require(self.ends.sessions, "no session was begun")
        result.recovery_ms = percentiles(self.recoveries)
        sender = publisher.sender
        result.detail |= {
            "longest_wait_seconds": round(publisher.longest_wait_seconds, 2),
            "refused": dict(Counter(map(str, sender.refusals))),
            "sent_again": sender.sent_again,
            "leaked": sender.leaked,
            "runs and completions": len(self.ends.begun) - self.ends.sessions,
            "sessions that a timer has ended": self.ends.sessions,
            "interrupted": self.ends.interrupted,
            "declared gone": len(self.ends.gone),
            "joined": len(self.ends.joined),
            "where subscribers are": sorted(Counter(self._places()).items()),
        }
        result.require_zeros()

    def _places(self) -> Iterable[str]:
        names = {id(node): name for name, node in self.world.names.items()}
        return (names.get(id(self.world.at(each.url)), "?") for each in self.audience)


@contextlib.asynccontextmanager
async def node_stage(
    world: NodeWorld,
    result: Result,
    *,
    per_second: float = _PER_SECOND,
    work_per_second: float = _WORK_PER_SECOND,
) -> AsyncIterator[NodeStage]:
    """Let everything flow until the block ends; then judge, where it has not failed."""
    async with (
        KeyedSender(world, request_seconds=_REQUEST_SECONDS) as sender,
        KeyedSender(world, request_seconds=_REQUEST_SECONDS, ends_with=COMPLETION_SENDING) as completing,
    ):
        publisher = KeyedPublisher(world, sender, lanes=_LANES, per_second=per_second)
        work = NodeWork(world, sender, completing, per_second=work_per_second)
        stage = NodeStage(world, result, publisher, work)
        try:
            await work.prepare()
            await asyncio.gather(*(subscriber.start() for subscriber in stage.audience))
            first = stage.audience[0].subscription
            stage.start = (first.cursor if first is not None else None) or ""
            result.require(stage.start, "no cursor was given at the start")
            flowing = [asyncio.create_task(publisher.publish()), asyncio.create_task(work.run())]
            try:
                yield stage
            finally:
                publisher.stop()
                work.stop()
                await asyncio.wait(flowing)
            for each in flowing:
                await each
            await stage.judge()
            wrong = completing.wrong
            result.require(not wrong, f"{len(wrong)} wrong answers to completions: {wrong[:3]}")
            for name, node in world.names.items():
                result.require(node.returncode is None, f"node {name} has ended: {node.returncode}")
        finally:
            for subscriber in stage.audience:
                await subscriber.aclose()
