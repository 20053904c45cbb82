"""Find the subscription at which a server closes the connection, and spare its neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, final
from weakref import WeakKeyDictionary

from circuit_breaker_sdk.callbacks import background_task
from circuit_breaker_sdk.connections import Connection, Supervisor, await_for
from circuit_breaker_sdk.delivery.delivery import PROOF_SECONDS, Delivery
from circuit_breaker_sdk.errors import (
    SubscriptionError,
    SubscriptionFailed,
    TransportError,
    UsageError,
)

__all__ = ["Suspects"]

_STRIKES = 2


@final
class Suspects:
    """Send suspects again one at a time, each on a connection of its own, the newest first.

    Some servers close the whole connection because of one bad document. When a server closes with such a
    code, the subscriptions that were sent and have not proven themselves (by an event, the live signal or
    5 s of life) are suspects. One that ends its connection twice fails; one that proves itself goes back
    among the others. Without cursors, an event may be missed by that move, as by any other reconnect.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        resume: Callable[[Delivery[Any], Connection], None],
        *,
        running_on: Callable[[Connection], Sequence[Delivery[Any]]],
        put_back: Callable[[Delivery[Any]], None],
        on_moved: Callable[[Delivery[Any], Connection], None],
    ) -> None:
        """``resume`` puts one on a connection; ``on_moved`` is told of each that goes on, and on which one.

        ``put_back`` takes one that is no suspect any more and is on no connection.
        """
        self._supervisor = supervisor
        self._resume = resume
        self._running_on = running_on
        self._put_back = put_back
        self._on_moved = on_moved
        # Any: deliveries of all event types.
        self._on_ended: WeakKeyDictionary[Connection, frozenset[Delivery[Any]]] = WeakKeyDictionary()
        self._strikes: dict[Delivery[Any], int] = {}
        self._waiting: dict[Delivery[Any], None] = {}
        self._trying: asyncio.Task[None] | None = None
        self._closed = False

    def __contains__(self, delivery: Delivery[Any]) -> bool:
        return delivery in self._strikes

    def accuse(self, connection: Connection) -> None:
        """Note the suspects on a connection that the server has closed with a refusal. Idempotent.

        It is called for the first subscription that is lost, while all are still on the connection.
        """
        if connection.refusal is None or connection in self._on_ended:
            return
        unproven = [d for d in self._running_on(connection) if not d.is_proven_on_link]
        never_proven = [d for d in unproven if not d.was_proven]
        self._on_ended[connection] = frozenset(never_proven or unproven)

    def are_on(self, connection: Connection) -> bool:
        """Tell whether a connection may have been closed because of subscriptions on it."""
        return bool(self._on_ended.get(connection))

    def end_of(self, delivery: Delivery[Any], connection: Connection) -> SubscriptionFailed | None:
        """Return the error of a suspect that ends with this connection; ``None`` if it is tried again."""
        if connection.refusal is None or delivery not in self._on_ended.get(connection, ()):
            return None
        if self._strikes.get(delivery, 0) + 1 < _STRIKES:
            return None
        code, reason = connection.refusal
        return SubscriptionFailed(delivery.id, reason or "the server gave no reason", close_code=code)

    def strike(self, delivery: Delivery[Any], connection: Connection) -> None:
        """Count the end of a connection against a subscription that was a suspect on it."""
        if delivery in self._on_ended.get(connection, ()):
            self._strikes[delivery] = self._strikes.get(delivery, 0) + 1

    def try_again(self, delivery: Delivery[Any]) -> None:
        """Send a suspect again, once those before it have been judged."""
        self._waiting[delivery] = None
        if self._trying is None and not self._closed:
            self._trying = background_task(self._try_each(), name="circuit-breaker-suspects")

    def forget(self, delivery: Delivery[Any]) -> None:
        """Note that one has ended, or is no suspect any more."""
        self._strikes.pop(delivery, None)
        self._waiting.pop(delivery, None)

    async def aclose(self) -> None:
        """Try no more. Idempotent."""
        self._closed = True
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.wait((self._trying,))

    async def _try_each(self) -> None:
        try:
            while self._waiting:
                delivery, _ = self._waiting.popitem()
                await await_for(delivery, self._try, "trying a suspect")
        finally:
            self._trying = None

    async def _try(self, delivery: Delivery[Any]) -> None:
        try:
            connection = await self._supervisor.apart.open()
        except (TransportError, SubscriptionError, UsageError) as error:
            if delivery in self._strikes and not self._closed:
                ends = error if isinstance(error, TransportError | SubscriptionError) else None
                delivery.give_up(ends or SubscriptionFailed(delivery.id, str(error)))
            return
        if delivery not in self._strikes or delivery.link is not None:
            await self._supervisor.apart.close(connection)  # it has ended meanwhile
            return
        settled = delivery.settling()
        try:
            self._resume(delivery, connection)
        except (TransportError, SubscriptionError):
            self._waiting[delivery] = None
            await self._supervisor.apart.close(connection)
            return
        await asyncio.wait((settled,), timeout=PROOF_SECONDS)
        if _is_on(connection, delivery):
            delivery.go_live()
            self.forget(delivery)
            if self._supervisor.adopt(connection):
                self._on_moved(delivery, connection)
                return
            await self._move_back(delivery, connection)
        await self._supervisor.apart.close(connection)

    async def _move_back(self, delivery: Delivery[Any], connection: Connection) -> None:
        """Move one that has proven itself to the connection of the others, while both live."""
        try:
            present = await self._supervisor.connection()
            if _is_on(connection, delivery):
                self._resume(delivery, present)
                self._on_moved(delivery, present)
        except (TransportError, SubscriptionError):
            self._put_back_if_off(delivery)
        except UsageError:
            return  # the client is closed

    def _put_back_if_off(self, delivery: Delivery[Any]) -> None:
        if delivery.link is None and not delivery.state.is_end:
            self._put_back(delivery)


def _is_on(connection: Connection, delivery: Delivery[Any]) -> bool:
    return delivery.link is connection and not delivery.state.is_end
