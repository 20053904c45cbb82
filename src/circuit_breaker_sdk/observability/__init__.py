"""Metrics and logging."""

from circuit_breaker_sdk.observability.logging import log, logger
from circuit_breaker_sdk.observability.metrics import ConnectionCounters, SubscriptionMetrics

__all__ = ["ConnectionCounters", "SubscriptionMetrics", "log", "logger"]
