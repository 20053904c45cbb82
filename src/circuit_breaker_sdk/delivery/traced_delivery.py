"""A delivery whose handlers run inside of spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, final

from circuit_breaker_sdk.connections import Envelope
from circuit_breaker_sdk.delivery.decoding import Extensions, Response, traceparent_of
from circuit_breaker_sdk.delivery.delivery import Delivery

__all__ = ["TracedDelivery"]

T = TypeVar("T")


@final
class TracedDelivery(Delivery[T]):
    """Takes events one by one, and keeps the trace of the one that came last."""

    __slots__ = ("_extensions",)

    def __init__(self, **arguments: Any) -> None:
        """The arguments are those of a delivery."""
        self._extensions: Extensions | None = None
        super().__init__(**arguments)

    @property
    def traceparent(self) -> str | None:
        """Of the mutation that caused the event that came last; ``None``: it was not traced."""
        return traceparent_of(self._extensions)

    def receive(self, response: Response[T], size_bytes: int) -> bool:
        """Hand one execution result over."""
        self._extensions = response.extensions
        return super().receive(response, size_bytes)

    def receive_run(self, _run: Sequence[Envelope], _messages: Sequence[bytes], _around: int) -> int:
        """Take none: each has a trace of its own."""
        return 0
