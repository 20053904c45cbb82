# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""The streams of MCP servers and sessions: documents, typed subscriptions, builders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, final

from circuit_breaker_sdk.events.mcp import MCPServerCapabilities, MCPServerStatusUpdate, MCPSessionEvent
from circuit_breaker_sdk.subscriptions import (
    Operation,
    Subscription,
    SubscriptionBuilder,
    SubscriptionManager,
)

__all__ = [
    "MCPCapabilitySubscription",
    "MCPCapabilitySubscriptionBuilder",
    "MCPServerStatusSubscription",
    "MCPServerStatusSubscriptionBuilder",
    "MCPSessionEventSubscription",
    "MCPSessionEventSubscriptionBuilder",
    "mcp_capability_updates",
    "mcp_server_status_updates",
    "mcp_session_events",
]

_MCP_SERVER_STATUS_UPDATES = """
subscription McpServerStatusUpdates($serverId: ID) { mcpServerStatusUpdates(serverId: $serverId) {
serverId oldStatus newStatus timestamp data } }
"""


_MCP_SESSION_EVENTS = """
subscription McpSessionEvents($userId: String, $serverId: ID) { mcpSessionEvents(userId: $userId,
serverId: $serverId) { sessionId type session { id server { id name description type status tenantId
config { endpoint timeoutSeconds maxConnections ssl { verify caCert clientCert clientKey } retry {
maxAttempts initialDelayMs maxDelayMs backoffMultiplier jitterFactor } rateLimit { requestsPerSecond
burstSize windowSeconds } headers } activeSessionsCount metadata tags enabled audit { createdBy
createdAt updatedBy updatedAt version } } userId status authMethod accessToken tokenExpiresAt
refreshToken metadata createdAt lastActivityAt expiresAt requestCount userAgent ipAddress } timestamp
data } }
"""


_MCP_CAPABILITY_UPDATES = """
subscription McpCapabilityUpdates($serverId: ID!) { mcpCapabilityUpdates(serverId: $serverId) { serverId
tools { name description inputSchema category deprecated metadata } resources { uri name description
type mimeType metadata } prompts { name description template parameters { name description type required
defaultValue constraints } category metadata } features { streaming fileOperations notifications
batchOperations maxRequestSize contentTypes } protocolVersion lastUpdated } }
"""


@final
class MCPServerStatusSubscription(Subscription[MCPServerStatusUpdate]):
    """MCP servers as their status changes (``mcpServerStatusUpdates``).

    Example::

        stream = await client.subscriptions.mcp_server_status_updates(server_id="…").subscribe()
        stream.on_update(print)
    """

    def on_update(self, handler: Callable[[MCPServerStatusUpdate], object]) -> Self:
        """Call ``handler`` with each event: ``on_data`` under this stream's name."""
        return self.on_data(handler)


@final
class MCPServerStatusSubscriptionBuilder(
    SubscriptionBuilder[MCPServerStatusUpdate, MCPServerStatusSubscription]
):
    """Arguments of ``mcpServerStatusUpdates``; the server applies them all.

    Example::

        builder.server_id("…")
    """

    def server_id(self, server_id: str) -> Self:
        """Set ``serverId``."""
        return self._with("serverId", server_id)


def mcp_server_status_updates(
    manager: SubscriptionManager, *, server_id: str | None
) -> MCPServerStatusSubscriptionBuilder:
    """Make the builder of ``mcpServerStatusUpdates``; ``None`` arguments are not sent."""
    given = {"serverId": server_id}
    operation = Operation(
        document=_MCP_SERVER_STATUS_UPDATES,
        type=MCPServerStatusUpdate,
        variables={name: value for name, value in given.items() if value is not None},
        root_field="mcpServerStatusUpdates",
        label="mcpServerStatusUpdates",
    )
    return MCPServerStatusSubscriptionBuilder(manager, operation, MCPServerStatusSubscription)


@final
class MCPSessionEventSubscription(Subscription[MCPSessionEvent]):
    """Events of sessions of MCP servers (``mcpSessionEvents``).

    Example::

        stream = await client.subscriptions.mcp_session_events(user_id="…").subscribe()
        stream.on_event(print)
    """

    def on_event(self, handler: Callable[[MCPSessionEvent], object]) -> Self:
        """Call ``handler`` with each event: ``on_data`` under this stream's name."""
        return self.on_data(handler)

    def filter_by_user(self, user_id: str) -> Self:
        """Keep back events of other users, from the next event on."""
        return self.filter(lambda event: event.user_id == user_id)


@final
class MCPSessionEventSubscriptionBuilder(SubscriptionBuilder[MCPSessionEvent, MCPSessionEventSubscription]):
    """Arguments of ``mcpSessionEvents``; the server applies them all.

    Example::

        builder.user_id("…")
    """

    def user_id(self, user_id: str) -> Self:
        """Set ``userId``."""
        return self._with("userId", user_id)

    def server_id(self, server_id: str) -> Self:
        """Set ``serverId``."""
        return self._with("serverId", server_id)


def mcp_session_events(
    manager: SubscriptionManager, *, user_id: str | None, server_id: str | None
) -> MCPSessionEventSubscriptionBuilder:
    """Make the builder of ``mcpSessionEvents``; ``None`` arguments are not sent."""
    given = {"userId": user_id, "serverId": server_id}
    operation = Operation(
        document=_MCP_SESSION_EVENTS,
        type=MCPSessionEvent,
        variables={name: value for name, value in given.items() if value is not None},
        root_field="mcpSessionEvents",
        filter_arguments=frozenset({"userId"}),
        label="mcpSessionEvents",
    )
    return MCPSessionEventSubscriptionBuilder(manager, operation, MCPSessionEventSubscription)


@final
class MCPCapabilitySubscription(Subscription[MCPServerCapabilities]):
    """Capabilities of an MCP server, after each change (``mcpCapabilityUpdates``).

    Example::

        stream = await client.subscriptions.mcp_capability_updates(server_id="…").subscribe()
        stream.on_update(print)
    """

    def on_update(self, handler: Callable[[MCPServerCapabilities], object]) -> Self:
        """Call ``handler`` with each event: ``on_data`` under this stream's name."""
        return self.on_data(handler)


@final
class MCPCapabilitySubscriptionBuilder(SubscriptionBuilder[MCPServerCapabilities, MCPCapabilitySubscription]):
    """Arguments of ``mcpCapabilityUpdates``; the server applies them all.

    Example::

        builder.server_id("…")
    """

    def server_id(self, server_id: str) -> Self:
        """Set ``serverId``."""
        return self._with("serverId", server_id)


def mcp_capability_updates(
    manager: SubscriptionManager, *, server_id: str | None
) -> MCPCapabilitySubscriptionBuilder:
    """Make the builder of ``mcpCapabilityUpdates``; ``None`` arguments are not sent."""
    given = {"serverId": server_id}
    operation = Operation(
        document=_MCP_CAPABILITY_UPDATES,
        type=MCPServerCapabilities,
        variables={name: value for name, value in given.items() if value is not None},
        root_field="mcpCapabilityUpdates",
        label="mcpCapabilityUpdates",
    )
    return MCPCapabilitySubscriptionBuilder(manager, operation, MCPCapabilitySubscription)
