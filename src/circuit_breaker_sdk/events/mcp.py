# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""Types of MCP servers and sessions: results, events and inputs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from circuit_breaker_sdk.events.api import AuditInfo, PageInfo
from circuit_breaker_sdk.events.base import JSON, Event, Input, JSONInput, OpenEnum

__all__ = [
    "MCPAuthConfig",
    "MCPAuthConfigInput",
    "MCPAuthMethod",
    "MCPConnectionTest",
    "MCPConnectionTestDetails",
    "MCPHealthDetails",
    "MCPHealthStatus",
    "MCPJwtConfig",
    "MCPJwtConfigInput",
    "MCPOAuthConfig",
    "MCPOAuthConfigInput",
    "MCPOAuthInitiation",
    "MCPOAuthProvider",
    "MCPOAuthProviderType",
    "MCPPrompt",
    "MCPPromptInput",
    "MCPPromptParameter",
    "MCPPromptParameterInput",
    "MCPRateLimitConfig",
    "MCPRateLimitConfigInput",
    "MCPResource",
    "MCPResourceInput",
    "MCPRetryConfig",
    "MCPRetryConfigInput",
    "MCPServer",
    "MCPServerCapabilities",
    "MCPServerConfig",
    "MCPServerConfigInput",
    "MCPServerConnection",
    "MCPServerEdge",
    "MCPServerFeatures",
    "MCPServerFeaturesInput",
    "MCPServerHealth",
    "MCPServerStatus",
    "MCPServerStatusUpdate",
    "MCPServerType",
    "MCPSession",
    "MCPSessionConnection",
    "MCPSessionEdge",
    "MCPSessionEvent",
    "MCPSessionEventType",
    "MCPSessionStatus",
    "MCPSslConfig",
    "MCPSslConfigInput",
    "MCPTokenRefreshConfig",
    "MCPTokenRefreshConfigInput",
    "MCPTool",
    "MCPToolInput",
]

_NULL = msgspec.Raw(b"null")


class MCPServerType(OpenEnum):
    """Type of an MCP server: where it runs (``McpServerType``)."""

    LOCAL = "LOCAL"
    """On this machine: its endpoint has a loopback address."""
    REMOTE = "REMOTE"


class MCPServerStatus(OpenEnum):
    """Whether an MCP server can be used (``McpServerStatus``)."""

    ONLINE = "ONLINE"
    """The last check succeeded."""
    OFFLINE = "OFFLINE"
    """Disabled, or deleted."""
    STARTING = "STARTING"
    """Enabled, and not checked since."""
    STOPPING = "STOPPING"
    """Being disabled."""
    ERROR = "ERROR"
    """The last check failed."""
    UNKNOWN = "UNKNOWN"
    """Never enabled."""


class MCPHealthStatus(OpenEnum):
    """Finding of a check (``McpHealthStatus``)."""

    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    UNKNOWN = "UNKNOWN"
    """The check did not come so far, or there was none."""


class MCPOAuthProviderType(OpenEnum):
    """Provider of the OAuth endpoints (``McpOAuthProviderType``)."""

    GITLAB = "GITLAB"
    GITHUB = "GITHUB"
    GOOGLE = "GOOGLE"
    MICROSOFT = "MICROSOFT"
    CUSTOM = "CUSTOM"
    """Of the server's settings."""


class MCPSessionStatus(OpenEnum):
    """Whether a session can be used (``McpSessionStatus``)."""

    ACTIVE = "ACTIVE"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    PENDING = "PENDING"
    """Not used by this server: a sign-in that is not complete is no session."""


class MCPAuthMethod(OpenEnum):
    """Method by which a user signed in (``McpAuthMethod``)."""

    OAUTH = "OAUTH"
    JWT = "JWT"
    NONE = "NONE"
    """Not used by this server."""


class MCPSessionEventType(OpenEnum):
    """Kind of an event of a session (``McpSessionEventType``)."""

    CREATED = "CREATED"
    REFRESHED = "REFRESHED"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    ERROR = "ERROR"
    """A refresh failed; ``data`` has the ``error``."""


class MCPSslConfig(Event, frozen=True, kw_only=True):
    """TLS settings of an https endpoint (``McpSslConfig``).

    :ivar ca_cert: PEM.
    :ivar client_cert: PEM.
    :ivar client_key: Always null: it is kept secret.
    """

    verify: bool
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None


class MCPRetryConfig(Event, frozen=True, kw_only=True):
    """A wait before each try but the first: the initial delay, times the multiplier each time, up to the
    maximum (``McpRetryConfig``).

    :ivar jitter_factor: Each wait is made longer or shorter by up to this fraction.
    """

    max_attempts: int
    initial_delay_ms: int
    max_delay_ms: int
    backoff_multiplier: float
    jitter_factor: float


class MCPRateLimitConfig(Event, frozen=True, kw_only=True):
    """Not used by this server (``McpRateLimitConfig``)."""

    requests_per_second: int
    burst_size: int
    window_seconds: int


class MCPServerConfig(Event, frozen=True, kw_only=True):
    """Address and connection settings of an MCP server (``McpServerConfig``).

    :ivar timeout_seconds: A check is over within this time, whatever happens.
    :ivar max_connections: Open at once during a check.
    :ivar retry: Number of attempts of a check, and the waits between them.
    :ivar rate_limit: Always null: see ``McpServerConfigInput``.
    :ivar headers: The names of the headers that requests carry; their values are kept secret and shown as
        (hidden).
    """

    timeout_seconds: int
    max_connections: int
    retry: MCPRetryConfig
    endpoint: str | None = None
    ssl: MCPSslConfig | None = None
    rate_limit: MCPRateLimitConfig | None = None
    _headers: msgspec.Raw = msgspec.field(name="headers", default=_NULL)

    @property
    def headers(self) -> JSON:
        """The names of the headers that requests carry; their values are kept secret and shown as
        (hidden).
        """
        return self._json("_headers")


class MCPOAuthProvider(Event, frozen=True, kw_only=True):
    """A provider at which users sign in (``McpOAuthProvider``).

    :ivar config: Always null.
    :ivar enabled: Always true.
    """

    id: str
    name: str
    type: MCPOAuthProviderType
    authorization_endpoint: str
    token_endpoint: str
    enabled: bool
    user_info_endpoint: str | None = None
    revocation_endpoint: str | None = None
    supported_scopes: tuple[str, ...] = ()
    _config: msgspec.Raw = msgspec.field(name="config", default=_NULL)

    @property
    def config(self) -> JSON:
        """Always null."""
        return self._json("_config")


class MCPTokenRefreshConfig(Event, frozen=True, kw_only=True):
    """When the tokens of an OAuth session are renewed (``McpTokenRefreshConfig``).

    :ivar auto_refresh: Renew without being asked.
    :ivar refresh_threshold_seconds: Time before the token's expiry.
    :ivar max_refresh_attempts: Attempts at each refresh.
    :ivar refresh_retry_delay_seconds: Between two tries.
    """

    auto_refresh: bool
    refresh_threshold_seconds: int
    max_refresh_attempts: int
    refresh_retry_delay_seconds: int


class MCPOAuthConfig(Event, frozen=True, kw_only=True, tag_field="__typename", tag="McpOAuthConfig"):
    """Sign-in at an OAuth provider.

    The client's secret is not shown (``McpOAuthConfig``).

    :ivar additional_params: Further parameters of the authorization URL.
    :ivar metadata: Always null.
    """

    provider: MCPOAuthProvider
    client_id: str
    redirect_uri: str
    refresh_config: MCPTokenRefreshConfig
    scopes: tuple[str, ...] = ()
    _additional_params: msgspec.Raw = msgspec.field(name="additionalParams", default=_NULL)
    _metadata: msgspec.Raw = msgspec.field(name="metadata", default=_NULL)

    @property
    def additional_params(self) -> JSON:
        """Further parameters of the authorization URL."""
        return self._json("_additional_params")

    @property
    def metadata(self) -> JSON:
        """Always null."""
        return self._json("_metadata")


class MCPJwtConfig(Event, frozen=True, kw_only=True, tag_field="__typename", tag="McpJwtConfig"):
    """Sign-in with a token that someone else has signed (``McpJwtConfig``).

    :ivar issuer: The required ``iss``.
    :ivar audience: The value that ``aud`` must be or hold; null: a token must have none.
    :ivar public_key: PEM, or a JWK as JSON.
    :ivar algorithm: The only one that is accepted.
    :ivar expiration_seconds: Maximum lifetime of a session, and lifetime of the tokens that the checks
        present.
    :ivar custom_claims: Claims that a token must hold.
    :ivar metadata: Always null.
    """

    issuer: str
    public_key: str
    algorithm: str
    expiration_seconds: int
    audience: str | None = None
    _custom_claims: msgspec.Raw = msgspec.field(name="customClaims", default=_NULL)
    _metadata: msgspec.Raw = msgspec.field(name="metadata", default=_NULL)

    @property
    def custom_claims(self) -> JSON:
        """Claims that a token must hold."""
        return self._json("_custom_claims")

    @property
    def metadata(self) -> JSON:
        """Always null."""
        return self._json("_metadata")


MCPAuthConfig: TypeAlias = MCPOAuthConfig | MCPJwtConfig
"""Authentication of the users of an MCP server."""


class MCPTool(Event, frozen=True, kw_only=True):
    """A tool: it can be called (``McpTool``).

    :ivar description: Empty where the MCP server gives none.
    :ivar deprecated: Always false: the protocol does not say.
    """

    name: str
    description: str
    deprecated: bool
    _input_schema: msgspec.Raw = msgspec.field(name="inputSchema", default=_NULL)
    category: str | None = None
    _metadata: msgspec.Raw = msgspec.field(name="metadata", default=_NULL)

    @property
    def input_schema(self) -> JSON:
        """The ``inputSchema``, decoded on first access."""
        return self._json("_input_schema")

    @property
    def metadata(self) -> JSON:
        """The ``metadata``, decoded on first access."""
        return self._json("_metadata")


class MCPResource(Event, frozen=True, kw_only=True):
    """A resource: it can be read (``McpResource``).

    :ivar type: resource, or what was registered.
    """

    uri: str
    name: str
    type: str
    description: str | None = None
    mime_type: str | None = None
    _metadata: msgspec.Raw = msgspec.field(name="metadata", default=_NULL)

    @property
    def metadata(self) -> JSON:
        """The ``metadata``, decoded on first access."""
        return self._json("_metadata")


class MCPPromptParameter(Event, frozen=True, kw_only=True):
    """A blank in a prompt (``McpPromptParameter``).

    :ivar type: string, or what was registered.
    """

    name: str
    type: str
    required: bool
    description: str | None = None
    _default_value: msgspec.Raw = msgspec.field(name="defaultValue", default=_NULL)
    _constraints: msgspec.Raw = msgspec.field(name="constraints", default=_NULL)

    @property
    def default_value(self) -> JSON:
        """The ``defaultValue``, decoded on first access."""
        return self._json("_default_value")

    @property
    def constraints(self) -> JSON:
        """The ``constraints``, decoded on first access."""
        return self._json("_constraints")


class MCPPrompt(Event, frozen=True, kw_only=True):
    """A prompt: it can be filled in (``McpPrompt``).

    :ivar description: Empty where the MCP server gives none.
    :ivar template: Empty of a listed prompt: the MCP server fills it in itself.
    """

    name: str
    description: str
    template: str
    parameters: tuple[MCPPromptParameter, ...] = ()
    category: str | None = None
    _metadata: msgspec.Raw = msgspec.field(name="metadata", default=_NULL)

    @property
    def metadata(self) -> JSON:
        """The ``metadata``, decoded on first access."""
        return self._json("_metadata")


class MCPServerFeatures(Event, frozen=True, kw_only=True):
    """Protocol features of an MCP server; as registered, else as found by the check
    (``McpServerFeatures``).

    :ivar file_operations: It has resources.
    :ivar notifications: It tells of changes.
    """

    streaming: bool
    file_operations: bool
    notifications: bool
    batch_operations: bool
    max_request_size: int | None = None
    content_types: tuple[str, ...] = ()


class MCPServerCapabilities(Event, frozen=True, kw_only=True):
    """Capabilities of an MCP server (``McpServerCapabilities``).

    :ivar last_updated: When it last changed.
    """

    server_id: str
    features: MCPServerFeatures
    protocol_version: str
    last_updated: datetime
    tools: tuple[MCPTool, ...] = ()
    resources: tuple[MCPResource, ...] = ()
    prompts: tuple[MCPPrompt, ...] = ()


class MCPHealthDetails(Event, frozen=True, kw_only=True):
    """Result of each part of the last check (``McpHealthDetails``)."""

    connection: MCPHealthStatus
    authentication: MCPHealthStatus
    capabilities: MCPHealthStatus
    resources: MCPHealthStatus
    tools: MCPHealthStatus


class MCPServerHealth(Event, frozen=True, kw_only=True):
    """Result of the last check (``McpServerHealth``).

    :ivar last_check_at: When the MCP server was made, if it was never checked.
    :ivar response_time_ms: From the first byte to the last answer.
    :ivar uptime_seconds: Since it was last found ONLINE after not being so; null where it is not.
    """

    status: MCPHealthStatus
    last_check_at: datetime
    details: MCPHealthDetails
    response_time_ms: int | None = None
    uptime_seconds: int | None = None
    error: str | None = None


class MCPServer(Event, frozen=True, kw_only=True):
    """A server that speaks the Model Context Protocol over streamable HTTP (``McpServer``).

    :ivar auth: The authentication of its users; null where they cannot sign in.
    :ivar capabilities: Null in events of sessions: ask the server for them.
    :ivar health: Null before the first check, and in events of sessions.
    :ivar active_sessions_count: Sessions that are ACTIVE; in events of sessions after the event.
    """

    id: str
    name: str
    type: MCPServerType
    status: MCPServerStatus
    tenant_id: str
    config: MCPServerConfig
    active_sessions_count: int
    enabled: bool
    audit: AuditInfo
    description: str | None = None
    auth: MCPAuthConfig | None = None
    capabilities: MCPServerCapabilities | None = None
    health: MCPServerHealth | None = None
    _metadata: msgspec.Raw = msgspec.field(name="metadata", default=_NULL)
    tags: tuple[str, ...] = ()

    @property
    def metadata(self) -> JSON:
        """The ``metadata``, decoded on first access."""
        return self._json("_metadata")


class MCPSession(Event, frozen=True, kw_only=True):
    """A user's sign-in to an MCP server (``McpSession``).

    :ivar access_token: Always null: it is kept secret.
    :ivar token_expires_at: When the token that the session rests on expires; null if the provider does not
        say.
    :ivar refresh_token: Always null: it is kept secret.
    :ivar metadata: Of a JWT sign-in what was given with it; of an OAuth sign-in the ``scope`` that was
        granted.
    :ivar last_activity_at: When it was made or last refreshed.
    :ivar request_count: The number of refreshes.
    :ivar user_agent: Always null.
    :ivar ip_address: Always null.
    """

    id: str
    server: MCPServer
    user_id: str
    status: MCPSessionStatus
    auth_method: MCPAuthMethod
    created_at: datetime
    last_activity_at: datetime
    expires_at: datetime
    request_count: int
    access_token: str | None = None
    token_expires_at: datetime | None = None
    refresh_token: str | None = None
    _metadata: msgspec.Raw = msgspec.field(name="metadata", default=_NULL)
    user_agent: str | None = None
    ip_address: str | None = None

    @property
    def metadata(self) -> JSON:
        """Of a JWT sign-in what was given with it; of an OAuth sign-in the ``scope`` that was granted."""
        return self._json("_metadata")


class MCPOAuthInitiation(Event, frozen=True, kw_only=True):
    """A sign-in that has begun (``McpOAuthInitiation``).

    :ivar authorization_url: The URL to send the user to.
    :ivar state: Comes back with the code.
    :ivar code_verifier: Always null: it stays on the server.
    """

    authorization_url: str
    state: str
    provider: MCPOAuthProvider
    expires_at: datetime
    code_verifier: str | None = None


class MCPConnectionTestDetails(Event, frozen=True, kw_only=True):
    """Result of each part of the check; null where it did not come so far, or does not apply
    (``McpConnectionTestDetails``).

    :ivar ssl_handshake: Null of an http endpoint.
    :ivar http_status: Of the last answer.
    """

    dns_resolution: bool
    tcp_connection: bool
    ssl_handshake: bool | None = None
    http_status: int | None = None
    authentication: bool | None = None
    capabilities: bool | None = None


class MCPConnectionTest(Event, frozen=True, kw_only=True):
    """Result of a check on request (``McpConnectionTest``)."""

    success: bool
    details: MCPConnectionTestDetails
    tested_at: datetime
    response_time_ms: int | None = None
    error: str | None = None


class MCPServerEdge(Event, frozen=True, kw_only=True):
    """An MCP server on a page (``McpServerEdge``)."""

    node: MCPServer
    cursor: str


class MCPServerConnection(Event, frozen=True, kw_only=True):
    """A page of MCP servers (``McpServerConnection``)."""

    page_info: PageInfo
    total_count: int
    edges: tuple[MCPServerEdge, ...] = ()


class MCPSessionEdge(Event, frozen=True, kw_only=True):
    """A session on a page (``McpSessionEdge``)."""

    node: MCPSession
    cursor: str


class MCPSessionConnection(Event, frozen=True, kw_only=True):
    """A page of sessions (``McpSessionConnection``)."""

    page_info: PageInfo
    total_count: int
    edges: tuple[MCPSessionEdge, ...] = ()


class MCPServerStatusUpdate(Event, frozen=True, kw_only=True):
    """A change of status (``McpServerStatusEvent``)."""

    server_id: str
    old_status: MCPServerStatus
    new_status: MCPServerStatus
    timestamp: datetime
    _data: msgspec.Raw = msgspec.field(name="data", default=_NULL)

    @property
    def data(self) -> JSON:
        """The ``data``, decoded on first access."""
        return self._json("_data")


class MCPSessionEvent(Event, frozen=True, kw_only=True):
    """An event of a session, and the session after it (``McpSessionEvent``).

    Example::

        async for event in client.mcp.subscribe_session_events(user_id="ada"):
            print(event.type, event.session.status)
    """

    session_id: str
    type: MCPSessionEventType
    session: MCPSession
    timestamp: datetime
    _data: msgspec.Raw = msgspec.field(name="data", default=_NULL)

    @property
    def data(self) -> JSON:
        """The ``data``, decoded on first access."""
        return self._json("_data")

    @property
    def user_id(self) -> str:
        """The user of the session."""
        return self.session.user_id


class MCPSslConfigInput(Input, frozen=True, kw_only=True):
    """An input (``McpSslConfigInput``).

    :ivar ca_cert: PEM; trusted instead of the system's authorities.
    :ivar client_cert: PEM; together with ``clientKey``.
    :ivar client_key: PEM, not encrypted.
    """

    verify: bool | UnsetType | None = UNSET
    ca_cert: str | UnsetType | None = UNSET
    client_cert: str | UnsetType | None = UNSET
    client_key: str | UnsetType | None = UNSET


class MCPRetryConfigInput(Input, frozen=True, kw_only=True):
    """Waits of 0 to 60 s; 1 to 10 attempts; a multiplier of 1 to 10; a jitter of 0 to 1
    (``McpRetryConfigInput``).
    """

    max_attempts: int | UnsetType | None = UNSET
    initial_delay_ms: int | UnsetType | None = UNSET
    max_delay_ms: int | UnsetType | None = UNSET
    backoff_multiplier: float | UnsetType | None = UNSET
    jitter_factor: float | UnsetType | None = UNSET


class MCPRateLimitConfigInput(Input, frozen=True, kw_only=True):
    """Refused, see ``McpServerConfigInput`` (``McpRateLimitConfigInput``)."""

    requests_per_second: int | UnsetType | None = UNSET
    burst_size: int | UnsetType | None = UNSET
    window_seconds: int | UnsetType | None = UNSET


class MCPServerConfigInput(Input, frozen=True, kw_only=True):
    """An input (``McpServerConfigInput``).

    :ivar endpoint: Needed: an http or https URL that speaks MCP over streamable HTTP. No programs are
        started.
    :ivar timeout_seconds: 1 to the longest that the server allows, 30 by default; a check of all tries takes
        no longer.
    :ivar max_connections: 2 to 100: one for what the MCP server sends of its own accord, one for answers.
    :ivar ssl: Of https endpoints only.
    :ivar rate_limit: Refused: this server sends nothing but its checks, whose pace is its own setting.
    :ivar headers: An object of texts, sent with each request of a check. The values are kept secret.
    """

    endpoint: str | UnsetType | None = UNSET
    timeout_seconds: int | UnsetType | None = UNSET
    max_connections: int | UnsetType | None = UNSET
    ssl: MCPSslConfigInput | UnsetType | None = UNSET
    retry: MCPRetryConfigInput | UnsetType | None = UNSET
    rate_limit: MCPRateLimitConfigInput | UnsetType | None = UNSET
    headers: JSONInput | UnsetType = UNSET


class MCPTokenRefreshConfigInput(Input, frozen=True, kw_only=True):
    """A threshold of 0 to 86 400 s; 1 to 10 attempts; delays of 0 to 300 s
    (``McpTokenRefreshConfigInput``).
    """

    auto_refresh: bool | UnsetType | None = UNSET
    refresh_threshold_seconds: int | UnsetType | None = UNSET
    max_refresh_attempts: int | UnsetType | None = UNSET
    refresh_retry_delay_seconds: int | UnsetType | None = UNSET


class MCPOAuthConfigInput(Input, frozen=True, kw_only=True):
    """An input (``McpOAuthConfigInput``).

    :ivar provider_id: One of ``mcpOAuthProviders``.
    :ivar client_secret: Kept secret.
    :ivar redirect_uri: The URL that the provider sends the user back to.
    :ivar additional_params: An object of texts: further parameters of the authorization URL.
    """

    provider_id: str
    client_id: str
    client_secret: str
    scopes: Sequence[str]
    redirect_uri: str
    additional_params: JSONInput | UnsetType = UNSET
    refresh_config: MCPTokenRefreshConfigInput | UnsetType | None = UNSET


class MCPJwtConfigInput(Input, frozen=True, kw_only=True):
    """An input (``McpJwtConfigInput``).

    :ivar public_key: PEM, or a JWK as JSON.
    :ivar private_key: The other half of the public key; with it, checks present a token that they sign. Kept
        secret.
    :ivar algorithm: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or ES512.
    :ivar expiration_seconds: 1 to 31 536 000.
    :ivar custom_claims: An object: what a token must hold besides.
    """

    issuer: str
    public_key: str
    audience: str | UnsetType | None = UNSET
    private_key: str | UnsetType | None = UNSET
    algorithm: str | UnsetType | None = UNSET
    expiration_seconds: int | UnsetType | None = UNSET
    custom_claims: JSONInput | UnsetType = UNSET


class MCPAuthConfigInput(Input, frozen=True, kw_only=True):
    """Exactly one of the two (``McpAuthConfigInput``)."""

    oauth: MCPOAuthConfigInput | UnsetType | None = UNSET
    jwt: MCPJwtConfigInput | UnsetType | None = UNSET


class MCPToolInput(Input, frozen=True, kw_only=True):
    """See ``McpTool`` (``McpToolInput``)."""

    name: str
    description: str
    input_schema: JSONInput
    category: str | UnsetType | None = UNSET
    metadata: JSONInput | UnsetType = UNSET


class MCPResourceInput(Input, frozen=True, kw_only=True):
    """See ``McpResource`` (``McpResourceInput``)."""

    uri: str
    name: str
    type: str
    description: str | UnsetType | None = UNSET
    mime_type: str | UnsetType | None = UNSET
    metadata: JSONInput | UnsetType = UNSET


class MCPPromptParameterInput(Input, frozen=True, kw_only=True):
    """See ``McpPromptParameter`` (``McpPromptParameterInput``)."""

    name: str
    type: str
    required: bool
    description: str | UnsetType | None = UNSET
    default_value: JSONInput | UnsetType = UNSET
    constraints: JSONInput | UnsetType = UNSET


class MCPPromptInput(Input, frozen=True, kw_only=True):
    """See ``McpPrompt`` (``McpPromptInput``)."""

    name: str
    description: str
    template: str
    parameters: Sequence[MCPPromptParameterInput]
    category: str | UnsetType | None = UNSET
    metadata: JSONInput | UnsetType = UNSET


class MCPServerFeaturesInput(Input, frozen=True, kw_only=True):
    """See ``McpServerFeatures`` (``McpServerFeaturesInput``)."""

    streaming: bool
    file_operations: bool
    notifications: bool
    batch_operations: bool
    content_types: Sequence[str]
    max_request_size: int | UnsetType | None = UNSET
