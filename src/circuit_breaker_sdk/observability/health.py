"""How a client is, as one frozen value: what it is connected to, what waits, what it holds, and a verdict."""

from __future__ import annotations

import enum
from typing import final

import msgspec

from circuit_breaker_sdk.config import TransportKind
from circuit_breaker_sdk.observability.latency import LatencySummary

__all__ = [
    "BreakerStatus",
    "ConnectionStatus",
    "Health",
    "HealthLimits",
    "MemoryHolder",
    "MemoryStatus",
    "SubscriptionCounts",
    "SubscriptionStatus",
    "TransportCounts",
    "Verdict",
]


class Verdict(enum.StrEnum):
    """How a client is, in one word."""

    OK = "ok"
    DEGRADED = "degraded"
    """Events come, but not as they should: by a stand-in, slowly, or into buffers that fill."""
    FAILING = "failing"
    """For some subscriptions events do not come."""


@final
class HealthLimits(msgspec.Struct, frozen=True, kw_only=True):
    """From where on something is a reason for another verdict than ``ok``.

    :ivar consumer_seconds: for how long buffered events may wait while none is taken.
    :ivar silence_seconds: for how long a connection may bring nothing, its pongs included.
    :ivar away_seconds: for how long a subscription may be without a connection before that is failing.
    :ivar round_trip_seconds: of a ping.
    :ivar buffered_share: of ``max_buffered_bytes``.

    Example::

        client.health(limits=HealthLimits(consumer_seconds=60.0))
    """

    consumer_seconds: float = 10.0
    silence_seconds: float = 20.0
    away_seconds: float = 5.0
    round_trip_seconds: float = 2.0
    buffered_share: float = 0.8


@final
class BreakerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The circuit breaker of one URL; ``state`` is a :class:`~circuit_breaker_sdk.BreakerState`.

    Example::

        [each.url for each in connection.circuit_breakers if each.state == "open"]
    """

    url: str
    state: str


@final
class ConnectionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One WebSocket connection of the client; of a pool there are several.

    :ivar url: where it leads to, or will, without credentials.
    :ivar state: a :class:`~circuit_breaker_sdk.ConnectionState`.
    :ivar subscriptions: how many belong to it, those that wait for it included.
    :ivar round_trip_seconds: of the latest ping, or for how long it is unanswered if that is longer.
    :ivar seconds_since_frame: since something was received; ``None`` while there is no connection.
    :ivar reconnects: how often it was opened again.
    :ivar failures: how often it could not be opened, or was lost.

    Example::

        for connection in client.health().connections:
            print(connection.url, connection.state, connection.seconds_since_frame)
    """

    url: str
    state: str
    subscriptions: int
    round_trip_seconds: float | None
    seconds_since_frame: float | None
    reconnects: int
    failures: int
    circuit_breakers: tuple[BreakerStatus, ...]


@final
class TransportCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many subscriptions each transport carries now.

    :ivar query: a query at an interval stands for the stream.
    :ivar none: they are on no transport: lost, or stopped.

    Example::

        assert client.health().transports.poll == 0
    """

    websocket: int = 0
    sse: int = 0
    poll: int = 0
    query: int = 0
    none: int = 0


@final
class SubscriptionCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many subscriptions are in each state; those that have ended are not counted.

    Example::

        assert client.health().subscriptions.reconnecting == 0
    """

    starting: int = 0
    live: int = 0
    reconnecting: int = 0
    paused: int = 0


@final
class SubscriptionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One subscription.

    Nothing is noted when an event comes: times since events are found when :meth:`Client.health` is called,
    by what has changed since the call before. They are exact to the time between two calls, and never too
    long.

    :ivar label: the name of the stream, or of the operation.
    :ivar state: a :class:`~circuit_breaker_sdk.SubscriptionState`.
    :ivar transport: ``None`` while nothing brings its events, and where a query is asked instead.
    :ivar continuity: a :class:`~circuit_breaker_sdk.Continuity`.
    :ivar seconds_since_event: ``None`` before the first.
    :ivar seconds_since_life: since the last event, or the server's word that it is live and has missed none.
    :ivar is_paused: its buffer was full: the stream is stopped.
    :ivar waiting_seconds: for how long events have waited without one being taken; 0 where none waits.
    :ivar records_behind: how many records the server's log had behind the last one that has come here, when
        the server was asked, which each call does for the next one. Of a stream that is stopped, records
        count that are none of its events. ``None``: not known: it was not asked before, does not tell it, or
        there is no WebSocket.

    Example::

        for worst in client.health().worst:
            print(worst.label, worst.id, worst.buffered_events)
    """

    label: str
    id: str
    state: str
    transport: TransportKind | None
    continuity: str
    seconds_since_event: float | None
    seconds_since_life: float | None
    buffered_events: int
    buffered_bytes: int
    is_paused: bool
    waiting_seconds: float
    records_behind: int | None = None


@final
class MemoryHolder(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription by what its buffer holds, in encoded bytes.

    Example::

        [holder.label for holder in client.health().memory.holders]
    """

    label: str
    id: str
    buffered_events: int
    buffered_bytes: int


@final
class MemoryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that all buffers hold, and may hold; ``holders`` are those that hold most, the fullest first.

    Example::

        memory = client.health().memory
        print(memory.buffered_bytes / memory.max_buffered_bytes)
    """

    buffered_events: int
    buffered_bytes: int
    max_buffered_bytes: int
    holders: tuple[MemoryHolder, ...]


@final
class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a client is.

    :ivar reasons: for a verdict that is not ``ok``, in words; those of ``failing`` first.
    :ivar worst: the subscriptions with the most buffered events, the worst first.
    :ivar longest_wait_seconds: the longest ``waiting_seconds`` of all subscriptions.
    :ivar latency: ``None`` unless :meth:`Client.measure_latency` was called.

    Example::

        health = client.health()
        print(health.verdict, *health.reasons, sep="; ")
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    connections: tuple[ConnectionStatus, ...]
    transports: TransportCounts
    subscriptions: SubscriptionCounts
    worst: tuple[SubscriptionStatus, ...]
    longest_wait_seconds: float
    memory: MemoryStatus
    latency: LatencySummary | None
