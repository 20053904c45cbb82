"""Interfaces from handlers to the subscription that they belong to and the events that wait for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from circuit_breaker_sdk.delivery.subscription_state import SubscriptionId, SubscriptionState
from circuit_breaker_sdk.errors import CircuitBreakerError, StreamFailure
from circuit_breaker_sdk.observability.latency import Latency

__all__ = ["EventSource", "Stream"]

T_co = TypeVar("T_co", covariant=True)


class Stream(Protocol):
    """Interface from handlers to their subscription's identity and state."""

    id: SubscriptionId
    label: str
    state: SubscriptionState
    error: StreamFailure | None
    last_error: CircuitBreakerError | None

    @property
    def received_at(self) -> float | None:
        """When what brings its events has read something last."""
        ...


class EventSource(Protocol[T_co]):
    """Interface from handlers to the events that wait for them."""

    stream: Stream
    handled: str | None
    is_handing_over: bool
    latency: Latency | None

    def traced(self, handler: Callable[[Any], object], /) -> Callable[[Any], object]:
        """Return a handler of the event that was taken last, with a span around it if that was traced."""
        ...

    @property
    def buffered(self) -> int:
        """Events that wait."""
        ...

    def take_value(self) -> T_co:
        """Take the oldest."""
        ...

    def mark_handled(self) -> None:
        """Note that what was taken is done."""
        ...

    def notice_drained(self) -> None:
        """Let a wait for the end of the handling look again."""
        ...

    def set_inline(self, handler: Callable[[T_co], object] | None) -> None:
        """Deliver to the handler inside the read callback, or to the buffer."""
        ...

    def wake(self) -> None:
        """End a wait."""
        ...

    async def wait_once(self) -> None:
        """Wait until something has changed."""
        ...
