"""Manage the connections of a pool: choose, open, drain and close them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import final

import msgspec

from circuit_breaker_sdk.callbacks import CALLBACK_ERRORS, background_task, in_own_context
from circuit_breaker_sdk.config import PoolSettings, PoolStrategy
from circuit_breaker_sdk.connections.circuit_breaker import BreakerState
from circuit_breaker_sdk.connections.closing import close_each
from circuit_breaker_sdk.connections.connection_state import ConnectionState, ConnectionStateChange
from circuit_breaker_sdk.connections.connector import Supervisor
from circuit_breaker_sdk.connections.guarded_calls import await_for
from circuit_breaker_sdk.connections.pool_member import Carried, ConnectionHealth, PoolMember
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.observability import ConnectionCounters, log

__all__ = ["PoolSupervisor"]

# The first of these that a member is in is what the pool is in.
_STATES = (ConnectionState.CONNECTED, ConnectionState.CONNECTING, ConnectionState.RECONNECTING)
_BREAKERS = (BreakerState.CLOSED, BreakerState.HALF_OPEN)


@final
class PoolSupervisor:
    """Own a supervisor for each connection, and the task that looks after all of them.

    Each has its own endpoints, circuit breakers and backoff: a path that is sick must not keep the others
    from connecting again. They share the credentials, so that a token source is asked once for all.

    What it does per event is nothing: rates are differences of counters, taken at each check.
    """

    def __init__(
        self,
        settings: PoolSettings,
        make: Callable[[], Supervisor],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``make`` makes a supervisor that has not connected yet."""
        self._settings = settings
        self._make = make
        self._clock = clock
        self._carry: Callable[[Supervisor], Carried] | None = None
        self._listeners: list[Callable[[ConnectionStateChange], object]] = []
        self._members: list[PoolMember] = []
        self._state = ConnectionState.IDLE
        self._turn = 0
        self._mean = 0.0
        self._checked_at = clock()
        self._checking: asyncio.Task[None] | None = None
        self._closed = False
        self.first: Supervisor = make()
        """The one that carries the first subscription; its connection is the last to be closed as idle."""

    @property
    def state(self) -> ConnectionState:
        """``CONNECTED`` if any connection is, else what comes next to it."""
        states = self._states()
        if self._closed and set(states) <= {ConnectionState.CLOSED}:
            return ConnectionState.CLOSED
        return next((state for state in _STATES if state in states), ConnectionState.IDLE)

    @property
    def breaker_state(self) -> BreakerState:
        """The most permissive state of the connections' circuit breakers."""
        states = [each.breaker_state for each in self._supervisors()]
        return next((state for state in _BREAKERS if state in states), BreakerState.OPEN)

    @property
    def round_trip_seconds(self) -> float | None:
        """The longest of the latest round trips."""
        known = [each.round_trip_seconds for each in self._supervisors()]
        return max((seconds for seconds in known if seconds is not None), default=None)

    @property
    def counters(self) -> ConnectionCounters:
        """The sums of all connections."""
        each = [supervisor.counters for supervisor in self._supervisors()]
        return ConnectionCounters(
            failures=sum(counters.failures for counters in each),
            reconnection_attempts=sum(counters.reconnection_attempts for counters in each),
        )

    def on_state(self, listener: Callable[[ConnectionStateChange], object]) -> None:
        """Call ``listener`` with every change of the pool's state; what it raises is logged."""
        listener = in_own_context(listener)
        self._listeners.append(listener)

    def on_member(self, carry: Callable[[Supervisor], Carried]) -> None:
        """Ask ``carry`` for what each connection carries; before the first subscription, and once."""
        self._carry = carry
        self._add(self.first)

    def health(self) -> tuple[ConnectionHealth, ...]:
        """Tell how each connection is, in the order of their first use."""
        return tuple(member.health() for member in self._members)

    # Choosing ----------------------------------------------------------------------------------------------

    def choose(self) -> Supervisor:
        """Return the supervisor that is to carry a new subscription; nothing is opened here.

        :raises UsageError: the client is closed.
        """
        if self._closed:
            raise UsageError("the client is closed: make a new one")
        if self._checking is None:
            self._checked_at = self._clock()
            self._checking = background_task(self._check_for_ever(), name="circuit-breaker-pool")
        open_ = [member for member in self._members if member.is_open and member.is_healthy]
        full = self._settings.subscriptions_per_connection
        if all(member.carried.subscriptions >= full for member in open_):
            further = self._further()
            if further is not None:
                return further.take_one()
        warm = [member for member in self._members if member.cool_until is None]
        return self._best(open_ or warm or self._members).take_one()

    def instead_of(self, failed: Supervisor) -> Supervisor | None:
        """Return another supervisor for a new subscription; ``None`` if there is none.

        The one that failed carries nothing new for a while.
        """
        others = [m for m in self._members if m.supervisor is not failed and m.supervisor.was_connected]
        if not others:
            return None
        for member in self._members:
            if member.supervisor is failed:
                self._cool(member)
        connected = [member for member in others if member.is_connected]
        healthy = [member for member in connected if member.is_healthy]
        return self._best(healthy or connected or others).take_one()

    def _further(self) -> PoolMember | None:
        """Return one that is closed and may be opened, a new one where none is and there is room."""
        for member in self._members:
            if not member.is_open and member.is_healthy:
                return member
        return self._add(self._make()) if len(self._members) < self._settings.size else None

    def _best(self, candidates: Sequence[PoolMember]) -> PoolMember:
        # A member that waits for its next attempt would let a new subscription wait as well.
        present = [m for m in candidates if m.supervisor.state is not ConnectionState.RECONNECTING]
        candidates = present or candidates
        if self._settings.strategy is PoolStrategy.ROUND_ROBIN:
            self._turn += 1
            return candidates[self._turn % len(candidates)]
        # New subscriptions are expected to bring what the others bring: or all that come between two checks
        # would go where the rate was lowest.
        return min(
            candidates,
            key=lambda m: (m.events_per_second + m.expected * self._mean, m.carried.subscriptions),
        )

    def _add(self, supervisor: Supervisor) -> PoolMember:
        if self._carry is None:
            raise RuntimeError("a pool is used once its client knows what it carries")
        supervisor.on_state(self._changed)
        member = PoolMember(supervisor, self._carry(supervisor))
        self._members.append(member)
        return member

    # Looking after them ------------------------------------------------------------------------------------

    async def _check_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.check_seconds)
            await self.check()

    async def check(self) -> None:
        """Look at every connection; drain those that are not well, close those that carry nothing."""
        now = self._clock()
        seconds, self._checked_at = now - self._checked_at, now
        for member in self._members:
            member.look(now, seconds, self._settings)
        carried = sum(member.carried.subscriptions for member in self._members)
        self._mean = sum(member.events_per_second for member in self._members) / carried if carried else 0.0
        for member in self._members:
            if not member.is_healthy and member.carried.subscriptions and self._healthy():
                await await_for(member, self._drain, "draining")
        connected = [member for member in self._members if member.is_connected]
        for member in reversed(connected):
            if len(connected) > 1 and member.is_idle(now, self._settings):
                connected.remove(member)
                await await_for(member.supervisor, Supervisor.disconnect, "closing an idle connection")

    async def _drain(self, member: PoolMember) -> None:
        """Hand what it carries to the others, and close its connection once it carries nothing."""
        if member.cool_until is None:
            self._cool(member)
            log(
                logging.WARNING,
                "connection drained",
                url=member.supervisor.url,
                subscriptions=member.carried.subscriptions,
                round_trip_seconds=member.round_trip_seconds,
            )
        await member.carried.hand_over(self._target)
        if not member.carried.subscriptions:
            await member.supervisor.disconnect()

    def _cool(self, member: PoolMember) -> None:
        member.cool_until = self._clock() + self._settings.cool_down_seconds

    def _healthy(self) -> list[PoolMember]:
        return [member for member in self._members if member.is_healthy and member.is_connected]

    def _target(self) -> Supervisor | None:
        healthy = self._healthy()
        return self._best(healthy).take_one() if healthy else None

    # The state of all --------------------------------------------------------------------------------------

    def _supervisors(self) -> list[Supervisor]:
        return [member.supervisor for member in self._members] or [self.first]

    def _states(self) -> list[ConnectionState]:
        return [supervisor.state for supervisor in self._supervisors()]

    def _changed(self, change: ConnectionStateChange) -> None:
        """Tell of a member's change as the pool's, if it is one."""
        before, self._state = self._state, self.state
        if self._state is before:
            return
        ours = msgspec.structs.replace(change, before=before, now=self._state)
        for listener in tuple(self._listeners):
            try:
                listener(ours)
            except CALLBACK_ERRORS as error:
                log(logging.ERROR, "a listener of the connection's state raised", error=error)

    async def aclose(self) -> None:
        """Close every connection, and wait for their end. Idempotent."""
        self._closed = True
        if self._checking is not None:
            self._checking.cancel()
        await close_each([self._end_check(), *(each.aclose() for each in self._supervisors())])

    async def _end_check(self) -> None:
        if self._checking is not None:
            await asyncio.wait((self._checking,))
