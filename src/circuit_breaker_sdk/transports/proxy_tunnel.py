"""The tunnel through an HTTP proxy: one ``CONNECT``, and its answer read to the byte (RFC 9110, 9.3.6)."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Final, final

from circuit_breaker_sdk.transports.proxies import Proxy

__all__ = ["MAX_HEAD_BYTES", "Tunnel", "open_tunnel"]

MAX_HEAD_BYTES: Final = 16 * 1024
"""Bytes of a proxy's answer, at most: a longer one is refused."""

_VERSION: Final = b"HTTP/1."
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.\d ([1-9]\d\d)(?: |\r)")
_END: Final = b"\r\n\r\n"


@final
class Tunnel:
    """The conversation with a proxy, without I/O.

    :ivar request: what to send first.
    """

    __slots__ = ("_head", "_proxy", "request")

    def __init__(self, proxy: Proxy, host: str, port: int) -> None:
        """``host`` and ``port`` are the server's; the proxy resolves the name."""
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if proxy.authorization is not None:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        self.request: bytes = "\r\n".join((*lines, "", "")).encode("ascii")
        self._proxy = proxy
        self._head = bytearray()

    @property
    def wanted_bytes(self) -> int:
        """Bytes that may still be read, at least one: one more than fit is told from what fits."""
        return MAX_HEAD_BYTES + 1 - len(self._head)

    def feed(self, data: bytes) -> bool:
        """Take what the proxy sent, nothing at its end; return whether the tunnel stands.

        :raises ProxyError: the proxy refused, hung up, or its answer is none.
        """
        if not data:
            raise self._proxy.closed()
        head = self._head
        head += data
        if not head.startswith(_VERSION[: len(head)]):
            raise self._proxy.unreadable(repr(bytes(head[:40]))[1:])
        end = head.find(_END)
        if end < 0 and len(head) <= MAX_HEAD_BYTES:
            return False
        if not 0 <= end <= MAX_HEAD_BYTES - len(_END):
            raise self._proxy.unreadable(f"a head longer than {MAX_HEAD_BYTES} bytes")
        status = _STATUS_LINE.match(head)
        if status is None:
            raise self._proxy.unreadable(repr(bytes(head[:40]))[1:])
        if status[1][:1] != b"2":
            raise self._proxy.refused(int(status[1]))
        if end + len(_END) != len(head):
            # No server speaks before its client has, neither in TLS nor in HTTP.
            raise self._proxy.unreadable("more behind the answer to CONNECT")
        return True


async def open_tunnel(connected: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Ask the proxy at the other end of a socket for a tunnel; return when the server is at that end.

    The socket stays open, whatever happens; the caller bounds the time.

    :raises ProxyError: there is no tunnel.
    """
    loop = asyncio.get_running_loop()
    tunnel = Tunnel(proxy, host, port)
    try:
        await loop.sock_sendall(connected, tunnel.request)
        while not tunnel.feed(await loop.sock_recv(connected, tunnel.wanted_bytes)):
            pass
    except OSError as error:
        raise proxy.closed() from error
