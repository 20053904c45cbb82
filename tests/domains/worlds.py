"""A real server and a client of it, for tests of the domain clients."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import ECKey

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.events import MCPAuthConfigInput, MCPJwtConfigInput, MCPRetryConfigInput
from circuit_breaker_sdk.types import MCPServer, MCPServerConfigInput, MCPServerType
from circuit_breaker_server import Server, ServerSettings

KEY = ECKey.generate_key("P-256")


@contextlib.asynccontextmanager
async def served(path: Path, **settings: float) -> AsyncIterator[Client]:
    """Run a server on a free port and yield a client of it."""
    given = ServerSettings(port=0, data_dir=path, **settings)  # type: ignore[arg-type]  # the test's numbers
    async with Server(given) as server, Client(server.url) as client:
        yield client


async def create_mcp_server(
    client: Client, port: int, *, seconds: int = 3600, enabled: bool = True
) -> MCPServer:
    """Create an MCP server on a port of this machine, with sessions of ``seconds`` by signed token."""
    return await client.mcp.create_server(
        name="tools",
        type=MCPServerType.LOCAL,
        tenant_id="acme",
        config=MCPServerConfigInput(
            endpoint=f"http://127.0.0.1:{port}/mcp",
            timeout_seconds=5,
            retry=MCPRetryConfigInput(max_attempts=1),
            headers={"X-Key": "hush"},
        ),
        auth=MCPAuthConfigInput(
            jwt=MCPJwtConfigInput(
                issuer="https://issuer.example",
                public_key=KEY.as_pem(private=False).decode(),
                algorithm="ES256",
                expiration_seconds=seconds,
            )
        ),
        tags=["demo"],
        enabled=enabled,
    )


def token(user: str) -> str:
    """Return a token of the issuer that ``create_mcp_server`` trusts."""
    now = int(time.time())
    claims = {"iss": "https://issuer.example", "sub": user, "iat": now, "exp": now + 3600}
    return jwt.encode({"alg": "ES256"}, claims, KEY)
