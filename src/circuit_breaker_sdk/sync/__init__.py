"""The blocking form of the client, for programs without asyncio."""

from circuit_breaker_sdk.sync.acknowledgements import SyncAcknowledged, SyncPendingEvent
from circuit_breaker_sdk.sync.completion import SyncLLMStream
from circuit_breaker_sdk.sync.subscription import SyncSubscription

__all__ = ["SyncAcknowledged", "SyncLLMStream", "SyncPendingEvent", "SyncSubscription"]
