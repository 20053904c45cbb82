"""An OAuth provider of the settings, and the part of an MCP server's input that names it."""

from __future__ import annotations

from circuit_breaker_server.engine.mcp.records import Provider
from tests.server.engine.mcp.peers import FakeProvider

__all__ = ["corp", "oauth"]


def oauth(**more: object) -> dict[str, object]:
    """Return the authentication part of an MCP server's input: sign in at ``corp``."""
    given = {"providerId": "corp", "clientId": "c", "clientSecret": "hush", "scopes": ["a", "b"]}
    return {"oauth": {**given, "redirectUri": "https://app.example/back", **more}}


def corp(provider: FakeProvider) -> Provider:
    """Return the provider ``corp`` whose token endpoint is the given one."""
    return Provider(
        id="corp",
        name="Corp",
        type="CUSTOM",
        authorization_endpoint="https://corp.example/auth?x=1",
        token_endpoint=provider.url,
    )
