"""A client's subscriptions, spread over several connections: what an application sees of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from circuit_breaker_sdk.config import PoolSettings, PoolStrategy
from circuit_breaker_sdk.connections.connection_state import ConnectionState
from circuit_breaker_sdk.connections.connector import Supervisor
from circuit_breaker_sdk.connections.pool_member import ConnectionHealth
from circuit_breaker_sdk.connections.pool_supervisor import PoolSupervisor
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.loop_affinity import check_loop

__all__ = ["SubscriptionConnectionPool"]


@final
class SubscriptionConnectionPool:
    """Spread one client's subscriptions over up to ``size`` WebSocket connections.

    A further connection is opened when every healthy one that is open carries as many subscriptions as
    ``subscriptions_per_connection``; one that carries none for ``idle_seconds`` is closed, but for the last.
    A subscription whose connection is lost goes on by the next connection in its place.

    Every ``check_seconds`` all connections are looked at. One whose round trip takes longer than
    ``max_round_trip_seconds`` (the client's heartbeat measures it), that failed or was lost more than
    ``max_failures`` times since the last check, or that has had no connection since then, is drained: its
    subscriptions go over to healthy ones without loss, each from its cursor, and it carries nothing new for
    ``cool_down_seconds``. Where no other one is healthy, or the server gives no cursors, they stay.

    :param size: the most connections at once; while one is replaced for a fresh token, both are open.
    :param strategy: which one carries a new subscription.
    :raises UsageError: an argument cannot be used.

    Example::

        pool = SubscriptionConnectionPool(size=4)
        client = Client("ws://localhost:4000/graphql", pool=pool)
        print([connection.subscriptions for connection in pool.health()])
    """

    __slots__ = ("_settings", "_supervisor")

    def __init__(
        self,
        size: int = 4,
        strategy: PoolStrategy = PoolStrategy.LEAST_LOADED,
        *,
        subscriptions_per_connection: int = 100,
        idle_seconds: float = 60.0,
        check_seconds: float = 5.0,
        max_round_trip_seconds: float = 2.0,
        max_failures: int = 5,
        cool_down_seconds: float = 30.0,
    ) -> None:
        self._settings = PoolSettings(
            size=size,
            strategy=strategy,
            subscriptions_per_connection=subscriptions_per_connection,
            idle_seconds=idle_seconds,
            check_seconds=check_seconds,
            max_round_trip_seconds=max_round_trip_seconds,
            max_failures=max_failures,
            cool_down_seconds=cool_down_seconds,
        )
        self._supervisor: PoolSupervisor | None = None

    @property
    def size(self) -> int:
        """The most connections that are open at once."""
        return self._settings.size

    @property
    def strategy(self) -> PoolStrategy:
        """Which connection carries a new subscription."""
        return self._settings.strategy

    @property
    def state(self) -> ConnectionState:
        """``CONNECTED`` if any connection is; ``IDLE`` before a client has it."""
        return ConnectionState.IDLE if self._supervisor is None else self._supervisor.state

    def health(self) -> tuple[ConnectionHealth, ...]:
        """Tell how each connection is, in the order of their first use; those closed meanwhile included."""
        if self._supervisor is None:
            return ()
        check_loop(self._supervisor.first.loop)
        return self._supervisor.health()

    def serve(self, make: Callable[[], Supervisor]) -> PoolSupervisor:
        """Begin to serve a client, whose supervisors ``make`` makes: the client calls this.

        :raises UsageError: it serves another one.
        """
        if self._supervisor is not None:
            raise UsageError("a pool serves one client: make another pool for another client")
        self._supervisor = PoolSupervisor(self._settings, make)
        return self._supervisor

    def __repr__(self) -> str:
        return f"<SubscriptionConnectionPool {self.strategy} of {self.size}, {self.state}>"
