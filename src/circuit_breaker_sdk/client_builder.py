"""A client's settings, collected by fluent calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, final

from circuit_breaker_sdk.config import (
    BufferLimits,
    CircuitBreakerPolicy,
    ErrorRecoveryPolicy,
    Heartbeat,
    MessageBatching,
    MessageLimits,
    OfflineQueue,
    Timeouts,
)
from circuit_breaker_sdk.connections import SubscriptionConnectionPool, TokenSource
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.observability.tracing import Tracer
from circuit_breaker_sdk.recovery.cursor_store import CursorStore

if TYPE_CHECKING:
    import ssl as tls

__all__ = ["ClientBuilder"]

C = TypeVar("C")


@final
class ClientBuilder(Generic[C]):
    """Collect a client's settings by fluent calls; ``Client.builder()`` makes one.

    Each method sets the constructor's argument of its name, where that is described; ``header`` and
    ``connection_param`` add one entry. What is not set has the constructor's default.

    Example::

        client = Client.builder().base_url("http://localhost:4000").header("X-Tenant", "acme").build()
    """

    def __init__(self, make: Callable[..., C]) -> None:
        """``make``: the client's class."""
        self._make = make
        self._url: str | Sequence[str] | None = None
        self._headers: dict[str, str] = {}
        self._connection_params: dict[str, object] = {}
        # Any: the constructor checks each argument's type.
        self._arguments: dict[str, Any] = {}

    def base_url(self, url: str | Sequence[str]) -> Self:
        """Set the server's URL, or several."""
        self._url = url
        return self

    def header(self, name: str, value: str) -> Self:
        """Add a header."""
        self._headers[name] = value
        return self

    def connection_param(self, name: str, value: object) -> Self:
        """Add a key to the payload of ``connection_init``."""
        self._connection_params[name] = value
        return self

    def token(self, token: str | TokenSource) -> Self:
        """Set the bearer token, or the function that gives one."""
        return self._set("token", token)

    def ssl(self, context: tls.SSLContext) -> Self:
        """Set the context for ``wss`` and ``https``."""
        return self._set("ssl", context)

    def timeouts(self, timeouts: Timeouts) -> Self:
        """Set how long each wait on the network may last."""
        return self._set("timeouts", timeouts)

    def limits(self, limits: MessageLimits) -> Self:
        """Set how long a message may be."""
        return self._set("limits", limits)

    def buffer(self, limits: BufferLimits) -> Self:
        """Set the bounds of each subscription's buffer."""
        return self._set("buffer", limits)

    def max_buffered_bytes(self, max_bytes: int) -> Self:
        """Set the bound of all buffers together."""
        return self._set("max_buffered_bytes", max_bytes)

    def cursor_store(self, store: CursorStore | str | os.PathLike[str]) -> Self:
        """Set where subscriptions with a ``cursor_key`` keep their cursors."""
        return self._set("cursor_store", store)

    def recovery(self, policy: ErrorRecoveryPolicy) -> Self:
        """Set how a lost connection is tried again."""
        return self._set("recovery", policy)

    def circuit_breaker(self, policy: CircuitBreakerPolicy) -> Self:
        """Set when a URL that keeps failing is left alone."""
        return self._set("circuit_breaker", policy)

    def heartbeat(self, heartbeat: Heartbeat | None) -> Self:
        """Set how a dead connection is noticed; ``None`` sends no pings."""
        return self._set("heartbeat", heartbeat)

    def critical(self, critical: bool = True) -> Self:
        """Poll for every subscription while no WebSocket gets through."""
        return self._set("critical", critical)

    def offline_queue(self, queue: OfflineQueue) -> Self:
        """Set how mutations wait for a server that is away."""
        return self._set("offline_queue", queue)

    def batching(self, batching: MessageBatching) -> Self:
        """Set how messages to the server wait for each other."""
        return self._set("batching", batching)

    def proxy(self, url: str) -> Self:
        """Set the HTTP proxy that all connections go through."""
        return self._set("proxy", url)

    def trust_env(self, trust_env: bool) -> Self:
        """Set whether the environment may name a proxy."""
        return self._set("trust_env", trust_env)

    def transports(self, *transports: str) -> Self:
        """Set what may bring subscriptions, in order of preference: ``websocket``, ``sse``, ``poll``."""
        return self._set("transports", transports)

    def tracer(self, tracer: Tracer) -> Self:
        """Make spans of requests and handlers, linked to the mutations that caused their events."""
        return self._set("tracer", tracer)

    def pool(self, pool: SubscriptionConnectionPool) -> Self:
        """Spread subscriptions over several connections; a pool serves one client."""
        return self._set("pool", pool)

    def build(self) -> C:
        """Make the client; nothing is connected yet.

        :raises UsageError: no base URL was given, or an argument cannot be used.
        """
        if self._url is None:
            raise UsageError("Client.builder() needs base_url(…)")
        return self._make(
            self._url, headers=self._headers, connection_params=self._connection_params, **self._arguments
        )

    def _set(self, name: str, value: object) -> Self:
        self._arguments[name] = value
        return self
