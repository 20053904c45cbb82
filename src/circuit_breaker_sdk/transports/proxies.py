"""Proxies that connections go through: given by the caller, or by the environment."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from typing import Final, final
from urllib.parse import unquote, urlsplit

from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.urls import ascii_host, http_url, split_url

__all__ = ["Proxies", "Proxy", "ProxyError"]

_EXAMPLE: Final = "for example http://user:password@proxy.example:3128"
_DEFAULT_PORT: Final = 80


class ProxyError(Exception):
    """A proxy gave no connection to the server; a transport makes it the error that it raises.

    :ivar text: what happened, with the proxy's host and port, and what to do.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


@final
class Proxy:
    """One HTTP proxy; ``repr`` and errors show its host and port, never its credentials.

    :ivar host: without brackets.
    :ivar place: host and port, as errors name them.
    :ivar authorization: the value of ``Proxy-Authorization``; ``None`` without credentials.
    """

    __slots__ = ("_secrets", "authorization", "host", "place", "port")

    def __init__(self, url: str, *, source: str = "proxy") -> None:
        """``source``: where the URL was given, for errors.

        :raises UsageError: it is not the URL of an HTTP proxy; what it is, which may hold a password, is not
            repeated.
        """
        parts_and_port = split_url(url)
        if parts_and_port is None or any(c.isspace() or not c.isprintable() for c in url):
            raise UsageError(f"{source} is not a URL that can be read: write {_EXAMPLE}")
        parts, port = parts_and_port
        if parts.scheme != "http":
            raise UsageError(
                f"{source}: of the schemes of a proxy only http:// is supported (what goes to wss:// and "
                f"https:// is encrypted all the way), not {_shown_scheme(parts.scheme)}: write {_EXAMPLE}"
            )
        if not parts.hostname or port == 0 or parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise UsageError(f"{source} must be a host and a port, and no path: write {_EXAMPLE}")
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if ":" in user:
            raise UsageError(f"{source}: a user's name holds no colon")
        shown_host = ascii_host(parts, example=_EXAMPLE)
        self.host: str = shown_host.strip("[]")
        self.port: int = port or _DEFAULT_PORT
        self.place: str = f"{shown_host}:{self.port}"
        self.authorization: str | None = None
        self._secrets: tuple[str, ...] = ()
        if parts.username is not None:
            encoded = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
            self.authorization = f"Basic {encoded}"
            given = (parts.username, parts.password or "", f"{parts.username}:{parts.password or ''}")
            self._secrets = (user, password, encoded, *given)

    @property
    def url(self) -> str:
        """Its URL without credentials."""
        return f"http://{self.place}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that nobody is shown: user and password, as they are and as they are sent."""
        return self._secrets

    def unreachable(self, error: OSError) -> ProxyError:
        """Explain that there is no connection to the proxy."""
        return ProxyError(
            f"the proxy {self.place} cannot be reached ({error.strerror or error}): is it running, and is "
            "its address right (proxy=, or HTTP_PROXY and its like in the environment)?"
        )

    def refused(self, status: int) -> ProxyError:
        """Explain the status with which the proxy refused."""
        if status == 407 and self.authorization is None:
            advice = "the proxy wants credentials: proxy='http://user:password@host:port'"
        elif status == 407:
            advice = (
                "the proxy refused the credentials: check those in proxy='http://user:password@host:port'"
            )
        elif status in {403, 405}:
            advice = (
                "it does not connect to this server: ask who runs it, or connect without it (NO_PROXY, or "
                "trust_env=False)"
            )
        else:
            advice = "it cannot connect to the server now: is the server's address right?"
        return ProxyError(f"the proxy {self.place} gave no connection (HTTP {status}): {advice}")

    def closed(self) -> ProxyError:
        """Explain that the proxy hung up in place of an answer."""
        return ProxyError(f"the proxy {self.place} closed the connection before it answered: try again")

    def unreadable(self, what: str) -> ProxyError:
        """Explain an answer that is none; ``what`` is seen in it."""
        return ProxyError(
            f"the proxy {self.place} answered what is not HTTP ({what}): is there an HTTP proxy at this port?"
        )

    def late(self, seconds: float) -> ProxyError:
        """Explain that there was no connection in time."""
        return ProxyError(
            f"the proxy {self.place} gave no connection within connect_seconds ({seconds:g} s): try again, "
            "or raise Timeouts(connect_seconds=…)"
        )

    def __repr__(self) -> str:
        return f"Proxy({self.place})"


@final
class Proxies:
    """Which proxy leads to a URL: the one that was given, else what the environment says.

    ``HTTP_PROXY`` is for ``ws`` and ``http``, ``HTTPS_PROXY`` for ``wss`` and ``https``, ``ALL_PROXY`` for
    both, in capitals or in small letters, which win; ``NO_PROXY`` names the hosts that are reached without.
    They are read once, here.

    Example::

        Proxies("http://proxy.example:3128").of("wss://server.example/graphql")   # Proxy(proxy.example:3128)
        Proxies(None, trust_env=False).of("wss://server.example/graphql")         # None
    """

    __slots__ = ("_environment", "_given", "_used")

    def __init__(self, proxy: str | None = None, *, trust_env: bool = True) -> None:
        """``trust_env``: whether the environment is asked where no proxy is given.

        :raises UsageError: the proxy's URL cannot be used.
        """
        if proxy is not None and not isinstance(proxy, str):
            raise UsageError(f"proxy must be a URL, {_EXAMPLE}; not {type(proxy).__name__}")
        if not isinstance(trust_env, bool):
            raise UsageError(f"trust_env must be of type bool, not {type(trust_env).__name__}")
        self._given = None if proxy is None else Proxy(proxy)
        self._environment = _environment() if trust_env and proxy is None else {}
        self._used: dict[str, Proxy] = {}

    def of(self, url: str) -> Proxy | None:
        """Return the proxy to this URL; ``None`` where the connection is a direct one.

        :param url: ``ws``, ``wss``, ``http`` or ``https``.
        :raises UsageError: the environment names a proxy that cannot be used.
        """
        if self._given is not None or not self._environment:
            return self._given
        parts = urlsplit(http_url(url))  # its host in ASCII, for whichever transport
        scheme = parts.scheme
        name = scheme if self._environment.get(scheme) else "all"
        address = self._environment.get(name)
        if not address or self._is_excepted(
            parts.hostname or "", parts.port or (443 if scheme == "https" else 80)
        ):
            return None
        proxy = self._used.get(name)
        if proxy is None:
            with_scheme = address if "://" in address else f"http://{address}"
            source = f"{name.upper()}_PROXY of the environment (trust_env=False leaves it unread)"
            proxy = self._used[name] = Proxy(with_scheme, source=source)
        return proxy

    def secrets(self) -> Iterable[str]:
        """Yield the texts that nobody is shown, of the proxies in use."""
        for proxy in (self._given, *self._used.values()):
            if proxy is not None:
                yield from proxy.secrets

    def _is_excepted(self, host: str, port: int) -> bool:
        # Here, as below; the types of the standard library leave it out.
        from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined] # noqa: PLC0415

        bracketed = f"[{host}]" if ":" in host else host
        return any(
            proxy_bypass_environment(each, self._environment) for each in (f"{bracketed}:{port}", host)
        )


def _environment() -> dict[str, str]:
    """Read the variables, by the names ``http``, ``https``, ``all`` and ``no``."""
    if not any(name[-6:].lower() == "_proxy" for name in os.environ):
        return {}
    # Imported here: it costs 20 ms, which most programs can do without.
    from urllib.request import getproxies_environment  # noqa: PLC0415 (as said above)

    return getproxies_environment()


def _shown_scheme(scheme: str) -> str:
    # Where "//" is missing, what stands before the first colon may be a user's name.
    return f"{scheme}://" if scheme in {"https", "socks4", "socks4a", "socks5", "socks5h"} else "this one"
