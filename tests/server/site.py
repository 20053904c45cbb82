"""A whole server on a real port, with an HTTP client and WebSocket clients of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import final

import aiohttp
import msgspec

from circuit_breaker_server import ClusterSettings, Server, ServerSettings
from tests.server.stage import Client
from tests.transports.peers import raw_client

__all__ = ["Site", "site"]


@final
class Site:
    """A running server, and HTTP to it."""

    def __init__(self, server: Server, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.http = http
        self.root = server.url.removesuffix("/graphql")
        self.clients: list[Client] = []

    async def post(self, query: str, variables: Mapping[str, object] | None = None) -> dict[str, object]:
        body, headers = {"query": query, "variables": variables}, {"Resume-Version": "1"}
        async with self.http.post(self.server.url, json=body, headers=headers) as answer:
            assert answer.status == 200
            return msgspec.json.decode(await answer.read(), type=dict[str, object])

    async def made(self, query: str, given: Mapping[str, object]) -> tuple[str, str]:
        """Run a mutation that makes one thing; return its id and the cursor of the answer."""
        answer = await self.post(query, {"input": given})
        assert "errors" not in answer, answer
        ((made),) = msgspec.convert(answer["data"], dict[str, dict[str, str]]).values()
        resume = msgspec.convert(answer["extensions"], dict[str, dict[str, str]])["resume"]
        return made["id"], resume["cursor"]

    async def open(self, path: str = "/graphql") -> Client:
        client = Client(await raw_client(self.server.port, path=path))
        self.clients.append(client)
        assert "101" in await client.peer.read_head()
        return client


@contextlib.asynccontextmanager
async def site(data_dir: Path, *, cluster: ClusterSettings | None = None, **more: int) -> AsyncIterator[Site]:
    """Run a server on a free port."""
    settings = ServerSettings(
        data_dir=data_dir,
        port=0,
        log_level="critical",
        cluster=cluster or ClusterSettings(),
        **more,  # type: ignore[arg-type]  # numbers
    )
    async with Server(settings) as server, aiohttp.ClientSession() as http:
        running = Site(server, http)
        try:
            yield running
        finally:
            for client in running.clients:
                await client.leave()
