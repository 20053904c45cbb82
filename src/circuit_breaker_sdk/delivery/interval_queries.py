"""The last resort: a query at an interval, where a server lets neither WebSockets nor polls through."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import final

from circuit_breaker_sdk.callbacks import background_task
from circuit_breaker_sdk.connections import Route, do_for_each
from circuit_breaker_sdk.errors import (
    CircuitBreakerError,
    GraphQLError,
    TransportError,
)
from circuit_breaker_sdk.observability import log
from circuit_breaker_sdk.protocol.messages import Subscribe

__all__ = ["Changes", "IntervalQueries"]

Changes = Callable[[], Awaitable[Sequence[bytes]]]
"""Asks the query, and returns what has changed since it was asked last, as the stream's execution results."""


@final
class IntervalQueries:
    """Carry the streams whose state a query tells; what happens between two queries is one change, or none.

    It takes the place of a :class:`~circuit_breaker_sdk.connections.Connection` for a while, as polling does.
    There are no cursors here: continuity is unknown.
    """

    resume_negotiated: bool = False
    write_delay_seconds: float = 0.0
    is_usable: bool = True

    def __init__(self, changes_of: Callable[[Route], Changes | None], *, interval_seconds: float) -> None:
        self._changes_of = changes_of
        self._interval_seconds = interval_seconds
        self._asking: dict[Route, asyncio.Task[None]] = {}
        self._held: set[Route] = set()
        self._ended: set[asyncio.Task[None]] = set()
        self.received_at: float | None = None

    def subscribe(self, message: Subscribe, route: Route) -> None:  # noqa: ARG002 (the query says it all)
        """Begin to ask; what is the case now is where changes are counted from.

        :raises TransportError: there is no query for this stream.
        """
        changes = self._changes_of(route)
        if changes is None:
            raise TransportError("there is no query that could stand for this stream")
        self._asking[route] = background_task(self._ask(route, changes), name="circuit-breaker-query")

    def complete(self, id: str, route: Route) -> None:  # noqa: A002, ARG002 (the protocol's own word)
        """Ask no more for this route; nothing happens if nothing is asked."""
        self._held.discard(route)
        task = self._asking.pop(route, None)
        if task is not None:
            task.cancel()
            self._ended.add(task)
            task.add_done_callback(self._ended.discard)

    def redacted(self, errors: tuple[GraphQLError, ...]) -> tuple[GraphQLError, ...]:
        """Return errors as they are: those of a query have gone through the executor."""
        return errors

    def hold(self, route: Route) -> None:
        """Ask nothing for this route for now."""
        self._held.add(route)

    def release(self, route: Route) -> None:
        """Ask on; nothing happens if it was not held."""
        self._held.discard(route)

    def let_consumers_run(self) -> None:
        """Do nothing: one turn brings one answer."""

    def drop(self, error: TransportError) -> None:
        """Give every stream up as lost, for this reason."""
        routes = tuple(self._asking)
        for route in routes:
            self.complete("", route)
        do_for_each(routes, lambda route: route.connection_lost(error), "losing the queries")

    async def aclose(self) -> None:
        """End. Idempotent."""
        for route in tuple(self._asking):
            self.complete("", route)
        if ended := tuple(self._ended):
            await asyncio.wait(ended)

    async def _ask(self, route: Route, changes: Changes) -> None:
        while True:
            try:
                found = () if route in self._held else await changes()
                self.received_at = time.perf_counter()
            except CircuitBreakerError as error:
                log(logging.DEBUG, "query not answered", error=error)
                found = ()
            for payload in found:
                if self._asking.get(route) is not asyncio.current_task():
                    return
                route.deliver_checked(payload)
            await asyncio.sleep(self._interval_seconds)
