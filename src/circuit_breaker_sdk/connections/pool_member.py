"""One connection of a pool: what it carries, how much comes, and how well it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, final

import msgspec

from circuit_breaker_sdk.config import PoolSettings
from circuit_breaker_sdk.connections.connection_state import ConnectionState
from circuit_breaker_sdk.connections.connector import Supervisor

__all__ = ["Carried", "ConnectionHealth", "PoolMember"]


class Carried(Protocol):
    """A pool's view of the subscriptions of one of its members."""

    @property
    def subscriptions(self) -> int:
        """The number of subscriptions, including those that wait for a connection."""
        ...

    @property
    def events_received(self) -> int:
        """The number of events received here, by ended subscriptions as well."""
        ...

    async def hand_over(self, target: Callable[[], Supervisor | None]) -> None:
        """Hand each that loses nothing by it to the connection that ``target`` gives, while there is one."""
        ...


@final
class ConnectionHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Health of one connection of a pool.

    :ivar url: where it leads to, without credentials.
    :ivar state: ``IDLE`` for one that is closed because it is not needed, or not well.
    :ivar subscriptions: how many it carries, those that begin included.
    :ivar events_per_second: of all of them, between the last two checks.
    :ivar round_trip_seconds: from the latest ping to its pong, or for how long a ping is unanswered if that
        is longer; ``None`` where there was no ping yet.
    :ivar is_healthy: whether it may carry new subscriptions.

    Example::

        for connection in pool.health():
            print(connection.url, connection.state, connection.subscriptions, connection.is_healthy)
    """

    url: str
    state: ConnectionState
    subscriptions: int
    events_per_second: float
    round_trip_seconds: float | None
    is_healthy: bool


@final
class PoolMember:
    """A supervisor of the pool, and what the last check has found out about it.

    :ivar expected: new subscriptions since the last check, whose events are not in the rate yet.
    :ivar cool_until: it was drained, and carries nothing new before that.
    """

    __slots__ = (
        "_events",
        "_failures",
        "_idle_since",
        "_was_away",
        "carried",
        "cool_until",
        "events_per_second",
        "expected",
        "is_well",
        "supervisor",
    )

    def __init__(self, supervisor: Supervisor, carried: Carried) -> None:
        self.supervisor: Supervisor = supervisor
        self.carried: Carried = carried
        self.events_per_second: float = 0.0
        self.expected: int = 0
        self.is_well: bool = True
        self.cool_until: float | None = None
        self._events = 0
        self._failures = 0
        self._idle_since: float | None = None
        self._was_away = False

    @property
    def is_healthy(self) -> bool:
        """Whether it may carry new subscriptions."""
        return self.is_well and self.cool_until is None

    @property
    def is_open(self) -> bool:
        """Whether it has a connection, or subscriptions that wait for one."""
        return self.supervisor.state is ConnectionState.CONNECTED or self.carried.subscriptions > 0

    @property
    def is_connected(self) -> bool:
        """Whether its connection can be used now."""
        return self.supervisor.present is not None

    @property
    def round_trip_seconds(self) -> float | None:
        """The latest round trip, or how long the present one takes already if that is longer."""
        connection = self.supervisor.present
        if connection is None:
            return None
        answered, waiting = connection.round_trip_seconds, connection.unanswered_seconds
        return waiting or None if answered is None else max(answered, waiting)

    def take_one(self) -> Supervisor:
        """Note that a new subscription comes."""
        self.expected += 1
        self._idle_since = None
        return self.supervisor

    def look(self, now: float, seconds: float, settings: PoolSettings) -> None:
        """Compare with the last look, so many seconds ago."""
        events, failures = self.carried.events_received, self.supervisor.counters.failures
        subscriptions = self.carried.subscriptions
        self.events_per_second = max(0, events - self._events) / seconds if seconds > 0 else 0.0
        self.expected = 0
        # Without a connection at two looks: others can have what waits for it.
        is_away = subscriptions > 0 and self.supervisor.was_connected and not self.is_connected
        self.is_well = (
            failures - self._failures <= settings.max_failures
            and (self.round_trip_seconds or 0.0) <= settings.max_round_trip_seconds
            and not (is_away and self._was_away)
        )
        self._events, self._failures, self._was_away = events, failures, is_away
        if self.cool_until is not None and now >= self.cool_until:
            self.cool_until = None
        if subscriptions:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now

    def is_idle(self, now: float, settings: PoolSettings) -> bool:
        """Whether its connection has carried nothing for long enough to be closed."""
        if self._idle_since is None or self.carried.subscriptions or not self.is_connected:
            return False
        return self.cool_until is not None or now - self._idle_since >= settings.idle_seconds

    def health(self) -> ConnectionHealth:
        """Take a snapshot."""
        return ConnectionHealth(
            url=self.supervisor.url,
            state=self.supervisor.state,
            subscriptions=self.carried.subscriptions,
            events_per_second=self.events_per_second,
            round_trip_seconds=self.round_trip_seconds,
            is_healthy=self.is_healthy,
        )
