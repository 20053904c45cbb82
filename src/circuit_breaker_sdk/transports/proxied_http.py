"""HTTP through a proxy: what aiohttp says of the proxy, in one error that never holds its credentials."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

import aiohttp

from circuit_breaker_sdk.transports.proxies import Proxy, ProxyError

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

__all__ = ["ProxiedConnector", "proxy_arguments"]

_HEADER = "Proxy-Authorization"


def proxy_arguments(proxy: Proxy | None, headers: Mapping[str, str], *, secure: bool) -> dict[str, Any]:
    """Return the arguments of a request through a proxy, its headers with them.

    :param secure: to a server of ``https``, which the proxy connects to and does not read. Plain ``http`` is
        sent to the proxy, which sends it on.
    """
    if proxy is None:
        return {"headers": headers}
    if proxy.authorization is None:
        return {"headers": headers, "proxy": proxy.url}
    # Not as `proxy_auth`: the errors of aiohttp would show it.
    shown = {_HEADER: proxy.authorization}
    if secure:
        return {"headers": headers, "proxy": proxy.url, "proxy_headers": shown}
    return {"headers": {**headers, **shown}, "proxy": proxy.url}


@final
class ProxiedConnector(aiohttp.TCPConnector):
    """Connects through one proxy: until the server is reached, a failure is a :class:`ProxyError`."""

    def __init__(self, proxy: Proxy, seconds: float, **arguments: Any) -> None:
        """``seconds``: bounds the connection to the proxy, its answer and TLS; aiohttp does not."""
        super().__init__(**arguments)
        self._through = proxy
        self._seconds = seconds

    async def _create_connection(self, *arguments: Any) -> ResponseHandler:
        try:
            async with asyncio.timeout(self._seconds):
                return await super()._create_connection(*arguments)
        except (TimeoutError, aiohttp.ClientError) as error:
            failure = self._explained(error)
            cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
            if failure is None:
                raise
        # Not in the handler, and not chained to aiohttp's error: that one repeats the headers to the proxy.
        raise failure from cause

    def _explained(self, error: Exception) -> ProxyError | None:
        """Return what failed at the proxy; ``None`` where it was the server's TLS."""
        proxy = self._through
        match error:
            case aiohttp.ClientProxyConnectionError() | aiohttp.ClientConnectorDNSError():
                return proxy.unreachable(error.os_error)
            case aiohttp.ClientConnectorError():
                return None
            case aiohttp.ClientHttpProxyError():
                return proxy.refused(error.status)
            case aiohttp.ClientResponseError():
                first_line = error.message.strip().partition("\n")[0]
                return proxy.unreadable(first_line[:80] or "no status line")
            case TimeoutError():
                return proxy.late(self._seconds)
            case _:
                return proxy.closed()
