"""Trace a client with OpenTelemetry; needs the extra ``otel``: its API alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from types import TracebackType
from typing import final

try:
    from opentelemetry import trace
    from opentelemetry.context import Context, attach, detach
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as _error:
    raise ImportError(
        "this needs opentelemetry-api: pip install 'circuit-breaker-sdk[otel]'", name="opentelemetry"
    ) from _error

__all__ = ["OpenTelemetryTracer"]

_PROPAGATOR = TraceContextTextMapPropagator()
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)


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
    :param max_handler_spans_per_second: further calls of handlers in the same second have no span, and count
        in :attr:`skipped_handler_spans`: a span costs as much as ten events, and an exporter in batches
        loses what is over 409 a second (2,048 in 5 s by OpenTelemetry's defaults). ``None``: no bound.
    :raises ValueError: the bound is not above 0.

    Example::

        client = Client(url, tracer=OpenTelemetryTracer())
    """

    def __init__(
        self,
        provider: trace.TracerProvider | None = None,
        *,
        max_handler_spans_per_second: int | None = 400,
    ) -> None:
        if max_handler_spans_per_second is not None and not max_handler_spans_per_second > 0:
            raise ValueError(
                f"max_handler_spans_per_second must be above 0, not {max_handler_spans_per_second}"
            )
        self._tracer = trace.get_tracer("circuit_breaker_sdk", tracer_provider=provider)
        self._max_per_second = max_handler_spans_per_second
        self._left = 0
        self._second_ends = 0.0
        self.skipped_handler_spans: int = 0
        """The calls of handlers that had no span because there were too many in their second."""

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

    def handling(
        self, label: str, subscription_id: str, traceparent: str
    ) -> AbstractContextManager[object] | None:
        """Return the span of a handler's call, in the trace of the mutation, and linked to it."""
        if self._max_per_second is not None:
            now = monotonic()
            if now >= self._second_ends:
                self._second_ends, self._left = now + 1.0, self._max_per_second
            if self._left <= 0:
                self.skipped_handler_spans += 1
                return None
            self._left -= 1
        cause = _cause(traceparent)
        return _Handling(self._tracer, cause, label, subscription_id) if cause.is_valid else None


@final
class _Handling:
    """The span of one call: what ``start_as_current_span`` does, without a generator in a generator."""

    __slots__ = ("_cause", "_id", "_label", "_span", "_token", "_tracer")

    def __init__(self, tracer: trace.Tracer, cause: trace.SpanContext, label: str, id_: str) -> None:
        self._tracer = tracer
        self._cause = cause
        self._label = label
        self._id = id_

    def __enter__(self) -> None:
        cause = self._cause
        parent = trace.set_span_in_context(trace.NonRecordingSpan(cause))
        self._span = span = self._tracer.start_span(
            f"handle {self._label}",
            parent,
            trace.SpanKind.CONSUMER,
            {
                "graphql.operation.type": "subscription",
                "graphql.operation.name": self._label,
                "circuit_breaker.subscription.id": self._id,
            },
            (trace.Link(cause),),
        )
        self._token = attach(trace.set_span_in_context(span, parent))

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        detach(self._token)
        span = self._span
        if isinstance(error, Exception):
            span.record_exception(error)
            span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
        span.end()


def _cause(traceparent: str) -> trace.SpanContext:
    """Return the context of a mutation's span; one that is not valid where the text names none."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is not None:
        trace_id, span_id, flags = found.groups()
        return trace.SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(int(flags, 16))
        )
    # Of another version than the first, or none.
    context = _PROPAGATOR.extract({"traceparent": traceparent}, Context())
    return trace.get_current_span(context).get_span_context()
