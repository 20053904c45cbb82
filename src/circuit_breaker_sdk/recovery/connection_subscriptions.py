"""The subscriptions that one supervisor's connections carry, and what becomes of them."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, final

from circuit_breaker_sdk.connections import Connection, FallbackLinks, Link, Supervisor, do_for
from circuit_breaker_sdk.delivery.delivery import Delivery
from circuit_breaker_sdk.delivery.subscription_state import SubscriptionId
from circuit_breaker_sdk.errors import GapError, StreamFailure, SubscriptionError, TransportError
from circuit_breaker_sdk.observability.logging import log
from circuit_breaker_sdk.recovery.gaps import GapRecovery, Snapshot
from circuit_breaker_sdk.recovery.recovery import Recovery

__all__ = ["Member"]

_HAND_OVER_AT_ONCE = 100


@final
class Member:
    """The owner of the deliveries on one supervisor's connections; a client without a pool has one.

    It holds each subscription's inner delivery, never the public handle, so that a handle without references
    is noticed.

    :ivar starting: how many subscriptions wait for a connection of this one to begin on.
    """

    __slots__ = (
        "_closed",
        "_fresh_id",
        "_gaps",
        "_member_of",
        "_received_elsewhere",
        "_recovery",
        "_snapshot_of",
        "running",
        "starting",
        "supervisor",
    )

    def __init__(
        self,
        supervisor: Supervisor,
        links: FallbackLinks,
        *,
        member_of: Callable[[Supervisor], Member],
        fresh_id: Callable[[], SubscriptionId],
        tasks: set[asyncio.Task[None]],
        gives_up_at_once: bool,
        live_seconds: float,
        retry_seconds: float,
        snapshot_of: Callable[[str, Mapping[str, object]], Snapshot | None],
    ) -> None:
        """The first three are the manager's; for the rest see :class:`Recovery`."""
        self.supervisor: Supervisor = supervisor
        self._member_of = member_of
        # Any: deliveries of all event types live side by side. A dict, because they keep their order.
        self.running: dict[Delivery[Any], None] = {}
        self.starting: int = 0
        self._fresh_id = fresh_id
        self._snapshot_of = snapshot_of
        self._received_elsewhere = 0
        self._closed = False
        # The owner is read when the gap is closed: the delivery may have moved meanwhile.
        self._gaps = GapRecovery(
            supervisor,
            links,
            fresh_id=fresh_id,
            go_on=lambda delivery: delivery.owner.resume(delivery),
            tasks=tasks,
        )
        self._recovery = Recovery(
            supervisor,
            links,
            self._put_on,
            running_on=lambda link: [d for d in self.running if d.link is link],
            gives_up_at_once=gives_up_at_once,
            live_seconds=live_seconds,
            retry_seconds=retry_seconds,
            on_unknown=self._gaps.tell_unknown,
        )

    @property
    def subscriptions(self) -> int:
        """The number of subscriptions that run here, or wait to begin here."""
        return len(self.running) + self.starting

    @property
    def events_received(self) -> int:
        """Events that came while their subscriptions were here, those of ended ones included."""
        return self._received_elsewhere + sum(d.events_received for d in self.running)

    async def connection(self) -> Connection:
        """Return a connection for a new subscription, which is counted here while it waits.

        :raises TransportError, SubscriptionError: it could not be opened.
        :raises UsageError: the client is closed.
        """
        self.starting += 1
        try:
            while True:
                connection = await self.supervisor.connection()
                if connection.is_usable:  # it was not closed in the turn between
                    return connection
        finally:
            self.starting -= 1

    def join(self, delivery: Delivery[Any]) -> None:
        """Take one in; what it has received so far was received elsewhere."""
        self.running[delivery] = None
        self._received_elsewhere -= delivery.events_received

    def leave(self, delivery: Delivery[Any]) -> None:
        """Forget one; what it has received here stays counted."""
        if delivery in self.running:
            del self.running[delivery]
            self._received_elsewhere += delivery.events_received

    async def hand_over(self, target: Callable[[], Supervisor | None]) -> None:
        """Hand what runs here to what ``target`` gives for each, one by one, while both connections live.

        It stays where there is no target, and where a server of the two gives no cursors: events would be
        missed. One that is on no connection goes on by one of its new owner's.
        """
        handed: dict[Connection, list[Delivery[Any]]] = {}
        for number, delivery in enumerate(tuple(self.running), 1):
            is_movable = _resumes(delivery.link) and not self._recovery.is_suspect(delivery)
            # In the turns between, one may have ended, and all may have been closed.
            if delivery in self.running and not self._closed and is_movable:
                supervisor = target()
                connection = None if supervisor is None else supervisor.present
                if supervisor is None or connection is None:
                    break
                if _resumes(connection):
                    move = functools.partial(
                        self._move, member=self._member_of(supervisor), connection=connection
                    )
                    do_for(delivery, move, "the hand-over")
                    handed.setdefault(connection, []).append(delivery)
            if not number % _HAND_OVER_AT_ONCE:
                await asyncio.sleep(0)
        for connection, deliveries in handed.items():
            self._recovery.expect_live(connection, deliveries)

    def _move(self, delivery: Delivery[Any], *, member: Member, connection: Connection) -> None:
        """Move one to the connection, if it is on one now."""
        waited = self._recovery.forget(delivery)
        was_on_connection = isinstance(delivery.link, Connection)
        self.leave(delivery)
        member.join(delivery)
        delivery.owner = member
        if was_on_connection:
            try:
                member._put_on(delivery, connection)
            except (TransportError, SubscriptionError):
                member.resume(delivery)  # that connection was lost as well: it waits for the next one
        elif waited:
            member.resume(delivery)

    def _put_on(self, delivery: Delivery[Any], link: Link) -> None:
        delivery.resume(self._fresh_id(), link)
        log(logging.INFO, "subscription resumed", subscription_id=delivery.id, operation=delivery.label)

    # The owner of deliveries -------------------------------------------------------------------------------

    def lost(self, delivery: Delivery[Any], error: StreamFailure, *, after_seconds: float = 0.0) -> None:
        """Let recovery decide what becomes of a subscription that has lost its connection, or has to wait."""
        self._recovery.lost(delivery, error, after_seconds=after_seconds)

    def resume(self, delivery: Delivery[Any], *, after_seconds: float = 0.0) -> None:
        """Put one that is on no connection back on one, to go on from its cursor."""
        self._recovery.put_back(delivery, after_seconds=after_seconds)

    def missed(self, delivery: Delivery[Any], error: GapError) -> None:
        """Carry a subscription with a handler of gaps over one; end any other."""
        if self._closed or delivery.fallbacks.on_gap is None:
            delivery.give_up(error)
        else:
            self._gaps.bridge(delivery, error)

    def uncertain(self, delivery: Delivery[Any]) -> None:
        """Tell a handler of gaps that events may be missing."""
        self._gaps.tell_unknown(delivery)

    def snapshot_of(self, delivery: Delivery[Any]) -> Callable[[], Awaitable[object]] | None:
        """Return what reads the present state behind a stream: its own, or its domain's query."""
        field, variables = delivery.root_field, delivery.request.variables or {}
        own = delivery.fallbacks.snapshot
        return own if own is not None or field is None else self._snapshot_of(field, variables)

    def ended(self, delivery: Delivery[Any]) -> None:
        """Forget one for good."""
        self._recovery.forget(delivery)
        self.leave(delivery)

    def close(self) -> None:
        """Carry nothing on from now on; :meth:`aclose` waits for what runs. Idempotent."""
        self._closed = True
        self._recovery.close()

    async def aclose(self) -> None:
        """Carry nothing on any more. Idempotent."""
        self.close()
        await self._recovery.aclose()


def _resumes(link: Link | None) -> bool:
    return not isinstance(link, Connection) or link.resume_negotiated
