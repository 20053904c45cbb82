"""Trace a client with OpenTelemetry; needs the extra ``otel``: its API alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as _error:
    raise ImportError(
        "this needs opentelemetry-api: pip install 'circuit-breaker-sdk[otel]'", name="opentelemetry"
    ) from _error

__all__ = ["OpenTelemetryTracer"]

_PROPAGATOR = TraceContextTextMapPropagator()


def _carrier(context: Context | None = None) -> dict[str, str]:
    """Return the trace context to send; ``None``: of the current span."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context)
    return carrier


@final
class OpenTelemetryTracer:
    """Makes the spans of a client: queries and mutations, starts of subscriptions, and calls of handlers.

    A handler's span belongs to the trace of the mutation that caused the event, and is linked to it; events
    of mutations that were not sampled have none. The server gives them to clients with a tracer.

    :param provider: ``None`` takes the global one.

    Example::

        client = Client(url, tracer=OpenTelemetryTracer())
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("circuit_breaker_sdk", tracer_provider=provider)

    @contextmanager
    def request(self, name: str, *, is_mutation: bool) -> Iterator[Mapping[str, str]]:
        """Begin the span of a query or mutation; the server takes it for the parent of its own."""
        kind = "mutation" if is_mutation else "query"
        attributes = {"graphql.operation.type": kind, "graphql.operation.name": name}
        with self._tracer.start_as_current_span(
            f"{kind} {name}".rstrip(), kind=trace.SpanKind.CLIENT, attributes=attributes
        ):
            yield _carrier()

    @contextmanager
    def subscribing(self, label: str) -> Iterator[Mapping[str, str]]:
        """Begin the span of a subscription's start; the server takes it for the parent of its own."""
        attributes = {"graphql.operation.type": "subscription", "graphql.operation.name": label}
        span = self._tracer.start_span(
            f"subscription {label}", kind=trace.SpanKind.CLIENT, attributes=attributes
        )
        try:
            yield _carrier(trace.set_span_in_context(span))
        except Exception as error:
            span.record_exception(error)
            span.set_status(trace.StatusCode.ERROR, str(error))
            raise
        finally:
            span.end()

    @contextmanager
    def handling(self, label: str, subscription_id: str, traceparent: str) -> Iterator[None]:
        """Begin the span of a handler's call, in the trace of the mutation, and linked to it."""
        context = _PROPAGATOR.extract({"traceparent": traceparent})
        cause = trace.get_current_span(context).get_span_context()
        if not cause.is_valid:
            yield
            return
        attributes = {
            "graphql.operation.type": "subscription",
            "graphql.operation.name": label,
            "circuit_breaker.subscription.id": subscription_id,
        }
        with self._tracer.start_as_current_span(
            f"handle {label}",
            context=context,
            kind=trace.SpanKind.CONSUMER,
            links=[trace.Link(cause)],
            attributes=attributes,
        ):
            yield
