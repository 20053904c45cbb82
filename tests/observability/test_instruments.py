"""What a client exports: as Prometheus reads it, as OpenTelemetry observes it, and as the document says."""

from __future__ import annotations

import asyncio
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry.metrics import CallbackOptions, NoOpMeter, Observation
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from circuit_breaker_sdk import Client, SyncClient
from circuit_breaker_sdk.observability.instruments import INSTRUMENTS
from circuit_breaker_sdk.observability.otel import observe
from circuit_breaker_sdk.observability.prometheus import ClientCollector
from tests.observability.worlds import world
from tests.waiting import until

ROOT: Final = Path(__file__).parents[2]

Values = dict[tuple[str, tuple[str, ...]], float]


def scraped(registry: CollectorRegistry) -> Values:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def registry_of(client: Client | SyncClient) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(ClientCollector(client))
    return registry


async def test_prometheus_reads_every_instrument_from_another_thread(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.client.measure_latency()
        updates = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        handled: list[object] = []
        other = await w.client.workflows.subscribe_workflow_events(workflow_id=w.workflow).subscribe()
        other.on_data(handled.append)
        await w.publish(1, 2)
        await until(lambda: updates.stats().buffered_events == 2 and len(handled) == 2)
        await until(lambda: w.client.metrics.round_trip_seconds is not None)
        registry = registry_of(w.client)
        values = await asyncio.to_thread(scraped, registry)
        prefix = "circuit_breaker_client_"
        assert values[prefix + "health", ("ok",)] == 1
        assert values[prefix + "health", ("failing",)] == 0
        assert values[prefix + "connections", ("connected",)] == 1
        assert values[prefix + "circuit_breakers", ("closed",)] == 1
        assert values[prefix + "subscriptions", ("live",)] == 2
        assert values[prefix + "subscriptions_carried", ("websocket",)] == 2
        assert values[prefix + "events_received_total", ()] == 4
        assert values[prefix + "buffered_events", ()] == 2
        assert values[prefix + "buffered_bytes", ()] == updates.stats().buffered_bytes
        assert values[prefix + "buffered_limit_bytes", ()] == 1 << 26
        assert values[prefix + "handler_seconds_count", ()] == 2
        assert values[prefix + "wire_to_handler_seconds_bucket", ("+Inf",)] == 2
        found = {name for name, _ in values}
        for instrument in INSTRUMENTS:
            name = instrument.prometheus_name
            endings = ("_bucket", "_count", "_sum") if instrument.kind == "histogram" else ("",)
            assert {name + ending for ending in endings} <= found
            found -= {name + ending for ending in endings}
        assert found == set()
        w.proxy.cut()
        await until(lambda: w.client.metrics.reconnection_attempts)
        again = scraped(registry)  # on the client's own loop
        assert again[prefix + "connection_failures_total", ()] >= 1
        assert again[prefix + "reconnections_total", ()] >= 1


def test_a_blocking_client_is_read_from_any_thread_and_what_has_no_value_is_left_out() -> None:
    with SyncClient("ws://localhost") as client:
        values = scraped(registry_of(client))
    assert values["circuit_breaker_client_connections", ("idle",)] == 1
    assert not any("handler_seconds" in name or "round_trip" in name for name, _ in values)


def test_every_instrument_has_a_name_of_its_own_and_one_label_at_most_with_fixed_values() -> None:
    assert len({each.name for each in INSTRUMENTS}) == len(INSTRUMENTS)
    for each in INSTRUMENTS:
        assert re.fullmatch(r"circuit_breaker\.client(\.[a-z_]+)+", each.name)
        assert each.label is None or len(each.label[1]) <= 5
        assert each.kind != "histogram" or each.unit == "s"


class RecordingMeter(NoOpMeter):
    """Keeps the callbacks, as a meter of an SDK of OpenTelemetry would."""

    def __init__(self) -> None:
        super().__init__("test")
        self.made: dict[str, tuple[str, str, Sequence[Callable[..., Iterable[Observation]]]]] = {}

    def create_observable_counter(  # type: ignore[override]  # nothing is returned: nobody asks
        self, name: str, callbacks: Any = None, unit: str = "", description: str = ""
    ) -> None:
        assert description
        self.made[name] = ("counter", unit, callbacks)

    def create_observable_gauge(  # type: ignore[override]
        self, name: str, callbacks: Any = None, unit: str = "", description: str = ""
    ) -> None:
        assert description
        self.made[name] = ("gauge", unit, callbacks)

    def collect(self) -> dict[tuple[str, str], float]:
        """Ask every callback; return values by name and by the value of the attribute."""
        found = {}
        for name, (_, _, callbacks) in self.made.items():
            for callback in callbacks:
                for each in callback(CallbackOptions()):
                    attributes = each.attributes or {}
                    found[name, "".join(map(str, attributes.values()))] = each.value
        return found


async def test_opentelemetry_observes_every_instrument_with_its_unit(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.client.measure_latency()
        updates = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        handled: list[object] = []
        updates.on_data(handled.append)
        await w.publish(1)
        await until(lambda: handled)
        await until(lambda: w.client.metrics.round_trip_seconds is not None)
        meter = RecordingMeter()
        observe(w.client, meter)
        values = await asyncio.to_thread(meter.collect)
    prefix = "circuit_breaker.client."
    assert values[prefix + "health", "ok"] == 1
    assert values[prefix + "subscriptions", "live"] == 1
    assert values[prefix + "events.received", ""] == 1
    assert values[prefix + "handler.seconds", "0.99"] >= values[prefix + "handler.seconds", "0.5"] > 0
    assert {name for name, _ in values} == {each.name for each in INSTRUMENTS} == set(meter.made)
    assert meter.made[prefix + "buffered.bytes"][:2] == ("gauge", "By")
    assert meter.made[prefix + "round_trip.seconds"][:2] == ("gauge", "s")
    assert meter.made[prefix + "reconnections"][:2] == ("counter", "")


async def test_opentelemetry_without_a_meter_takes_the_global_one() -> None:
    observe(Client("ws://localhost"))


@pytest.mark.parametrize(
    ("module", "needs", "extra"),
    [("prometheus", "prometheus_client", "prometheus"), ("otel", "opentelemetry", "otel")],
)
def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, module: str, needs: str, extra: str
) -> None:
    name = f"circuit_breaker_sdk.observability.{module}"
    for loaded in [each for each in sys.modules if each == needs or each.startswith(needs + ".")]:
        monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.setitem(sys.modules, needs, None)
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=rf"circuit-breaker-sdk\[{extra}\]"):
        importlib.import_module(name)


def test_the_document_has_the_table_of_the_instruments() -> None:
    expected = []
    for each in INSTRUMENTS:
        shown = "none"
        if each.label is not None:
            shown = f"`{each.label[0]}`: " + ", ".join(f"`{value}`" for value in each.label[1])
        expected.append(f"| `{each.prometheus_name}` | {each.kind} | {each.about} | {shown} |")
    lines = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("| `circuit_breaker_client_")] == expected
