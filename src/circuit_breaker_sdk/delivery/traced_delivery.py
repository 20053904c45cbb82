"""A delivery whose handlers run inside of spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, final

from circuit_breaker_sdk.connections import Envelope
from circuit_breaker_sdk.delivery.decoding import Response, traceparent_of
from circuit_breaker_sdk.delivery.delivery import Delivery

__all__ = ["TracedDelivery"]

T = TypeVar("T")


@final
class TracedDelivery(Delivery[T]):
    """Calls a plain handler inside of a span for an event that is traced; for others it is as its base."""

    __slots__ = ()

    def receive(self, response: Response[T], size_bytes: int) -> bool:
        """Hand one execution result over."""
        consumer, traceparent = self.consumer, traceparent_of(response.extensions)
        handler = consumer.inline
        if traceparent is None or handler is None:
            return super().receive(response, size_bytes)
        traced = consumer.inline = consumer.traced_by(handler, traceparent)
        try:
            return super().receive(response, size_bytes)
        finally:
            if consumer.inline is traced:
                consumer.inline = handler

    def receive_run(self, run: Sequence[Envelope], messages: Sequence[bytes], around: int) -> int:
        """Hand over the first messages of a run: those that are not traced together, others one by one."""
        if self.consumer.inline is None:
            return super().receive_run(run, messages, around)
        taken = 0
        while taken < len(run):
            end = taken + _before_traced(run[taken:])
            if end > taken:
                handed = super().receive_run(run[taken:end], messages[taken:end], around)
                taken += handed
                if taken < end:
                    return taken
            # A handler may have ended it, or let it go over to another link.
            elif self.state.is_end or self.link is None or run[taken].id != self.id:
                return taken
            elif self.receive(run[taken].payload, max(len(messages[taken]) - around, 1)):
                taken += 1
            else:
                return taken
        return taken


def _before_traced(run: Sequence[Envelope]) -> int:
    """Return how many events of a run come before one that is traced."""
    for number, envelope in enumerate(run):
        extensions = envelope.payload.extensions
        if extensions is not None and extensions.traceparent is not None:
            return number
    return len(run)
