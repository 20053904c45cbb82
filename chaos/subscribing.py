"""Who subscribes, and remembers what came in which order."""

from __future__ import annotations

import time
from functools import partial
from itertools import pairwise
from typing import Any, final

import msgspec

from chaos.publishing import BATCH, Publisher
from chaos.result import Result
from chaos.world import World, until
from circuit_breaker_sdk import Client, Gap, Subscription, SubscriptionState
from circuit_breaker_sdk.testing import FaultProxy

__all__ = ["Subscriber", "judge", "until_all_have"]

_DOCUMENT = "subscription Chaos($w: String) { resourceUpdates(workflowId: $w) { id data } }"


class _Data(msgspec.Struct):
    n: int


class _Event(msgspec.Struct):
    id: str
    data: _Data


@final
class Subscriber:
    """One client behind a proxy of its own, with one subscription whose handler writes down the numbers.

    :ivar seen: the numbers, in the order of their arrival.
    :ivar recoveries: seconds from each fault to the next event.
    :ivar latencies: seconds from the mutation's sending to the handler, where :attr:`publisher` is set.
    """

    def __init__(self, world: World, **settings: Any) -> None:  # of the client
        self.world = world
        self.proxy = FaultProxy("127.0.0.1", world.server.port)
        self.seen: list[int] = []
        self.recoveries: list[float] = []
        self.latencies: list[float] = []
        self.gaps: list[Gap] = []
        self.publisher: Publisher | None = None
        self.fault_at: float | None = None
        self.subscription: Subscription[_Event] | None = None
        self._settings = settings
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            raise RuntimeError("not started")
        return self._client

    @property
    def is_live(self) -> bool:
        return self.subscription is not None and self.subscription.state is SubscriptionState.LIVE

    async def start(self, **subscribe: Any) -> None:  # arguments of Client.subscribe
        """Connect and subscribe; when this returns nothing more is missed."""
        await self.proxy.start()
        self._client = Client(f"ws://127.0.0.1:{self.proxy.port}/graphql", **self._settings)
        self.subscription = await self._client.subscribe(
            _DOCUMENT, {"w": self.world.workflow}, type=_Event, **subscribe
        )
        self.subscription.on_data(self._on_event)

    def fault(self) -> None:
        """Note that something was done to it now; the time to the next event counts from the first."""
        if self.fault_at is None:
            self.fault_at = time.monotonic()

    def _on_event(self, event: _Event) -> None:
        self.seen.append(event.data.n)
        if self.fault_at is not None:
            self.recoveries.append(time.monotonic() - self.fault_at)
            self.fault_at = None
        if self.publisher is not None:
            self.latencies.append(time.monotonic() - self.publisher.published_at[event.data.n])

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
        await self.proxy.aclose()


async def until_all_have(subscribers: list[Subscriber], publisher: Publisher, seconds: float) -> None:
    """Wait until every subscriber has every acknowledged event, or the time is over: the judge tells."""
    wanted = publisher.acknowledged

    def is_whole(subscriber: Subscriber) -> bool:
        return len(subscriber.seen) >= len(wanted) and wanted <= set(subscriber.seen)

    deadline = time.monotonic() + seconds
    for subscriber in subscribers:
        await until(partial(is_whole, subscriber), max(0.0, deadline - time.monotonic()))


def judge(result: Result, publisher: Publisher, subscribers: list[Subscriber]) -> None:
    """Write into the result what was lost, doubled and reordered."""
    result.events = len(publisher.acknowledged)
    everything = [set(s.seen) for s in subscribers]
    any_unknown = set().union(*everything) & publisher.unknown if everything else set()
    for subscriber, seen in zip(subscribers, everything, strict=True):
        result.lost += len(publisher.acknowledged - seen)
        # Whole or not at all: what one has seen of the unknown, all have.
        result.lost += len(any_unknown - seen)
        result.duplicated += len(subscriber.seen) - len(seen)
        result.gaps_signalled += len(subscriber.gaps)
        error = subscriber.subscription.error if subscriber.subscription is not None else None
        result.require(error is None, f"a subscription ended: {error}")
        phantom = seen - publisher.acknowledged - publisher.unknown
        result.require(not phantom, f"delivered and never published: {sorted(phantom)[:5]}")
    if subscribers:
        reference = {n: i for i, n in enumerate(dict.fromkeys(subscribers[0].seen))}
        for subscriber in subscribers:
            result.reordered += _inversions([reference[n] for n in subscriber.seen if n in reference])
            result.reordered += _behind(subscriber.seen)


def _inversions(places: list[int]) -> int:
    """Count the events that come right behind one that comes after them in the log."""
    return sum(later < earlier for earlier, later in pairwise(places))


def _behind(seen: list[int]) -> int:
    """Count events before an earlier one of their own mutation: those are in the order of their numbers."""
    last: dict[int, int] = {}
    behind = 0
    for n in seen:
        batch = n // BATCH
        if last.get(batch, -1) > n:
            behind += 1
        last[batch] = n
    return behind
