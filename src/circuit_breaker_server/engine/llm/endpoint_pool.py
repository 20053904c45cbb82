"""The endpoints of providers, whose connections are kept open."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final, final

from circuit_breaker_server.engine.llm.echo import Echo
from circuit_breaker_server.engine.llm.endpoints import Endpoint
from circuit_breaker_server.engine.llm.openai_endpoint import OpenAIEndpoint
from circuit_breaker_server.engine.llm.routing import ECHO
from circuit_breaker_server.engine.llm.state import ProviderEntry
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.outbound import Outbound

__all__ = ["EndpointPool"]

MAX_ENDPOINTS: Final = 64
"""Endpoints whose connections are kept, as long as they do not answer all at once."""


@final
class EndpointPool:
    """Endpoints by address and key.

    :param timeout_seconds: for each wait for a provider.
    :param outbound: what is observed towards providers.
    """

    def __init__(self, secrets: Secrets, *, timeout_seconds: float, outbound: Outbound) -> None:
        self._secrets = secrets
        self._timeout_seconds = timeout_seconds
        self._outbound = outbound
        self._endpoints: OrderedDict[tuple[str, str | None], OpenAIEndpoint] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Close connections. Idempotent."""
        closing = list(self._closing)
        for task in closing:
            task.cancel()
        if closing:
            await asyncio.wait(closing)
        endpoints, self._endpoints = self._endpoints, OrderedDict()
        for endpoint in endpoints.values():
            await endpoint.aclose()

    def endpoint(self, base_url: str, api_key: str | None) -> Endpoint:
        """Return where to ask; the connections of the endpoints that were used last are kept."""
        key = (base_url, api_key)
        found = self._endpoints.get(key)
        if found is None:
            self._close_idle_endpoints()
            found = OpenAIEndpoint(
                base_url, api_key, timeout_seconds=self._timeout_seconds, outbound=self._outbound
            )
            self._endpoints[key] = found
        self._endpoints.move_to_end(key)
        return found

    def _close_idle_endpoints(self) -> None:
        """Make room for one more endpoint; those that are answering stay."""
        excess = len(self._endpoints) + 1 - MAX_ENDPOINTS
        idle = [key for key, endpoint in self._endpoints.items() if endpoint.is_idle]
        for key in idle[: max(0, excess)]:
            closing = asyncio.get_running_loop().create_task(self._endpoints.pop(key).aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def endpoint_of(self, provider: ProviderEntry) -> Endpoint:
        """Return where a provider is asked."""
        if provider.id == ECHO.id:
            return Echo()
        api_key = None
        if provider.api_key_id:
            api_key = self.key(provider.api_key_id, provider.base_url, provider.tenant)
        return self.endpoint(provider.base_url, api_key)

    def key(self, id_: str, base_url: str, tenant: str | None) -> str | None:
        """Return a key of the operator, ``None`` if there is none for this address and this tenant."""
        return self._secrets.api_key(id_, base_url=base_url, tenant=tenant)
