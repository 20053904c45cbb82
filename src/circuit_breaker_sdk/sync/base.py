"""The blocking client without its operations: life, state, health and counters."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor
from types import TracebackType
from typing import Self

from circuit_breaker_sdk.client import Client
from circuit_breaker_sdk.connections import BreakerState, ConnectionState, ConnectionStateChange
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.observability import Health, HealthLimits, SubscriptionMetrics, log
from circuit_breaker_sdk.sync.portal import CLOSED, Portal
from circuit_breaker_sdk.urls import redacted

__all__ = ["SyncClientBase"]


class SyncClientBase:
    """Everything of the blocking client but its operations, which are generated."""

    def __init__(self, client: Client, *, executor: Executor | None) -> None:
        if executor is not None and not isinstance(executor, Executor):
            raise UsageError(f"executor must be of type Executor, not {type(executor).__name__}")
        self._client = client
        self._portal = Portal(client.aclose, executor=executor)

    @property
    def url(self) -> str:
        """The URL of the server, as given; the first of several."""
        return self._client.url

    @property
    def state(self) -> ConnectionState:
        """The state of the WebSocket connection; of a pool, ``CONNECTED`` if any connection is."""
        return self._portal.read(lambda: self._client.state)

    @property
    def circuit_breaker(self) -> BreakerState:
        """The state of the present URL's circuit breaker; of a pool, the most permissive one."""
        return self._portal.read(lambda: self._client.circuit_breaker)

    @property
    def metrics(self) -> SubscriptionMetrics:
        """A snapshot of the counters; of a pool, their sums, and the longest round trip."""
        return self._portal.read(lambda: self._client.metrics)

    def health(self, *, worst: int = 10, limits: HealthLimits | None = None) -> Health:
        """Tell how the client is: a verdict with its reasons, and what they follow from.

        See :meth:`Client.health`; any thread may ask.
        """
        return self._portal.read(lambda: self._client.health(worst=worst, limits=limits))

    def measure_latency(
        self,
        *,
        enabled: bool = True,
        slow_handler_seconds: float | None = None,
        lag_seconds: float | None = None,
    ) -> Self:
        """Measure handlers from now on, as :meth:`Client.measure_latency`, on the client's own loop.

        What is measured is how long it takes to hand an event to the executor, and not the handler there.
        """
        self._portal.do(
            self._client.measure_latency,
            enabled=enabled,
            slow_handler_seconds=slow_handler_seconds,
            lag_seconds=lag_seconds,
        )
        return self

    def on_connection_state(self, handler: Callable[[ConnectionStateChange], object]) -> Self:
        """Call ``handler`` with every change of :attr:`state`, in the executor. What it raises is logged."""
        executor = self._portal.executor

        def guarded(change: ConnectionStateChange) -> None:
            try:
                handler(change)
            except Exception as error:  # noqa: BLE001 (a handler may raise anything)
                log(logging.ERROR, "handler raised", error=repr(error))

        self._portal.do(self._client.on_connection_state, lambda change: executor.submit(guarded, change))
        return self

    def close(self) -> None:
        """End every subscription, here and on the server, close all connections, end the thread. Idempotent.

        It takes at most ``close_seconds``, and as long as a handler that is running.
        """
        self._portal.close()

    def __enter__(self) -> Self:
        if self._portal.is_closed:
            raise UsageError(CLOSED)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redacted(self._client.url)} {self._client.state}>"
