"""The target of a health check of an MCP server."""

from __future__ import annotations

import ssl

from circuit_breaker_server.engine.mcp.health_probe import Target
from circuit_breaker_server.engine.mcp.records import Retry
from circuit_breaker_server.outbound import Outbound

__all__ = ["target"]


def target(endpoint: str, *, seconds: float = 5.0, attempts: int = 1, **more: object) -> Target:
    """Return the target of a check with a few quick attempts."""
    retry = Retry(
        max_attempts=attempts, initial_delay_ms=0, max_delay_ms=0, backoff_multiplier=1.0, jitter_factor=0.0
    )
    headers, tls = more.get("headers", {}), more.get("tls")
    assert isinstance(headers, dict)
    outbound = more.get("outbound", Outbound())
    assert tls is None or isinstance(tls, ssl.SSLContext)
    assert isinstance(outbound, Outbound)
    return Target(
        endpoint=endpoint,
        timeout_seconds=seconds,
        max_connections=4,
        retry=retry,
        headers=headers,
        tls=tls,
        outbound=outbound,
    )
