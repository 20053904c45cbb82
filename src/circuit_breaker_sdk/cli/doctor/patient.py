"""The server that is examined, and how to reach it."""

from __future__ import annotations

import ssl
from typing import Final, NamedTuple, final
from urllib.parse import urlsplit

from circuit_breaker_sdk.transports.proxies import Proxies, Proxy
from circuit_breaker_sdk.urls import http_url, redacted, websocket_url

__all__ = ["Patient"]

_PORTS: Final = {"http": 80, "https": 443}


@final
class Patient(NamedTuple):
    """A server by its URL, and who asks.

    :ivar seconds: each step may take so long.
    :ivar context: for TLS; ``None`` without it.

    Example::

        Patient.of("ws://localhost:4000/graphql", token=None, seconds=5.0)
    """

    http: str
    websocket: str
    token: str | None
    seconds: float
    proxy: Proxy | None
    context: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str, *, token: str | None, seconds: float, authority: str | None = None) -> Patient:
        """Return the server of this URL.

        :param authority: a file with certificates of authorities (PEM), in place of the system's.
        :raises UsageError: the URL, or a proxy of the environment, cannot be used.
        :raises OSError: the file cannot be read.
        """
        http = http_url(url)
        context = ssl.create_default_context(cafile=authority) if http.startswith("https") else None
        return cls(http, websocket_url(url), token, seconds, Proxies().of(url), context)

    @property
    def host(self) -> str:
        """The host, without brackets."""
        return urlsplit(self.http).hostname or ""

    @property
    def port(self) -> int:
        """The port."""
        parts = urlsplit(self.http)
        return parts.port or _PORTS[parts.scheme]

    @property
    def place(self) -> str:
        """The URL without secrets."""
        return redacted(self.websocket)

    @property
    def headers(self) -> dict[str, str]:
        """The credentials of a request."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
