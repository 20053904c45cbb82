"""Connections: one socket's life, and who owns it. They know nothing of subscriptions."""

from circuit_breaker_sdk.connections.backoff import Backoff
from circuit_breaker_sdk.connections.connection import Connection, ConnectionSettings
from circuit_breaker_sdk.connections.credentials import Credentials
from circuit_breaker_sdk.connections.route import Route
from circuit_breaker_sdk.connections.supervisor import ConnectionState, Supervisor

__all__ = [
    "Backoff",
    "Connection",
    "ConnectionSettings",
    "ConnectionState",
    "Credentials",
    "Route",
    "Supervisor",
]
