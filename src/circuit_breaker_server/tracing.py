"""Traces: those that callers bring along, and the port that a tracer of the server fills."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Final, Protocol

__all__ = ["CALLERS_TRACE", "TRACER", "Tracer", "sampled", "step"]

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_SAMPLED: Final = 1


class Tracer(Protocol):
    """Makes spans. One that uses OpenTelemetry is in :mod:`circuit_breaker_server.otel_tracing`."""

    def operation(self, kind: str, name: str, traceparent: str | None) -> AbstractContextManager[str | None]:
        """Begin the span of a query or mutation; return the ``traceparent`` to keep with its record, if any.

        :param traceparent: the caller's, which is the parent.
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


def step(name: str) -> AbstractContextManager[object]:
    """Begin the span of a step of the operation in this context, if it is traced."""
    tracer = TRACER.get()
    return _NOTHING if tracer is None else tracer.step(name)
