"""What a connection hands the messages of one operation to; it knows nothing else about subscriptions."""

from __future__ import annotations

from typing import Protocol

from circuit_breaker_sdk.errors import GraphQLError, SubscriptionError

__all__ = ["Route"]


class Route(Protocol):
    """The receiving end of one operation. All methods are called on the loop, inside the read callback.

    After :meth:`failed`, :meth:`completed` or :meth:`connection_lost` the connection has forgotten the
    route and calls nothing more. No method may raise.
    """

    def deliver(self, payload: bytes) -> bool:
        """Take the execution result of one ``next``: the hot path.

        Return ``False``, with nothing changed, if it could not be decoded: the connection then reads the
        whole message with the full codec and calls :meth:`deliver_checked`.
        """
        ...

    def deliver_checked(self, payload: bytes) -> None:
        """Take an execution result that the full codec has cut out: what does not fit now never will."""
        ...

    def positioned(self, cursor: str) -> None:
        """Take the server's live signal: from this cursor on nothing is missed."""
        ...

    def failed(self, errors: tuple[GraphQLError, ...]) -> None:
        """Take the server's ``error``: the operation is over."""
        ...

    def completed(self) -> None:
        """Take the server's ``complete``: the operation is over."""
        ...

    def connection_lost(self, error: SubscriptionError) -> None:
        """Learn that the connection is gone, and why."""
        ...
