"""Trace the server with OpenTelemetry; needs the extra ``otel``: its API alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

from circuit_breaker_server.start_errors import ServerStartError

try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as _error:
    raise ServerStartError(
        "traces need opentelemetry-api: pip install 'circuit-breaker-sdk[otel]', and a provider of spans, as "
        "the command opentelemetry-instrument sets one up"
    ) from _error

__all__ = ["OpenTelemetryTracer"]

_PROPAGATOR = TraceContextTextMapPropagator()


@final
class OpenTelemetryTracer:
    """Makes the spans of the server: operation, append, project, deliver.

    :param provider: ``None`` takes the global one.

    Example::

        Server(settings, tracer=OpenTelemetryTracer())
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("circuit_breaker_server", tracer_provider=provider)

    @contextmanager
    def operation(self, kind: str, name: str, context: Mapping[str, str]) -> Iterator[str | None]:
        """Begin the span of an operation, of a subscription that of its start."""
        with self._tracer.start_as_current_span(
            f"{kind} {name}".rstrip(),
            context=_PROPAGATOR.extract(context),
            kind=trace.SpanKind.SERVER,
            attributes={"graphql.operation.type": kind, "graphql.operation.name": name},
        ) as span:
            if not span.get_span_context().trace_flags.sampled:
                yield None
                return
            made: dict[str, str] = {}
            _PROPAGATOR.inject(made)
            yield made.get("traceparent")

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Begin the span of a step of the operation in this context."""
        with self._tracer.start_as_current_span(name):
            yield

    @contextmanager
    def project(self, traceparents: list[str]) -> Iterator[None]:
        """Begin a span for each record."""
        yield from self._each("project", traceparents)

    @contextmanager
    def deliver(self, traceparents: list[str]) -> Iterator[None]:
        """Begin a span for each record."""
        yield from self._each("deliver", traceparents, kind=trace.SpanKind.PRODUCER)

    def _each(
        self, name: str, traceparents: list[str], *, kind: trace.SpanKind = trace.SpanKind.INTERNAL
    ) -> Iterator[None]:
        spans = [
            self._tracer.start_span(name, context=_PROPAGATOR.extract({"traceparent": each}), kind=kind)
            for each in traceparents
        ]
        try:
            yield
        finally:
            for span in spans:
                span.end()
