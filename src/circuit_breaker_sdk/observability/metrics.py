"""Counters of a client, as one frozen snapshot."""

from __future__ import annotations

from typing import final

import msgspec

__all__ = ["ConnectionCounters", "SubscriptionMetrics"]


@final
class SubscriptionMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics of a client so far.

    :ivar active_subscriptions: started and not ended.
    :ivar messages_received: events (``next`` messages) received by all subscriptions, ended ones included.
    :ivar buffered_bytes: encoded bytes of the events that wait for their consumers.
    :ivar connection_failures: connections that could not be opened, or were lost.
    :ivar reconnection_attempts: connections opened again after one was lost.
    :ivar round_trip_seconds: from the latest ping to its pong; ``None`` where none was answered yet.

    Example::

        print(client.metrics.active_subscriptions)
    """

    active_subscriptions: int
    messages_received: int
    buffered_bytes: int
    connection_failures: int
    reconnection_attempts: int
    round_trip_seconds: float | None


@final
class ConnectionCounters(msgspec.Struct):
    """The supervisor's share of the counters: it alone writes them."""

    failures: int = 0
    reconnection_attempts: int = 0
