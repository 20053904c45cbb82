"""Connections beside the present one: a subscription that may end its connection is tried on one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import final

import msgspec

from circuit_breaker_sdk.config import ErrorRecoveryPolicy
from circuit_breaker_sdk.connections.backoff import Backoff
from circuit_breaker_sdk.connections.connection import Connection
from circuit_breaker_sdk.connections.dialling import Dialler
from circuit_breaker_sdk.connections.endpoints import Endpoints
from circuit_breaker_sdk.connections.tokens import Tokens
from circuit_breaker_sdk.errors import ConnectionFailed, TransportError, UsageError
from circuit_breaker_sdk.observability import ConnectionCounters

__all__ = ["ConnectionsApart"]

_CLOSED = "the client is closed: make a new one"


@final
class ConnectionsApart:
    """Open and close connections whose loss is not that of the present one."""

    def __init__(
        self,
        dialler: Dialler,
        endpoints: Endpoints,
        policy: ErrorRecoveryPolicy,
        counters: ConnectionCounters,
        tokens: Tokens,
        *,
        is_closed: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        """``is_closed``: whether the client is closed by now."""
        self._dialler = dialler
        self._endpoints = endpoints
        self._policy = policy
        self._counters = counters
        self._tokens = tokens
        self._is_closed = is_closed
        self._clock = clock
        # How often one may be opened, after others were closed.
        self._pace = Backoff(msgspec.structs.replace(policy, max_retries=None), clock=clock)
        self._wait_seconds = 0.0
        self._open: set[Connection] = set()

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._open

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._open)

    async def open(self) -> Connection:
        """Open a connection, after the waits that the policy and the circuit breakers ask for.

        :raises TransportError: it could not be opened.
        :raises UsageError: the client is closed.
        """
        wait, self._wait_seconds = self._wait_seconds, 0.0
        backoff = Backoff(self._policy, clock=self._clock)
        while True:
            await asyncio.sleep(max(wait, self._endpoints.wait_seconds()))
            if self._is_closed():
                raise UsageError(_CLOSED)
            if self._endpoints.wait_seconds():
                continue
            self._counters.reconnection_attempts += 1
            try:
                await self._tokens.ready()
                connection = await self._dialler.try_each_with_fresh_token()
            except TransportError as error:
                seconds = backoff.failed(error)
                if seconds is None:
                    raise
                wait = seconds
            else:
                self._open.add(connection)
                if self._is_closed():
                    await self.close(connection)
                    raise UsageError(_CLOSED)
                self._pace.connected()
                return connection

    async def close(self, connection: Connection) -> None:
        """Close a connection, if it is still apart."""
        if connection in self._open:
            await connection.aclose()
            self._open.discard(connection)

    def forget(self, connection: Connection) -> None:
        """Note that a connection is apart no more."""
        self._open.discard(connection)

    def lost(self, connection: Connection, error: TransportError) -> None:
        """Note the loss of a connection; the next one waits for its turn."""
        self._open.discard(connection)
        again = error if error.retryable else ConnectionFailed(str(error))
        self._wait_seconds = self._pace.failed(again) or 0.0

    def clear(self) -> None:
        """Forget all; they are closed."""
        self._open.clear()
