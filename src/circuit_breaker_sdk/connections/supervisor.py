"""Who owns the connection: opens it on first use, once for all who wait, and closes it."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Mapping
from typing import final

import msgspec

from circuit_breaker_sdk.connections.connection import Connection, ConnectionSettings
from circuit_breaker_sdk.errors import HandshakeFailed, SubscriptionError, UsageError
from circuit_breaker_sdk.observability import ConnectionCounters, log
from circuit_breaker_sdk.urls import redacted

__all__ = ["ConnectionState", "Supervisor"]


class ConnectionState(enum.StrEnum):
    """Where the client's connection is in its life."""

    IDLE = "idle"
    """Not connected: nothing was subscribed yet, or the last connection was lost."""
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSED = "closed"
    """The client is closed; it never connects again."""


class _Trigger(enum.Enum):
    OPEN = enum.auto()
    OPENED = enum.auto()
    LOST = enum.auto()
    CLOSE = enum.auto()


_TRANSITIONS: Mapping[tuple[ConnectionState, _Trigger], ConnectionState] = {
    (ConnectionState.IDLE, _Trigger.OPEN): ConnectionState.CONNECTING,
    (ConnectionState.IDLE, _Trigger.CLOSE): ConnectionState.CLOSED,
    (ConnectionState.CONNECTING, _Trigger.OPENED): ConnectionState.CONNECTED,
    (ConnectionState.CONNECTING, _Trigger.LOST): ConnectionState.IDLE,
    (ConnectionState.CONNECTING, _Trigger.CLOSE): ConnectionState.CLOSED,
    (ConnectionState.CONNECTED, _Trigger.LOST): ConnectionState.IDLE,
    (ConnectionState.CONNECTED, _Trigger.CLOSE): ConnectionState.CLOSED,
    (ConnectionState.CLOSED, _Trigger.CLOSE): ConnectionState.CLOSED,
}


@final
class Supervisor:
    """Own at most one connection and the task that opens it.

    :meth:`connection` is single-flight: whoever asks while one is being opened waits for that one. A lost
    connection is dropped; the next call opens another. Where ``/graphql`` answers but does not upgrade,
    ``/ws`` beside it is tried, and remembered if it does.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self.counters: ConnectionCounters = ConnectionCounters()
        self._settings = settings
        self._state = ConnectionState.IDLE
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._closing: set[Connection] = set()
        self._was_lost = False

    @property
    def state(self) -> ConnectionState:
        """The state now."""
        return self._state

    async def connection(self) -> Connection:
        """Return a usable connection, opening one if there is none.

        Cancelling a caller does not stop the opening others wait for; :meth:`aclose` does.

        :raises SubscriptionError: it could not be opened.
        :raises UsageError: the client is closed.
        """
        if self._state is ConnectionState.CLOSED:
            raise UsageError("the client is closed: make a new one")
        connection = self._connection
        if connection is not None:
            if connection.is_usable:
                return connection
            # It is closing, its end is not here yet: its subscriptions learn it then, new ones go elsewhere.
            self._closing.add(connection)
            self._drop()
        opening = self._opening
        if opening is None:
            self._move(_Trigger.OPEN)
            if self._was_lost:
                self.counters.reconnection_attempts += 1
            opening = self._opening = asyncio.create_task(self._open(), name="circuit-breaker-connect")
        # Whether the waiting caller or the opening was cancelled is told apart by who ended.
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if opening.cancelled():
                raise UsageError("the client was closed while it connected") from None
            raise

    async def aclose(self) -> None:
        """Close the connection, or stop opening it, and wait for the end. Idempotent."""
        self._move(_Trigger.CLOSE)
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
            # Not `await opening`: its cancellation could not be told from our caller's. Why it failed is told
            # to those who wait for the connection.
            await asyncio.wait((opening,))
        connection, self._connection = self._connection, None
        if connection is not None:
            self._closing.add(connection)
        for closing in tuple(self._closing):
            await closing.aclose()
        self._closing.clear()

    async def _open(self) -> Connection:
        try:
            connection = await self._dial()
        except Exception as error:
            # A header or parameter that cannot be sent is a UsageError, and as final for this attempt.
            self._opening = None
            self.counters.failures += 1
            if self._state is ConnectionState.CONNECTING:
                self._move(_Trigger.LOST)
            log(logging.DEBUG, "connection failed", url=redacted(self._settings.url), error=error)
            raise
        self._opening = None
        self._connection = connection
        self._move(_Trigger.OPENED)
        return connection

    async def _dial(self) -> Connection:
        settings = self._settings
        try:
            return await Connection.open(settings, self._lost)
        except HandshakeFailed as error:
            beside = _ws_beside_graphql(settings.url)
            # A status means that HTTP is spoken there: the upgrade may live at another path.
            if beside is None or error.status is None or error.status >= 500:
                raise
            log(logging.DEBUG, "connection tries /ws", url=redacted(beside), status=error.status)
            fallback = msgspec.structs.replace(settings, url=beside)
            try:
                connection = await Connection.open(fallback, self._lost)
            except HandshakeFailed:
                # What the user asked for is what the error is about.
                raise error from None
            self._settings = fallback
            return connection

    def _lost(self, connection: Connection, error: SubscriptionError) -> None:
        self.counters.failures += 1
        log(logging.DEBUG, "connection lost", url=connection.url, error=error)
        self._closing.discard(connection)
        if self._connection is connection:
            self._drop()

    def _drop(self) -> None:
        self._connection = None
        self._was_lost = True
        self._move(_Trigger.LOST)

    def _move(self, trigger: _Trigger) -> None:
        before = self._state
        self._state = _TRANSITIONS[before, trigger]
        if self._state is not before:
            log(logging.DEBUG, "connection state", before=before.value, now=self._state.value)


def _ws_beside_graphql(url: str) -> str | None:
    path, question_mark, query = url.partition("?")
    if not path.endswith("/graphql"):
        return None
    return path.removesuffix("graphql") + "ws" + question_mark + query
