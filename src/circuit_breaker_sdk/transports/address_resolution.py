"""From a host's name to a connected socket: the addresses of a name, tried side by side.

One rule for every transport: what a name means is asked anew for each connection, and where it means several
addresses, the next is tried 250 ms after the last without waiting for its failure (RFC 8305). A dead first
address costs that, and not the time-out of the system.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar, cast, final

from aiohappyeyeballs import start_connection
from aiohttp.abc import AbstractResolver, ResolveResult

from circuit_breaker_sdk.transports.proxies import Proxy
from circuit_breaker_sdk.transports.proxy_tunnel import open_tunnel

__all__ = ["STAGGER_SECONDS", "Address", "HttpResolver", "open_stream", "resolve"]

P = TypeVar("P", bound=asyncio.BaseProtocol)

Address: TypeAlias = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str | int, ...]]
"""Family, kind, protocol, canonical name and address, as :func:`socket.getaddrinfo` gives them."""

STAGGER_SECONDS: Final = 0.25
"""Seconds before the next address is tried beside the present one (RFC 8305, section 8)."""


async def resolve(host: str, port: int, family: int = socket.AF_UNSPEC) -> list[Address]:
    """Return the addresses of a name, in the order in which to try them.

    :raises OSError: there are none.
    """
    # Not with AI_ADDRCONFIG, which hides `::1` where there is no other IPv6 address.
    found = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    return cast(list[Address], found)  # sockets of other families are not asked for


async def open_stream(
    protocol_factory: Callable[[], P],
    host: str,
    port: int,
    *,
    context: ssl.SSLContext | None,
    seconds: float,
    proxy: Proxy | None = None,
) -> P:
    """Connect to the first address that answers, with TLS where there is a context; return the protocol.

    Where TLS fails at one address, the others are tried. Cancelling closes whatever is open. Through a proxy,
    the addresses are those of the proxy, which resolves the host's name itself.

    :param seconds: how long TLS may take at one address.
    :raises ProxyError: the proxy gave no connection.
    :raises OSError: no address answers, or TLS failed: at the first, if at all of them.
    """
    if proxy is None:
        addresses = await resolve(host, port)
    else:
        try:
            addresses = await resolve(proxy.host, proxy.port)
        except OSError as error:
            raise proxy.unreachable(error) from error
    refused: ssl.SSLError | None = None
    while addresses:
        try:
            connected = await start_connection(addresses, happy_eyeballs_delay=STAGGER_SECONDS, interleave=1)
        except OSError as error:
            if proxy is not None and refused is None:
                raise proxy.unreachable(error) from error
            raise refused or error  # noqa: B904 (one or the other)
        try:
            if proxy is not None:
                await open_tunnel(connected, proxy, host, port)
            peer = connected.getpeername()[:2]
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, protocol = await asyncio.get_running_loop().create_connection(
                protocol_factory,
                sock=connected,
                ssl=context,
                server_hostname=None if context is None else host,
                ssl_handshake_timeout=None if context is None else seconds,
            )
        except ssl.SSLError as error:
            connected.close()
            refused = refused or error
            addresses = [each for each in addresses if each[4][:2] != peer]
        except BaseException:
            connected.close()
            raise
        else:
            return protocol
    raise refused or socket.gaierror(socket.EAI_NONAME, "no address")


@final
class HttpResolver(AbstractResolver):
    """Gives the addresses of :func:`resolve` to aiohttp, within a time that aiohttp does not bound."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name, as :func:`resolve` does.

        :raises OSError: there are none, or none are told in time.
        """
        try:
            async with asyncio.timeout(self._seconds):
                found = await resolve(host, port, family)
        except TimeoutError:
            late = f"no answer within connect_seconds ({self._seconds:g} s)"
            raise socket.gaierror(socket.EAI_AGAIN, late) from None
        return [
            ResolveResult(
                hostname=host,
                host=f"{address[0]}%{address[3]}" if address[3:] and address[3] else str(address[0]),
                port=port,
                family=its_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for its_family, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Hold nothing."""
