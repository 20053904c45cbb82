"""Starts subscriptions, knows the running ones, ends them all."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, final

import msgspec

from circuit_breaker_sdk.config import BufferLimits, ErrorRecoveryPolicy, Timeouts
from circuit_breaker_sdk.connections import (
    BreakerState,
    FallbackLinks,
    Link,
    PoolSupervisor,
    Supervisor,
    close_each,
    do_for_each,
)
from circuit_breaker_sdk.delivery.buffer import BufferBudget
from circuit_breaker_sdk.delivery.decoding import event_decoder
from circuit_breaker_sdk.delivery.delivery import Delivery
from circuit_breaker_sdk.delivery.fallbacks import NO_FALLBACKS, Fallbacks
from circuit_breaker_sdk.delivery.interval_queries import Changes
from circuit_breaker_sdk.delivery.resume_by import ExtensionSeam
from circuit_breaker_sdk.delivery.subscription_state import SubscriptionId
from circuit_breaker_sdk.delivery.traced_delivery import TracedDelivery
from circuit_breaker_sdk.errors import (
    CircuitBreakerError,
    HandshakeFailed,
    SubscriptionError,
    TransportError,
    UsageError,
)
from circuit_breaker_sdk.loop_affinity import LoopAffinity
from circuit_breaker_sdk.observability import log
from circuit_breaker_sdk.observability.latency import Latency
from circuit_breaker_sdk.observability.tracing import Tracer
from circuit_breaker_sdk.protocol.document_scan import refuse_incremental
from circuit_breaker_sdk.protocol.messages import Subscribe
from circuit_breaker_sdk.recovery.connection_subscriptions import Member
from circuit_breaker_sdk.recovery.cursor_store import CursorKeeper, CursorStore
from circuit_breaker_sdk.recovery.gaps import Snapshot
from circuit_breaker_sdk.subscriptions.begin_wait import BeginWait
from circuit_breaker_sdk.subscriptions.operation import Operation
from circuit_breaker_sdk.subscriptions.variables import encode_variables

__all__ = ["Operation", "SubscriptionManager"]

# Of the time to close: the rest is for the cursors of what the handlers have handled.
_HANDLERS_SHARE = 0.5

T = TypeVar("T")
S = TypeVar("S")

SnapshotOf = Callable[[str, Mapping[str, object]], Snapshot | None]
"""From a domain's stream and its arguments to what reads the present state."""

ChangesOf = Callable[[str, Mapping[str, object]], Changes | None]
"""From a domain's stream and its arguments to what asks for its changes by a query."""


@final
class SubscriptionManager:
    """The registry of running subscriptions, and the way into it.

    Every (re)started operation gets a fresh id; all ids have one length, which keeps the connection on its
    fast route. All subscriptions share one connection, or those of a pool: each has an owner, the
    :class:`Member` of that connection.

    Example::

        subscription = await manager.subscribe(Operation(document=text, type=Tick), Subscription)
    """

    def __init__(
        self,
        supervisor: Supervisor,
        links: FallbackLinks,
        *,
        buffer: BufferLimits,
        timeouts: Timeouts,
        policy: ErrorRecoveryPolicy,
        max_buffered_bytes: int = 64 * 1024 * 1024,
        cursor_store: CursorStore | None = None,
        snapshot_of: SnapshotOf | None = None,
        changes_of: ChangesOf | None = None,
        critical: bool = False,
        retry_seconds: float = 2.0,
        pool: PoolSupervisor | None = None,
        affinity: LoopAffinity | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """``pool``: gives the supervisor of each new subscription; without one it is always the same."""
        self._buffer = buffer
        self._budget = BufferBudget(max_buffered_bytes, lambda: self.active)
        self._budget.on_full = self._warn_once
        self._timeouts = timeouts
        self._begin_wait = BeginWait(timeouts.subscribe_seconds)
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._snapshot_of: SnapshotOf = snapshot_of or (lambda _field, _arguments: None)
        self._links = links
        self._critical = critical
        self._policy = policy
        self._retry_seconds = retry_seconds
        self._members: dict[Supervisor, Member] = {}
        self._only = self._member_for(supervisor)
        self._pool = pool
        if pool is not None:
            pool.on_member(self._member_for)
        self._cursors = None if cursor_store is None else CursorKeeper(cursor_store)
        self._changes_of = changes_of
        self.affinity: LoopAffinity = affinity or LoopAffinity()
        self._closed = False
        self._latency: Latency | None = None
        self._tracer = tracer

    def _warn_once(self) -> None:
        """Log, the first time that buffers crowd each other, which subscriptions hold most."""
        self._budget.on_full = None
        running = [delivery for member in self._members.values() for delivery in member.running]
        fullest = sorted(running, key=lambda each: each.consumer.buffer.size_bytes, reverse=True)[:3]
        log(
            logging.WARNING,
            "buffers are full: a subscription is paused because others are not read",
            buffered_bytes=self._budget.used,
            max_buffered_bytes=self._budget.max_bytes,
            fullest="; ".join(
                f"{each.label} ({each.id}): {len(each.consumer.buffer)} events, "
                f"{each.consumer.buffer.size_bytes} bytes"
                for each in fullest
            ),
        )

    @property
    def active(self) -> int:
        """The number of running subscriptions."""
        return sum(len(member.running) for member in self._members.values())

    @property
    def members(self) -> tuple[Member, ...]:
        """The owners of all subscriptions, one for each connection."""
        return tuple(self._members.values())

    @property
    def uses_websocket(self) -> bool:
        """Whether a WebSocket is what subscriptions are to come by."""
        return self._links.uses_websocket

    @property
    def max_buffered_bytes(self) -> int:
        """The bound of :attr:`buffered_bytes`, in bytes."""
        return self._budget.max_bytes

    @property
    def latency(self) -> Latency | None:
        """The measurement of all subscriptions' handlers; ``None`` while there is none."""
        return self._latency

    def measure(self, latency: Latency | None) -> None:
        """Measure all handlers from now on; ``None``: no more."""
        self._latency = latency
        for member in self._members.values():
            for delivery in member.running:
                delivery.consumer.measure(latency)

    @property
    def buffered_bytes(self) -> int:
        """Encoded bytes of the events that wait for their consumers, of all subscriptions."""
        return self._budget.used

    @property
    def messages_received(self) -> int:
        """Events received by all subscriptions, ended ones included."""
        return sum(member.events_received for member in self._members.values())

    async def subscribe(self, operation: Operation[T], into: Callable[[Delivery[T]], S]) -> S:
        """Start an operation; return once it is live: nothing that happens from then on is missed.

        Live means: the server has said so where resume was negotiated, the message is written elsewhere.
        ``into`` makes the public handle. Cancellation ends what was started. Where a connection was lost it
        waits for the next one, and so does one whose connection is lost before it was live.

        :raises TransportError, SubscriptionError: no connection, or the server refused it before it was
            live; ``GapError`` where what follows its cursor is gone and no handler of gaps is attached.
        :raises UsageError: the variables or the type cannot be used, or the client is closed.
        """
        self.affinity.enter()
        key = operation.cursor_key
        if key is None:
            return await self._subscribe(operation, into, operation.after)
        self._check_open()
        if self._cursors is None:
            raise UsageError("a cursor_key needs a place to keep cursors: Client(…, cursor_store=…)")
        with self._cursors.claim(key):
            after = await self._cursors.load(key) or operation.after
            return await self._subscribe(operation, into, after)

    async def _subscribe(
        self, operation: Operation[T], into: Callable[[Delivery[T]], S], after: str | None
    ) -> S:
        if self._tracer is None:
            return await self._begin(operation, into, after, {})
        with self._tracer.subscribing(operation.label) as context:
            return await self._begin(operation, into, after, context)

    async def _begin(
        self,
        operation: Operation[T],
        into: Callable[[Delivery[T]], S],
        after: str | None,
        trace: Mapping[str, str],
    ) -> S:
        """Start an operation.

        :param trace: the context of its caller, which goes with the first request only.
        """
        self._check_open()
        refuse_incremental(operation.document)
        variables = encode_variables(operation.variables)
        is_critical = operation.critical if operation.critical is not None else self._critical
        is_critical |= not self._links.uses_websocket
        member, link, refused = await self._link(is_critical=is_critical)
        self._check_open()
        begin = operation.begin if after is None else None
        seam = operation.seam(variables, after)
        if isinstance(seam, ExtensionSeam) and link in self._links:
            raise UsageError("ResumeByExtension works over WebSockets only, and none is used here")
        after = after if link.resume_negotiated else None
        extensions = operation.extensions(link, after=after)
        request = Subscribe(
            self._fresh_id(), operation.document, variables, operation.operation_name, extensions
        )
        if seam is not None and not link.resume_negotiated:
            request = seam.resumed(request)
        if trace:
            request = msgspec.structs.replace(request, extensions={**(request.extensions or {}), **trace})
        new_delivery: type[Delivery[T]] = Delivery if self._tracer is None else TracedDelivery
        delivery = new_delivery(
            label=operation.label,
            decoder=event_decoder(
                operation.type,
                operation.root_field,
                with_resume=link.resume_negotiated,
                decode_hook=operation.decode_hook,
            ),
            limits=operation.buffer or self._buffer,
            budget=self._budget,
            link=link,
            request=request,
            owner=member,
            tasks=self._tasks,
            after=after,
        )
        delivery.begin = begin
        delivery.consumer.latency, delivery.consumer.tracer = self._latency, self._tracer
        if seam is not None:
            delivery.resume_by(seam)
        delivery.fallbacks = self._fallbacks(operation, is_critical=is_critical)
        handle = into(delivery)
        # Registered before the message is written: an answer can never come too early.
        member.join(delivery)
        try:
            link.subscribe(request, delivery)
        except BaseException:
            member.leave(delivery)
            raise
        log(logging.INFO, "subscription begun", subscription_id=delivery.id, operation=delivery.label)
        if link in self._links and self._links.uses_websocket and is_critical:
            member.resume(delivery)  # it goes over to a WebSocket as soon as one gets through
        try:
            await self._begin_wait.until_begun(delivery, link)
        except TransportError as error:
            if refused is None or is_critical:
                raise
            raise refused from error  # there are no event streams either
        self._links.have_worked |= link in self._links
        if refused is not None and not is_critical:
            # The server has no WebSockets: from here on none is asked for.
            self._links.uses_websocket = False
            delivery.fallbacks = self._fallbacks(operation, is_critical=True)
        self._check_open()
        if self._cursors is not None and operation.cursor_key is not None:
            self._cursors.keep(operation.cursor_key, delivery)
        return handle

    async def _link(self, *, is_critical: bool) -> tuple[Member, Link, CircuitBreakerError | None]:
        """Return the link for a new operation, the member that owns it then, and why it is no WebSocket."""
        pool = self._pool
        member = self._only if pool is None else self._members[pool.choose()]
        if not self._links.uses_websocket:
            return member, await self._links.next(self._timeouts.subscribe_seconds), None
        if is_critical and member.supervisor.breaker_state is BreakerState.OPEN:
            link = self._links.best()
            if link is not None:
                return member, link, None
        try:
            try:
                return member, await member.connection(), None
            except (TransportError, SubscriptionError):
                instead = None if pool is None else pool.instead_of(member.supervisor)
                if instead is None:
                    raise
                member = self._members[instead]
                return member, await member.connection(), None
        except (TransportError, SubscriptionError) as error:
            is_none_there = isinstance(error, HandshakeFailed) and not member.supervisor.was_connected
            link = self._links.best() if is_critical else self._links.streams if is_none_there else None
            if link is None:
                raise
            log(logging.INFO, "another transport instead of a WebSocket", error=error)
            return member, link, error

    def _member_for(self, supervisor: Supervisor) -> Member:
        """Return the member that owns the deliveries on this supervisor's connections."""
        member = self._members.get(supervisor)
        if member is None:
            member = self._members[supervisor] = Member(
                supervisor,
                self._links,
                member_of=self._member_for,
                fresh_id=self._fresh_id,
                tasks=self._tasks,
                gives_up_at_once=self._policy.max_retries == 0,
                live_seconds=self._timeouts.subscribe_seconds,
                retry_seconds=self._retry_seconds,
                snapshot_of=self._snapshot_of,
            )
        return member

    def _check_open(self) -> None:
        """Asked again after each wait: the client may have been closed meanwhile."""
        if self._closed:
            raise UsageError("the client is closed: make a new one")

    def _fallbacks(self, operation: Operation[T], *, is_critical: bool) -> Fallbacks:
        if operation.on_gap is None and operation.snapshot is None and not is_critical:
            return NO_FALLBACKS
        snapshot, changes = operation.snapshot, None
        field, variables = operation.root_field, operation.variables or {}
        if snapshot is None and operation.on_gap is not None and field:
            snapshot = self._snapshot_of(field, variables)
        if is_critical and self._changes_of is not None and field:
            changes = self._changes_of(field, variables)
        return Fallbacks(on_gap=operation.on_gap, snapshot=snapshot, is_critical=is_critical, changes=changes)

    def _fresh_id(self) -> SubscriptionId:
        return SubscriptionId(f"{next(self._numbers):08x}")

    async def aclose(self, *, caller: asyncio.Task[Any] | None = None) -> None:
        """End every subscription, await its handlers, and save the cursors of what they have handled.

        Handlers of streams that had ended before are let finish, for half of ``close_seconds``; the others
        are cancelled. The ``caller``, by default the current task, may be a handler itself: it is spared.
        Idempotent.
        """
        self._closed = True
        members = tuple(self._members.values())
        do_for_each(members, Member.close, "closing")
        running = [delivery for member in members for delivery in member.running]
        do_for_each(running, Delivery.unsubscribe, "unsubscribing")
        spared = {caller or asyncio.current_task()}
        cancelled = {delivery.consumer.handlers.pump for delivery in running} - spared
        for pump in cancelled:
            if pump is not None:
                pump.cancel()
        await close_each([self._end_tasks(spared), *(member.aclose() for member in members)])

    async def _end_tasks(self, spared: set[asyncio.Task[Any] | None]) -> None:
        try:
            if others := self._tasks - spared:
                await asyncio.wait(others, timeout=self._timeouts.close_seconds * _HANDLERS_SHARE)
            for task in others & self._tasks:
                task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        finally:
            if self._cursors is not None:
                await self._cursors.aclose()
