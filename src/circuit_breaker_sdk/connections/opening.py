"""Open a connection: connect, upgrade, initialise, wait for the server's acknowledgement."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from circuit_breaker_sdk.config import Heartbeat
from circuit_breaker_sdk.connections.connection import Connection
from circuit_breaker_sdk.connections.connection_settings import ConnectionSettings
from circuit_breaker_sdk.errors import ConnectionFailed, HandshakeFailed, ProtocolError, TransportError
from circuit_breaker_sdk.observability import log
from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_sdk.protocol.messages import LEGACY_SUBPROTOCOL, SUBPROTOCOL
from circuit_breaker_sdk.protocol.resume import offering_resume
from circuit_breaker_sdk.transports.heartbeat import KeepAliveWatch, Pulse
from circuit_breaker_sdk.urls import redacted

__all__ = ["open_connection"]

_ANSWERED_BLINDLY: Final = frozenset({CloseCode.PROTOCOL_ERROR, CloseCode.SUBPROTOCOL_NOT_ACCEPTABLE})
"""Close codes sent right behind the upgrade to a subprotocol that the server has named, and does not speak.

The WebSocket library below subscriptions-transport-ws answers with the first that is offered, whatever it is.
"""


async def open_connection(
    settings: ConnectionSettings, on_closed: Callable[[Connection, TransportError], None]
) -> Connection:
    """Connect, upgrade, initialise, and return once the server has acknowledged.

    Where the server names the modern subprotocol and closes at once, the legacy one is offered alone.
    Cancellation drops the socket. ``on_closed`` is called at most once, and only for a connection that was
    returned and that was not closed by :meth:`Connection.aclose`.

    :raises TransportError: ``ConnectionFailed`` and its kin, ``AuthenticationFailed``,
        ``OperationTimeoutError``.
    """
    try:
        return await _open(settings, on_closed, (SUBPROTOCOL, LEGACY_SUBPROTOCOL))
    except ProtocolError as error:
        if error.close_code not in _ANSWERED_BLINDLY:
            raise
        log(logging.DEBUG, "connection tries graphql-ws", url=redacted(settings.url), code=error.close_code)
        try:
            return await _open(settings, on_closed, (LEGACY_SUBPROTOCOL,))
        except (HandshakeFailed, ProtocolError):
            # It does not speak the legacy protocol either: what it said to the modern one is the reason.
            raise error from None


async def _open(
    settings: ConnectionSettings,
    on_closed: Callable[[Connection, TransportError], None],
    subprotocols: Sequence[str],
) -> Connection:
    # Imported here: picows costs 100 ms, which `import circuit_breaker_sdk` must not.
    from circuit_breaker_sdk.transports.websocket import connect  # noqa: PLC0415 (as said above)

    started = time.perf_counter()
    redaction = settings.credentials.redaction
    connection = Connection(settings.url, on_closed, settings.batching, redaction, settings.positions)
    try:
        socket = await connect(
            settings.url,
            connection,
            subprotocols=subprotocols,
            headers=settings.credentials.headers(),
            ssl=settings.ssl,
            limits=settings.limits,
            timeouts=settings.timeouts,
            proxy=settings.credentials.proxies.of(settings.url),
        )
    except TransportError as error:
        redaction.error(error)
        raise
    upgraded = time.perf_counter()
    log(logging.DEBUG, "connection upgraded", url=connection.url, seconds=round(upgraded - started, 6))
    is_legacy = socket.subprotocol == LEGACY_SUBPROTOCOL
    if is_legacy and settings.heartbeat is not None:
        # Now: the first sign of life may come in one read with the acknowledgement.
        connection.watch(_watch_of(connection, settings.heartbeat))
    try:
        payload = settings.credentials.init_payload()
        if not is_legacy:
            payload = offering_resume(payload, traces=settings.tracer is not None)
        await connection.begin(socket, payload, seconds=settings.timeouts.acknowledge_seconds)
    except BaseException:
        await connection.abort()
        raise
    log(
        logging.DEBUG,
        "connection acknowledged",
        url=connection.url,
        seconds=round(time.perf_counter() - upgraded, 6),
        resume=connection.resume_negotiated,
    )
    if settings.heartbeat is not None and not is_legacy:
        connection.watch(_pulse_of(connection, settings.heartbeat))
    return connection


def _pulse_of(connection: Connection, heartbeat: Heartbeat) -> Pulse:
    silence = ConnectionFailed(
        f"a ping was not answered within {heartbeat.timeout_seconds:g} s: the connection is dead",
        url=connection.url,
    )
    return Pulse(
        heartbeat.interval_seconds,
        heartbeat.timeout_seconds,
        ping=connection.ping,
        on_silence=lambda: connection.drop(silence),
    )


def _watch_of(connection: Connection, heartbeat: Heartbeat) -> KeepAliveWatch:
    silence = ConnectionFailed(
        "no ka came for too long, after there had been some: the connection is dead", url=connection.url
    )
    return KeepAliveWatch(
        heartbeat.interval_seconds + heartbeat.timeout_seconds, on_silence=lambda: connection.drop(silence)
    )
