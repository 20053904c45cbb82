"""A server with API keys and an audit log, and a client that has a key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from circuit_breaker_sdk import Client
from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.security.api_key_file import ApiKeyFile

__all__ = ["serving"]


@asynccontextmanager
async def serving(data: Path, **more: float) -> AsyncIterator[Client]:
    """Serve a data directory to a caller with an API key, with an audit log."""
    data.mkdir(mode=0o700, exist_ok=True)
    key = ApiKeyFile(data).create("ada", label="", expires_in_seconds=None)
    settings = ServerSettings(port=0, data_dir=data, api_keys=True, **more)  # type: ignore[arg-type]
    async with Server(settings) as server, Client(server.url, token=key.text) as client:
        yield client
