"""Trace the server with OpenTelemetry; needs the extra ``otel``: its API alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import final

from circuit_breaker_server.start_errors import ServerStartError

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
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

    def project(self, traceparents: list[str]) -> AbstractContextManager[None]:
        """Begin a span for each record."""
        return _Spans(self._tracer, "project", traceparents, trace.SpanKind.INTERNAL)

    def deliver(self, traceparents: list[str]) -> AbstractContextManager[None]:
        """Begin a span for each record."""
        return _Spans(self._tracer, "deliver", traceparents, trace.SpanKind.PRODUCER)


@final
class _Spans:
    """Spans of one name, of which none is the current one."""

    def __init__(
        self, tracer: trace.Tracer, name: str, traceparents: list[str], kind: trace.SpanKind
    ) -> None:
        self._spans = [tracer.start_span(name, _parent(each), kind) for each in traceparents]

    def __enter__(self) -> None:
        """Do nothing: they have begun."""

    def __exit__(self, *_error: object) -> None:
        for span in self._spans:
            span.end()


@lru_cache(maxsize=256)
def _parent(traceparent: str) -> Context:
    """Return the context in which the span of a kept trace is the current one; each is asked for twice."""
    _version, trace_id, span_id, flags = traceparent.split("-")
    parent = trace.SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(int(flags, 16))
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), Context())
