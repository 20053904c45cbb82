"""The read side of MCP servers: answers in the shape of the schema's types."""

from __future__ import annotations

from typing import final

from circuit_breaker_server.engine.command import Appender, Value
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.mcp.health_scheduler import Checks
from circuit_breaker_server.engine.mcp.records import Health
from circuit_breaker_server.engine.mcp.serializers import health_value, server_value
from circuit_breaker_server.engine.mcp.state import McpState, ServerEntry
from circuit_breaker_server.engine.timestamps import parse_timestamp

__all__ = ["ServerQueries"]


@final
class ServerQueries:
    """Answers from the state and the latest checks; nothing here waits, and nothing changes.

    Example::

        health = engine.mcp.servers.queries.health(server_id)
    """

    def __init__(self, state: McpState, appender: Appender, checks: Checks) -> None:
        self._state = state
        self._appender = appender
        self._checks = checks

    def entry(self, server_id: str) -> ServerEntry:
        """Return an MCP server as it is kept.

        :raises EngineError: ``NOT_FOUND``.
        """
        entry = self._state.servers.get(server_id)
        if entry is None:
            raise EngineError(
                ErrorCode.NOT_FOUND, f"there is no MCP server {shown(server_id)}", serverId=server_id
            )
        return entry

    def value(self, entry: ServerEntry) -> Value:
        """Return ``McpServer``."""
        server, health, offer = entry.server, self._checks.latest(entry), entry.offer
        return server_value(
            server,
            active=lambda: self._state.active_sessions(server.id),
            health=None if health is None else self._health_value(entry, health),
            capabilities=None if offer is None else lambda: offer.value(server.id),
        )

    def capabilities(self, server_id: str) -> Value | None:
        """Return ``McpServerCapabilities``, ``None`` where nothing is known.

        :raises EngineError: ``NOT_FOUND``.
        """
        offer = self.entry(server_id).offer
        return None if offer is None else offer.value(server_id)

    def health(self, server_id: str) -> Value:
        """Return ``McpServerHealth``.

        :raises EngineError: ``NOT_FOUND``.
        """
        entry = self.entry(server_id)
        unknown = Health(
            at=entry.server.created_at,
            status="UNKNOWN",
            connection="UNKNOWN",
            authentication="UNKNOWN",
            capabilities="UNKNOWN",
            resources="UNKNOWN",
            tools="UNKNOWN",
        )
        return self._health_value(entry, self._checks.latest(entry) or unknown)

    def _health_value(self, entry: ServerEntry, health: Health) -> Value:
        uptime = None
        if entry.online_since is not None:
            up = self._appender.now() - parse_timestamp(entry.online_since)
            uptime = max(0, int(up.total_seconds()))
        return health_value(health, uptime_seconds=uptime)
