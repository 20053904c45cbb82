"""Interfaces between a connection and the operations on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from circuit_breaker_sdk.errors import GraphQLError, TransportError
from circuit_breaker_sdk.protocol.messages import Subscribe

__all__ = ["Envelope", "Link", "Route"]


class Envelope(Protocol):
    """A ``next`` message, decoded whole. Any: what its payload is, only its route knows."""

    @property
    def id(self) -> str:
        """The operation's."""
        ...

    @property
    def payload(self) -> Any:
        """Its execution result."""
        ...


class Route(Protocol):
    """The receiving end of one operation. All methods are called on the loop, inside the read callback.

    After :meth:`failed`, :meth:`completed` or :meth:`connection_lost` the connection has forgotten the
    route and calls nothing more. No method may raise.
    """

    @property
    def decode_next(self) -> Callable[[bytes], Envelope] | None:
        """Decodes a whole ``next`` message of the route's type; raises anything where it is none.

        It is the same object for all routes of one type; ``None`` where each is to be delivered alone.
        """
        ...

    def deliver(self, payload: bytes) -> bool:
        """Take the execution result of one ``next``: the hot path.

        Return ``False``, with nothing changed, if it could not be decoded: the connection then reads the
        whole message with the full codec and calls :meth:`deliver_checked`.
        """
        ...

    def receive_run(self, run: Sequence[Envelope], messages: Sequence[bytes], around: int) -> int:
        """Take the payloads of the first messages of a run, as many as are this route's and as they should.

        Return how many: the next one is not of this route, or not as it should be: for :meth:`receive_mixed`.

        :param messages: as they came.
        :param around: bytes of a message that are not its payload.
        """
        ...

    def receive_mixed(
        self,
        run: Sequence[Envelope],
        messages: Sequence[bytes],
        around: int,
        route_of: Callable[[str], Any | None],
    ) -> int:
        """Hand the payloads of the first messages of a run to their routes; return how many.

        The next one is of no route, or of one with another ``decode_next``, or does not fit as it is.

        :param messages: as they came.
        :param around: bytes of a message that are not its payload.
        :param route_of: returns the route of an operation. Any: all that decode alike are of one class.
        """
        ...

    def deliver_checked(self, payload: bytes) -> None:
        """Take an execution result that the full codec has cut out: what does not fit now never will."""
        ...

    def positioned(self, cursor: str) -> None:
        """Take the server's live signal: from this cursor on nothing is missed."""
        ...

    def accepted(self) -> None:
        """Learn that the server has begun the operation, and gives no cursors."""
        ...

    def promised(self, cursor: str) -> None:
        """Take the cursor of the last event, an ``id`` of a server that proves nothing by it."""
        ...

    def resumes_after(self, cursor: str) -> None:
        """Learn the place that is asked behind next: the ``prev`` of the event that comes then (a poll)."""
        ...

    def failed(self, errors: tuple[GraphQLError, ...]) -> None:
        """Take the server's ``error``: the operation is over."""
        ...

    def completed(self) -> None:
        """Take the server's ``complete``: the operation is over."""
        ...

    def connection_lost(self, error: TransportError) -> None:
        """Learn that the connection is gone, and why."""
        ...


class Link(Protocol):
    """Carrier of operations: a WebSocket connection, or polling."""

    @property
    def resume_negotiated(self) -> bool:
        """Whether the server gives cursors and live signals."""
        ...

    @property
    def is_usable(self) -> bool:
        """Whether operations can be started."""
        ...

    @property
    def write_delay_seconds(self) -> float:
        """Seconds that a message may wait for others before it is written; 0: the end of the turn."""
        ...

    @property
    def received_at(self) -> float | None:
        """When it brought something last, by the clock of ``time.perf_counter``; ``None``: nothing yet."""
        ...

    def subscribe(self, message: Subscribe, route: Route) -> None:
        """Start an operation.

        :raises TransportError: it is closed, or closing.
        """
        ...

    def complete(self, id: str, route: Route) -> None:  # noqa: A002 (the protocol's own word)
        """End an operation from our side; nothing happens if it is over already."""
        ...

    def redacted(self, errors: tuple[GraphQLError, ...]) -> tuple[GraphQLError, ...]:
        """Return a server's errors without what this client keeps secret."""
        ...

    def hold(self, route: Route) -> None:
        """Bring nothing more for now, for the sake of this route."""
        ...

    def release(self, route: Route) -> None:
        """Go on, as far as this route is concerned; nothing happens if it holds nothing."""
        ...

    def let_consumers_run(self) -> None:
        """Bring nothing more in this turn of the event loop."""
        ...

    def drop(self, error: TransportError) -> None:
        """Give it up as lost, for this reason."""
        ...
