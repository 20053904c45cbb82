"""Root fields of MCP servers and their sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from circuit_breaker_server.access.fields import Sees
from circuit_breaker_server.engine.engine import Engine
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

__all__ = ["MUTATIONS", "PAGES", "QUERIES"]


def _pagination(given: Arguments) -> Pagination | None:
    return msgspec.convert(given.get("pagination"), Pagination | None)


PAGES: Mapping[str, Callable[[Engine, Arguments, Sees], object]] = {
    "mcpServers": lambda engine, given, is_seen: engine.mcp.server_page(
        _pagination(given),
        is_seen=is_seen,
        type=optional_text(given, "type"),
        status=optional_text(given, "status"),
    ),
    "mcpServersByTenant": lambda engine, given, is_seen: engine.mcp.server_page(
        _pagination(given), is_seen=is_seen, tenant_id=text(given, "tenantId")
    ),
    "mcpSessions": lambda engine, given, is_seen: engine.mcp.session_page(
        _pagination(given),
        is_seen=is_seen,
        user_id=optional_text(given, "userId"),
        server_id=optional_text(given, "serverId"),
    ),
}
"""The queries that are answered by pages of what is seen, in which what is not seen does not count."""


def _all(_of: str, _tenant_id: str) -> bool:
    return True


def _whole(page: Callable[[Engine, Arguments, Sees], object]) -> Query:
    return lambda engine, given: page(engine, given, _all)


QUERIES: Mapping[str, Query] = {
    **{name: _whole(page) for name, page in PAGES.items()},
    "mcpServer": lambda engine, given: engine.mcp.server(text(given, "id")),
    "mcpOAuthProviders": lambda engine, _given: engine.mcp.providers(),
    "mcpServerCapabilities": lambda engine, given: engine.mcp.servers.queries.capabilities(
        text(given, "serverId")
    ),
    "mcpServerHealth": lambda engine, given: engine.mcp.servers.queries.health(text(given, "serverId")),
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
