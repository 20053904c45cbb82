# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""The domain of MCP servers and sessions: ``client.mcp``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from msgspec import UNSET, UnsetType

from circuit_breaker_sdk.domains import mcp_streams
from circuit_breaker_sdk.domains.execution import Executor
from circuit_breaker_sdk.domains.mcp_streams import (
    MCPCapabilitySubscriptionBuilder,
    MCPServerStatusSubscriptionBuilder,
    MCPSessionEventSubscriptionBuilder,
)
from circuit_breaker_sdk.events.api import ApiResponse, PaginationInput
from circuit_breaker_sdk.events.base import JSONInput
from circuit_breaker_sdk.events.mcp import (
    MCPAuthConfigInput,
    MCPConnectionTest,
    MCPJwtConfig,
    MCPJwtConfigInput,
    MCPOAuthConfig,
    MCPOAuthConfigInput,
    MCPOAuthInitiation,
    MCPOAuthProvider,
    MCPPromptInput,
    MCPResourceInput,
    MCPServer,
    MCPServerCapabilities,
    MCPServerConfigInput,
    MCPServerConnection,
    MCPServerFeaturesInput,
    MCPServerHealth,
    MCPServerStatus,
    MCPServerType,
    MCPSession,
    MCPSessionConnection,
    MCPToolInput,
)
from circuit_breaker_sdk.subscriptions import SubscriptionManager

__all__ = ["MCPClient"]

_MCP_SERVERS = """
query McpServers($type: McpServerType, $status: McpServerStatus, $pagination: PaginationInput) {
mcpServers(type: $type, status: $status, pagination: $pagination) { edges { node { id name description
type status tenantId config { endpoint timeoutSeconds maxConnections ssl { verify caCert clientCert
clientKey } retry { maxAttempts initialDelayMs maxDelayMs backoffMultiplier jitterFactor } rateLimit {
requestsPerSecond burstSize windowSeconds } headers } activeSessionsCount metadata tags enabled audit {
createdBy createdAt updatedBy updatedAt version } } cursor } pageInfo { hasNextPage hasPreviousPage
startCursor endCursor totalCount } totalCount } }
"""

_MCP_SERVER = """
query McpServer($id: ID!) { mcpServer(id: $id) { id name description type status tenantId config {
endpoint timeoutSeconds maxConnections ssl { verify caCert clientCert clientKey } retry { maxAttempts
initialDelayMs maxDelayMs backoffMultiplier jitterFactor } rateLimit { requestsPerSecond burstSize
windowSeconds } headers } auth { __typename ... on McpOAuthConfig { provider { id name type
authorizationEndpoint tokenEndpoint userInfoEndpoint revocationEndpoint supportedScopes config enabled }
clientId scopes redirectUri additionalParams refreshConfig { autoRefresh refreshThresholdSeconds
maxRefreshAttempts refreshRetryDelaySeconds } metadata } ... on McpJwtConfig { issuer audience publicKey
algorithm expirationSeconds customClaims metadata } } capabilities { serverId tools { name description
inputSchema category deprecated metadata } resources { uri name description type mimeType metadata }
prompts { name description template parameters { name description type required defaultValue constraints
} category metadata } features { streaming fileOperations notifications batchOperations maxRequestSize
contentTypes } protocolVersion lastUpdated } health { status lastCheckAt responseTimeMs details {
connection authentication capabilities resources tools } uptimeSeconds error } activeSessionsCount
metadata tags enabled audit { createdBy createdAt updatedBy updatedAt version } } }
"""

_MCP_SERVERS_BY_TENANT = """
query McpServersByTenant($tenantId: String!, $pagination: PaginationInput) {
mcpServersByTenant(tenantId: $tenantId, pagination: $pagination) { edges { node { id name description
type status tenantId config { endpoint timeoutSeconds maxConnections ssl { verify caCert clientCert
clientKey } retry { maxAttempts initialDelayMs maxDelayMs backoffMultiplier jitterFactor } rateLimit {
requestsPerSecond burstSize windowSeconds } headers } activeSessionsCount metadata tags enabled audit {
createdBy createdAt updatedBy updatedAt version } } cursor } pageInfo { hasNextPage hasPreviousPage
startCursor endCursor totalCount } totalCount } }
"""

_MCP_OAUTH_PROVIDERS = """
query McpOAuthProviders { mcpOAuthProviders { id name type authorizationEndpoint tokenEndpoint
userInfoEndpoint revocationEndpoint supportedScopes config enabled } }
"""

_MCP_SERVER_CAPABILITIES = """
query McpServerCapabilities($serverId: ID!) { mcpServerCapabilities(serverId: $serverId) { serverId
tools { name description inputSchema category deprecated metadata } resources { uri name description
type mimeType metadata } prompts { name description template parameters { name description type required
defaultValue constraints } category metadata } features { streaming fileOperations notifications
batchOperations maxRequestSize contentTypes } protocolVersion lastUpdated } }
"""

_MCP_SERVER_HEALTH = """
query McpServerHealth($serverId: ID!) { mcpServerHealth(serverId: $serverId) { status lastCheckAt
responseTimeMs details { connection authentication capabilities resources tools } uptimeSeconds error }
}
"""

_MCP_SESSIONS = """
query McpSessions($userId: String, $serverId: ID, $pagination: PaginationInput) { mcpSessions(userId:
$userId, serverId: $serverId, pagination: $pagination) { edges { node { id server { id name description
type status tenantId config { endpoint timeoutSeconds maxConnections ssl { verify caCert clientCert
clientKey } retry { maxAttempts initialDelayMs maxDelayMs backoffMultiplier jitterFactor } rateLimit {
requestsPerSecond burstSize windowSeconds } headers } activeSessionsCount metadata tags enabled audit {
createdBy createdAt updatedBy updatedAt version } } userId status authMethod accessToken tokenExpiresAt
refreshToken metadata createdAt lastActivityAt expiresAt requestCount userAgent ipAddress } cursor }
pageInfo { hasNextPage hasPreviousPage startCursor endCursor totalCount } totalCount } }
"""

_CREATE_MCP_SERVER = """
mutation CreateMcpServer($input: CreateMcpServerInput!) { createMcpServer(input: $input) { id name
description type status tenantId config { endpoint timeoutSeconds maxConnections ssl { verify caCert
clientCert clientKey } retry { maxAttempts initialDelayMs maxDelayMs backoffMultiplier jitterFactor }
rateLimit { requestsPerSecond burstSize windowSeconds } headers } auth { __typename ... on
McpOAuthConfig { provider { id name type authorizationEndpoint tokenEndpoint userInfoEndpoint
revocationEndpoint supportedScopes config enabled } clientId scopes redirectUri additionalParams
refreshConfig { autoRefresh refreshThresholdSeconds maxRefreshAttempts refreshRetryDelaySeconds }
metadata } ... on McpJwtConfig { issuer audience publicKey algorithm expirationSeconds customClaims
metadata } } capabilities { serverId tools { name description inputSchema category deprecated metadata }
resources { uri name description type mimeType metadata } prompts { name description template parameters
{ name description type required defaultValue constraints } category metadata } features { streaming
fileOperations notifications batchOperations maxRequestSize contentTypes } protocolVersion lastUpdated }
health { status lastCheckAt responseTimeMs details { connection authentication capabilities resources
tools } uptimeSeconds error } activeSessionsCount metadata tags enabled audit { createdBy createdAt
updatedBy updatedAt version } } }
"""

_UPDATE_MCP_SERVER = """
mutation UpdateMcpServer($id: ID!, $input: UpdateMcpServerInput!) { updateMcpServer(id: $id, input:
$input) { id name description type status tenantId config { endpoint timeoutSeconds maxConnections ssl {
verify caCert clientCert clientKey } retry { maxAttempts initialDelayMs maxDelayMs backoffMultiplier
jitterFactor } rateLimit { requestsPerSecond burstSize windowSeconds } headers } auth { __typename ...
on McpOAuthConfig { provider { id name type authorizationEndpoint tokenEndpoint userInfoEndpoint
revocationEndpoint supportedScopes config enabled } clientId scopes redirectUri additionalParams
refreshConfig { autoRefresh refreshThresholdSeconds maxRefreshAttempts refreshRetryDelaySeconds }
metadata } ... on McpJwtConfig { issuer audience publicKey algorithm expirationSeconds customClaims
metadata } } capabilities { serverId tools { name description inputSchema category deprecated metadata }
resources { uri name description type mimeType metadata } prompts { name description template parameters
{ name description type required defaultValue constraints } category metadata } features { streaming
fileOperations notifications batchOperations maxRequestSize contentTypes } protocolVersion lastUpdated }
health { status lastCheckAt responseTimeMs details { connection authentication capabilities resources
tools } uptimeSeconds error } activeSessionsCount metadata tags enabled audit { createdBy createdAt
updatedBy updatedAt version } } }
"""

_DELETE_MCP_SERVER = """
mutation DeleteMcpServer($id: ID!) { deleteMcpServer(id: $id) { success message errorCode data } }
"""

_CONFIGURE_MCP_OAUTH = """
mutation ConfigureMcpOAuth($input: ConfigureMcpOAuthInput!) { configureMcpOAuth(input: $input) {
provider { id name type authorizationEndpoint tokenEndpoint userInfoEndpoint revocationEndpoint
supportedScopes config enabled } clientId scopes redirectUri additionalParams refreshConfig {
autoRefresh refreshThresholdSeconds maxRefreshAttempts refreshRetryDelaySeconds } metadata } }
"""

_CONFIGURE_MCP_JWT = """
mutation ConfigureMcpJwt($input: ConfigureMcpJwtInput!) { configureMcpJwt(input: $input) { issuer
audience publicKey algorithm expirationSeconds customClaims metadata } }
"""

_INITIATE_MCP_OAUTH = """
mutation InitiateMcpOAuth($input: InitiateMcpOAuthInput!) { initiateMcpOAuth(input: $input) {
authorizationUrl state codeVerifier provider { id name type authorizationEndpoint tokenEndpoint
userInfoEndpoint revocationEndpoint supportedScopes config enabled } expiresAt } }
"""

_COMPLETE_MCP_OAUTH = """
mutation CompleteMcpOAuth($input: CompleteMcpOAuthInput!) { completeMcpOAuth(input: $input) { id server
{ id name description type status tenantId config { endpoint timeoutSeconds maxConnections ssl { verify
caCert clientCert clientKey } retry { maxAttempts initialDelayMs maxDelayMs backoffMultiplier
jitterFactor } rateLimit { requestsPerSecond burstSize windowSeconds } headers } activeSessionsCount
metadata tags enabled audit { createdBy createdAt updatedBy updatedAt version } } userId status
authMethod accessToken tokenExpiresAt refreshToken metadata createdAt lastActivityAt expiresAt
requestCount userAgent ipAddress } }
"""

_AUTHENTICATE_MCP_JWT = """
mutation AuthenticateMcpJwt($input: AuthenticateMcpJwtInput!) { authenticateMcpJwt(input: $input) { id
server { id name description type status tenantId config { endpoint timeoutSeconds maxConnections ssl {
verify caCert clientCert clientKey } retry { maxAttempts initialDelayMs maxDelayMs backoffMultiplier
jitterFactor } rateLimit { requestsPerSecond burstSize windowSeconds } headers } activeSessionsCount
metadata tags enabled audit { createdBy createdAt updatedBy updatedAt version } } userId status
authMethod accessToken tokenExpiresAt refreshToken metadata createdAt lastActivityAt expiresAt
requestCount userAgent ipAddress } }
"""

_REFRESH_MCP_SESSION = """
mutation RefreshMcpSession($sessionId: ID!) { refreshMcpSession(sessionId: $sessionId) { id server { id
name description type status tenantId config { endpoint timeoutSeconds maxConnections ssl { verify
caCert clientCert clientKey } retry { maxAttempts initialDelayMs maxDelayMs backoffMultiplier
jitterFactor } rateLimit { requestsPerSecond burstSize windowSeconds } headers } activeSessionsCount
metadata tags enabled audit { createdBy createdAt updatedBy updatedAt version } } userId status
authMethod accessToken tokenExpiresAt refreshToken metadata createdAt lastActivityAt expiresAt
requestCount userAgent ipAddress } }
"""

_REVOKE_MCP_SESSION = """
mutation RevokeMcpSession($sessionId: ID!) { revokeMcpSession(sessionId: $sessionId) { success message
errorCode data } }
"""

_REGISTER_MCP_CAPABILITIES = """
mutation RegisterMcpCapabilities($input: RegisterMcpCapabilitiesInput!) { registerMcpCapabilities(input:
$input) { serverId tools { name description inputSchema category deprecated metadata } resources { uri
name description type mimeType metadata } prompts { name description template parameters { name
description type required defaultValue constraints } category metadata } features { streaming
fileOperations notifications batchOperations maxRequestSize contentTypes } protocolVersion lastUpdated }
}
"""

_TOGGLE_MCP_SERVER = """
mutation ToggleMcpServer($id: ID!, $enabled: Boolean!) { toggleMcpServer(id: $id, enabled: $enabled) {
id name description type status tenantId config { endpoint timeoutSeconds maxConnections ssl { verify
caCert clientCert clientKey } retry { maxAttempts initialDelayMs maxDelayMs backoffMultiplier
jitterFactor } rateLimit { requestsPerSecond burstSize windowSeconds } headers } auth { __typename ...
on McpOAuthConfig { provider { id name type authorizationEndpoint tokenEndpoint userInfoEndpoint
revocationEndpoint supportedScopes config enabled } clientId scopes redirectUri additionalParams
refreshConfig { autoRefresh refreshThresholdSeconds maxRefreshAttempts refreshRetryDelaySeconds }
metadata } ... on McpJwtConfig { issuer audience publicKey algorithm expirationSeconds customClaims
metadata } } capabilities { serverId tools { name description inputSchema category deprecated metadata }
resources { uri name description type mimeType metadata } prompts { name description template parameters
{ name description type required defaultValue constraints } category metadata } features { streaming
fileOperations notifications batchOperations maxRequestSize contentTypes } protocolVersion lastUpdated }
health { status lastCheckAt responseTimeMs details { connection authentication capabilities resources
tools } uptimeSeconds error } activeSessionsCount metadata tags enabled audit { createdBy createdAt
updatedBy updatedAt version } } }
"""

_TEST_MCP_CONNECTION = """
mutation TestMcpConnection($serverId: ID!) { testMcpConnection(serverId: $serverId) { success
responseTimeMs error details { dnsResolution tcpConnection sslHandshake httpStatus authentication
capabilities } testedAt } }
"""


@final
class MCPClient:
    """Queries, mutations and streams of MCP servers and sessions.

    What is left ``UNSET`` is not sent; ``None`` is null. Every query and mutation raises ``OperationError``
    where the server answers with errors (see its ``code``), and ``ConnectionFailed`` and its kin where no
    answer came: then a mutation was executed whole or not at all.
    """

    def __init__(self, executor: Executor, manager: SubscriptionManager) -> None:
        self._executor = executor
        self._manager = manager

    async def servers(
        self,
        *,
        type: MCPServerType | UnsetType | None = UNSET,
        status: MCPServerStatus | UnsetType | None = UNSET,
        pagination: PaginationInput | UnsetType | None = UNSET,
    ) -> MCPServerConnection:
        """The MCP servers, in the order of their creation; of one type, of one status."""
        variables: dict[str, object] = {"type": type, "status": status, "pagination": pagination}
        return await self._executor.field(
            _MCP_SERVERS, variables, type=MCPServerConnection, operation_name="McpServers"
        )

    async def server(self, *, id: str) -> MCPServer | None:
        """One MCP server, or null where the id names none."""
        variables: dict[str, object] = {"id": id}
        return await self._executor.optional(
            _MCP_SERVER, variables, type=MCPServer, operation_name="McpServer"
        )

    async def servers_by_tenant(
        self, *, tenant_id: str, pagination: PaginationInput | UnsetType | None = UNSET
    ) -> MCPServerConnection:
        """The MCP servers of a tenant, in the order of their creation."""
        variables: dict[str, object] = {"tenantId": tenant_id, "pagination": pagination}
        return await self._executor.field(
            _MCP_SERVERS_BY_TENANT, variables, type=MCPServerConnection, operation_name="McpServersByTenant"
        )

    async def oauth_providers(self) -> list[MCPOAuthProvider]:
        """The providers at which users can sign in: those that are built in, then those of the server's
        settings.
        """
        return await self._executor.field(
            _MCP_OAUTH_PROVIDERS, type=list[MCPOAuthProvider], operation_name="McpOAuthProviders"
        )

    async def server_capabilities(self, *, server_id: str) -> MCPServerCapabilities | None:
        """Capabilities of an MCP server; null until a check has listed them or a caller has registered
        them.
        """
        variables: dict[str, object] = {"serverId": server_id}
        return await self._executor.optional(
            _MCP_SERVER_CAPABILITIES,
            variables,
            type=MCPServerCapabilities,
            operation_name="McpServerCapabilities",
        )

    async def server_health(self, *, server_id: str) -> MCPServerHealth:
        """Result of the last check of an MCP server.

        Refused with NOT_FOUND where the id names none.
        """
        variables: dict[str, object] = {"serverId": server_id}
        return await self._executor.field(
            _MCP_SERVER_HEALTH, variables, type=MCPServerHealth, operation_name="McpServerHealth"
        )

    async def sessions(
        self,
        *,
        user_id: str | UnsetType | None = UNSET,
        server_id: str | UnsetType | None = UNSET,
        pagination: PaginationInput | UnsetType | None = UNSET,
    ) -> MCPSessionConnection:
        """The sessions, in the order of their creation; of one user, of one MCP server.

        What ended is listed for a day.
        """
        variables: dict[str, object] = {"userId": user_id, "serverId": server_id, "pagination": pagination}
        return await self._executor.field(
            _MCP_SESSIONS, variables, type=MCPSessionConnection, operation_name="McpSessions"
        )

    async def create_server(
        self,
        *,
        name: str,
        type: MCPServerType,
        tenant_id: str,
        config: MCPServerConfigInput,
        description: str | UnsetType | None = UNSET,
        auth: MCPAuthConfigInput | UnsetType | None = UNSET,
        metadata: JSONInput | UnsetType = UNSET,
        tags: Sequence[str] | UnsetType | None = UNSET,
        enabled: bool | UnsetType | None = UNSET,
    ) -> MCPServer:
        """Adds an MCP server.

        If it is enabled it is STARTING, is checked at once, and again and again from then on.

        :param metadata: An object.
        """
        variables: dict[str, object] = {
            "input": {
                "name": name,
                "description": description,
                "type": type,
                "tenantId": tenant_id,
                "config": config,
                "auth": auth,
                "metadata": metadata,
                "tags": tags,
                "enabled": enabled,
            }
        }
        return await self._executor.field(
            _CREATE_MCP_SERVER, variables, type=MCPServer, operation_name="CreateMcpServer"
        )

    async def update_server(
        self,
        *,
        id: str,
        name: str | UnsetType | None = UNSET,
        description: str | UnsetType | None = UNSET,
        config: MCPServerConfigInput | UnsetType | None = UNSET,
        auth: MCPAuthConfigInput | UnsetType | None = UNSET,
        metadata: JSONInput | UnsetType = UNSET,
        tags: Sequence[str] | UnsetType | None = UNSET,
        enabled: bool | UnsetType | None = UNSET,
    ) -> MCPServer:
        """Changes what is given.

        An enabled MCP server is checked again.

        :param config: Replaces the whole configuration, secrets included.
        """
        variables: dict[str, object] = {
            "id": id,
            "input": {
                "name": name,
                "description": description,
                "config": config,
                "auth": auth,
                "metadata": metadata,
                "tags": tags,
                "enabled": enabled,
            },
        }
        return await self._executor.field(
            _UPDATE_MCP_SERVER, variables, type=MCPServer, operation_name="UpdateMcpServer"
        )

    async def delete_server(self, *, id: str) -> ApiResponse:
        """Removes an MCP server; its sessions are revoked."""
        variables: dict[str, object] = {"id": id}
        return await self._executor.field(
            _DELETE_MCP_SERVER, variables, type=ApiResponse, operation_name="DeleteMcpServer"
        )

    async def configure_oauth(self, *, server_id: str, config: MCPOAuthConfigInput) -> MCPOAuthConfig:
        """Lets users of an MCP server sign in at an OAuth provider, and no other way."""
        variables: dict[str, object] = {"input": {"serverId": server_id, "config": config}}
        return await self._executor.field(
            _CONFIGURE_MCP_OAUTH, variables, type=MCPOAuthConfig, operation_name="ConfigureMcpOAuth"
        )

    async def configure_jwt(self, *, server_id: str, config: MCPJwtConfigInput) -> MCPJwtConfig:
        """Lets users of an MCP server sign in with a signed token (JWT), and no other way."""
        variables: dict[str, object] = {"input": {"serverId": server_id, "config": config}}
        return await self._executor.field(
            _CONFIGURE_MCP_JWT, variables, type=MCPJwtConfig, operation_name="ConfigureMcpJwt"
        )

    async def initiate_oauth(
        self,
        *,
        server_id: str,
        user_id: str,
        redirect_uri: str | UnsetType | None = UNSET,
        additional_params: JSONInput | UnsetType = UNSET,
    ) -> MCPOAuthInitiation:
        """Begins a sign-in: send the user to ``authorizationUrl``.

        Its ``state`` is good for one completion within ten minutes. The proof key (PKCE, S256) stays on the
        server.

        :param user_id: User of the new session.
        :param redirect_uri: Instead of the configured one.
        :param additional_params: An object of texts, besides the configured ones.
        """
        variables: dict[str, object] = {
            "input": {
                "serverId": server_id,
                "userId": user_id,
                "redirectUri": redirect_uri,
                "additionalParams": additional_params,
            }
        }
        return await self._executor.field(
            _INITIATE_MCP_OAUTH, variables, type=MCPOAuthInitiation, operation_name="InitiateMcpOAuth"
        )

    async def complete_oauth(
        self,
        *,
        server_id: str,
        user_id: str,
        code: str,
        state: str,
        code_verifier: str | UnsetType | None = UNSET,
    ) -> MCPSession:
        """Ends a sign-in: exchanges the code for tokens, which stay on the server.

        Refused with AUTHENTICATION_FAILED if the ``state`` is unknown, used, expired, or another user's; with
        PROVIDER_FAILED if the provider does not give a token: the sign-in is used up then.

        :param user_id: As in ``initiateMcpOAuth``.
        :param code: The parameters that the provider sent the user back with.
        :param code_verifier: Not needed; one that is not the sign-in's is refused.
        """
        variables: dict[str, object] = {
            "input": {
                "serverId": server_id,
                "userId": user_id,
                "code": code,
                "state": state,
                "codeVerifier": code_verifier,
            }
        }
        return await self._executor.field(
            _COMPLETE_MCP_OAUTH, variables, type=MCPSession, operation_name="CompleteMcpOAuth"
        )

    async def authenticate_jwt(
        self, *, server_id: str, user_id: str, token: str, metadata: JSONInput | UnsetType = UNSET
    ) -> MCPSession:
        """Signs a user in with a token.

        Its signature, ``iss``, ``aud``, ``exp``, ``nbf``, the configured claims, and that ``sub`` is the
        user, are verified. Refused with AUTHENTICATION_FAILED otherwise; there is no session and no event
        then.

        :param user_id: The token's ``sub``.
        :param metadata: An object, kept with the session.
        """
        variables: dict[str, object] = {
            "input": {"serverId": server_id, "userId": user_id, "token": token, "metadata": metadata}
        }
        return await self._executor.field(
            _AUTHENTICATE_MCP_JWT, variables, type=MCPSession, operation_name="AuthenticateMcpJwt"
        )

    async def refresh_session(self, *, session_id: str) -> MCPSession:
        """Makes an active session last as long again as a new one; of an OAuth session the tokens are
        renewed at the provider.

        A provider that refuses makes an ERROR event and PROVIDER_FAILED; the session goes on until it
        expires.
        """
        variables: dict[str, object] = {"sessionId": session_id}
        return await self._executor.field(
            _REFRESH_MCP_SESSION, variables, type=MCPSession, operation_name="RefreshMcpSession"
        )

    async def revoke_session(self, *, session_id: str) -> ApiResponse:
        """Ends an active session; its tokens are forgotten."""
        variables: dict[str, object] = {"sessionId": session_id}
        return await self._executor.field(
            _REVOKE_MCP_SESSION, variables, type=ApiResponse, operation_name="RevokeMcpSession"
        )

    async def register_capabilities(
        self,
        *,
        server_id: str,
        tools: Sequence[MCPToolInput],
        resources: Sequence[MCPResourceInput],
        prompts: Sequence[MCPPromptInput],
        features: MCPServerFeaturesInput,
        protocol_version: str,
    ) -> MCPServerCapabilities:
        """States what an MCP server offers beyond what it lists.

        Of tools, prompts and resources with one name or URI the listed one counts.

        :param protocol_version: Counts until a check has found one.
        """
        variables: dict[str, object] = {
            "input": {
                "serverId": server_id,
                "tools": tools,
                "resources": resources,
                "prompts": prompts,
                "features": features,
                "protocolVersion": protocol_version,
            }
        }
        return await self._executor.field(
            _REGISTER_MCP_CAPABILITIES,
            variables,
            type=MCPServerCapabilities,
            operation_name="RegisterMcpCapabilities",
        )

    async def toggle_server(self, *, id: str, enabled: bool) -> MCPServer:
        """Enables or disables an MCP server."""
        variables: dict[str, object] = {"id": id, "enabled": enabled}
        return await self._executor.field(
            _TOGGLE_MCP_SERVER, variables, type=MCPServer, operation_name="ToggleMcpServer"
        )

    async def test_connection(self, *, server_id: str) -> MCPConnectionTest:
        """Checks an MCP server now.

        A disabled one is checked too, and stays OFFLINE.
        """
        variables: dict[str, object] = {"serverId": server_id}
        return await self._executor.field(
            _TEST_MCP_CONNECTION, variables, type=MCPConnectionTest, operation_name="TestMcpConnection"
        )

    def subscribe_server_status_updates(
        self, *, server_id: str | None = None
    ) -> MCPServerStatusSubscriptionBuilder:
        """The changes of status of one MCP server, or of all: UNKNOWN, STARTING, ONLINE; ONLINE, STOPPING,
        OFFLINE; from anywhere to ERROR.

        ``data`` has the ``cause``, and the ``error`` if there is one.
        """
        return mcp_streams.mcp_server_status_updates(self._manager, server_id=server_id)

    def subscribe_session_events(
        self, *, user_id: str | None = None, server_id: str | None = None
    ) -> MCPSessionEventSubscriptionBuilder:
        """Events of sessions; of one user, of one MCP server, or of all."""
        return mcp_streams.mcp_session_events(self._manager, user_id=user_id, server_id=server_id)

    def subscribe_capability_updates(self, server_id: str | None = None) -> MCPCapabilitySubscriptionBuilder:
        """Capabilities of an MCP server, after each change."""
        return mcp_streams.mcp_capability_updates(self._manager, server_id=server_id)
