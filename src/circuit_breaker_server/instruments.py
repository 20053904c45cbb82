"""Counters and measurements of the server, by the names under which it is exported.

The parts of the server add to plain attributes, and nothing is computed until someone reads
(:meth:`Instruments.samples`). Values of labels are fixed here: no client can make new ones.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias, final

from circuit_breaker_server.refusals import REFUSALS, Refusal, Refusals
from circuit_breaker_server.slow_log import SlowLog

__all__ = ["METRICS", "Histogram", "Instruments", "LoopDelay", "Metric", "Sample"]

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_RECORDS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
_TICK_SECONDS: Final = 0.1


_Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """The description of one instrument.

    :ivar name: as OpenTelemetry has names, with the unit at its end where there is one.
    :ivar labels: the values that each label may have.
    :ivar bounds: of a histogram's buckets, each inclusive.

    Example::

        Metric(name="circuit_breaker.channels", kind="gauge", about="channels, each with subscribers")
    """

    name: str
    kind: _Kind
    about: str
    labels: Mapping[str, tuple[str, ...]] | None = None
    bounds: tuple[float, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus' format, which has no dots; of a counter with ``_total``."""
        return self.name.replace(".", "_") + ("_total" if self.kind == "counter" else "")


_KINDS: Final = {"kind": ("websocket", "event_stream", "poll")}
_OPERATIONS: Final = {
    "kind": ("query", "mutation", "subscription"),
    "outcome": ("ok", "failed", "refused"),
}

_Row: TypeAlias = tuple[str, _Kind, str, Mapping[str, tuple[str, ...]] | None, tuple[float, ...]]

_ROWS: Final[tuple[_Row, ...]] = (
    ("connections", "gauge", "open connections that wait for events", _KINDS, ()),
    (
        "operations",
        "counter",
        "operations begun; each poll begins its subscriptions anew",
        _OPERATIONS,
        (),
    ),
    ("channels", "gauge", "channels, each shared by equal subscriptions", None, ()),
    ("events.delivered", "counter", "events written to subscribers", None, ()),
    ("events.written.bytes", "counter", "bytes of events written, in their frames", None, ()),
    ("ring.misses", "counter", "subscribers that fell behind the ring of their channel", None, ()),
    ("catch_up.reads", "counter", "pages read from the log for subscribers behind the ring", None, ()),
    (
        "catch_up.fallbacks",
        "counter",
        "events read from the log that the compiled encoder could not take from their records",
        None,
        (),
    ),
    ("log.append.seconds", "histogram", "the commit of a group of appends, synced", None, _SECONDS),
    ("log.group.records", "histogram", "appends committed together", None, _RECORDS),
    ("log.append.failures", "counter", "groups of appends that could not be committed", None, ()),
    ("log.size.bytes", "gauge", "the files of the event log", None, ()),
    ("log.last_offset", "gauge", "the offset of the last record", None, ()),
    ("tail.lag.records", "gauge", "records in the log that subscribers were not offered", None, ()),
    (
        "requests.refused",
        "counter",
        "requests, operations and connections refused, by reason",
        {"reason": REFUSALS},
        (),
    ),
    ("audit.backlog.bytes", "gauge", "lines of the audit log that are not on the disk yet", None, ()),
    ("event_loop.delay.seconds", "histogram", "how late a timer of the event loop is", None, _SECONDS),
    ("ready", "gauge", "1 while the server is ready for clients, else 0", None, ()),
)

METRICS: Final = tuple(
    Metric(name=f"circuit_breaker.{name}", kind=kind, about=about, labels=labels, bounds=bounds)
    for name, kind, about, labels, bounds in _ROWS
)
"""Every metric of the server."""


@final
class Histogram:
    """Counts values by buckets.

    :ivar counts: of each bucket, and of what is above the last.

    Example::

        histogram = Histogram((0.1, 1.0))
        histogram.observe(0.3)
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@final
class Sample(NamedTuple):
    """One value of a metric; ``labels`` are the values of its labels, in their order."""

    metric: Metric
    labels: tuple[str, ...]
    value: float | Histogram


@final
class Instruments:
    """The counts of one server, on its event loop.

    :ivar events_delivered: without those of subscribers that are in a ring (``Gateway.events_delivered``).
    :ivar event_bytes: likewise, without those of open feeds.

    Example::

        instruments = Instruments()
        instruments.ring_misses += 1
        instruments.observe("channels", lambda: gateway.channels)
        list(instruments.samples())
    """

    __slots__ = (
        "_observed",
        "append_failures",
        "append_seconds",
        "catch_up_fallbacks",
        "catch_up_reads",
        "event_bytes",
        "events_delivered",
        "group_records",
        "loop_delay_seconds",
        "operations",
        "refusals",
        "ring_misses",
        "slow",
    )

    def __init__(self) -> None:
        self.events_delivered = 0
        self.event_bytes = 0
        self.ring_misses = 0
        self.catch_up_reads = 0
        self.catch_up_fallbacks = 0
        self.append_failures = 0
        self.append_seconds = Histogram(_SECONDS)
        self.group_records = Histogram(_RECORDS)
        self.loop_delay_seconds = Histogram(_SECONDS)
        self.operations = {
            (kind, outcome): 0 for kind in _OPERATIONS["kind"] for outcome in _OPERATIONS["outcome"]
        }
        self.refusals = Refusals()
        self.slow = SlowLog()
        self._observed: dict[str, Callable[[], float | Mapping[str, int]]] = {}

    def observe(self, name: str, read: Callable[[], float | Mapping[str, int]]) -> None:
        """Let a metric be read from where its value is; ``name`` is without the prefix."""
        self._observed[name] = read

    @property
    def refused(self) -> Mapping[Refusal, int]:
        """The number of refusals by their reason; :meth:`Refusals.note` adds to it."""
        return self.refusals.counts

    def appended(self, seconds: float, records: int) -> None:
        """Count a group of appends, which may have failed."""
        self.append_seconds.observe(seconds)
        self.group_records.observe(records)
        self.slow.append(seconds, records=records)

    def timed(self, kind: str, began: float, fields: Callable[[], Sequence[str]]) -> None:
        """Log a query or mutation that has ended, if it took long.

        :param began: when, by ``time.perf_counter``.
        :param fields: returns the fields of the schema that it asks for.
        """
        self.slow.operation(kind, time.perf_counter() - began, fields=fields)

    async def measured(
        self, kind: str, answering: Awaitable[bytes], fields: Callable[[], Sequence[str]]
    ) -> bytes:
        """Await the answer to a query or mutation: count it by its outcome, and log it if it took long.

        :param fields: returns the fields of the schema that it asks for.
        """
        began = time.perf_counter()
        try:
            answer = await answering
        except Exception:
            self.operations[kind, "failed"] += 1
            raise
        finally:
            self.timed(kind, began, fields)
        self.answered(kind, answer)
        return answer

    def answered(self, kind: str, answer: bytes) -> None:
        """Count a query or mutation by its answer."""
        if answer.startswith(b'{"errors"'):
            outcome = "refused"
        elif b',"errors":[{"message"' in answer:
            outcome = "failed"
        else:
            outcome = "ok"
        self.operations[kind, outcome] += 1

    def samples(self) -> Iterator[Sample]:
        """Read every metric; one that nobody observes is left out."""
        counted: dict[str, float | Histogram | Mapping[str, int] | Mapping[tuple[str, str], int]] = {
            "operations": self.operations,
            "ring.misses": self.ring_misses,
            "catch_up.reads": self.catch_up_reads,
            "catch_up.fallbacks": self.catch_up_fallbacks,
            "log.append.seconds": self.append_seconds,
            "log.group.records": self.group_records,
            "log.append.failures": self.append_failures,
            "requests.refused": {str(reason): count for reason, count in self.refused.items()},
            "event_loop.delay.seconds": self.loop_delay_seconds,
            **{name: read() for name, read in self._observed.items()},
        }
        for metric in METRICS:
            value = counted.get(metric.name.removeprefix("circuit_breaker."))
            if isinstance(value, Mapping):
                for labels, count in value.items():
                    yield Sample(metric, (labels,) if isinstance(labels, str) else labels, count)
            elif value is not None:
                yield Sample(metric, (), value)


@final
class LoopDelay:
    """Measures ten times a second how late the event loop is, and how far its subscribers are behind.

    :param offsets: returns the offset of the log's last record, and of the last that was offered to them.

    Example::

        delay = LoopDelay(instruments, lambda: (log.last_offset, gateway.last_offset))
        delay.start()
        delay.stop()
    """

    def __init__(self, instruments: Instruments, offsets: Callable[[], tuple[int, int]]) -> None:
        self._histogram = instruments.loop_delay_seconds
        self._slow = instruments.slow
        self._offsets = offsets
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        # A record that subscribers are still to be offered, and since when it is known.
        self._awaited: tuple[int, float] | None = None

    def start(self) -> None:
        """Begin to measure. Idempotent."""
        if self._timer is None:
            self._tick_later()

    def stop(self) -> None:
        """Measure no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + _TICK_SECONDS
        self._timer = loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        delay = max(0.0, now - self._due)
        self._histogram.observe(delay)
        self._slow.loop(delay)
        self._look_at_tail(now)
        self._tick_later()

    def _look_at_tail(self, now: float) -> None:
        last, offered = self._offsets()
        if self._awaited is not None and offered < self._awaited[0]:
            self._slow.tail(now - self._awaited[1], records=last - offered)
        else:
            self._awaited = (last, now) if offered < last else None
