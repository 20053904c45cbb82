"""The protocols that a WebSocket may speak, and what each of them needs of a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from circuit_breaker_sdk.protocol.legacy_ws import LegacyServerProtocol
from circuit_breaker_sdk.protocol.messages import LEGACY_SUBPROTOCOL, SUBPROTOCOL
from circuit_breaker_sdk.protocol.transport_ws import ServerProtocol
from circuit_breaker_sdk.transports.websocket import WebSocket
from circuit_breaker_server.endpoints.websocket.keep_alive import KeepAlive, OneWayKeepAlive
from circuit_breaker_server.settings.server import ServerSettings

__all__ = ["SUBPROTOCOLS", "agreed", "keep_alive_of", "protocol_of"]

SUBPROTOCOLS: Final = (SUBPROTOCOL, LEGACY_SUBPROTOCOL)
"""The subprotocols in the server's order of preference, whatever the client's is."""


def agreed(offered: Sequence[str]) -> str | None:
    """Choose one of the subprotocols that a client offers; ``None`` where there is none of ours."""
    return next((name for name in SUBPROTOCOLS if name in offered), None)


def protocol_of(subprotocol: str | None, settings: ServerSettings) -> ServerProtocol:
    """Make the server's half of a conversation in a subprotocol."""
    role = LegacyServerProtocol if subprotocol == LEGACY_SUBPROTOCOL else ServerProtocol
    return role(max_operations=settings.max_operations, max_id_bytes=settings.max_operation_id_bytes)


def keep_alive_of(
    socket: WebSocket,
    settings: ServerSettings,
    *,
    ping: Callable[[], object],
    on_dead: Callable[[], object],
) -> KeepAlive | OneWayKeepAlive:
    """Make what pings the peer of a socket, as its subprotocol has it."""
    kind = OneWayKeepAlive if socket.subprotocol == LEGACY_SUBPROTOCOL else KeepAlive
    return kind(socket, settings, ping=ping, on_dead=on_dead)
