"""From what is kept of MCP servers and sessions to what the schema shows of it: never a secret."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from circuit_breaker_server.engine.mcp.records import (
    Config,
    Health,
    Jwt,
    OAuth,
    Provider,
    ServerImage,
    SessionImage,
)

__all__ = ["auth_value", "health_value", "provider_value", "server_value", "session_value"]

_HIDDEN = "(hidden)"


def server_value(
    server: ServerImage, *, active: object, health: object = None, capabilities: object = None
) -> dict[str, object]:
    """Return ``McpServer``; what is callable is called when it is asked for."""
    return {
        "__typename": "McpServer",
        "id": server.id,
        "name": server.name,
        "description": server.description,
        "type": server.type,
        "status": server.status,
        "tenantId": server.tenant_id,
        "config": _config_value(server.config),
        "auth": None if server.auth is None else auth_value(server.auth),
        "capabilities": capabilities,
        "health": health,
        "activeSessionsCount": active,
        "metadata": server.metadata,
        "tags": list(server.tags),
        "enabled": server.enabled,
        "audit": {
            "createdBy": None,
            "createdAt": server.created_at,
            "updatedBy": None,
            "updatedAt": server.updated_at,
            "version": server.version,
        },
    }


def _config_value(config: Config) -> dict[str, object]:
    ssl = config.ssl
    return {
        "endpoint": config.endpoint,
        "timeoutSeconds": config.timeout_seconds,
        "maxConnections": config.max_connections,
        "ssl": None
        if ssl is None
        else {
            "verify": ssl.verify,
            "caCert": ssl.ca_cert,
            "clientCert": ssl.client_cert,
            "clientKey": None,
        },
        "retry": msgspec.to_builtins(config.retry),
        "rateLimit": None,
        "headers": dict.fromkeys(config.header_names, _HIDDEN) if config.header_names else None,
    }


def auth_value(auth: OAuth | Jwt) -> dict[str, object]:
    """Return the member of ``McpAuthConfig``."""
    if isinstance(auth, OAuth):
        return {
            "__typename": "McpOAuthConfig",
            "provider": provider_value(auth.provider),
            "clientId": auth.client_id,
            "scopes": list(auth.scopes),
            "redirectUri": auth.redirect_uri,
            "additionalParams": auth.additional_params or None,
            "refreshConfig": msgspec.to_builtins(auth.refreshing),
            "metadata": None,
        }
    return {
        "__typename": "McpJwtConfig",
        "issuer": auth.issuer,
        "audience": auth.audience,
        "publicKey": auth.public_key,
        "algorithm": auth.algorithm,
        "expirationSeconds": auth.expiration_seconds,
        "customClaims": auth.custom_claims or None,
        "metadata": None,
    }


def provider_value(provider: Provider) -> dict[str, object]:
    """Return ``McpOAuthProvider``."""
    return {
        "id": provider.id,
        "name": provider.name,
        "type": provider.type,
        "authorizationEndpoint": provider.authorization_endpoint,
        "tokenEndpoint": provider.token_endpoint,
        "userInfoEndpoint": provider.user_info_endpoint,
        "revocationEndpoint": provider.revocation_endpoint,
        "supportedScopes": list(provider.supported_scopes),
        "config": None,
        "enabled": True,
    }


def health_value(health: Health, *, uptime_seconds: int | None) -> dict[str, object]:
    """Return ``McpServerHealth``."""
    parts = ("connection", "authentication", "capabilities", "resources", "tools")
    return {
        "status": health.status,
        "lastCheckAt": health.at,
        "responseTimeMs": health.response_time_ms,
        "details": {part: getattr(health, part) for part in parts},
        "uptimeSeconds": uptime_seconds,
        "error": health.error,
    }


def session_value(
    session: SessionImage, server: Mapping[str, object] | Callable[[], Mapping[str, object]]
) -> dict[str, object]:
    """Return ``McpSession``."""
    return {
        "__typename": "McpSession",
        "id": session.id,
        "server": server,
        "userId": session.user_id,
        "status": session.status,
        "authMethod": session.method,
        "accessToken": None,
        "tokenExpiresAt": session.token_expires_at,
        "refreshToken": None,
        "metadata": session.metadata,
        "createdAt": session.created_at,
        "lastActivityAt": session.last_activity_at,
        "expiresAt": session.expires_at,
        "requestCount": session.refreshes,
        "userAgent": None,
        "ipAddress": None,
    }
