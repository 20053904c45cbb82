"""Check the address of a peer that a caller has named before the server connects to it.

A name is resolved, every address of it is checked, and the connection goes to an address that was checked:
no second look-up comes between the check and the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeAlias, final
from urllib.parse import urlsplit

__all__ = ["LOOPBACK", "AddressRefused", "AddressRules", "Resolve", "host_of", "rule"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a name, at least one; raises :class:`OSError`."""

LOOPBACK: Final = ("127.0.0.0/8", "::1/128")

_EXAMPLE: Final = "must be an absolute http or https URL, for example https://host.example/v1"
_MAX_URL: Final = 2048
_MAX_HOST: Final = 253
_HOST: Final = re.compile(
    r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*\.?"
)
_BRACKETS: Final = re.compile(r"\[[^\[\]]*\](?::[0-9]+)?")
# What the IPv6 forms of an address of IPv4 begin with, and how far from the end that address ends (in bits).
_EMBEDDED: Final = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
)
# Not public, though ``is_global`` says so, at least in some versions of Python.
_NOT_PUBLIC: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "100.64.0.0/10",  # shared by the customers of a carrier
            "168.63.129.16/32",  # the metadata of one cloud
            "192.0.0.0/24",
            "192.88.99.0/24",  # relays of 6to4
            "224.0.0.0/4",
            "240.0.0.0/4",
            "::/96",  # addresses of IPv4, of old
            "64:ff9b:1::/48",  # NAT64 of a network's own
            "2001::/23",  # tunnels, Teredo among them
            "fec0::/10",
            "ff00::/8",
        ),
    )
)


@final
class AddressRefused(OSError):
    """The server must not connect there. The text is for the caller: no address that was found is in it."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(
            f"this server may not connect to {host}; its operator may allow it "
            "(allowed_outbound, --allow-outbound)"
        )


def rule(text: str) -> Network | str:
    """Read a rule: an address, a network as ``10.0.0.0/8``, or the name of a host.

    :raises ValueError: it is none of them.
    """
    with contextlib.suppress(ValueError):
        return ipaddress.ip_network(text, strict=False)
    found = host_of(f"http://{text}/")
    if found != text.lower() or _literal(found) is not None:
        raise ValueError(f"{text!r} is no address, no network as 10.0.0.0/8, and no name of a host")
    return found.rstrip(".")


def host_of(url: str) -> str:
    """Return the host of an http or https URL, in lower case and in ASCII, once the whole URL is well formed.

    Whatever reads the URL afterwards finds the same host in it.

    :raises ValueError: it is not; the text is for the caller.
    """
    if len(url) > _MAX_URL:
        raise ValueError(f"has at most {_MAX_URL} characters")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise ValueError(_EXAMPLE) from None
    if parts.scheme not in ("http", "https") or not host or " " in url or not url.isprintable():
        raise ValueError(_EXAMPLE)
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials")
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("must have a port between 1 and 65535, or none")
    ascii_host = _ascii(host, in_brackets=parts.netloc.startswith("["))
    if ascii_host is None or ("]" in parts.netloc and not _BRACKETS.fullmatch(parts.netloc)):
        raise ValueError("must have a host that is a name or an address")
    return ascii_host


def _ascii(host: str, *, in_brackets: bool) -> str | None:
    try:
        if in_brackets:
            # The zone of an address (%eth0) is a name of this machine's own.
            return None if "%" in host else str(ipaddress.IPv6Address(host))
        name = host.encode("idna").decode("ascii").lower()
    except ValueError:
        return None
    return name if len(name) <= _MAX_HOST and _HOST.fullmatch(name) else None


def _literal(host: str) -> Address | None:
    """Read a host that is an address, also in the forms that the system takes: ``2130706433``, ``0177.1``."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host)
    with contextlib.suppress(OSError):
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    return None


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv6Address):
        for network, shift in _EMBEDDED:
            if address in network:
                return ipaddress.IPv4Address(int(address) >> shift & 0xFFFF_FFFF)
    return None


def _is_public(address: Address) -> bool:
    inner = _embedded(address)
    if inner is not None:
        return _is_public(inner)
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _NOT_PUBLIC)
    )


async def _look_up(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]


@final
class AddressRules:
    """Tells to which addresses the server may connect: public ones, and those that its operator allows.

    :param allowed: addresses, networks and names of hosts; a name is allowed whatever it is resolved to.
    :param resolve: looks names up.

    Example::

        rules = AddressRules(["10.1.0.0/16", "llm.internal"])
        addresses = await rules.addresses("llm.internal", 443)
    """

    def __init__(self, allowed: Iterable[str] = (), *, resolve: Resolve = _look_up) -> None:
        rules = [rule(each) for each in allowed]
        self._networks = tuple(each for each in rules if not isinstance(each, str))
        self._hosts = frozenset(each for each in rules if isinstance(each, str))
        self._resolve = resolve

    def allowing(self, hosts: Iterable[str]) -> AddressRules:
        """Return rules that allow these hosts as well, names and addresses as they stand in URLs."""
        more = AddressRules(resolve=self._resolve)
        more._networks = self._networks
        more._hosts = self._hosts | {host.rstrip(".") for host in hosts}
        return more

    def check_host(self, host: str) -> None:
        """Refuse a host that is an address, or the name of this machine, without a look-up.

        :raises AddressRefused: the server may not connect there.
        """
        address = _literal(host)
        name = host.lower().rstrip(".")
        if address is None and (name == "localhost" or name.endswith(".localhost")):
            address = ipaddress.IPv4Address("127.0.0.1")
        if address is not None and not self._allows(host, address):
            raise AddressRefused(host)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host, all of them checked, in the order in which to try them.

        :raises AddressRefused: the server may not connect to one of them.
        :raises OSError: there are none.
        """
        literal = _literal(host)
        try:
            found = [str(literal)] if literal is not None else await self._resolve(host, port)
        except UnicodeError as error:
            raise socket.gaierror(socket.EAI_NONAME, "no name of a host") from error
        for text in found:
            try:
                address = ipaddress.ip_address(text)
            except ValueError:
                raise AddressRefused(host) from None
            if not self._allows(host, address):
                raise AddressRefused(host)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        return list(dict.fromkeys(found))

    def _allows(self, host: str, address: Address) -> bool:
        if _is_public(address) or host.lower().rstrip(".") in self._hosts:
            return True
        inner = _embedded(address)
        return any(
            each is not None and each in network for network in self._networks for each in (address, inner)
        )
