"""A server whose tokens end soon, a proxy before it, and clients that renew their tokens."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from joserfc import jwt
from joserfc.jwk import OctKey

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_server import Server, ServerSettings, TokenSettings
from tests.integration.policies import SOON
from tests.integration.workflows import create_review_workflow

__all__ = ["KEY", "World", "token", "world"]

KEY: Final = b"k" * 32


def token(life_seconds: float, *, key: bytes = KEY) -> str:
    """Sign a token that lives for so many seconds."""
    # Whole seconds would make every life up to a second shorter.
    claims = {"sub": "me", "exp": time.time() + life_seconds}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(key), algorithms=["HS256"])


class World(NamedTuple):
    """A server, a client without a proxy, the proxy before the server, and the id of a workflow."""

    server: Server
    direct: Client
    proxy: FaultProxy
    workflow: str

    def client(self, source: str | Callable[[], str], **settings: object) -> Client:
        url = f"ws://127.0.0.1:{self.proxy.port}/graphql"
        return Client(url, token=source, recovery=SOON, **settings)  # type: ignore[arg-type]  # by their names

    async def publish(self, *numbers: int) -> None:
        for n in numbers:
            await self.direct.workflows.create_resource(workflow_id=self.workflow, data={"n": n})


@asynccontextmanager
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Run a server that asks for tokens and has a small ring of events."""
    settings = ServerSettings(
        port=0, data_dir=tmp_path, ring_size=8, token_keys=TokenSettings(key=KEY, leeway_seconds=0)
    )
    async with (
        Server(settings) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(server.url, token=token(3600)) as direct,
    ):
        yield World(server, direct, proxy, (await create_review_workflow(direct)).id)
