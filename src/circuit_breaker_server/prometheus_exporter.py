"""Show the instruments of a server to Prometheus; needs the extra ``prometheus``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate, groupby
from operator import attrgetter
from typing import final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from circuit_breaker_server.instruments import Histogram, Instruments, Metric, Sample

__all__ = ["CONTENT_TYPE", "InstrumentsCollector", "exposition"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""The ``Content-Type`` of :func:`exposition`."""


@final
class InstrumentsCollector(Collector):
    """Reads the instruments whenever Prometheus asks; between that it does nothing.

    Example::

        CollectorRegistry().register(InstrumentsCollector(server.instruments))
    """

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments

    def collect(self) -> Iterator[Family]:
        """Yield each metric with its values."""
        for metric, samples in groupby(self._instruments.samples(), attrgetter("metric")):
            yield _family(metric, samples)


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    name, about, labels = metric.prometheus_name, metric.about, list(metric.labels or ())
    histograms = HistogramMetricFamily(name, about, labels=labels)
    numbers = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
        name, about, labels=labels
    )
    for sample in samples:
        value = sample.value
        if isinstance(value, Histogram):
            ends = [*(f"{bound:g}" for bound in value.bounds), "+Inf"]
            buckets = list(zip(ends, accumulate(value.counts), strict=True))
            histograms.add_metric(list(sample.labels), buckets, value.total)
        else:
            numbers.add_metric(list(sample.labels), value)
    return histograms if metric.kind == "histogram" else numbers


def exposition(instruments: Instruments) -> bytes:
    """Return all metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(InstrumentsCollector(instruments))
    return generate_latest(registry)
