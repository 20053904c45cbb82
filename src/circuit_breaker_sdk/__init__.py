"""Real-time GraphQL subscriptions: typed, in order, resumable."""

from importlib import import_module
from typing import TYPE_CHECKING

from circuit_breaker_sdk._version import __version__
from circuit_breaker_sdk.client import Client
from circuit_breaker_sdk.client_builder import ClientBuilder
from circuit_breaker_sdk.config import (
    BufferLimits,
    CircuitBreakerPolicy,
    ErrorRecoveryPolicy,
    Heartbeat,
    MessageBatching,
    MessageLimits,
    OfflineQueue,
    OverflowPolicy,
    PoolStrategy,
    QueueOverflow,
    Timeouts,
)
from circuit_breaker_sdk.connections import (
    BreakerState,
    ConnectionHealth,
    ConnectionState,
    ConnectionStateChange,
    SubscriptionConnectionPool,
)
from circuit_breaker_sdk.domains.execution import Result
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    BufferOverflowError,
    CircuitBreakerError,
    ConnectionFailed,
    DecodeError,
    GapError,
    GraphQLError,
    HandlerError,
    HandshakeFailed,
    OfflineQueueFull,
    OperationError,
    OperationTimeoutError,
    ProtocolError,
    RateLimitExceeded,
    SubscriptionError,
    SubscriptionFailed,
    TransportError,
    UsageError,
)
from circuit_breaker_sdk.observability import SubscriptionMetrics
from circuit_breaker_sdk.subscriptions import (
    BatchSubscriptionManager,
    Continuity,
    CursorStore,
    EventAggregator,
    FileCursorStore,
    Gap,
    ResumeBy,
    Subscription,
    SubscriptionBuilder,
    SubscriptionFilter,
    SubscriptionHandler,
    SubscriptionState,
    SubscriptionStats,
    Window,
)

if TYPE_CHECKING:
    from circuit_breaker_sdk.sync.client import SyncClient
    from circuit_breaker_sdk.sync.subscription import SyncSubscription

__all__ = [
    "AuthenticationFailed",
    "BatchSubscriptionManager",
    "BreakerState",
    "BufferLimits",
    "BufferOverflowError",
    "CircuitBreakerError",
    "CircuitBreakerPolicy",
    "Client",
    "ClientBuilder",
    "ConnectionFailed",
    "ConnectionHealth",
    "ConnectionState",
    "ConnectionStateChange",
    "Continuity",
    "CursorStore",
    "DecodeError",
    "ErrorRecoveryPolicy",
    "EventAggregator",
    "FileCursorStore",
    "Gap",
    "GapError",
    "GraphQLError",
    "HandlerError",
    "HandshakeFailed",
    "Heartbeat",
    "MessageBatching",
    "MessageLimits",
    "OfflineQueue",
    "OfflineQueueFull",
    "OperationError",
    "OperationTimeoutError",
    "OverflowPolicy",
    "PoolStrategy",
    "ProtocolError",
    "QueueOverflow",
    "RateLimitExceeded",
    "Result",
    "ResumeBy",
    "Subscription",
    "SubscriptionBuilder",
    "SubscriptionConnectionPool",
    "SubscriptionError",
    "SubscriptionFailed",
    "SubscriptionFilter",
    "SubscriptionHandler",
    "SubscriptionMetrics",
    "SubscriptionState",
    "SubscriptionStats",
    "SyncClient",
    "SyncSubscription",
    "Timeouts",
    "TransportError",
    "UsageError",
    "Window",
    "__version__",
]

_BLOCKING = {"SyncClient": "client", "SyncSubscription": "subscription"}
"""By name: its module in the blocking form of the client, which most programs do without."""

if not TYPE_CHECKING:
    # The names of `types` and `streams` can be imported from here as well, and are loaded when they are used.
    # Type checkers and editors show only the names above, and find those in their own modules.
    def __getattr__(name: str) -> object:
        if name in _BLOCKING:
            value: object = getattr(import_module(f"{__name__}.sync.{_BLOCKING[name]}"), name)
            globals()[name] = value
            return value
        for module in (import_module(f"{__name__}.types"), import_module(f"{__name__}.streams")):
            if name in module.__all__:
                value = getattr(module, name)
                globals()[name] = value  # found without this function from now on
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
