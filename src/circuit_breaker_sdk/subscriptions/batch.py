"""Many subscriptions as one: started, iterated and ended together."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self, TypeVar, final

import msgspec

from circuit_breaker_sdk.delivery.delivery import Delivery
from circuit_breaker_sdk.errors import CircuitBreakerError, UsageError
from circuit_breaker_sdk.loop_affinity import LoopAffinity, check_loop
from circuit_breaker_sdk.subscriptions.subscription import Subscription

__all__ = ["BatchEvent", "BatchSubscriptionManager", "StartsSubscription"]

ErrorT = TypeVar("ErrorT", bound=CircuitBreakerError)


@final
class BatchEvent(msgspec.Struct, frozen=True):
    """An event of a batch's member.

    :ivar source: the member's name.

    Example::

        match item.event:
            case Resource(): print(item.source, item.event.state)
            case WorkflowEvent(): print(item.source, item.event.message)
    """

    source: str
    event: object


class StartsSubscription(Protocol):
    """Interface from a batch to a builder."""

    @property
    def label(self) -> str:
        """The member's name, where none is given."""
        ...

    async def subscribe(self) -> Subscription[object]:
        """Start a subscription and return it live."""
        ...


@final
class BatchSubscriptionManager:
    """Start, follow and end subscriptions together.

    Members are builders, which :meth:`subscribe_all` starts, and live subscriptions. Iterating yields the
    events of all as :class:`BatchEvent`, one of each member in turn, in order within each. Events are taken
    from the members' own bounded buffers: no queue is added. A member that has handlers is left out. One
    task iterates at a time; cancelling it loses no event.

    **Errors.** What ends a member is raised once, when its buffered events are handed out, as an error of
    the same class whose ``member`` is the member's name and whose ``__cause__`` is the subscription's own
    error. The others go on: iterate again, and their events follow. Iteration ends once every member has
    ended, or has handlers.

    A block starts what was added before it and ends all at its end. A batch without references ends those
    members that have no other reference.

    Example::

        batch = BatchSubscriptionManager()
        batch.add_subscription(client.workflows.subscribe_resource_updates(), name="resources")
        batch.add_subscription(client.workflows.subscribe_workflow_events(workflow_id="w-1"), name="events")
        async with batch:
            async for item in batch:
                print(item.source, item.event)
    """

    def __init__(self) -> None:
        self._members: dict[str, _Member] = {}
        # By label: the number of the member that was named by it last.
        self._numbers: dict[str, int] = {}
        self._merge = _Merge()
        # Starting and ending exclude each other.
        self._lock = asyncio.Lock()
        self._affinity = LoopAffinity()

    def add_subscription(
        self, member: StartsSubscription | Subscription[object], *, name: str | None = None
    ) -> Self:
        """Add a builder, or a subscription that is live; nothing is sent.

        :param name: unique in the batch; ``None`` takes the operation's name, numbered from the second on.
        :raises UsageError: the name is taken, or the subscription is in a batch already.
        """
        self._affinity.check()
        live = member if isinstance(member, Subscription) else None
        if live is not None:
            check_loop(live._delivery.consumer.loop)  # noqa: SLF001 (a batch reads its members' inside)
            self._affinity.loop = live._delivery.consumer.loop  # noqa: SLF001 (as above)
        name = self._free_name(_label(member)) if name is None else name
        if name in self._members:
            raise UsageError(f"the batch has a member {name!r} already")
        if live is not None:
            self._merge.follow(name, live._delivery)  # noqa: SLF001 (a batch reads its members' inside)
        self._members[name] = _Member(name, None if isinstance(member, Subscription) else member, live)
        return self

    def subscription(self, name: str) -> Subscription[object]:
        """Return a member's subscription, for example to attach handlers.

        :raises UsageError: there is no such member, or it is not started.
        """
        self._affinity.check()
        member = self._members.get(name)
        if member is None or member.subscription is None:
            raise UsageError(f"the batch has no started member {name!r}")
        return member.subscription

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, in the order of adding."""
        return tuple(self._members)

    async def subscribe_all(self) -> None:
        """Start every builder that is not live; return once all are. Idempotent.

        What is live is left alone, and so are added subscriptions that have ended. A builder whose
        subscription has ended is started again once the events it had buffered are handed out. If one
        fails, or on cancellation, what this call started is ended and nothing else.

        :raises TransportError, SubscriptionError: a member could not be started; its ``member`` is the name.
        :raises UsageError: likewise, for a mistake of the caller.
        """
        self._affinity.enter()
        async with self._lock:
            due = [member for member in self._members.values() if member.is_due]
            started: list[_Member] = []
            failures: list[Exception] = []
            try:
                # All in one turn: their messages ride in one write.
                async with asyncio.TaskGroup() as group:
                    for member in due:
                        group.create_task(_start(member, started, failures))
            except BaseException:
                await _end(started)
                raise
            if failures:
                await _end(started)
                if len(failures) > 1:
                    failures[0].add_note(f"{len(failures) - 1} more members could not be started")
                raise failures[0]
            for member in started:
                if member.subscription is not None:
                    self._merge.follow(member.name, member.subscription._delivery)  # noqa: SLF001 (as above)

    async def unsubscribe_all(self) -> None:
        """End every member, also those that were live when added; what is buffered is dropped. Idempotent."""
        self._affinity.check()
        async with self._lock:
            live = [m.subscription for m in self._members.values() if m.subscription is not None]
            try:
                await _unsubscribe(live)
            finally:
                self._merge.forget_all()

    def __aiter__(self) -> Self:
        self._affinity.check()
        return self

    async def __anext__(self) -> BatchEvent:
        """Wait for the next event of any member. Cancellation loses none.

        :raises TransportError, SubscriptionError: a member has failed: see the class.
        :raises UsageError: no member is started, or another task is iterating.
        """
        self._affinity.enter()
        if self._members and all(member.subscription is None for member in self._members.values()):
            raise UsageError("no member of the batch is started: await subscribe_all() first")
        return await self._merge.next()

    async def __aenter__(self) -> Self:
        await self.subscribe_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.unsubscribe_all()

    def __repr__(self) -> str:
        return f"<BatchSubscriptionManager of {len(self._members)}>"

    def _free_name(self, label: str) -> str:
        name, number = label, self._numbers.get(label, 1)
        while name in self._members:
            number += 1
            name = f"{label}-{number}"
        self._numbers[label] = number
        return name


class _Member:
    __slots__ = ("builder", "name", "subscription")

    def __init__(
        self, name: str, builder: StartsSubscription | None, subscription: Subscription[object] | None
    ) -> None:
        self.name = name
        self.builder = builder
        self.subscription = subscription

    @property
    def is_due(self) -> bool:
        if self.builder is None or self.subscription is None:
            return self.builder is not None
        return self.subscription.state.is_end and not self.subscription.stats().buffered_events


class _Follower:
    """A member as iteration sees it.

    It holds the delivery, never the public handle: the registry holds it through the delivery, and a handle
    that nobody references any more must be noticed.
    """

    __slots__ = ("delivery", "is_ready", "name")

    def __init__(self, name: str, delivery: Delivery[object]) -> None:
        self.name = name
        self.delivery = delivery
        self.is_ready = False


class _Merge:
    """Members that have something to hand out, each once, in the order of their turn."""

    def __init__(self) -> None:
        self._followers: dict[str, _Follower] = {}
        self._ready: deque[_Follower] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._taken: Delivery[object] | None = None

    def follow(self, name: str, delivery: Delivery[object]) -> None:
        if delivery.consumer.handlers.has_data:
            return
        if delivery.consumer.on_ready is not None:
            raise UsageError(f"subscription {delivery.id} is in a batch already")
        before = self._followers.get(name)
        if before is not None:
            self._forget(before)
        follower = self._followers[name] = _Follower(name, delivery)
        delivery.consumer.on_ready = lambda: self._is_ready(follower)
        self._is_ready(follower)

    def forget_all(self) -> None:
        for follower in tuple(self._followers.values()):
            self._forget(follower)
        self._wake()

    async def next(self) -> BatchEvent:
        taken, self._taken = self._taken, None
        if taken is not None:
            taken.consumer.mark_handled()
        while True:
            while self._ready:
                item = self._take_from(self._ready.popleft())
                if item is not None:
                    return item
            if not self._followers:
                raise StopAsyncIteration
            await self._wait()

    def _take_from(self, follower: _Follower) -> BatchEvent | None:
        delivery = follower.delivery
        follower.is_ready = False
        if self._followers.get(follower.name) is not follower:
            return None
        if delivery.consumer.handlers.has_data:
            self._forget(follower)
        elif delivery.consumer.buffered:
            value = delivery.consumer.take_value()
            self._taken = delivery
            if delivery.consumer.buffered or delivery.state.is_end:
                self._is_ready(follower)
            return BatchEvent(follower.name, value)
        elif delivery.state.is_end:
            self._forget(follower)
            if delivery.error is not None:
                raise _of_member(delivery.error, follower.name) from delivery.error
        return None

    def _is_ready(self, follower: _Follower) -> None:
        if not follower.is_ready:
            follower.is_ready = True
            self._ready.append(follower)
            self._wake()

    def _forget(self, follower: _Follower) -> None:
        del self._followers[follower.name]
        follower.delivery.consumer.on_ready = None

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise UsageError("another task is waiting for this batch's next event")
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def _start(member: _Member, started: list[_Member], failures: list[Exception]) -> None:
    if member.builder is None:
        return
    try:
        member.subscription = await member.builder.subscribe()
    except CircuitBreakerError as error:
        failure = _of_member(error, member.name)
        failure.__cause__ = error
        failures.append(failure)
    except Exception as error:  # noqa: BLE001 (one member's failure must not cancel the others half-way)
        error.add_note(_note(member.name))
        failures.append(error)
    else:
        started.append(member)


async def _end(started: list[_Member]) -> None:
    subscriptions = []
    for member in started:
        if member.subscription is not None:
            subscriptions.append(member.subscription)
            member.subscription = None
    await _unsubscribe(subscriptions)


async def _unsubscribe(subscriptions: Sequence[Subscription[object]]) -> None:
    # First all of them, which never waits: their messages ride in one write, and cancellation leaves none
    # behind. Then wait for handlers that are running.
    for subscription in subscriptions:
        subscription._delivery.unsubscribe()  # noqa: SLF001 (as above)
    for subscription in subscriptions:
        await subscription.unsubscribe()


def _of_member(error: ErrorT, name: str) -> ErrorT:
    """Copy an error for one member: a lost connection's error is one object for all that it ends."""
    copied = copy.copy(error)
    copied.member = name
    copied.add_note(_note(name))
    return copied


def _note(name: str) -> str:
    return f"member {name!r} of the batch"


def _label(member: StartsSubscription | Subscription[object]) -> str:
    return member._delivery.label if isinstance(member, Subscription) else member.label  # noqa: SLF001 (as above)
