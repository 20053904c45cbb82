"""TLS on the server's port: its certificate, and handshakes that are counted and have an end.

Left to the event loop, a connection is nobody's until its handshake is over: not counted, and not ended when
the server stops. So connections are accepted here, counted by their address, and given to HTTP once secure.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.peers import Peers

__all__ = ["SecureListener", "TlsError", "server_context"]

_ACCEPT_AGAIN_SECONDS: Final = 1.0
"""After the system had no more files for sockets; what is open has to close first."""

_MAX_FILE_BYTES: Final = 1024 * 1024

logger = get_logger("tls")


class TlsError(Exception):
    """A certificate or its key cannot be used. The text names the file, and holds nothing of the key."""


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """Return what a server needs for TLS 1.2 and later.

    :param cert: the certificate in PEM, first of the file; those between it and the authority follow.
    :param key: its private key in PEM, without a password.
    :raises TlsError: a file is missing or unfit, or the key is of another certificate.

    Example::

        context = server_context(Path("server.pem"), Path("server.key"))
    """
    try:
        certificate = x509.load_pem_x509_certificates(_file(cert, "the certificate"))[0]
        public = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise TlsError(f"the certificate {cert}: is none in PEM") from None
    secret = _file(key, "the key of the certificate")
    try:
        private = load_pem_private_key(secret, None)
    except TypeError:
        raise TlsError(f"the key of the certificate {key}: has a password; give it without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsError(f"the key of the certificate {key}: is no private key in PEM") from None
    if private.public_key() != public:
        raise TlsError(f"the key of the certificate {key}: is not that of the first certificate in {cert}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A password, so that no question is asked at the terminal.
        context.load_cert_chain(cert, key, password="")
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror
        raise TlsError(f"the certificate {cert}: cannot be used for TLS with {key} ({reason})") from None
    return context


def _file(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TlsError(f"{what} {path}: {error.strerror}; give a file this user may read") from None
    if len(data) > _MAX_FILE_BYTES:
        raise TlsError(f"{what} {path}: over {_MAX_FILE_BYTES} bytes: this is none")
    return data


@final
class SecureListener:
    """Accepts connections, shakes hands with them, and lets them speak HTTP.

    :param peers: counts the handshakes under way, apart from the connections that are secure.
    :param speak: makes the protocol of one connection, once it is secure.
    :param handshake_seconds: how long a handshake may last; after it the connection is closed.
    :param close_seconds: how long the peer has to answer the end of a secure connection.

    Example::

        secure = SecureListener(context, peers, speak, handshake_seconds=10, close_seconds=2)
        secure.start(listener)
        await secure.aclose()
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        peers: Peers,
        speak: Callable[[], asyncio.Protocol],
        *,
        handshake_seconds: float,
        close_seconds: float,
    ) -> None:
        self._context = context
        self._peers = peers
        self._speak = speak
        self._handshake_seconds = handshake_seconds
        self._close_seconds = close_seconds
        self._accepting: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    def start(self, listener: socket.socket) -> None:
        """Begin to accept; the socket stays its owner's, to be closed after :meth:`aclose`."""
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener))

    async def aclose(self) -> None:
        """Accept no more, and end the handshakes under way; who is secure already stays."""
        tasks = [*self._under_way, *([] if self._accepting is None else [self._accepting])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # it went before it was accepted
            except OSError as error:
                logger.warning("accept_failed", why=error.strerror)
                await asyncio.sleep(_ACCEPT_AGAIN_SECONDS)
                continue
            host = address[0] if isinstance(address, tuple) else ""
            refusal = self._peers.enter(host)
            if refusal is not None:
                logger.info("handshake_refused", remote=host, status=refusal[0])
                connection.close()
                continue
            task = loop.create_task(self._secure(connection, host))
            self._under_way.add(task)
            task.add_done_callback(partial(self._over, host, connection))

    def _over(self, host: str, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._peers.leave(host)
        if task.cancelled():
            connection.close()  # where it was cancelled before it began, nobody else has it

    async def _secure(self, connection: socket.socket, host: str) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._speak,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_seconds,
                ssl_shutdown_timeout=self._close_seconds,
            )
        except OSError as error:
            why = getattr(error, "reason", None) or type(error).__name__
            logger.info("handshake_failed", remote=host, why=why)
