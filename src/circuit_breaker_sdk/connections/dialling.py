"""Try a client's URLs until one of them gives a connection."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import final

import msgspec

from circuit_breaker_sdk.connections.connection import Connection
from circuit_breaker_sdk.connections.connection_settings import ConnectionSettings
from circuit_breaker_sdk.connections.endpoints import Endpoint, Endpoints
from circuit_breaker_sdk.connections.opening import open_connection
from circuit_breaker_sdk.errors import AuthenticationFailed, HandshakeFailed, TransportError
from circuit_breaker_sdk.observability import ConnectionCounters, log
from circuit_breaker_sdk.urls import redacted

__all__ = ["Dialler"]


@final
class Dialler:
    """Open connections: one attempt at each URL that its circuit breaker allows.

    Where ``/graphql`` answers but does not upgrade, ``/ws`` beside it is tried, and remembered if it does.

    :ivar shown_token: the bearer token that the latest connection has shown; ``None`` for none.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        endpoints: Endpoints,
        counters: ConnectionCounters,
        on_lost: Callable[[Connection, TransportError], None],
    ) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._counters = counters
        self._on_lost = on_lost
        self._tokens = settings.credentials.tokens
        self.shown_token: str | None = None

    async def try_each_with_fresh_token(self) -> Connection:
        """Try every URL that its breaker allows; once more with a fresh token, where the server refuses it.

        :raises TransportError: the failure of the first URL; refused credentials end it at once.
        """
        shown = self._tokens.current
        try:
            return await self._try_each()
        except AuthenticationFailed:
            if not await self._tokens.replace_refused(shown):
                raise
            return await self._try_each()

    async def _try_each(self) -> Connection:
        first: TransportError | None = None
        for endpoint in self._endpoints.allowed():
            try:
                connection = await self.dial(endpoint)
            except TransportError as error:
                self._counters.failures += 1
                log(logging.DEBUG, "connection failed", url=redacted(endpoint.url), error=error)
                if isinstance(error, AuthenticationFailed):
                    raise
                endpoint.breaker.failed()
                first = first or error
            except Exception as error:
                # A header or parameter that cannot be sent is a UsageError, and as final for every URL.
                self._counters.failures += 1
                log(logging.DEBUG, "connection failed", url=redacted(endpoint.url), error=error)
                raise
            else:
                self._endpoints.serves(endpoint)
                return connection
        if first is None:
            raise RuntimeError("no URL may be tried: this is asked for only when one may")
        raise first

    async def dial(self, endpoint: Endpoint) -> Connection:
        """Open a connection to one URL.

        :raises TransportError: it could not be opened.
        """
        settings = msgspec.structs.replace(self._settings, url=endpoint.url)
        shown = self._tokens.current
        try:
            connection = await open_connection(settings, self._on_lost)
        except HandshakeFailed as error:
            beside = endpoint.ws_beside_graphql
            # A status means that HTTP is spoken there: the upgrade may live at another path.
            if beside is None or error.status is None or error.status >= 500:
                raise
            log(logging.DEBUG, "connection tries /ws", url=redacted(beside), status=error.status)
            try:
                connection = await open_connection(
                    msgspec.structs.replace(settings, url=beside), self._on_lost
                )
            except HandshakeFailed:
                # What the user asked for is what the error is about.
                raise error from None
            endpoint.url = beside
        self.shown_token = shown
        return connection
