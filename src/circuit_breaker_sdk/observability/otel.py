"""Show a client's instruments to OpenTelemetry; needs the extra ``otel``: its API alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final, final

from circuit_breaker_sdk.observability.instruments import INSTRUMENTS, Instrument, Observed, Reader, Sample
from circuit_breaker_sdk.observability.latency import Distribution

try:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter
except ImportError as _error:
    raise ImportError(
        "this needs opentelemetry-api: pip install 'circuit-breaker-sdk[otel]'", name="opentelemetry"
    ) from _error

__all__ = ["observe"]

_TOGETHER_SECONDS: Final = 0.5
"""The callbacks of one collection come at once: the client is looked at once for all of them."""


def observe(client: Observed, meter: Meter | None = None) -> None:
    """Let all instruments of a client be observed whenever OpenTelemetry collects, in whatever thread.

    Call it on the client's event loop, once. A histogram cannot be observed from outside: of the two there
    are gauges of the quantiles 0.5 and 0.99, under the attribute ``quantile``.

    :param meter: ``None`` takes that of the global provider, named ``circuit_breaker_sdk``.
    """
    shared = _Shared(Reader(client))
    meter = meter or get_meter("circuit_breaker_sdk")
    for instrument in INSTRUMENTS:
        create = (
            meter.create_observable_counter if instrument.kind == "counter" else meter.create_observable_gauge
        )
        create(
            instrument.name,
            callbacks=[_callback(shared, instrument)],
            unit=instrument.unit,
            description=instrument.about,
        )


@final
class _Shared:
    """The samples of one collection."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._read_at = -_TOGETHER_SECONDS
        self._samples: list[Sample] = []

    def of(self, instrument: Instrument) -> list[Sample]:
        if monotonic() - self._read_at >= _TOGETHER_SECONDS:
            self._samples, self._read_at = self._reader.read(), monotonic()
        return [sample for sample in self._samples if sample.instrument is instrument]


def _callback(shared: _Shared, instrument: Instrument) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_options: CallbackOptions) -> Iterable[Observation]:
        return [each for sample in shared.of(instrument) for each in _observations(sample)]

    return read


def _observations(sample: Sample) -> Iterable[Observation]:
    value, label = sample.value, sample.instrument.label
    if isinstance(value, Distribution):
        for quantile, seconds in (("0.5", value.p50_seconds), ("0.99", value.p99_seconds)):
            if seconds is not None:
                yield Observation(seconds, {"quantile": quantile})
    elif label is not None and sample.label is not None:
        yield Observation(value, {label[0]: sample.label})
    else:
        yield Observation(value)
