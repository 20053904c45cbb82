"""Settings of the SDK: frozen values, every number with its unit."""

from __future__ import annotations

import enum
from typing import final

import msgspec

from circuit_breaker_sdk.errors import UsageError

__all__ = [
    "BufferLimits",
    "CircuitBreakerPolicy",
    "ErrorRecoveryPolicy",
    "Heartbeat",
    "MessageLimits",
    "OfflineQueue",
    "OverflowPolicy",
    "PoolSettings",
    "PoolStrategy",
    "QueueOverflow",
    "Timeouts",
    "TransportKind",
]


class OverflowPolicy(enum.StrEnum):
    """Policy for a subscription's buffer that is full."""

    RESUME = "resume"
    """Stop the stream, let the consumer take half of what is held, then go on from the cursor: nothing is
    lost, nothing grows, no other subscription waits. Where the server gives no cursors, as ``fail``."""
    FAIL = "fail"
    """End the subscription with :class:`~circuit_breaker_sdk.errors.BufferOverflowError`."""
    DROP_OLDEST = "drop_oldest"
    """Drop the oldest buffered event, count it in ``Subscription.stats().dropped``."""
    BLOCK = "block"
    """Read nothing from the connection until the consumer has taken half of what is held. All subscriptions
    of the client wait, and so do pings: a server may drop a client that does this for long."""


def _positive(**values: float) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"{name} must be a number, not {value!r}")
        if not value > 0:
            raise UsageError(f"{name} must be greater than 0, not {value}")


@final
class BufferLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one subscription's buffer; it holds events until a consumer takes them.

    The client's ``max_buffered_bytes`` bounds all buffers together.

    Example::

        BufferLimits(max_events=1_000, max_bytes=1_048_576)
    """

    max_events: int = 10_000
    max_bytes: int = 16 * 1024 * 1024
    overflow: OverflowPolicy = OverflowPolicy.RESUME

    def __post_init__(self) -> None:
        _positive(max_events=self.max_events, max_bytes=self.max_bytes)


@final
class MessageLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of what a peer may send: one WebSocket message, and the frames it may be cut into.

    Example::

        MessageLimits(max_message_bytes=1_048_576)
    """

    max_message_bytes: int = 16 * 1024 * 1024
    max_fragments: int = 1024

    def __post_init__(self) -> None:
        _positive(max_message_bytes=self.max_message_bytes, max_fragments=self.max_fragments)


@final
class ErrorRecoveryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a lost connection is tried again: at once, then after a random part of a delay that grows.

    The random part is anything from 0 to the whole delay ("full jitter"), so that many clients that lost one
    server do not all come back in the same moment. No delay is longer than the failures have lasted so far
    (or ``base_delay``): a server that was away for two seconds is found two seconds later at the
    latest, unless a circuit breaker is open. A server that says how long to wait
    is obeyed. What a new attempt cannot mend (credentials refused, a peer that speaks another protocol) is
    not tried again.

    :ivar max_retries: attempts in a row that fail before the subscriptions end with the last error; ``None``,
        the default, never gives up; 0 never tries.
    :ivar base_delay: seconds, the bound of the second attempt's delay.
    :ivar max_delay: seconds; no delay is longer, unless the server asks for it.
    :ivar backoff_multiplier: what the bound grows by with each attempt that fails.

    Example::

        Client(url, recovery=ErrorRecoveryPolicy(max_retries=10, max_delay=5.0))
    """

    max_retries: int | None = None
    base_delay: float = 0.25
    max_delay: float = 30.0
    backoff_multiplier: float = 2.0

    def __post_init__(self) -> None:
        _positive(base_delay=self.base_delay, max_delay=self.max_delay)
        if self.max_retries is not None and self.max_retries < 0:
            raise UsageError(f"max_retries must not be negative, not {self.max_retries}")
        if self.backoff_multiplier < 1:
            raise UsageError(f"backoff_multiplier must be at least 1, not {self.backoff_multiplier}")


@final
class CircuitBreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When an endpoint that keeps failing is left alone; each of several URLs has a breaker of its own.

    It opens after ``failure_threshold`` failures in a row: attempts that failed, and connections that were
    lost before they had proven themselves. For ``open_seconds`` nothing is tried there; then one attempt
    decides.

    Example::

        Client(url, circuit_breaker=CircuitBreakerPolicy(failure_threshold=3, open_seconds=5.0))
    """

    failure_threshold: int = 5
    open_seconds: float = 2.0

    def __post_init__(self) -> None:
        _positive(failure_threshold=self.failure_threshold, open_seconds=self.open_seconds)


@final
class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Detect a dead connection that neither side has closed, whichever direction is dead.

    A ping goes out every ``interval_seconds``; without its pong within ``timeout_seconds`` the connection is
    given up as lost. On a link so slow that a pong waits behind more data than that, raise the timeout.

    Example::

        Client(url, heartbeat=Heartbeat(interval_seconds=2.0, timeout_seconds=2.0))
    """

    interval_seconds: float = 10.0
    timeout_seconds: float = 5.0

    def __post_init__(self) -> None:
        _positive(interval_seconds=self.interval_seconds, timeout_seconds=self.timeout_seconds)


@final
class MessageBatching(msgspec.Struct, frozen=True, kw_only=True):
    """Collect messages to the server for a moment, and send them in one write.

    What is sent in one turn of the event loop is one write in any case: a thousand subscribes are.

    :ivar batch_size: as soon as so many messages wait they are written.
    :ivar flush_interval: seconds that a message may wait for others; 0 waits for the end of the turn. A
        longer one saves writes where many tasks subscribe and unsubscribe, and is added to the time that each
        takes.

    Example::

        Client(url, batching=MessageBatching(batch_size=500, flush_interval=0.005))
    """

    batch_size: int = 1_000
    flush_interval: float = 0.0

    def __post_init__(self) -> None:
        _positive(batch_size=self.batch_size)
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int):
            raise UsageError(f"batch_size must be a whole number, not {self.batch_size!r}")
        if self.flush_interval:
            _positive(flush_interval=self.flush_interval)


class QueueOverflow(enum.StrEnum):
    """Policy for a full queue of waiting mutations."""

    REJECT = "reject"
    """Refuse the new one."""
    DROP_OLDEST = "drop_oldest"
    """Give up the one that waits longest and is not under way."""


@final
class OfflineQueue(msgspec.Struct, frozen=True, kw_only=True):
    """Queue mutations while the server cannot be reached, instead of failing at once.

    Each is sent under an ``Idempotency-Key`` of its own, again and again, until it is answered or
    ``deadline_seconds`` are over; while one waits, those called after it wait behind it. This needs a server
    that honours the key, as this project's does: another one may execute a mutation twice.

    Example::

        Client(url, offline_queue=OfflineQueue(deadline_seconds=120.0))
    """

    max_operations: int = 1_000
    deadline_seconds: float = 60.0
    overflow: QueueOverflow = QueueOverflow.REJECT

    def __post_init__(self) -> None:
        _positive(max_operations=self.max_operations, deadline_seconds=self.deadline_seconds)


@final
class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the waits on the network, in seconds.

    :ivar connect_seconds: name look-up, TCP, TLS and the WebSocket handshake together.
    :ivar acknowledge_seconds: from ``connection_init`` to ``connection_ack``.
    :ivar subscribe_seconds: from ``subscribe`` to the server's live signal, where resume was negotiated.
    :ivar execute_seconds: one query or mutation over HTTP.
    :ivar close_seconds: the closing handshake, after which the socket is aborted, and all of a client's
        ``aclose``.

    Example::

        Timeouts(connect_seconds=2.0)
    """

    connect_seconds: float = 10.0
    acknowledge_seconds: float = 10.0
    subscribe_seconds: float = 10.0
    execute_seconds: float = 30.0
    close_seconds: float = 2.0

    def __post_init__(self) -> None:
        _positive(
            connect_seconds=self.connect_seconds,
            acknowledge_seconds=self.acknowledge_seconds,
            subscribe_seconds=self.subscribe_seconds,
            execute_seconds=self.execute_seconds,
            close_seconds=self.close_seconds,
        )


class TransportKind(enum.StrEnum):
    """Transport of a subscription's events; the values are what ``Client(transports=…)`` takes."""

    WEBSOCKET = "websocket"
    """One socket for all subscriptions (``graphql-transport-ws``)."""
    SSE = "sse"
    """Server-sent events (graphql-sse): one stream for all where the server has such, else one for each."""
    POLL = "poll"
    """Long-polling, of this project's servers."""


class PoolStrategy(enum.StrEnum):
    """Which connection of a pool carries a new subscription, among the healthy ones that are open."""

    LEAST_LOADED = "least_loaded"
    """That with the fewest events a second; of equals, that with the fewest subscriptions."""
    ROUND_ROBIN = "round_robin"
    """Each in turn."""


@final
class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a pool: see :class:`~circuit_breaker_sdk.connections.SubscriptionConnectionPool`."""

    size: int
    strategy: PoolStrategy
    subscriptions_per_connection: int
    idle_seconds: float
    check_seconds: float
    max_round_trip_seconds: float
    max_failures: int
    cool_down_seconds: float

    def __post_init__(self) -> None:
        _positive(
            size=self.size,
            subscriptions_per_connection=self.subscriptions_per_connection,
            idle_seconds=self.idle_seconds,
            check_seconds=self.check_seconds,
            max_round_trip_seconds=self.max_round_trip_seconds,
            cool_down_seconds=self.cool_down_seconds,
        )
        for name in ("size", "subscriptions_per_connection", "max_failures"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise UsageError(f"{name} must be a whole number, not {value!r}")
        if self.max_failures < 0:
            raise UsageError(f"max_failures must not be negative, not {self.max_failures}")
        if not isinstance(self.strategy, PoolStrategy):
            raise UsageError(f"strategy must be a PoolStrategy, not {self.strategy!r}")
