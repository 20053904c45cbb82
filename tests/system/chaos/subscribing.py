"""Who subscribes, and remembers what came in which order."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Any, Final, final

import msgspec

from circuit_breaker_sdk import (
    CircuitBreakerPolicy,
    Client,
    ErrorRecoveryPolicy,
    Gap,
    Subscription,
    SubscriptionState,
)
from circuit_breaker_sdk.testing import FaultProxy
from tests.system.chaos.publishing import BATCH, Publisher
from tests.system.chaos.result import Result
from tests.system.chaos.world import Place, until

__all__ = ["IMPATIENT", "Subscriber", "count_behind", "judge", "require_replay", "until_all_have"]

IMPATIENT: dict[str, Any] = {
    "recovery": ErrorRecoveryPolicy(base_delay=0.05, max_delay=0.2),
    "circuit_breaker": CircuitBreakerPolicy(failure_threshold=1000),
}
"""Settings of a client that comes back at once, for experiments that do not measure how long that takes."""

_REPLAY_SECONDS: Final = 10.0
_REPLAYED_PER_SECOND: Final = 1_000.0
"""The least: other processes have the cores too."""
_QUIET_SECONDS = 0.5

_DOCUMENT = "subscription Chaos($w: String) { resourceUpdates(workflowId: $w) { id data } }"


class _Data(msgspec.Struct):
    n: int


class _Event(msgspec.Struct):
    id: str
    data: _Data


_RUNS = "subscription Runs($a: String) { agentExecutionStream(agentId: $a) { eventType data } }"


class _Delta(msgspec.Struct):
    delta: str = ""


class _RunEvent(msgspec.Struct, rename="camel"):
    event_type: str
    data: _Delta | None = None


@final
class Subscriber:
    """One client with one subscription whose handler writes down the numbers.

    It has a proxy of its own before the server; where there are several servers, none.

    :ivar seen: the numbers, in the order of their arrival; packed, since a long run has a hundred million.
    :ivar recoveries: seconds from each fault to the next event.
    :ivar latencies: seconds from the mutation's sending to the handler, where :attr:`publisher` is set.
    :ivar on_event: called with the id and the number of each event.
    """

    def __init__(self, world: Place, *, first: int = 0, **settings: Any) -> None:  # of the client
        """``first``: where the world has several URLs, the one to begin with."""
        self.world = world
        self.proxy = FaultProxy("127.0.0.1", world.server.port)
        self._first = first
        self.seen = array("q")
        self.recoveries: list[float] = []
        self.latencies: list[float] = []
        self.gaps: list[Gap] = []
        self.publisher: Publisher | None = None
        self.fault_at: float | None = None
        self.on_event: Callable[[str, int], None] | None = None
        self.subscription: Subscription[Any] | None = None  # of numbers, or of runs
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

    async def start(
        self,
        *,
        everything: bool = False,
        **subscribe: Any,  # arguments of Client.subscribe
    ) -> None:
        """Connect and subscribe, to all workflows or the world's; from its return on nothing is missed."""
        self._client = Client(await self._urls(), **self._settings)
        self.subscription = await self._client.subscribe(
            _DOCUMENT, {} if everything else {"w": self.world.workflow}, type=_Event, **subscribe
        )
        self.subscription.on_data(self._on_event)

    async def start_on_agent(self, agent_id: str) -> None:
        """Connect and follow the runs of an agent that says numbers; from its return on nothing is missed."""
        self._client = Client(await self._urls(), **self._settings)
        runs = await self._client.subscribe(_RUNS, {"a": agent_id}, type=_RunEvent)
        self.subscription = runs.on_data(self._on_run_event)

    async def _urls(self) -> str | list[str]:
        if urls := self.world.urls:
            first = self._first % len(urls)
            return [*urls[first:], *urls[:first]]
        await self.proxy.start()
        return f"ws://127.0.0.1:{self.proxy.port}/graphql"

    @property
    def url(self) -> str:
        """Where its subscription is now."""
        return self.client._parts.first.url

    def _on_run_event(self, event: _RunEvent) -> None:
        if event.event_type == "PROGRESS" and event.data is not None:
            self._note(int(event.data.delta))

    def fault(self) -> None:
        """Note that something was done to it now; the time to the next event counts from the first."""
        if self.fault_at is None:
            self.fault_at = time.monotonic()

    def _on_event(self, event: _Event) -> None:
        if self.on_event is not None:
            self.on_event(event.id, event.data.n)
        self._note(event.data.n)

    def _note(self, n: int) -> None:
        self.seen.append(n)
        if self.fault_at is not None:
            self.recoveries.append(time.monotonic() - self.fault_at)
            self.fault_at = None
        if self.publisher is not None:
            self.latencies.append(time.monotonic() - self.publisher.published_at[n])

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
    any_unknown: set[int] = set()
    for subscriber in subscribers:
        any_unknown |= publisher.unknown.intersection(subscriber.seen)
    reference = {n: i for i, n in enumerate(dict.fromkeys(subscribers[0].seen))} if subscribers else {}
    for subscriber in subscribers:
        seen = set(subscriber.seen)
        result.lost += len(publisher.acknowledged - seen)
        # Whole or not at all: what one has seen of the unknown, all have.
        result.lost += len(any_unknown - seen)
        result.duplicated += len(subscriber.seen) - len(seen)
        result.reordered += _inversions([reference[n] for n in subscriber.seen if n in reference])
        result.reordered += count_behind(subscriber.seen)
        result.gaps_signalled += len(subscriber.gaps)
        error = subscriber.subscription.error if subscriber.subscription is not None else None
        result.require(error is None, f"a subscription ended: {error}")
        phantom = seen - publisher.acknowledged - publisher.unknown
        result.require(not phantom, f"delivered and never published: {sorted(phantom)[:5]}")


async def require_replay(result: Result, cursor: str, subscribers: list[Subscriber]) -> None:
    """Require that a replay of the log from the cursor on gives what each subscriber saw, in its order."""
    replay = Subscriber(subscribers[0].world)
    await replay.start(after=cursor)
    wanted = max(len(subscriber.seen) for subscriber in subscribers)
    await until(lambda: len(replay.seen) >= wanted, _REPLAY_SECONDS + wanted / _REPLAYED_PER_SECOND)
    await asyncio.sleep(_QUIET_SECONDS)  # what the log holds and nobody has seen would come now
    await replay.aclose()
    held = set(replay.seen)
    for number, subscriber in enumerate(subscribers):
        seen = set(subscriber.seen)
        phantoms, missing = sorted(seen - held), sorted(held - seen)
        result.require(not phantoms, f"subscriber {number}: not in the log: {phantoms[:5]}")
        result.require(not missing, f"subscriber {number}: in the log and not delivered: {missing[:5]}")
        result.require(
            subscriber.seen == replay.seen or phantoms or missing,
            f"subscriber {number}: not in the order of the log",
        )


def _inversions(places: list[int]) -> int:
    """Count the events that come right behind one that comes after them in the log."""
    return sum(later < earlier for earlier, later in pairwise(places))


def count_behind(seen: Iterable[int]) -> int:
    """Count events before an earlier one of their own mutation: those are in the order of their numbers."""
    last: dict[int, int] = {}
    behind = 0
    for n in seen:
        batch = n // BATCH
        if last.get(batch, -1) > n:
            behind += 1
        last[batch] = n
    return behind
