"""A delivery whose handlers run inside of spans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, final

from circuit_breaker_sdk.callbacks import CALLBACK_ERRORS, Wrapped
from circuit_breaker_sdk.connections import Envelope
from circuit_breaker_sdk.delivery.consumer import Consumer, plain
from circuit_breaker_sdk.delivery.decoding import Response, traceparent_of
from circuit_breaker_sdk.delivery.delivery import Delivery

__all__ = ["TracedDelivery"]

T = TypeVar("T")


@final
class _Traced(Wrapped):
    """A handler of one event: whether that call has a span is asked when a filter has let the event pass."""

    __slots__ = ("_consumer", "_traceparent")

    def __init__(self, handler: Callable[..., object], consumer: Consumer[Any], traceparent: str) -> None:
        super().__init__(handler)
        self._consumer = consumer
        self._traceparent = traceparent

    def __call__(self, value: object) -> object:
        return self._consumer.traced_by(self.callback, self._traceparent)(value)


@final
class TracedDelivery(Delivery[T]):
    """Calls a plain handler inside of a span for an event that is traced; for others it is as its base."""

    __slots__ = ()

    def receive(self, response: Response[T], text: bytes, around: int = 0) -> bool:
        """Hand one execution result over."""
        consumer, traceparent = self.consumer, traceparent_of(response.extensions)
        handler = consumer.inline
        if traceparent is None or handler is None:
            return super().receive(response, text, around)
        latency = consumer.latency
        traced = consumer.inline = _Traced(handler, consumer, traceparent)
        try:
            return super().receive(response, text, around)
        finally:
            if plain(consumer.inline) is traced:
                consumer.inline = handler
                if consumer.latency is not latency:  # the handler has begun, or ended, to measure
                    consumer.measure(consumer.latency)

    def _handle_run(self, run: Sequence[Envelope], handler: Callable[[T], object]) -> int:
        # As its base, with a look at each event's trace: a call for it would cost more than the rest.
        taken, id_, cursor, consumer = 0, self.id, self._last_cursor, self.consumer
        base: Delivery[T] = self  # it declares what is set here
        consumer.run_goes_to = handler
        try:
            for envelope in run:
                response: Response[T] = envelope.payload
                data, extensions = response.data, response.extensions
                if envelope.id != id_ or data is None or extensions is None or response.errors:
                    break
                value, resume = data.value, extensions.resume
                if value is None or resume is None or resume.prev != cursor:
                    break
                self._last_cursor = base.received = cursor = resume.cursor
                self._handled_in_run = taken = taken + 1
                call = (
                    handler
                    if extensions.traceparent is None
                    else consumer.traced_by(handler, traceparent_of(extensions))
                )
                try:
                    result = call(value)
                except CALLBACK_ERRORS as error:
                    consumer.handlers.report(call, error)
                else:
                    if result is not None and consumer.handlers.take_awaitable(call, result, cursor):
                        break
                consumer.last_handled = cursor
                if consumer.run_goes_to is not handler:
                    break
        finally:
            self._events += taken
            self._handled_in_run = 0
        return taken
