"""The interface of the gateway that feeds and their catching up use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from circuit_breaker_server.gateway.event_reader import LogReader
from circuit_breaker_server.gateway.subscriber import Subscriber
from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.scheduling import Gate

if TYPE_CHECKING:
    from circuit_breaker_server.gateway.feed import Feed

__all__ = ["Hub"]


class Hub(Protocol):
    """The interface of the gateway that a feed uses."""

    @property
    def instruments(self) -> Instruments: ...

    @property
    def reader(self) -> LogReader: ...

    @property
    def catch_up_gate(self) -> Gate:
        """Shares the event loop between all that read from the log."""
        ...

    def schedule(self, feed: Any, /) -> None:
        """Flush this feed in the next turn of the loop."""
        ...

    def leave(self, subscriber: Subscriber[Feed]) -> None:
        """Take a subscriber out of its channel; the last one takes the channel with it."""
        ...

    def own(self, task: asyncio.Task[None]) -> None:
        """Keep a task and await it when the gateway closes."""
        ...

    def end_peer(self, feed: Feed, error: Exception) -> None:
        """End a peer that has raised."""
        ...
