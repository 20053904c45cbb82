"""The result of one check of an MCP server, filled in step by step."""

from __future__ import annotations

from typing import final

import msgspec

from circuit_breaker_server.engine.mcp.capabilities import Listing
from circuit_breaker_server.engine.mcp.records import Health

__all__ = ["Finding"]


@final
class Finding(msgspec.Struct, kw_only=True):
    """The progress of a check; each step fills in its attribute.

    :ivar dns: the host's name was resolved; the next ones likewise, ``None`` where the check did not get so
        far.
    :ivar listing: the MCP server's listing, if the check succeeded.
    :ivar error: the reason why it failed.
    """

    dns: bool = False
    tcp: bool = False
    handshake: bool | None = None
    http_status: int | None = None
    authenticated: bool | None = None
    initialized: bool = False
    listing: Listing | None = None
    response_time_ms: int | None = None
    error: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the check passed all its steps."""
        return self.listing is not None

    def health(self, at: str) -> Health:
        """Return the result as records hold it."""
        listed = "HEALTHY" if self.succeeded else "UNHEALTHY" if self.initialized else "UNKNOWN"
        return Health(
            at=at,
            status="HEALTHY" if self.succeeded else "UNHEALTHY",
            response_time_ms=self.response_time_ms,
            connection="HEALTHY" if self.tcp and self.handshake is not False else "UNHEALTHY",
            authentication={None: "UNKNOWN", True: "HEALTHY", False: "UNHEALTHY"}[self.authenticated],
            capabilities="HEALTHY" if self.initialized else "UNHEALTHY" if self.http_status else "UNKNOWN",
            resources=listed,
            tools=listed,
            error=self.error,
        )
