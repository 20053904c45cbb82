"""A client's settings, collected by fluent calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Self, TypeVar, final

from circuit_breaker_sdk.config import (
    BufferLimits,
    CircuitBreakerPolicy,
    ErrorRecoveryPolicy,
    Heartbeat,
    MessageBatching,
    Timeouts,
)
from circuit_breaker_sdk.connections import SubscriptionConnectionPool, TokenSource
from circuit_breaker_sdk.errors import UsageError

__all__ = ["ClientBuilder"]


C = TypeVar("C")


@final
class ClientBuilder(Generic[C]):
    """Collect a client's settings by fluent calls; ``Client.builder()`` makes one.

    Example::

        client = Client.builder().base_url("http://localhost:4000").header("X-Tenant", "acme").build()
    """

    def __init__(self, make: Callable[..., C]) -> None:
        """``make``: the client's class."""
        self._make = make
        self._base_url: str | Sequence[str] | None = None
        self._token: str | TokenSource | None = None
        self._headers: dict[str, str] = {}
        self._connection_params: dict[str, object] = {}
        self._timeouts: Timeouts | None = None
        self._buffer: BufferLimits | None = None
        self._recovery: ErrorRecoveryPolicy | None = None
        self._circuit_breaker: CircuitBreakerPolicy | None = None
        self._heartbeat: Heartbeat | None = Heartbeat()
        self._pool: SubscriptionConnectionPool | None = None
        self._batching: MessageBatching | None = None

    def base_url(self, url: str | Sequence[str]) -> Self:
        """Set the server's URL, or several."""
        self._base_url = url
        return self

    def token(self, token: str | TokenSource) -> Self:
        """Set the bearer token, or the function that gives one."""
        self._token = token
        return self

    def header(self, name: str, value: str) -> Self:
        """Add a header."""
        self._headers[name] = value
        return self

    def connection_param(self, name: str, value: object) -> Self:
        """Add a key to the payload of ``connection_init``."""
        self._connection_params[name] = value
        return self

    def timeouts(self, timeouts: Timeouts) -> Self:
        """Set how long each wait on the network may last."""
        self._timeouts = timeouts
        return self

    def buffer(self, limits: BufferLimits) -> Self:
        """Set the bounds of each subscription's buffer."""
        self._buffer = limits
        return self

    def recovery(self, policy: ErrorRecoveryPolicy) -> Self:
        """Set how a lost connection is tried again."""
        self._recovery = policy
        return self

    def circuit_breaker(self, policy: CircuitBreakerPolicy) -> Self:
        """Set when a URL that keeps failing is left alone."""
        self._circuit_breaker = policy
        return self

    def heartbeat(self, heartbeat: Heartbeat | None) -> Self:
        """Set how a dead connection is noticed; ``None`` sends no pings."""
        self._heartbeat = heartbeat
        return self

    def batching(self, batching: MessageBatching) -> Self:
        """Set how messages to the server wait for each other."""
        self._batching = batching
        return self

    def pool(self, pool: SubscriptionConnectionPool) -> Self:
        """Spread subscriptions over several connections; a pool serves one client."""
        self._pool = pool
        return self

    def build(self) -> C:
        """Make the client; nothing is connected yet.

        :raises UsageError: no base URL was given, or it cannot be used.
        """
        if self._base_url is None:
            raise UsageError("Client.builder() needs base_url(…)")
        return self._make(
            self._base_url,
            token=self._token,
            headers=self._headers,
            connection_params=self._connection_params,
            timeouts=self._timeouts,
            buffer=self._buffer,
            recovery=self._recovery,
            circuit_breaker=self._circuit_breaker,
            heartbeat=self._heartbeat,
            pool=self._pool,
            batching=self._batching,
        )
