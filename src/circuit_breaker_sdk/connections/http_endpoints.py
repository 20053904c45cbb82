"""The URLs of one server over HTTP: the one that answered last is asked first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, final

from circuit_breaker_sdk.connections.closing import close_each
from circuit_breaker_sdk.connections.connection_settings import ConnectionSettings
from circuit_breaker_sdk.errors import AuthenticationFailed, TransportError, UsageError
from circuit_breaker_sdk.urls import redacted

if TYPE_CHECKING:
    from circuit_breaker_sdk.transports.http import HttpTransport

__all__ = ["HttpEndpoints"]

T = TypeVar("T")


@final
class HttpEndpoints:
    """The transports to several URLs, made when they are first used.

    Example::

        endpoints = HttpEndpoints(settings, ["http://a.example/graphql", "http://b.example/graphql"])
        answer = await endpoints.ask_any(lambda url: endpoints.transport(url).execute(body))
        await endpoints.aclose()
    """

    def __init__(
        self, settings: ConnectionSettings, urls: Sequence[str], *, max_connections: int = 100
    ) -> None:
        """``max_connections`` to each at once; 0 sets no limit."""
        self._settings = settings
        self._urls = tuple(urls)
        self._max_connections = max_connections
        self._serving = 0
        self._transports: dict[str, HttpTransport] = {}
        self._closed = False

    @property
    def url(self) -> str:
        """The URL that is asked first, without credentials."""
        return redacted(self._urls[self._serving])

    def transport(self, url: str) -> HttpTransport:
        """Return the transport to one of the URLs.

        :raises UsageError: the client is closed.
        """
        if self._closed:
            raise UsageError("the client is closed: make a new one")
        transport = self._transports.get(url)
        if transport is None:
            # Imported here: aiohttp costs 100 ms, which `import circuit_breaker_sdk` must not.
            from circuit_breaker_sdk.transports.http import HttpTransport  # noqa: PLC0415 (as said above)

            settings = self._settings
            transport = self._transports[url] = HttpTransport(
                url,
                headers=settings.credentials.http_headers,
                ssl=settings.ssl,
                timeouts=settings.timeouts,
                limits=settings.limits,
                positions=settings.positions,
                proxy=settings.credentials.proxies.of(url),
                max_connections=self._max_connections,
            )
        return transport

    async def ask_any(self, ask: Callable[[str], Awaitable[T]]) -> T:
        """Ask the URL that answered last; the next, where it does not answer: what is asked may be repeated.

        :raises TransportError: why the first of them failed; refused credentials are the end at once.
        """
        failed: TransportError | None = None
        for _ in self._urls:
            serving = self._serving
            try:
                return await ask(self._urls[serving])
            except AuthenticationFailed:
                raise
            except TransportError as error:
                failed = failed or error
                # Unless another request, which failed as well, has moved on already.
                if self._serving == serving:
                    self._serving = (serving + 1) % len(self._urls)
        raise failed or UsageError("a client needs a URL")

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        self._closed = True
        transports, self._transports = self._transports, {}
        await close_each(transport.aclose() for transport in transports.values())
