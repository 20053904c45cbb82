"""Root fields of MCP servers and their sessions."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from circuit_breaker_server.engine.mcp.inputs import (
    AuthenticateJwt,
    CompleteOAuth,
    ConfigureJwt,
    ConfigureOAuth,
    CreateServer,
    InitiateOAuth,
    RegisterCapabilities,
    UpdateServer,
)
from circuit_breaker_server.engine.paging import Pagination
from circuit_breaker_server.graphql.roots.arguments import (
    Arguments,
    Mutation,
    Query,
    input_of,
    optional_text,
    text,
)

__all__ = ["MUTATIONS", "QUERIES"]


def _pagination(given: Arguments) -> Pagination | None:
    return msgspec.convert(given.get("pagination"), Pagination | None)


QUERIES: Mapping[str, Query] = {
    "mcpServers": lambda engine, given: engine.mcp.server_page(
        _pagination(given), type=optional_text(given, "type"), status=optional_text(given, "status")
    ),
    "mcpServer": lambda engine, given: engine.mcp.server(text(given, "id")),
    "mcpServersByTenant": lambda engine, given: engine.mcp.server_page(
        _pagination(given), tenant_id=text(given, "tenantId")
    ),
    "mcpOAuthProviders": lambda engine, _given: engine.mcp.providers(),
    "mcpServerCapabilities": lambda engine, given: engine.mcp.servers.capabilities(text(given, "serverId")),
    "mcpServerHealth": lambda engine, given: engine.mcp.servers.health(text(given, "serverId")),
    "mcpSessions": lambda engine, given: engine.mcp.session_page(
        _pagination(given), user_id=optional_text(given, "userId"), server_id=optional_text(given, "serverId")
    ),
}

MUTATIONS: Mapping[str, Mutation] = {
    "createMcpServer": lambda engine, given: engine.mcp.servers.create(input_of(given, CreateServer)),
    "updateMcpServer": lambda engine, given: engine.mcp.servers.update(
        text(given, "id"), input_of(given, UpdateServer)
    ),
    "deleteMcpServer": lambda engine, given: engine.mcp.delete_server(text(given, "id")),
    "configureMcpOAuth": lambda engine, given: engine.mcp.servers.configure_oauth(
        input_of(given, ConfigureOAuth)
    ),
    "configureMcpJwt": lambda engine, given: engine.mcp.servers.configure_jwt(input_of(given, ConfigureJwt)),
    "initiateMcpOAuth": lambda engine, given: engine.mcp.sign_in.initiate_oauth(
        input_of(given, InitiateOAuth)
    ),
    "completeMcpOAuth": lambda engine, given: engine.mcp.sign_in.complete_oauth(
        input_of(given, CompleteOAuth)
    ),
    "authenticateMcpJwt": lambda engine, given: engine.mcp.sign_in.authenticate_jwt(
        input_of(given, AuthenticateJwt)
    ),
    "refreshMcpSession": lambda engine, given: engine.mcp.sessions.refresh(text(given, "sessionId")),
    "revokeMcpSession": lambda engine, given: engine.mcp.sessions.revoke(text(given, "sessionId")),
    "registerMcpCapabilities": lambda engine, given: engine.mcp.servers.register(
        input_of(given, RegisterCapabilities)
    ),
    "toggleMcpServer": lambda engine, given: engine.mcp.servers.toggle(
        text(given, "id"), enabled=bool(given["enabled"])
    ),
    "testMcpConnection": lambda engine, given: engine.mcp.servers.test(text(given, "serverId")),
}
