"""From a host's name to a connected socket: the addresses of a name, tried side by side.

One rule for every transport: what a name means is asked anew for each connection, and where it means several
addresses, the next is tried 250 ms after the last without waiting for its failure (RFC 8305). A dead first
address costs that, and not the time-out of the system.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, TypeAlias, cast, final

from aiohappyeyeballs import start_connection
from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ["STAGGER_SECONDS", "Address", "HttpResolver", "open_socket", "resolve"]

Address: TypeAlias = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str | int, ...]]
"""Family, kind, protocol, canonical name and address, as :func:`socket.getaddrinfo` gives them."""

STAGGER_SECONDS: Final = 0.25
"""How long an address is tried alone before the next is tried beside it (RFC 8305, section 8)."""


async def resolve(host: str, port: int, family: int = socket.AF_UNSPEC) -> list[Address]:
    """Return the addresses of a name, in the order in which to try them.

    :raises OSError: there are none.
    """
    # Not with AI_ADDRCONFIG, which hides `::1` where there is no other IPv6 address.
    found = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    return cast(list[Address], found)  # sockets of other families are not asked for


async def open_socket(host: str, port: int) -> socket.socket:
    """Connect to the first address that answers; cancelling closes whatever is open.

    :raises OSError: no address answers.
    """
    addresses = await resolve(host, port)
    made = await start_connection(addresses, happy_eyeballs_delay=STAGGER_SECONDS, interleave=1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


@final
class HttpResolver(AbstractResolver):
    """Gives the addresses of :func:`resolve` to aiohttp."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name, as :func:`resolve` does.

        :raises OSError: there are none.
        """
        return [
            ResolveResult(
                hostname=host,
                host=f"{address[0]}%{address[3]}" if address[3:] and address[3] else str(address[0]),
                port=port,
                family=its_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for its_family, _, protocol, _, address in await resolve(host, port, family)
        ]

    async def close(self) -> None:
        """Hold nothing."""
