"""Counters and measurements of a client, by the names under which it is exported.

Nothing is computed until someone reads (:func:`samples`), and then from the counters that are there anyway
and from one look at the client's health. Values of labels are fixed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias, final

from circuit_breaker_sdk.observability.health import Health, Verdict
from circuit_breaker_sdk.observability.latency import Distribution
from circuit_breaker_sdk.observability.metrics import SubscriptionMetrics

__all__ = ["INSTRUMENTS", "Instrument", "Observed", "Reader", "Sample", "samples"]

_READ_SECONDS: Final = 5.0

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


class Observed(Protocol):
    """Interface to a client, of either kind."""

    @property
    def metrics(self) -> SubscriptionMetrics:
        """The counters."""
        ...

    def health(self, *, worst: int = 10) -> Health:
        """Tell how it is."""
        ...


Value: TypeAlias = float | Distribution | None
_Values: TypeAlias = Value | Mapping[str, float]
_Read: TypeAlias = Callable[[SubscriptionMetrics, Health], _Values]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """The description of one instrument, and where its value is.

    :ivar name: as OpenTelemetry has names, with the unit at its end where there is one.
    :ivar label: the one label and the values that it may have.
    :ivar read: from the counters and the health to the value; ``None`` where there is none now.

    Example::

        [instrument.name for instrument in INSTRUMENTS]
    """

    name: str
    kind: Kind
    about: str
    label: tuple[str, tuple[str, ...]] | None
    read: _Read

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus' format, which has no dots; of a counter with ``_total``."""
        return self.name.replace(".", "_") + ("_total" if self.kind == "counter" else "")

    @property
    def unit(self) -> str:
        """The unit as OpenTelemetry writes it; empty for a number of things."""
        return {"seconds": "s", "bytes": "By"}.get(self.name.rpartition(".")[2], "")


@final
class Sample(NamedTuple):
    """One value of an instrument; ``label`` is the value of its label, where it has one."""

    instrument: Instrument
    label: str | None
    value: float | Distribution


_CONNECTIONS: Final = ("idle", "connecting", "connected", "reconnecting", "closed")
_BREAKERS: Final = ("closed", "half_open", "open")
_SUBSCRIPTIONS: Final = ("starting", "live", "reconnecting", "paused")
_TRANSPORTS: Final = ("websocket", "sse", "poll", "query", "none")
_VERDICTS: Final = tuple(str(verdict) for verdict in Verdict)


def _connections(_metrics: SubscriptionMetrics, health: Health) -> Mapping[str, float]:
    counts = dict.fromkeys(_CONNECTIONS, 0)
    for connection in health.connections:
        counts[str(connection.state)] += 1
    return counts


def _breakers(_metrics: SubscriptionMetrics, health: Health) -> Mapping[str, float]:
    counts = dict.fromkeys(_BREAKERS, 0)
    for connection in health.connections:
        for breaker in connection.circuit_breakers:
            counts[str(breaker.state)] += 1
    return counts


def _longest_silence(_metrics: SubscriptionMetrics, health: Health) -> float | None:
    known = [each.seconds_since_frame for each in health.connections]
    return max((seconds for seconds in known if seconds is not None), default=None)


_Row: TypeAlias = tuple[str, Kind, str, tuple[str, tuple[str, ...]] | None, _Read]

_ROWS: Final[tuple[_Row, ...]] = (
    (
        "health",
        "gauge",
        "1 for the present verdict, 0 for the others",
        ("verdict", _VERDICTS),
        lambda _, health: {verdict: float(verdict == health.verdict) for verdict in _VERDICTS},
    ),
    ("connections", "gauge", "WebSocket connections, by state", ("state", _CONNECTIONS), _connections),
    (
        "circuit_breakers",
        "gauge",
        "circuit breakers of the URLs, of each connection, by state",
        ("state", _BREAKERS),
        _breakers,
    ),
    (
        "connection.failures",
        "counter",
        "connections that could not be opened, or were lost",
        None,
        lambda metrics, _: metrics.connection_failures,
    ),
    (
        "reconnections",
        "counter",
        "attempts to open a connection again",
        None,
        lambda metrics, _: metrics.reconnection_attempts,
    ),
    (
        "round_trip.seconds",
        "gauge",
        "the latest ping, of several connections the longest",
        None,
        lambda metrics, _: metrics.round_trip_seconds,
    ),
    (
        "silence.seconds",
        "gauge",
        "time since a connection has received something, of several the longest",
        None,
        _longest_silence,
    ),
    (
        "subscriptions",
        "gauge",
        "running subscriptions, by state",
        ("state", _SUBSCRIPTIONS),
        lambda _, health: {name: getattr(health.subscriptions, name) for name in _SUBSCRIPTIONS},
    ),
    (
        "subscriptions.carried",
        "gauge",
        "running subscriptions, by what brings their events",
        ("transport", _TRANSPORTS),
        lambda _, health: {name: getattr(health.transports, name) for name in _TRANSPORTS},
    ),
    (
        "events.received",
        "counter",
        "events received by all subscriptions, ended ones included",
        None,
        lambda metrics, _: metrics.messages_received,
    ),
    (
        "buffered.events",
        "gauge",
        "events that wait for their consumers",
        None,
        lambda _, health: health.memory.buffered_events,
    ),
    (
        "buffered.bytes",
        "gauge",
        "encoded bytes of the events that wait",
        None,
        lambda _, health: health.memory.buffered_bytes,
    ),
    (
        "buffered.limit.bytes",
        "gauge",
        "what all buffers may hold together",
        None,
        lambda _, health: health.memory.max_buffered_bytes,
    ),
    (
        "consumer.wait.seconds",
        "gauge",
        "the longest time that events of a subscription have waited without one being taken",
        None,
        lambda _, health: health.longest_wait_seconds,
    ),
    (
        "handler.seconds",
        "histogram",
        "how long handlers took, where latency is measured",
        None,
        lambda _, health: None if health.latency is None else health.latency.handler,
    ),
    (
        "wire_to_handler.seconds",
        "histogram",
        "from the read of an event to its plain handler, where latency is measured",
        None,
        lambda _, health: None if health.latency is None else health.latency.wire_to_handler,
    ),
)

INSTRUMENTS: Final = tuple(
    Instrument(name=f"circuit_breaker.client.{name}", kind=kind, about=about, label=label, read=read)
    for name, kind, about, label, read in _ROWS
)
"""Every instrument of a client."""


def samples(client: Observed) -> Iterator[Sample]:
    """Read every instrument; one that has no value now is left out."""
    metrics, health = client.metrics, client.health(worst=0)
    for instrument in INSTRUMENTS:
        value = instrument.read(metrics, health)
        if isinstance(value, Mapping):
            for label, count in value.items():
                yield Sample(instrument, label, count)
        elif value is not None:
            yield Sample(instrument, None, value)


@final
class Reader:
    """Reads a client's instruments from any thread: on the client's own loop, if there is one.

    Make it on that loop. Of a blocking client, which has a loop of its own, it may be made anywhere.

    Example::

        reader = Reader(client)
        list(reader.read())
    """

    def __init__(self, client: Observed) -> None:
        self._client = client
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def read(self) -> list[Sample]:
        """Return all samples.

        :raises TimeoutError: the client's loop does not run its callbacks.
        """
        loop = self._loop
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if loop is None or running is loop or not loop.is_running():
            return list(samples(self._client))
        return asyncio.run_coroutine_threadsafe(self._read_here(), loop).result(_READ_SECONDS)

    async def _read_here(self) -> list[Sample]:
        return list(samples(self._client))
