"""How long handlers take, and how late they are called: measured only when asked for."""

from __future__ import annotations

import inspect
import logging
from bisect import bisect_left
from collections.abc import Callable
from time import perf_counter
from typing import Final, Generic, Protocol, TypeVar, final

import msgspec

from circuit_breaker_sdk.callbacks import Wrapped, callback_name
from circuit_breaker_sdk.observability.logging import log

__all__ = ["BOUNDS", "Distribution", "Histogram", "Latency", "LatencySummary", "Timed"]

T = TypeVar("T")

BOUNDS: Final = tuple(1e-6 * (1 << power) for power in range(25))
"""Upper ends of the buckets in seconds: 1 µs, and twice as much each time, up to 16.8 s."""

_TELL_SECONDS: Final = 1.0
"""Between two log records of one kind."""


class Measured(Protocol):
    """Interface to the subscription whose handlers are timed."""

    @property
    def id(self) -> str:
        """The operation's."""
        ...

    @property
    def label(self) -> str:
        """The name of the stream, or of the operation."""
        ...

    @property
    def received_at(self) -> float | None:
        """When what brings its events has read something last."""
        ...


@final
class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Durations that were measured so far.

    :ivar buckets: how many are at most each of ``BOUNDS`` and above the one before; the last has the longer.
    :ivar p50_seconds: half are at most so long, to within its bucket; ``None`` where nothing was measured.

    Example::

        print(client.health().latency.handler.p99_seconds)
    """

    count: int
    total_seconds: float
    p50_seconds: float | None
    p99_seconds: float | None
    buckets: tuple[int, ...]


@final
class LatencySummary(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements of :meth:`Client.measure_latency`.

    :ivar handler: how long handlers took, async ones until they were done.
    :ivar wire_to_handler: from the read that brought an event to the call of its plain handler.

    Example::

        client.measure_latency()
        ...
        print(client.health().latency)
    """

    handler: Distribution
    wire_to_handler: Distribution


@final
class Histogram:
    """Counts durations in buckets that double.

    Example::

        histogram = Histogram()
        histogram.observe(0.003)
    """

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * (len(BOUNDS) + 1)
        self.total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def quantile(self, share: float) -> float | None:
        """Return the duration that this share of them does not exceed, evenly spread in its bucket."""
        wanted = sum(self.counts) * share
        if not wanted:
            return None
        below = 0
        for number, count in enumerate(self.counts[:-1]):
            if below + count >= wanted:
                start = BOUNDS[number - 1] if number else 0.0
                return start + (BOUNDS[number] - start) * (wanted - below) / count
            below += count
        return BOUNDS[-1]

    def summary(self) -> Distribution:
        """Take a snapshot."""
        return Distribution(
            count=sum(self.counts),
            total_seconds=self.total,
            p50_seconds=self.quantile(0.5),
            p99_seconds=self.quantile(0.99),
            buckets=tuple(self.counts),
        )


@final
class Latency:
    """The measurements of one client, from the call of :meth:`Client.measure_latency` on.

    Plain handlers are wrapped in :class:`Timed` while it is on, so that it costs nothing while it is off.

    :param slow_handler_seconds: a handler that takes so long is logged; ``None``: none is.
    :param lag_seconds: likewise an event that waits so long for its plain handler.

    Example::

        latency = Latency(slow_handler_seconds=0.1)
    """

    __slots__ = ("_lag_seconds", "_slow_handler_seconds", "_told", "handler", "wire_to_handler")

    def __init__(
        self, *, slow_handler_seconds: float | None = None, lag_seconds: float | None = None
    ) -> None:
        self.handler: Histogram = Histogram()
        self.wire_to_handler: Histogram = Histogram()
        self._slow_handler_seconds = slow_handler_seconds
        self._lag_seconds = lag_seconds
        self._told: dict[str, float] = {}

    def timed(self, handler: Callable[[T], object], stream: Measured) -> Timed[T]:
        """Wrap a handler."""
        return Timed(handler, self, stream)

    def summary(self) -> LatencySummary:
        """Take a snapshot."""
        return LatencySummary(handler=self.handler.summary(), wire_to_handler=self.wire_to_handler.summary())

    def handled(self, stream: Measured, handler: object, seconds: float) -> None:
        """Count how long a handler took."""
        self.handler.observe(seconds)
        limit = self._slow_handler_seconds
        if limit is not None and seconds >= limit:
            self._tell("slow handler", stream, seconds, handler=callback_name(handler))

    def called(self, stream: Measured, seconds: float) -> None:
        """Count how late a handler was called."""
        self.wire_to_handler.observe(seconds)
        limit = self._lag_seconds
        if limit is not None and seconds >= limit:
            self._tell("events wait for their handler", stream, seconds)

    def _tell(self, what: str, stream: Measured, seconds: float, *, handler: str | None = None) -> None:
        now = perf_counter()
        if now - self._told.get(what, -_TELL_SECONDS) < _TELL_SECONDS:
            return
        self._told[what] = now
        log(
            logging.WARNING,
            what,
            subscription_id=stream.id,
            operation=stream.label,
            handler=handler,
            seconds=round(seconds, 6),
        )


@final
class Timed(Wrapped, Generic[T]):
    """A plain handler that is timed: with the first event of every read, or of every piece of a read.

    What it returns to be awaited is timed by who awaits it.
    """

    __slots__ = ("_latency", "_read_at", "_stream")

    def __init__(self, handler: Callable[[T], object], latency: Latency, stream: Measured) -> None:
        super().__init__(handler)
        self._latency = latency
        self._stream = stream
        self._read_at: float | None = None

    def __call__(self, value: T) -> object:
        read_at = self._stream.received_at
        if read_at is None or read_at == self._read_at:
            return self.callback(value)
        self._read_at = read_at
        began = perf_counter()
        self._latency.called(self._stream, began - read_at)
        result: object = self.callback(value)
        if not inspect.isawaitable(result):
            self._latency.handled(self._stream, self.callback, perf_counter() - began)
        return result
