"""Accept connections: a few at a time, and slowly while there are too many of an address.

The event loop would accept all waiting connections at once and make a transport for each before its address
is checked, and with TLS a connection would belong to no server until its handshake is over: not counted, and
not ended when the server stops. A flood is refused here in small pieces, and the rest waits in the system's
queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, final

from circuit_breaker_server.admission.connection_limits import Peers
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.net.refusal_answer import refusal_bytes
from circuit_breaker_server.refusals import Refusals

__all__ = ["Acceptor", "Handshakes"]

_AT_ONCE: Final = 16
_REFUSED_PAUSE_SECONDS: Final = 0.001
_FAILED_PAUSE_SECONDS: Final = 1.0
"""After the system had no more files for sockets; what is open has to close first."""

logger = get_logger("connections")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Handshakes:
    """Settings of the TLS handshake.

    :ivar context: the server's certificate and TLS settings.
    :ivar peers: counts the handshakes under way, apart from the connections that are secure.
    :ivar handshake_seconds: how long a handshake may last; after it the server closes the connection.
    :ivar close_seconds: how long the peer has to answer the end of a secure connection.

    Example::

        Handshakes(context=context, peers=Peers(max_per_address=200), handshake_seconds=10, close_seconds=2)
    """

    context: ssl.SSLContext
    peers: Peers
    handshake_seconds: float
    close_seconds: float


@final
class Acceptor:
    """Accept connections, run the TLS handshake if it is configured, and attach the HTTP protocol.

    :param peers: counts the connections that have a protocol. The protocol that ``speak`` makes enters its
        connection there; the acceptor only checks whether there is room, which is cheaper.
    :param speak: makes the protocol of one connection.
    :param handshakes: ``None``: without TLS.

    Example::

        acceptor = Acceptor(peers, speak)
        acceptor.start(listener)
        await acceptor.aclose()
    """

    def __init__(
        self,
        peers: Peers,
        speak: Callable[[], asyncio.Protocol],
        *,
        handshakes: Handshakes | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self._refusals = refusals or Refusals()
        self._peers = peers
        self._speak = speak
        self._handshakes = handshakes
        self._listener: socket.socket | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    def start(self, listener: socket.socket) -> None:
        """Begin to accept; the socket stays its owner's, to be closed after :meth:`aclose`."""
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept_some, listener)

    async def aclose(self) -> None:
        """Accept no more, and end the handshakes under way; an established connection stays. Idempotent."""
        if self._resting is not None:
            self._resting.cancel()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener = None
        tasks = list(self._under_way)
        # Without TLS there is nothing to wait for: they are established in the next turn, and end as such.
        if self._handshakes is not None:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept_some(self, listener: socket.socket) -> None:
        pause = 0.0
        for _ in range(_AT_ONCE):
            try:
                connection, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                break
            except ConnectionError:
                continue  # it went before it was accepted
            except OSError as error:
                logger.warning("accept_failed", why=error.strerror)
                pause = _FAILED_PAUSE_SECONDS
                break
            host = address[0] if isinstance(address, tuple) else ""
            if not self._take(connection, host):
                pause = _REFUSED_PAUSE_SECONDS
        if pause:
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener.fileno())
            self._resting = loop.call_later(
                pause, loop.add_reader, listener.fileno(), self._accept_some, listener
            )

    def _take(self, connection: socket.socket, host: str) -> bool:
        handshakes = self._handshakes
        refusal = self._peers.refusal(host) if handshakes is None else handshakes.peers.enter(host)
        if refusal is not None:
            if handshakes is None:
                with contextlib.suppress(OSError):
                    connection.send(refusal_bytes(*refusal), socket.MSG_DONTWAIT)
            connection.close()
            return False
        connection.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._begin(connection, host))
        self._under_way.add(task)
        task.add_done_callback(partial(self._begun, host, connection))
        return True

    async def _begin(self, connection: socket.socket, host: str) -> None:
        loop, handshakes = asyncio.get_running_loop(), self._handshakes
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if handshakes is None:
                await loop.connect_accepted_socket(self._speak, connection)
            else:
                await loop.connect_accepted_socket(
                    self._speak,
                    connection,
                    ssl=handshakes.context,
                    ssl_handshake_timeout=handshakes.handshake_seconds,
                    ssl_shutdown_timeout=handshakes.close_seconds,
                )
        except OSError as error:
            self._refusals.note("tls", "handshake", remote=host, why=_why(error))

    def _begun(self, host: str, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if self._handshakes is not None:
            self._handshakes.peers.leave(host)
        if task.cancelled():
            connection.close()  # where it was cancelled before it began, no other object has it


def _why(error: OSError) -> str:
    """Return the name that OpenSSL has for a failed handshake; of other failures their type."""
    return str(getattr(error, "reason", None) or type(error).__name__)
