"""Mutations under keys, subscribers and a judge, for experiments with what is behind or beside a server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final, Generic, TypeVar, final

from tests.system.chaos.keyed_publishing import KeyedPublisher, judge_keys
from tests.system.chaos.keyed_sending import KeyedSender
from tests.system.chaos.result import Result, percentiles
from tests.system.chaos.subscribing import Subscriber, judge, require_replay, until_all_have
from tests.system.chaos.world import Place, until

__all__ = ["GOES_ON_SECONDS", "KeyedStage", "keyed_stage"]

GOES_ON_SECONDS: Final = 30.0
"""How long mutations may take to be answered again before an experiment is given up."""
W = TypeVar("W", bound=Place)

_SUBSCRIBERS: Final = 5
_LANES: Final = 8
_PER_SECOND: Final = 200.0
_MORE: Final = 40


@final
class KeyedStage(Generic[W]):
    """Mutations and subscriptions that flow while something is done to brokers or workers.

    :ivar events: ids and numbers, as one subscriber got them.
    """

    def __init__(self, world: W, result: Result, publisher: KeyedPublisher) -> None:
        self.world = world
        self.result = result
        self.publisher = publisher
        self.audience = [Subscriber(world) for _ in range(_SUBSCRIBERS)]
        self.events: list[tuple[str, int]] = []
        self.audience[0].on_event = lambda id_, number: self.events.append((id_, number))

    def fault(self) -> None:
        """Note that something is done now."""
        for subscriber in self.audience:
            subscriber.fault()

    async def goes_on(self, what: str) -> bool:
        """Wait until mutations are answered again, and everybody has got an event."""
        wanted = len(self.publisher.acknowledged) + _MORE
        went = await until(
            lambda: (
                len(self.publisher.acknowledged) >= wanted and all(s.fault_at is None for s in self.audience)
            ),
            GOES_ON_SECONDS,
        )
        self.result.require(went, f"it did not go on within {GOES_ON_SECONDS:g} s after {what}")
        return went

    async def judge(self, start: str, *, is_unbroken: bool = True) -> None:
        """Require the zeros, one event for each key, and subscriptions that stayed up."""
        result, publisher, audience = self.result, self.publisher, self.audience
        sender = publisher.sender
        await until_all_have(audience, publisher, 30)
        judge(result, publisher, audience)
        await require_replay(result, start, audience)
        judge_keys(result, publisher, self.events)
        result.recovery_ms = percentiles([r for s in audience for r in s.recoveries])
        reconnects = sum(s.client.metrics.reconnection_attempts for s in audience)
        result.detail |= {
            "longest_wait_seconds": round(publisher.longest_wait_seconds, 2),
            "refused": len(sender.refusals),
            "may_have_happened": sender.open_refusals,
            "sent_again": sender.sent_again,
            "reconnects": reconnects,
        }
        result.require_zeros()
        if is_unbroken:
            lost = sum(s.client.metrics.connection_failures for s in audience)
            made = sum(s.proxy.connections_made for s in audience)
            stayed = not lost and not reconnects and made == len(audience)
            result.require(stayed, f"subscriptions did not stay up: {lost} connections were lost")


@contextlib.asynccontextmanager
async def keyed_stage(
    world: W,
    result: Result,
    *,
    is_unbroken: bool = True,
    lanes: int = _LANES,
    per_second: float = _PER_SECOND,
) -> AsyncIterator[KeyedStage[W]]:
    """Let mutations and subscriptions flow until the block ends; then judge.

    ``is_unbroken``: no subscriber may lose its connection, as none does while the server lives.
    """
    async with KeyedSender(world) as sender:
        publisher = KeyedPublisher(world, sender, lanes=lanes, per_second=per_second)
        stage = KeyedStage(world, result, publisher)
        try:
            for subscriber in stage.audience:
                await subscriber.start()
            first = stage.audience[0].subscription
            start = (first.cursor if first is not None else None) or ""
            result.require(start, "no cursor was given at the start")
            publishing = asyncio.create_task(publisher.publish())
            try:
                yield stage
            finally:
                publisher.stop()
                await asyncio.wait((publishing,))
            await publishing
            await stage.judge(start, is_unbroken=is_unbroken)
        finally:
            for subscriber in stage.audience:
                await subscriber.aclose()
