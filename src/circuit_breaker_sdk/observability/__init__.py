"""Health, metrics and logging."""

from circuit_breaker_sdk.observability.health import (
    BreakerStatus,
    ConnectionStatus,
    Health,
    HealthLimits,
    MemoryHolder,
    MemoryStatus,
    SubscriptionCounts,
    SubscriptionStatus,
    TransportCounts,
    Verdict,
)
from circuit_breaker_sdk.observability.latency import Distribution, LatencySummary
from circuit_breaker_sdk.observability.logging import log, logger
from circuit_breaker_sdk.observability.metrics import ConnectionCounters, SubscriptionMetrics

__all__ = [
    "BreakerStatus",
    "ConnectionCounters",
    "ConnectionStatus",
    "Distribution",
    "Health",
    "HealthLimits",
    "LatencySummary",
    "MemoryHolder",
    "MemoryStatus",
    "SubscriptionCounts",
    "SubscriptionMetrics",
    "SubscriptionStatus",
    "TransportCounts",
    "Verdict",
    "log",
    "logger",
]
