"""Ping the peer of a session, and tell a dead peer from one that is slow to read or held back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

from circuit_breaker_sdk.transports.heartbeat import Pulse
from circuit_breaker_sdk.transports.websocket import WebSocket
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.settings.server import ServerSettings

__all__ = ["KeepAlive", "OneWayKeepAlive"]

logger = get_logger("session")


@final
class KeepAlive:
    """The pings of one session; ``on_dead`` is called for a peer that does not answer them.

    Example::

        keep_alive = KeepAlive(socket, settings, ping=session.ping, on_dead=session.abort)
        keep_alive.start()
        keep_alive.pong()
        keep_alive.stop()
    """

    __slots__ = ("_on_dead", "_pulse", "_socket", "_stall_seconds", "_took_at", "_unsent")

    def __init__(
        self,
        socket: WebSocket,
        settings: ServerSettings,
        *,
        ping: Callable[[], object],
        on_dead: Callable[[], object],
    ) -> None:
        self._socket = socket
        self._stall_seconds = settings.stall_seconds
        self._on_dead = on_dead
        self._pulse = Pulse(
            settings.ping_seconds, settings.pong_seconds, ping=ping, on_silence=self.on_silence
        )
        self._unsent = 0
        self._took_at = asyncio.get_running_loop().time()

    def start(self) -> None:
        """Begin: the first ping goes out after one interval."""
        self._pulse.start()

    def pong(self) -> None:
        """Note a pong."""
        self._pulse.pong()
        self._took_at = asyncio.get_running_loop().time()

    def stop(self) -> None:
        """End. Idempotent."""
        self._pulse.stop()

    def on_silence(self) -> None:
        """Report a peer that does not answer.

        One that is slow to read has the ping still before it, and of one that sends more than it may the pong
        is not read yet: they have more time.
        """
        now, unsent = asyncio.get_running_loop().time(), self._socket.write_buffer_bytes
        is_held_back = self._socket.holds_back
        if unsent != self._unsent or not (unsent or is_held_back):
            self._unsent, self._took_at = unsent, now
        if (unsent or is_held_back) and now - self._took_at < self._stall_seconds:
            self._pulse.start()
            return
        logger.info("peer_silent", remote=self._socket.remote, unsent_bytes=unsent)
        self._on_dead()


@final
class OneWayKeepAlive:
    """The signs of life of a session whose peer has no answer for them: the legacy protocol.

    ``on_dead`` is called for a peer that takes nothing of what is due to it; one that is gone without a word
    is found by the system, which waits for the peer's to acknowledge each sign.

    Example::

        keep_alive = OneWayKeepAlive(socket, settings, ping=session.ping, on_dead=session.abort)
        keep_alive.start()
        keep_alive.stop()
    """

    __slots__ = (
        "_loop",
        "_on_dead",
        "_ping",
        "_seconds",
        "_socket",
        "_stall_seconds",
        "_timer",
        "_took_at",
        "_unsent",
    )

    def __init__(
        self,
        socket: WebSocket,
        settings: ServerSettings,
        *,
        ping: Callable[[], object],
        on_dead: Callable[[], object],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket
        self._seconds = settings.ping_seconds
        self._stall_seconds = settings.stall_seconds
        self._ping = ping
        self._on_dead = on_dead
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._took_at = self._loop.time()

    def start(self) -> None:
        """Begin: the first sign goes out after one interval."""
        self._timer = self._loop.call_later(self._seconds, self._beat)

    def pong(self) -> None:
        """Do nothing: no answer is waited for."""

    def stop(self) -> None:
        """End. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        now, unsent = self._loop.time(), self._socket.write_buffer_bytes
        if not unsent or unsent != self._unsent:
            self._unsent, self._took_at = unsent, now
        if now - self._took_at >= self._stall_seconds:
            logger.info("peer_silent", remote=self._socket.remote, unsent_bytes=unsent)
            self._timer = None
            self._on_dead()
            return
        self.start()
        if not unsent:
            self._ping()
