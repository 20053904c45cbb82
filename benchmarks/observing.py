"""The cost of being seen from outside: a client with a handler and a fan-out, with metrics, with traces."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracerProvider
from prometheus_client import CollectorRegistry, generate_latest

from benchmarks.event import DOCUMENT
from benchmarks.machine import LOAD_CORE, MEASURED_CORE, on_core
from benchmarks.processes import Remote
from benchmarks.receiving import rate_of, received_by
from benchmarks.row import Rounds, Row, Scale, at_least
from benchmarks.sending import deliver, our_server_process
from benchmarks.sockets import Sockets
from circuit_breaker_sdk import Client
from circuit_breaker_sdk.observability.otel_tracing import OpenTelemetryTracer
from circuit_breaker_sdk.observability.prometheus import ClientCollector

__all__ = ["observing"]

_SOCKETS = 100
_STARTS = 7
_SCRAPE_SECONDS = 1.0
_METRICS, _TRACES = "metrics on", "traces at 1 %"
_OWN = "traces at 1 %, without the SDK"
"""What the client itself adds: the rest is what the SDK of OpenTelemetry takes for a span."""
_MEASURED = "metrics on, and measure_latency()"
_METRICS_MEAN = "scraped once a second by prometheus-client"
_TRACES_MEAN = "one event in a hundred comes from a mutation that is traced; spans end in the SDK"


def observing(scale: Scale) -> Iterator[Row]:
    """Yield a row for the client and one for each size of the server's writes."""
    yield _client(scale)
    yield from _fan_out(scale)


def _row(rounds: Rounds, title: str, unit: str) -> Row:
    shares = {name: round(rounds.ratio(name, "off"), 3) for name in (_METRICS, _TRACES)}
    row = Row(
        benchmark=f"observability, {title}",
        unit=unit,
        ours=round(rounds.median(_METRICS)),
        detail={"off": round(rounds.median("off")), **{f"{name}, of off": shares[name] for name in shares}},
        settings={_METRICS: _METRICS_MEAN, _TRACES: _TRACES_MEAN},
    )
    return row.aim({_METRICS: at_least(0.97, shares[_METRICS]), _TRACES: at_least(0.95, shares[_TRACES])})


# The client ---------------------------------------------------------------------------------------------


def _client(scale: Scale) -> Row:
    events = scale.pick(400_000, 20_000)
    measures: dict[str, Callable[[], float]] = {
        "off": lambda: rate_of(received_by(Client), events),
        _METRICS: lambda: rate_of(received_by(Client, around=_scraped), events),
        _TRACES: lambda: rate_of(
            received_by(partial(Client, tracer=OpenTelemetryTracer(TracerProvider()))), events
        ),
    }
    measures[_OWN] = lambda: rate_of(
        received_by(partial(Client, tracer=OpenTelemetryTracer(NoOpTracerProvider()))), events
    )
    measures[_MEASURED] = lambda: rate_of(received_by(Client, around=_measured), events)
    with on_core(MEASURED_CORE):
        rounds = Rounds(measures, scale.runs)
    row = _row(rounds, "client, plain handler", "typed events/s")
    for name in (_OWN, _MEASURED):
        row.detail[f"{name}, of off"] = round(rounds.ratio(name, "off"), 3)
    return row


@contextlib.contextmanager
def _measured(client: Client) -> Iterator[None]:
    client.measure_latency()
    with _scraped(client):
        yield


@contextlib.contextmanager
def _scraped(client: Client) -> Iterator[None]:
    registry = CollectorRegistry()
    registry.register(ClientCollector(client))

    async def scrape() -> None:
        while True:
            await asyncio.sleep(_SCRAPE_SECONDS / 2)
            generate_latest(registry)
            await asyncio.sleep(_SCRAPE_SECONDS / 2)

    scraping = asyncio.get_running_loop().create_task(scrape())
    try:
        yield
    finally:
        scraping.cancel()


# The server ---------------------------------------------------------------------------------------------


def _fan_out(scale: Scale) -> Iterator[Row]:
    # Two processes of one program differ by some percent for as long as they live: each start has others.
    found: dict[int, Rounds] = {}
    for _ in range(scale.pick(_STARTS, 1)):
        for together, rounds in _started_once(scale):
            if together in found:
                found[together].and_also(rounds)
            else:
                found[together] = rounds
    for together, rounds in found.items():
        yield _row(rounds, f"fan-out to {_SOCKETS} sockets, {together} events per write", "deliveries/s")


def _started_once(scale: Scale) -> Iterator[tuple[int, Rounds]]:
    """Yield what servers of their own reach, by the events of a write."""
    with on_core(LOAD_CORE), contextlib.ExitStack() as running_:
        placed: dict[str, tuple[Remote, Sockets]] = {}
        for name in ("off", _METRICS, _TRACES):
            settings = {"metrics_port": 0} if name == _METRICS else {"traced": name == _TRACES}
            server = running_.enter_context(our_server_process(**settings))
            server.call("make", workflows=1)
            sockets = running_.enter_context(
                Sockets(server.call("port"), _SOCKETS, resume=True, traces=name == _TRACES)
            )
            sockets.subscribe(DOCUMENT)
            placed[name] = server, sockets
        running_.enter_context(_scraping(placed[_METRICS][0].call("metrics_url")))
        for together in (1, 10, 100):
            events = max(scale.pick(4_000, 200) if together > 1 else scale.pick(800, 60), 2 * together)
            measures = {
                name: partial(deliver, *each, events, together=together) for name, each in placed.items()
            }
            yield together, Rounds(measures, scale.long_runs)


@contextlib.contextmanager
def _scraping(url: str) -> Iterator[None]:
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.wait(_SCRAPE_SECONDS):
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 (our own server)
                answer.read()

    thread = threading.Thread(target=scrape, name="scrape")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
