"""States of a client's connection, and the report of each change."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import final

import msgspec

from circuit_breaker_sdk.errors import CircuitBreakerError

__all__ = ["TRANSITIONS", "ConnectionState", "ConnectionStateChange", "Trigger"]


class ConnectionState(enum.StrEnum):
    """State of the client's connection."""

    IDLE = "idle"
    """Not connected, and nobody asks for it: nothing was subscribed yet, or what was lost is not needed."""
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    """An attempt failed or a connection was lost; the next attempt comes after a delay."""
    CLOSED = "closed"
    """The client is closed; it never connects again."""


class Trigger(enum.Enum):
    """Cause of a change of a connection's state."""

    OPEN = enum.auto()
    OPENED = enum.auto()
    WAIT = enum.auto()
    LOST = enum.auto()
    CLOSE = enum.auto()


_S, _T = ConnectionState, Trigger

TRANSITIONS: Mapping[tuple[ConnectionState, Trigger], ConnectionState] = {
    (_S.IDLE, _T.OPEN): _S.CONNECTING,
    (_S.IDLE, _T.WAIT): _S.RECONNECTING,
    (_S.IDLE, _T.CLOSE): _S.CLOSED,
    (_S.CONNECTING, _T.OPENED): _S.CONNECTED,
    (_S.CONNECTING, _T.WAIT): _S.RECONNECTING,
    (_S.CONNECTING, _T.LOST): _S.IDLE,
    (_S.CONNECTING, _T.CLOSE): _S.CLOSED,
    (_S.CONNECTED, _T.LOST): _S.IDLE,
    (_S.CONNECTED, _T.CLOSE): _S.CLOSED,
    (_S.RECONNECTING, _T.OPEN): _S.CONNECTING,
    (_S.RECONNECTING, _T.LOST): _S.IDLE,
    (_S.RECONNECTING, _T.CLOSE): _S.CLOSED,
    # A connection may be lost while it is being closed.
    (_S.CLOSED, _T.LOST): _S.CLOSED,
    (_S.CLOSED, _T.CLOSE): _S.CLOSED,
}


@final
class ConnectionStateChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a client's connection.

    :ivar url: where to, without credentials.
    :ivar reason: why a connection was lost or an attempt failed; ``None`` where nothing went wrong.
    :ivar attempt: which attempt in a row this is about, from 1; 0 where none is.
    :ivar retry_in_seconds: in ``RECONNECTING``, when the next attempt is made.

    Example::

        client.on_connection_state(lambda change: print(change.before, "->", change.now, change.reason or ""))
    """

    before: ConnectionState
    now: ConnectionState
    url: str
    reason: CircuitBreakerError | None = None
    attempt: int = 0
    retry_in_seconds: float | None = None
