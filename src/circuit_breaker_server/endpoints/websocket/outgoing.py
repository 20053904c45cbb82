"""Write what the protocol of one session has queued, and close the socket behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

from circuit_breaker_sdk.protocol.message_assembly import text_frame_header
from circuit_breaker_sdk.protocol.transport_ws import ServerProtocol
from circuit_breaker_sdk.transports.websocket import WebSocket
from circuit_breaker_server.endpoints.websocket.session_log import SessionLog
from circuit_breaker_server.logs import get_logger

__all__ = ["Outgoing"]

logger = get_logger("session")


@final
class Outgoing:
    """The way from a protocol to its socket; events do not go through it.

    :ivar has_closed: whether the server has closed the connection.
    :ivar scheduled: the write in the next turn of the loop, if there is one.

    Example::

        outgoing = Outgoing(socket, protocol, log, max_unsent_bytes=1_000_000, wind_up=session.wind_up)
        protocol.send_ping()
        outgoing.send()
    """

    __slots__ = (
        "_log",
        "_max_unsent_bytes",
        "_protocol",
        "_socket",
        "_wind_up",
        "has_closed",
        "scheduled",
    )

    def __init__(
        self,
        socket: WebSocket,
        protocol: ServerProtocol,
        log: SessionLog,
        *,
        max_unsent_bytes: int,
        wind_up: Callable[[], None],
    ) -> None:
        """``wind_up`` is called before the socket is closed; more than ``max_unsent_bytes`` drop the peer."""
        self._socket = socket
        self._protocol = protocol
        self._log = log
        self._max_unsent_bytes = max_unsent_bytes
        self._wind_up = wind_up
        self.has_closed = False
        self.scheduled: asyncio.Handle | None = None

    def send_soon(self) -> None:
        """Write in the next turn of the loop: what one read brings is answered in one write."""
        if self._protocol.close is not None:
            self.send()
        elif self.scheduled is None and self._protocol.messages_to_send:
            self.scheduled = asyncio.get_running_loop().call_soon(self.send)

    def send(self) -> None:
        """Write what the protocol has queued, in one write; then close, if that is due."""
        self.cancel()
        socket = self._socket
        messages = self._protocol.data_to_send()
        if messages:
            parts: list[bytes] = []
            for message in messages:
                parts += (text_frame_header(len(message)), message)
            socket.write(b"".join(parts))
        close = self._protocol.close
        if close is not None:
            if not self.has_closed:
                self.has_closed = True
                self._log.note_refusal(close.code)
            self._wind_up()
            if close.after_seconds:
                asyncio.get_running_loop().call_later(
                    close.after_seconds, socket.close, close.code, close.reason
                )
            else:
                socket.close(close.code, close.reason)
        elif socket.write_buffer_bytes > self._max_unsent_bytes:
            # Only answers and pongs can pile up here: events wait in their channel while a socket is full.
            logger.warning("peer_does_not_read", remote=socket.remote)
            self._wind_up()
            socket.abort()

    def cancel(self) -> None:
        """Write nothing in the next turn of the loop. Idempotent."""
        if self.scheduled is not None:
            self.scheduled.cancel()
            self.scheduled = None
