"""Traces: those that callers bring along, and the port that a tracer of the server fills."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final, Protocol

__all__ = [
    "CALLERS_TRACE",
    "TRACER",
    "Tracer",
    "operation_span",
    "sampled",
    "start_span",
    "step",
    "trace_context",
    "trace_context_of",
]

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_SAMPLED: Final = 1
_MAX_STATE: Final = 512


class Tracer(Protocol):
    """Makes spans. One that uses OpenTelemetry is in :mod:`circuit_breaker_server.otel_tracing`."""

    def operation(
        self, kind: str, name: str, context: Mapping[str, str]
    ) -> AbstractContextManager[str | None]:
        """Begin the span of an operation; return the ``traceparent`` to keep with its record, if any.

        Of a subscription it is the span of its start.

        :param context: the caller's, as :func:`trace_context` returns it: the parent.
        """
        ...

    def step(self, name: str) -> AbstractContextManager[object]:
        """Begin the span of a step of the operation in this context."""
        ...

    def project(self, traceparents: list[str]) -> AbstractContextManager[object]:
        """Begin the spans in which records of these mutations are offered to channels."""
        ...

    def deliver(self, traceparents: list[str]) -> AbstractContextManager[object]:
        """Begin the spans in which their events are encoded and written to sockets."""
        ...


CALLERS_TRACE: Final[ContextVar[str | None]] = ContextVar("CALLERS_TRACE", default=None)
"""The trace that the operation in this context belongs to; it is kept with its record."""

TRACER: Final[ContextVar[Tracer | None]] = ContextVar("TRACER", default=None)
"""Makes the spans of the operation in this context; ``None``: nothing does."""

_NOTHING: Final = nullcontext()


def sampled(traceparent: str | None) -> str | None:
    """Return a ``traceparent`` that is one (W3C Trace Context, section 3.2) and whose caller records it."""
    if traceparent is None or not _TRACEPARENT.fullmatch(traceparent):
        return None
    return traceparent if int(traceparent[-2:], 16) & _SAMPLED else None


def trace_context(traceparent: object, tracestate: object = None) -> dict[str, str]:
    """Return the trace context of a caller, sampled or not; it is empty where ``traceparent`` is none."""
    if not isinstance(traceparent, str) or not _TRACEPARENT.fullmatch(traceparent):
        return {}
    if isinstance(tracestate, str) and len(tracestate) <= _MAX_STATE:
        return {"traceparent": traceparent, "tracestate": tracestate}
    return {"traceparent": traceparent}


def trace_context_of(extensions: Mapping[str, object] | None) -> dict[str, str]:
    """Return the trace context that the ``extensions`` of an operation name."""
    if not extensions:
        return {}
    return trace_context(extensions.get("traceparent"), extensions.get("tracestate"))


def operation_span(
    tracer: Tracer | None, kind: str, name: str, context: Mapping[str, str]
) -> AbstractContextManager[None]:
    """Begin the span of a query or mutation, and keep its trace for the records of this context.

    The context is to be that of the operation alone.
    """
    if tracer is None:
        CALLERS_TRACE.set(sampled(context.get("traceparent")))
        return _NOTHING
    return _traced_operation(tracer, kind, name, context)


@contextmanager
def _traced_operation(tracer: Tracer, kind: str, name: str, context: Mapping[str, str]) -> Iterator[None]:
    TRACER.set(tracer)
    with tracer.operation(kind, name, context) as traceparent:
        CALLERS_TRACE.set(traceparent)
        yield


def start_span(
    tracer: Tracer | None, field: str, extensions: Mapping[str, object] | None, *, is_lasting: bool
) -> AbstractContextManager[object]:
    """Begin the span of a subscription's start.

    :param is_lasting: whether it stays. One that each poll begins anew has a span only if its caller has.
    """
    if tracer is None:
        return _NOTHING
    context = trace_context_of(extensions)
    return tracer.operation("subscription", field, context) if is_lasting or context else _NOTHING


def step(name: str) -> AbstractContextManager[object]:
    """Begin the span of a step of the operation in this context, if it is traced."""
    tracer = TRACER.get()
    return _NOTHING if tracer is None else tracer.step(name)
