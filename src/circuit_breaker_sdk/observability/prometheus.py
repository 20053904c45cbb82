"""Show a client's instruments to Prometheus; needs the extra ``prometheus``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate, groupby
from operator import attrgetter
from typing import final

from circuit_breaker_sdk.observability.instruments import Instrument, Observed, Reader, Sample
from circuit_breaker_sdk.observability.latency import BOUNDS, Distribution

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.registry import Collector
except ImportError as _error:
    raise ImportError(
        "this needs prometheus-client: pip install 'circuit-breaker-sdk[prometheus]'",
        name="prometheus_client",
    ) from _error

__all__ = ["ClientCollector"]


@final
class ClientCollector(Collector):
    """Reads the instruments whenever Prometheus asks, in whatever thread; between that it does nothing.

    One registry takes one client: two would give the same series.

    Example::

        async with Client(url) as client:
            REGISTRY.register(ClientCollector(client))
            start_http_server(9465, addr="127.0.0.1")
    """

    def __init__(self, client: Observed) -> None:
        """Make it on the client's event loop, which reads from then on."""
        self._reader = Reader(client)

    def describe(self) -> Iterator[Family]:
        """Yield nothing: to register it asks the client nothing."""
        return iter(())

    def collect(self) -> Iterator[Family]:
        """Yield each instrument with its values.

        :raises TimeoutError: the client's event loop is blocked.
        """
        for instrument, samples in groupby(self._reader.read(), attrgetter("instrument")):
            yield _family(instrument, samples)


def _family(instrument: Instrument, samples: Iterable[Sample]) -> Family:
    name, about = instrument.prometheus_name, instrument.about
    labels = [] if instrument.label is None else [instrument.label[0]]
    histograms = HistogramMetricFamily(name, about, labels=labels)
    numbers = (CounterMetricFamily if instrument.kind == "counter" else GaugeMetricFamily)(
        name, about, labels=labels
    )
    for sample in samples:
        values = [] if sample.label is None else [sample.label]
        if isinstance(sample.value, Distribution):
            ends = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
            buckets = list(zip(ends, accumulate(sample.value.buckets), strict=True))
            histograms.add_metric(values, buckets, sample.value.total_seconds)
        else:
            numbers.add_metric(values, sample.value)
    return histograms if instrument.kind == "histogram" else numbers
