"""Put the subscriptions of a lost connection back on the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, final

from circuit_breaker_sdk.callbacks import background_task
from circuit_breaker_sdk.connections import (
    BreakerState,
    Connection,
    ConnectionState,
    ConnectionStateChange,
    FallbackLinks,
    Link,
    Supervisor,
    close_each,
    do_for,
    do_for_each,
)
from circuit_breaker_sdk.delivery.delivery import PROOF_EVENTS, Delivery
from circuit_breaker_sdk.delivery.interval_queries import IntervalQueries
from circuit_breaker_sdk.delivery.subscription_state import SubscriptionState
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    HandshakeFailed,
    OperationTimeoutError,
    StreamFailure,
    SubscriptionError,
    TransportError,
    UsageError,
)
from circuit_breaker_sdk.recovery.suspect_subscriptions import Suspects

__all__ = ["Recovery"]

_FALLBACK_PAUSE_SECONDS = 0.25
# Middleboxes answer 403; a server that means it refuses the next transport as well.
_REFUSALS = (HandshakeFailed, AuthenticationFailed)
_RESUMED_AT_ONCE = 100

T = TypeVar("T")


@final
class Recovery:
    """Keep the lost subscriptions, wait for a connection, and put them on it in their old order.

    One task does it for all of them, and runs only while there are any.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        links: FallbackLinks,
        resume: Callable[[Delivery[Any], Link], None],
        *,
        running_on: Callable[[Link], Sequence[Delivery[Any]]],
        gives_up_at_once: bool,
        live_seconds: float,
        retry_seconds: float,
        on_unknown: Callable[[Delivery[Any]], None],
    ) -> None:
        """``resume`` puts one on a link; it raises ``ConnectionFailed`` if that is closing.

        ``live_seconds``: how long the server may take to say that what was put on a connection is live;
        a connection on which it does not is given up as lost. ``on_unknown`` is told of each that goes on
        without a cursor. ``retry_seconds``: how often a WebSocket is tried again for those that are
        polled, where an attempt has said that it makes no sense.
        """
        self._on_unknown = on_unknown
        self._links = links
        self._queries = IntervalQueries(
            # A route of ours is a delivery.
            lambda route: route.fallbacks.changes if isinstance(route, Delivery) else None,
            interval_seconds=retry_seconds,
        )
        # No WebSocket gets through: what waits for one is polled for at once.
        self._is_degraded = False
        self._running_on = running_on
        supervisor.on_rotated(self.hand_over)
        self._retry_seconds = retry_seconds
        supervisor.on_state(self._on_connection_state)
        self._supervisor = supervisor
        self._gives_up_at_once = gives_up_at_once
        self._live_seconds = live_seconds
        self._resume = resume
        # Any: deliveries of all event types. A dict, because they keep their order.
        self._lost: dict[Delivery[Any], None] = {}
        self._running: asyncio.Task[None] | None = None
        self._waits = False
        self._timers: set[asyncio.TimerHandle] = set()
        self._closed = False
        self._suspects = Suspects(
            supervisor,
            resume,
            running_on=running_on,
            put_back=self.put_back,
            on_moved=self._on_moved,
        )

    def is_suspect(self, delivery: Delivery[Any]) -> bool:
        """Tell whether the server may have closed a connection because of this one."""
        return delivery in self._suspects

    def lost(self, delivery: Delivery[Any], error: StreamFailure, *, after_seconds: float = 0.0) -> None:
        """End a subscription that has lost its link, or keep it and put it on another one.

        ``after_seconds``: the server's rate limit asks to wait so long.
        """
        link = delivery.link
        if isinstance(link, Connection):
            if delivery.events_on_connection >= PROOF_EVENTS:
                self._supervisor.proven()
            self._suspects.accuse(link)
        is_fallback = link in self._links
        if is_fallback:
            self._note_fallback(delivery, error)
        end = self._end_of(delivery, error)
        if end is not None:
            delivery.give_up(end)
            return
        if isinstance(link, Connection):
            self._suspects.strike(delivery, link)
        self.put_back(delivery, after_seconds=after_seconds)
        delivery.await_link(error)
        if (is_fallback or self._is_degraded) and not after_seconds and self._links.best() is not None:
            # It goes on at once, by the same link where that is proven, else by the next.
            self._later(0.0, lambda: self._degrade_one(delivery))

    def _note_fallback(self, delivery: Delivery[Any], error: StreamFailure) -> None:
        """Let a link rest that has brought nothing."""
        is_refused = isinstance(error, _REFUSALS)
        if delivery.has_proven_link and not is_refused:
            self._links.proven(delivery.link, error)
        elif isinstance(error, TransportError):
            self._links.failed(delivery.link, error, is_refused=is_refused)

    def _end_of(self, delivery: Delivery[Any], error: StreamFailure) -> StreamFailure | None:
        """Return the error that ends a subscription without its link; ``None`` if another link can help."""
        link = delivery.link
        is_refused = link in self._links and isinstance(error, _REFUSALS)
        if is_refused and delivery.fallbacks.is_critical and self._can_go_on(delivery, error):
            return error if self._closed else None
        has_worked = self._supervisor.was_connected or self._links.have_worked
        if delivery.state is SubscriptionState.STARTING and not has_worked:
            return error  # nothing has ever got through: the caller of `subscribe` is told
        if self._closed or self._gives_up_at_once:
            return error
        if isinstance(link, Connection) and self._suspects.are_on(link):
            return self._suspects.end_of(delivery, link)
        return None if self._supervisor.may_mend(error) else error

    def _can_go_on(self, delivery: Delivery[Any], error: StreamFailure) -> bool:
        """Tell whether another fallback is left, or rests, or a query to use where the server has none."""
        has_query = isinstance(error, HandshakeFailed) and delivery.fallbacks.changes is not None
        return self._links.best() is not None or not self._links.are_refused or has_query

    async def hand_over(self, old: Connection, new: Connection) -> None:
        """Hand what runs on the old connection to the new one, one by one, while both live."""
        handed = self._running_on(old)
        for number, delivery in enumerate(handed, 1):
            # In the turns between, one may have ended, been paused or moved, and all may have been closed.
            if delivery.link is old and not self._closed:
                do_for(delivery, lambda each: self._hand_to(each, new), "the hand-over")
            if not number % _RESUMED_AT_ONCE:
                await asyncio.sleep(0)
        if new.resume_negotiated:
            self.expect_live(new, handed)

    def _hand_to(self, delivery: Delivery[Any], new: Connection) -> None:
        try:
            self._resume(delivery, new)
        except (TransportError, SubscriptionError):
            self.put_back(delivery)

    def put_back(self, delivery: Delivery[Any], *, after_seconds: float = 0.0) -> None:
        """Put a subscription on a connection, the present one or the next."""
        if self._closed:
            return
        if after_seconds:
            self._later(after_seconds, lambda: delivery.owner.resume(delivery))  # it may have moved
            return
        if delivery.state.is_end:
            return
        if delivery in self._suspects:
            self._suspects.try_again(delivery)
            return
        self._lost[delivery] = None
        if self._running is None:
            self._start()
        if self._is_degraded:
            do_for(delivery, self._degrade_one, "falling back")

    def expect_live(self, connection: Connection, resumed: Sequence[Delivery[Any]]) -> None:
        """Give the connection up as lost if these do not come to life on it in time."""
        seconds = self._live_seconds

        def look() -> None:
            late = [delivery for delivery in resumed if delivery.is_late_on(connection, after=seconds)]
            if late:
                what = f"resuming {late[0].label}"
                connection.drop(OperationTimeoutError(what, seconds=seconds))

        self._later(seconds, look)

    def forget(self, delivery: Delivery[Any]) -> bool:
        """Note that a subscription has ended, or is for another to put back; tell whether it waited here."""
        self._suspects.forget(delivery)
        waited = delivery in self._lost
        self._lost.pop(delivery, None)
        if not self._lost and self._running is not None and self._waits:
            self._running.cancel()
        return waited

    def close(self) -> None:
        """Begin nothing from now on. Idempotent."""
        self._closed = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    async def aclose(self) -> None:
        """Try no more. Idempotent."""
        self.close()
        await close_each([self._end_running(), self._suspects.aclose(), self._queries.aclose()])

    async def _end_running(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))

    def _start(self) -> None:
        self._running = background_task(self._recover(), name="circuit-breaker-reconnect")

    async def _recover(self) -> None:
        try:
            while self._lost:
                if not self._links.uses_websocket:
                    await self._while_any_is_lost(self._put_on_fallbacks())
                    continue
                try:
                    connection = await self._while_any_is_lost(self._supervisor.connection())
                except (TransportError, SubscriptionError) as error:
                    self._unreachable(error)
                    if self._lost:
                        await self._while_any_is_lost(asyncio.sleep(self._retry_seconds))
                except UsageError as error:
                    if self._closed:
                        return
                    self._give_up(ConnectionFailed(str(error)), tuple(self._lost))
                else:
                    self._is_degraded = False
                    await self._put_on(connection)
        finally:
            self._running = None
            if self._lost and not self._closed:
                # It was cancelled when there were none, and one has come since.
                self._start()

    async def _while_any_is_lost(self, waiting: Awaitable[T]) -> T:
        """Wait for what is of use only to those that are lost: where none is left, it is cancelled.

        What is done behind it is done for those that are lost no more, and is not to be broken off.
        """
        self._waits = True
        try:
            return await waiting
        finally:
            self._waits = False

    # Fallbacks meanwhile -----------------------------------------------------------------------------------

    def degrade(self) -> None:
        """Let fallbacks carry the critical ones that wait: for a connection, but not for events."""
        self._is_degraded = True
        do_for_each(self._lost, self._degrade_one, "falling back")

    def _degrade_one(self, delivery: Delivery[Any]) -> None:
        is_waiting = delivery in self._lost and delivery.link is None and not delivery.is_stopped
        if not is_waiting or not delivery.fallbacks.is_critical:
            return
        link = self._links.best()
        if link is not None:
            self._resume(delivery, link)
        elif self._links.are_refused and delivery.fallbacks.changes is not None:
            self._resume(delivery, self._queries)
            delivery.go_live()
            self._on_unknown(delivery)

    async def _put_on_fallbacks(self) -> None:
        """Put those that wait on the best link there is, and look again a little later for the others."""
        await asyncio.sleep(0)  # until what has lost its link waits for another one
        do_for_each(self._lost, self._degrade_one, "falling back")
        for delivery in [each for each in self._lost if each.link is not None or each.state.is_end]:
            del self._lost[delivery]
        if self._lost:
            await asyncio.sleep(_FALLBACK_PAUSE_SECONDS)

    def _on_connection_state(self, change: ConnectionStateChange) -> None:
        if change.now is ConnectionState.RECONNECTING and (
            self._supervisor.breaker_state is BreakerState.OPEN or isinstance(change.reason, HandshakeFailed)
        ):
            self.degrade()

    def _unreachable(self, error: StreamFailure) -> None:
        """End those that need a WebSocket; poll for the others, and try again later."""
        # Refused credentials too: middleboxes answer so, and a server that means it refuses the poll as well.
        self._give_up(error, [delivery for delivery in self._lost if not delivery.fallbacks.is_critical])
        self.degrade()

    async def _put_on(self, connection: Connection) -> None:
        resumed = list(self._lost)
        for number, delivery in enumerate(resumed, 1):
            if not number % _RESUMED_AT_ONCE:
                await asyncio.sleep(0)
            if not connection.is_usable:
                break  # it and those behind it are still here
            if delivery not in self._lost:
                continue
            is_on = do_for(delivery, lambda each: self._resume(each, connection), "resuming")
            if is_on:
                self._lost.pop(delivery, None)
            elif connection.is_usable:
                self._give_up(ConnectionFailed("it could not be put on a connection again"), (delivery,))
        if connection.resume_negotiated:
            self.expect_live(connection, resumed)
            return
        # As for a new one: nothing will say that it is live, so it is when the message is written.
        await asyncio.sleep(connection.write_delay_seconds)
        do_for_each(
            (delivery for delivery in resumed if delivery.link is connection), self._on_written, "going live"
        )

    def _on_written(self, delivery: Delivery[Any]) -> None:
        delivery.go_live()
        self._on_unknown(delivery)

    def _on_moved(self, delivery: Delivery[Any], connection: Connection) -> None:
        if connection.resume_negotiated:
            self.expect_live(connection, (delivery,))
        else:
            self._on_unknown(delivery)

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        if self._closed:
            return

        def now() -> None:
            self._timers.discard(timer)
            do()

        timer = asyncio.get_running_loop().call_later(seconds, now)
        self._timers.add(timer)

    def _give_up(self, error: StreamFailure, those: Sequence[Delivery[Any]]) -> None:
        for delivery in those:
            self._lost.pop(delivery, None)
        do_for_each(those, lambda delivery: delivery.give_up(error), "giving up")
