"""Ports on which nothing listens."""

from __future__ import annotations

from circuit_breaker_sdk.cli.cluster.free_ports import free_ports

__all__ = ["free_port", "free_ports"]


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port of this address on which nothing listens at the moment."""
    (port,) = free_ports(1, host)
    return port
