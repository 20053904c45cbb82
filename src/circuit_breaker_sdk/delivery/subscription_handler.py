"""The interface of an object that handles a subscription."""

from __future__ import annotations

from typing import Protocol, TypeVar

from circuit_breaker_sdk.errors import CircuitBreakerError

__all__ = ["SubscriptionHandler"]

T_contra = TypeVar("T_contra", contravariant=True)


class SubscriptionHandler(Protocol[T_contra]):
    """An object that handles a subscription; each method may be plain or async.

    Example::

        class Printer:
            def on_data(self, event: Resource) -> None:
                print(event.state)

            def on_error(self, error: CircuitBreakerError) -> None:
                print("failed:", error)

            def on_complete(self) -> None:
                print("done")

        subscription.handle(Printer())
    """

    def on_data(self, event: T_contra, /) -> object:
        """Take one event."""
        ...

    def on_error(self, error: CircuitBreakerError, /) -> object:
        """Take an error: see :meth:`Subscription.on_error`."""
        ...

    def on_complete(self) -> object:
        """Take the end of the stream."""
        ...
