"""A real server and a client of it, for tests of the domain clients."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from circuit_breaker_sdk import Client
from circuit_breaker_server import Server, ServerSettings


@contextlib.asynccontextmanager
async def served(path: Path, **settings: float) -> AsyncIterator[Client]:
    """Run a server on a free port and yield a client of it."""
    given = ServerSettings(port=0, data_dir=path, **settings)  # type: ignore[arg-type]  # the test's numbers
    async with Server(given) as server, Client(server.url) as client:
        yield client
