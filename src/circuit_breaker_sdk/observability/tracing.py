"""Traces of a client: the port that a tracer fills, and handlers that run inside of a span."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from circuit_breaker_sdk.callbacks import InContext, callback_name

__all__ = ["Tracer", "traced_call"]


class Tracer(Protocol):
    """Makes spans; :mod:`circuit_breaker_sdk.observability.otel_tracing` has one for OpenTelemetry."""

    def request(self, name: str, *, is_mutation: bool) -> AbstractContextManager[Mapping[str, str]]:
        """Begin the span of a query or mutation; return the trace context to send with it.

        That is ``traceparent``, and ``tracestate`` where there is one (W3C Trace Context), or nothing.
        """
        ...

    def subscribing(self, label: str) -> AbstractContextManager[Mapping[str, str]]:
        """Begin the span of a subscription's start; return the trace context as :meth:`request` does.

        It is not to be the current one: what goes on behind the start is not part of it.
        """
        ...

    def handling(
        self, label: str, subscription_id: str, traceparent: str
    ) -> AbstractContextManager[object] | None:
        """Return the span of a handler's call, linked to the mutation that caused the event.

        It begins when it is entered. ``None``: this call has none.

        :param traceparent: of the mutation (W3C Trace Context), as the server gave it with the event.
        """
        ...


def traced_call(
    callback: Callable[..., object], span: AbstractContextManager[object]
) -> Callable[[object], object]:
    """Return the handler with a span around one call, inside of the context that it runs in.

    A coroutine function has it around what it awaits, too.
    """
    inner = callback.callback if isinstance(callback, InContext) else callback

    async def call_and_await(value: object) -> object:
        with span:
            result: Any = inner(value)
            return await result

    def call(value: object) -> object:
        with span:
            return inner(value)

    within = call_and_await if inspect.iscoroutinefunction(inner) else call
    within.__qualname__ = callback_name(callback)  # as errors name it
    return InContext(within, callback.context) if isinstance(callback, InContext) else within
