"""Subscriptions: from a builder to typed events, apart from any one domain."""

from circuit_breaker_sdk.delivery.acknowledgements import PendingEvent
from circuit_breaker_sdk.delivery.filters import SubscriptionFilter
from circuit_breaker_sdk.delivery.interval_queries import Changes
from circuit_breaker_sdk.delivery.resume_by import ResumeBy, ResumeByExtension
from circuit_breaker_sdk.delivery.subscription_handler import SubscriptionHandler
from circuit_breaker_sdk.delivery.subscription_state import (
    Continuity,
    SubscriptionId,
    SubscriptionState,
    SubscriptionStats,
)
from circuit_breaker_sdk.recovery.cursor_store import CursorStore, FileCursorStore
from circuit_breaker_sdk.recovery.gaps import Gap, GapHandler, Snapshot
from circuit_breaker_sdk.subscriptions.aggregate import EventAggregator, Window, Windows
from circuit_breaker_sdk.subscriptions.batch import BatchEvent, BatchSubscriptionManager
from circuit_breaker_sdk.subscriptions.builder import SubscriptionBuilder
from circuit_breaker_sdk.subscriptions.iterators import Acknowledged, Batches
from circuit_breaker_sdk.subscriptions.manager import SubscriptionManager
from circuit_breaker_sdk.subscriptions.operation import Operation
from circuit_breaker_sdk.subscriptions.subscription import Subscription

__all__ = [
    "Acknowledged",
    "BatchEvent",
    "BatchSubscriptionManager",
    "Batches",
    "Changes",
    "Continuity",
    "CursorStore",
    "EventAggregator",
    "FileCursorStore",
    "Gap",
    "GapHandler",
    "Operation",
    "PendingEvent",
    "ResumeBy",
    "ResumeByExtension",
    "Snapshot",
    "Subscription",
    "SubscriptionBuilder",
    "SubscriptionFilter",
    "SubscriptionHandler",
    "SubscriptionId",
    "SubscriptionManager",
    "SubscriptionState",
    "SubscriptionStats",
    "Window",
    "Windows",
]
