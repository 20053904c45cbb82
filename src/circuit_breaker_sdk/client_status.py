"""State, health and counters of a client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from circuit_breaker_sdk.client_arguments import check_types
from circuit_breaker_sdk.client_parts import ClientParts
from circuit_breaker_sdk.connections import BreakerState, ConnectionState, ConnectionStateChange
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.loop_affinity import LoopAffinity
from circuit_breaker_sdk.observability import Health, HealthLimits, SubscriptionMetrics
from circuit_breaker_sdk.observability.latency import Latency
from circuit_breaker_sdk.subscriptions.health_check import look
from circuit_breaker_sdk.urls import redacted

__all__ = ["ClientStatus"]


class ClientStatus:
    """The part of a client that tells how it is; the other part is what it is for."""

    def __init__(self, url: str, parts: ClientParts, affinity: LoopAffinity) -> None:
        self._url = url
        self._parts = parts
        self._affinity = affinity

    @property
    def url(self) -> str:
        """The URL of the server, as given; the first of several."""
        return self._url

    @property
    def state(self) -> ConnectionState:
        """The state of the WebSocket connection; of a pool, ``CONNECTED`` if any connection is."""
        return self._parts.connections.state

    @property
    def circuit_breaker(self) -> BreakerState:
        """The state of the present URL's circuit breaker; of a pool, the most permissive one."""
        return self._parts.connections.breaker_state

    def on_connection_state(self, handler: Callable[[ConnectionStateChange], object]) -> Self:
        """Call ``handler`` with every change of :attr:`state`; on the loop: keep it short."""
        self._affinity.check()
        self._parts.connections.on_state(handler)
        return self

    @property
    def metrics(self) -> SubscriptionMetrics:
        """A snapshot of the counters; of a pool, their sums, and the longest round trip."""
        return self._parts.metrics()

    def health(self, *, worst: int = 10, limits: HealthLimits | None = None) -> Health:
        """Tell how the client is: a verdict with its reasons, and what they follow from.

        Events do nothing for it: it compares what it finds with what it found at the call before. Call it
        regularly; once a second is cheap, also with ten thousand subscriptions.

        :param worst: tell of so many subscriptions each, those with the most buffered events.
        :param limits: from where on something is a reason.
        :raises UsageError: this is another event loop, or an argument cannot be used.
        """
        self._affinity.check()
        check_types(limits=(limits, HealthLimits), worst=(worst, int))
        if worst < 0:
            raise UsageError(f"worst must not be negative, not {worst}")
        return look(self._parts.manager, limits or HealthLimits(), worst=worst)

    def measure_latency(
        self,
        *,
        enabled: bool = True,
        slow_handler_seconds: float | None = None,
        lag_seconds: float | None = None,
    ) -> Self:
        """Measure from now on how long handlers take and how late they are called: ``health().latency``.

        It is off at first, and costs nothing then. While it is on, a plain handler is timed with the first
        event of each read; an async handler with each event, and how late that comes is not measured, nor
        how late an iteration takes an event: ``waiting_seconds`` tells where nothing is taken.

        :param enabled: ``False`` ends it. Each call begins anew.
        :param slow_handler_seconds: log a handler that takes so long, at most one a second (WARNING).
        :param lag_seconds: likewise a plain handler that is called so long after its event was read.
        """
        self._affinity.check()
        latency = Latency(slow_handler_seconds=slow_handler_seconds, lag_seconds=lag_seconds)
        self._parts.manager.measure(latency if enabled else None)
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redacted(self._url)} {self.state}>"
