"""Limit the connections of all clients, and the number per client address."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, TypeAlias, final

from circuit_breaker_server.refusals import RefusalKind, Refusals

__all__ = ["Peers", "address_key", "is_loopback", "network"]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_V6_PREFIX_BITS: Final = 64
"""One subscriber of a provider has so many addresses of IPv6 at least: they count as one."""


# Reading an address takes longer than refusing it.
_ADDRESSES_KNOWN: Final = 4_096


def network(text: str) -> Network:
    """Return an address or a network, as ``10.0.0.7`` or ``10.0.0.0/8``.

    :raises ValueError: it is neither.
    """
    return ipaddress.ip_network(text, strict=False)


@lru_cache(maxsize=_ADDRESSES_KNOWN)
def address_key(host: str) -> str:
    """Return what is counted for an address: itself, of IPv6 its network of 64 bits."""
    try:
        address = _address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address), _V6_PREFIX_BITS), strict=False))
    return str(address)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a server at an address: of 127.0.0.0/8, ``::1``, ``localhost``.

    Any other name counts as reached by others, whatever it is looked up as; so do the addresses for all.
    """
    if host.lower() == "localhost":
        return True
    try:
        return _address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=_ADDRESSES_KNOWN)
def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@final
class Peers:
    """Counts the open connections, HTTP and WebSocket together.

    :param max_per_address: connections of one address; of IPv6, of one network of 64 bits.
    :param max_in_all: ``None`` for no bound.
    :param trusted: addresses and networks that may hold any number, as far as the bound in all allows.
    :param kind: what is counted here, as refusals of it are logged.

    Example::

        peers = Peers(max_per_address=200, trusted=["10.0.0.0/8"])
        if (refusal := peers.enter("192.0.2.7")) is None:
            peers.leave("192.0.2.7")
    """

    def __init__(
        self,
        *,
        max_per_address: int,
        max_in_all: int | None = None,
        trusted: Sequence[str] = (),
        refusals: Refusals | None = None,
        kind: RefusalKind = "connection",
    ) -> None:
        self._refusals = refusals or Refusals()
        self._kind = kind
        self._max_per_address = max_per_address
        self._max_in_all = max_in_all
        self._trusted = tuple(map(network, trusted))
        self._of: dict[str, int] = {}
        self._in_all = 0

    def __len__(self) -> int:
        """The number of counted connections."""
        return self._in_all

    def change(self, *, max_per_address: int, max_in_all: int | None) -> None:
        """Take other bounds; connections above them stay open."""
        self._max_per_address = max_per_address
        self._max_in_all = max_in_all

    def refusal(self, host: str) -> tuple[int, str] | None:
        """Return the HTTP status and the text to refuse one more connection with; ``None``: it has room.

        :param host: the peer's address, empty where it is not known.
        """
        if self._max_in_all is not None and self._in_all >= self._max_in_all:
            self._refusals.note("connections", self._kind, remote=host, status=503)
            return 503, f"the server has {self._max_in_all} connections, which is all it may have; try again"
        key = address_key(host)
        if self._of.get(key, 0) >= self._max_per_address and not self._is_trusted(host):
            self._refusals.note("connections", self._kind, remote=host, status=429)
            return 429, (
                f"{self._max_per_address} connections are open from {key}, all that one address may have; "
                "close some (max_connections_per_address, trusted_proxies)"
            )
        return None

    def enter(self, host: str) -> tuple[int, str] | None:
        """Count a connection, or return what it is refused with, as :meth:`refusal`."""
        refusal = self.refusal(host)
        if refusal is None:
            key = address_key(host)
            self._of[key] = self._of.get(key, 0) + 1
            self._in_all += 1
        return refusal

    def leave(self, host: str) -> None:
        """Stop counting a connection that :meth:`enter` counted."""
        key = address_key(host)
        self._in_all -= 1
        self._of[key] -= 1
        if not self._of[key]:
            del self._of[key]

    def _is_trusted(self, host: str) -> bool:
        try:
            address = _address(host)
        except ValueError:
            return False
        return any(address in each for each in self._trusted)
