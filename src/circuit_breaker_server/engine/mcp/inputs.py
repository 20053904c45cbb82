"""The inputs of the commands on MCP servers, as the schema's input types have them.

A null where the schema has a default is ``None`` here and stands for the default.
"""

from __future__ import annotations

from typing import final

import msgspec

from circuit_breaker_server.engine.mcp.capabilities import Features, Prompt, Resource, Tool

__all__ = [
    "AuthInput",
    "AuthenticateJwt",
    "CompleteOAuth",
    "ConfigInput",
    "ConfigureJwt",
    "ConfigureOAuth",
    "CreateServer",
    "InitiateOAuth",
    "JwtInput",
    "OAuthInput",
    "RefreshInput",
    "RegisterCapabilities",
    "RetryInput",
    "SslInput",
    "UpdateServer",
]


class _Input(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The base of all inputs; the schema's camelCase names."""


@final
class SslInput(_Input, frozen=True, kw_only=True):
    """``McpSslConfigInput``."""

    verify: bool | None = None
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None


@final
class RetryInput(_Input, frozen=True, kw_only=True):
    """``McpRetryConfigInput``."""

    max_attempts: int | None = None
    initial_delay_ms: int | None = None
    max_delay_ms: int | None = None
    backoff_multiplier: float | None = None
    jitter_factor: float | None = None


@final
class ConfigInput(_Input, frozen=True, kw_only=True):
    """``McpServerConfigInput``."""

    endpoint: str | None = None
    timeout_seconds: int | None = None
    max_connections: int | None = None
    ssl: SslInput | None = None
    retry: RetryInput | None = None
    rate_limit: object = None
    headers: object = None


@final
class RefreshInput(_Input, frozen=True, kw_only=True):
    """``McpTokenRefreshConfigInput``."""

    auto_refresh: bool | None = None
    refresh_threshold_seconds: int | None = None
    max_refresh_attempts: int | None = None
    refresh_retry_delay_seconds: int | None = None


@final
class OAuthInput(_Input, frozen=True, kw_only=True):
    """``McpOAuthConfigInput``."""

    provider_id: str
    client_id: str
    client_secret: str
    scopes: tuple[str, ...]
    redirect_uri: str
    additional_params: object = None
    refresh_config: RefreshInput | None = None


@final
class JwtInput(_Input, frozen=True, kw_only=True):
    """``McpJwtConfigInput``."""

    issuer: str
    audience: str | None = None
    public_key: str
    private_key: str | None = None
    algorithm: str | None = None
    expiration_seconds: int | None = None
    custom_claims: object = None


@final
class AuthInput(_Input, frozen=True, kw_only=True):
    """``McpAuthConfigInput``."""

    oauth: OAuthInput | None = None
    jwt: JwtInput | None = None


@final
class CreateServer(_Input, frozen=True, kw_only=True):
    """``CreateMcpServerInput``."""

    name: str
    description: str | None = None
    type: str
    tenant_id: str
    config: ConfigInput
    auth: AuthInput | None = None
    metadata: object = None
    tags: tuple[str, ...] | None = None
    enabled: bool | None = None


@final
class UpdateServer(_Input, frozen=True, kw_only=True):
    """``UpdateMcpServerInput``."""

    name: str | None = None
    description: str | None = None
    config: ConfigInput | None = None
    auth: AuthInput | None = None
    metadata: object = None
    tags: tuple[str, ...] | None = None
    enabled: bool | None = None


@final
class ConfigureOAuth(_Input, frozen=True, kw_only=True):
    """``ConfigureMcpOAuthInput``."""

    server_id: str
    config: OAuthInput


@final
class ConfigureJwt(_Input, frozen=True, kw_only=True):
    """``ConfigureMcpJwtInput``."""

    server_id: str
    config: JwtInput


@final
class InitiateOAuth(_Input, frozen=True, kw_only=True):
    """``InitiateMcpOAuthInput``."""

    server_id: str
    user_id: str
    redirect_uri: str | None = None
    additional_params: object = None


@final
class CompleteOAuth(_Input, frozen=True, kw_only=True):
    """``CompleteMcpOAuthInput``."""

    server_id: str
    user_id: str
    code: str
    state: str
    code_verifier: str | None = None


@final
class AuthenticateJwt(_Input, frozen=True, kw_only=True):
    """``AuthenticateMcpJwtInput``."""

    server_id: str
    user_id: str
    token: str
    metadata: object = None


@final
class RegisterCapabilities(_Input, frozen=True, kw_only=True):
    """``RegisterMcpCapabilitiesInput``."""

    server_id: str
    tools: tuple[Tool, ...]
    resources: tuple[Resource, ...]
    prompts: tuple[Prompt, ...]
    features: Features
    protocol_version: str
