"""Connections: the life of one socket, and its owner. They know nothing of subscriptions."""

from circuit_breaker_sdk.connections.backoff import Backoff
from circuit_breaker_sdk.connections.circuit_breaker import BreakerState, CircuitBreaker
from circuit_breaker_sdk.connections.closing import close_each
from circuit_breaker_sdk.connections.connection import Connection
from circuit_breaker_sdk.connections.connection_settings import ConnectionSettings
from circuit_breaker_sdk.connections.connection_state import ConnectionState, ConnectionStateChange
from circuit_breaker_sdk.connections.connector import Supervisor
from circuit_breaker_sdk.connections.credentials import Credentials
from circuit_breaker_sdk.connections.event_stream_connection import EventStreamConnection
from circuit_breaker_sdk.connections.fallback_links import FallbackLinks
from circuit_breaker_sdk.connections.guarded_calls import await_for, do_for, do_for_each
from circuit_breaker_sdk.connections.interfaces import Envelope, Link, Route
from circuit_breaker_sdk.connections.poll_connection import PollConnection
from circuit_breaker_sdk.connections.pool import SubscriptionConnectionPool
from circuit_breaker_sdk.connections.pool_member import ConnectionHealth
from circuit_breaker_sdk.connections.pool_supervisor import PoolSupervisor
from circuit_breaker_sdk.connections.tokens import TokenSource

__all__ = [
    "Backoff",
    "BreakerState",
    "CircuitBreaker",
    "Connection",
    "ConnectionHealth",
    "ConnectionSettings",
    "ConnectionState",
    "ConnectionStateChange",
    "Credentials",
    "Envelope",
    "EventStreamConnection",
    "FallbackLinks",
    "Link",
    "PollConnection",
    "PoolSupervisor",
    "Route",
    "SubscriptionConnectionPool",
    "Supervisor",
    "TokenSource",
    "await_for",
    "close_each",
    "do_for",
    "do_for_each",
]
