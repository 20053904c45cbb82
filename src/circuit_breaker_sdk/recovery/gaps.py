"""Bridge a gap: read the present state, tell the application, continue the stream."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, final

import msgspec

from circuit_breaker_sdk.callbacks import background_task
from circuit_breaker_sdk.connections import FallbackLinks, Link, Supervisor
from circuit_breaker_sdk.delivery.delivery import Delivery
from circuit_breaker_sdk.delivery.server_error_mapping import server_error
from circuit_breaker_sdk.delivery.subscription_state import Continuity
from circuit_breaker_sdk.errors import (
    ConnectionFailed,
    GapError,
    GraphQLError,
    OperationTimeoutError,
    RateLimitExceeded,
    StreamFailure,
    SubscriptionError,
    SubscriptionFailed,
    TransportError,
    UsageError,
)

__all__ = ["Gap", "GapHandler", "GapRecovery", "Snapshot"]

Snapshot = Callable[[], Awaitable[object]]
"""Reads the present state, by a query."""

_RETRY_SECONDS = 0.25
_MAX_RETRY_SECONDS = 8.0
_ATTEMPTS = 10


@final
class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Events are missing, or may be, and what is the case now.

    :ivar reason: that of :class:`~circuit_breaker_sdk.errors.GapError`; ``unknown`` after a reconnect to a
        server that gives no cursors: it is not known whether events are missing.
    :ivar snapshot: what the subscription's snapshot query answered: it holds everything up to ``cursor``, and
        perhaps some of what comes after it. ``None`` where there is no such query.
    :ivar cursor: where the stream goes on; ``None`` where the server gives no cursors.

    Example::

        builder.on_gap(lambda gap: cache.replace(gap.snapshot))
    """

    reason: str
    snapshot: Any  # whatever the subscription's query gives
    cursor: str | None


GapHandler = Callable[[Gap], object]
"""Told of each gap, a plain or an async function; the stream goes on when it has returned."""


@final
class _Position:
    """A route that wants nothing but the live signal: the place where the server stands now."""

    decode_next = None

    def __init__(self, id: str) -> None:  # noqa: A002 (the protocol's own word)
        self._id = id
        self.found: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def deliver(self, payload: bytes) -> bool:  # noqa: ARG002 (an event before the signal is not for us)
        return True

    def receive_run(self, run: Sequence[object], messages: Sequence[bytes], around: int) -> int:
        raise NotImplementedError("nothing is decoded for it")

    def receive_mixed(
        self,
        run: Sequence[object],
        messages: Sequence[bytes],
        around: int,
        route_of: Callable[[str], object],
    ) -> int:
        raise NotImplementedError("nothing is decoded for it")

    def deliver_checked(self, payload: bytes) -> None:
        """Ignore an event: the stream is read from the position on, by another operation."""

    def positioned(self, cursor: str) -> None:
        if not self.found.done():
            self.found.set_result(cursor)

    def accepted(self) -> None:
        if not self.found.done():
            self.found.set_result(None)

    def promised(self, cursor: str) -> None:
        """Ignore it: events are not for it."""

    def resumes_after(self, cursor: str) -> None:
        """Ignore it: one position is all that is wanted."""

    def failed(self, errors: tuple[GraphQLError, ...]) -> None:
        self._fail(server_error(self._id, errors))

    def completed(self) -> None:
        self._fail(SubscriptionFailed(self._id, "the stream has ended"))

    def connection_lost(self, error: StreamFailure) -> None:
        self._fail(error)

    def _fail(self, error: StreamFailure) -> None:
        if not self.found.done():
            self.found.set_exception(error)
            self.found.exception()  # it counts as looked at, also where nobody waits any more


@final
class GapRecovery:
    """Carries subscriptions over gaps, one task for each."""

    def __init__(
        self,
        supervisor: Supervisor,
        links: FallbackLinks,
        *,
        fresh_id: Callable[[], str],
        go_on: Callable[[Delivery[Any]], None],
        tasks: set[asyncio.Task[None]],
        timeout_seconds: float = 10.0,
    ) -> None:
        """``go_on`` resumes a subscription from its cursor ``received``.

        ``timeout_seconds``: for the server's answer where it stands.
        """
        self._timeout_seconds = timeout_seconds
        self._supervisor = supervisor
        self._links = links
        self._fresh_id = fresh_id
        self._go_on = go_on
        self._tasks = tasks

    def bridge(self, delivery: Delivery[Any], error: GapError) -> None:
        """Begin to carry a subscription with a handler of gaps over one."""
        self._start(self._close(delivery, error.reason, error), delivery)
        delivery.await_bridge(error)

    def tell_unknown(self, delivery: Delivery[Any]) -> None:
        """Tell, after a reconnect without cursors, that events may be missing."""
        if delivery.fallbacks.on_gap is not None and delivery.continuity is not Continuity.RESUMED:
            self._start(self._tell_of_unknown(delivery), delivery)

    def _start(self, doing: Any, delivery: Delivery[Any]) -> None:  # a coroutine of ours
        task = background_task(doing, name=f"circuit-breaker-gap-{delivery.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close(self, delivery: Delivery[Any], reason: str, error: GapError) -> None:
        # What came before the gap is handled before it.
        await delivery.consumer.drained()
        cursor: str | None = None

        async def bridge() -> None:
            nonlocal cursor
            cursor = await self._position(delivery)
            await self._tell(delivery, reason, cursor)

        failure = await self._until_done(delivery, bridge)
        if failure is not None:
            failure.__cause__ = error
            delivery.give_up(failure)
        elif not delivery.state.is_end:
            delivery.received = cursor
            self._go_on(delivery)

    async def _tell_of_unknown(self, delivery: Delivery[Any]) -> None:
        failure = await self._until_done(delivery, lambda: self._tell(delivery, "unknown", None))
        if failure is not None:
            delivery.consumer.handlers.report_error(failure)

    async def _until_done(
        self, delivery: Delivery[Any], step: Callable[[], Awaitable[None]]
    ) -> StreamFailure | None:
        """Do a step again while what fails may pass; return what it fails with for good.

        Each failure is reported to the handlers of errors. A rate that the server limits is obeyed.
        """
        pause = _RETRY_SECONDS
        for attempt in range(_ATTEMPTS):
            if delivery.state.is_end:
                break
            try:
                await step()
            except UsageError:
                break  # the client was closed
            except (TransportError, SubscriptionError) as failure:
                if not failure.retryable or attempt == _ATTEMPTS - 1:
                    return failure
                delivery.consumer.handlers.report_error(failure)
                wait = failure.retry_after if isinstance(failure, RateLimitExceeded) else None
                await asyncio.sleep(pause if wait is None else wait)
                pause = min(2 * pause, _MAX_RETRY_SECONDS)
            else:
                break
        return None

    async def _position(self, delivery: Delivery[Any]) -> str | None:
        """Ask the server where it stands now: the cursor first, then the query (docs/resume.md, 6)."""
        connection = await self._link_for(delivery)
        if not connection.resume_negotiated:
            return None
        id_ = self._fresh_id()
        position = _Position(id_)
        request = msgspec.structs.replace(delivery.request, id=id_, extensions=None)
        connection.subscribe(request, position)
        try:
            await asyncio.wait(
                (position.found, delivery.consumer.ended),
                timeout=self._timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if delivery.consumer.ended.done() and not position.found.done():
                raise UsageError("the subscription was ended")
            if not position.found.done():
                raise OperationTimeoutError("asking where the stream stands", seconds=self._timeout_seconds)
            return position.found.result()
        finally:
            connection.complete(id_, position)

    async def _link_for(self, delivery: Delivery[Any]) -> Link:
        """Return a link of the kind that has carried it: after a fallback, no WebSocket gets through."""
        fallback = self._links.best() if delivery.last_link in self._links else None
        return fallback or await self._supervisor.connection()

    async def _tell(self, delivery: Delivery[Any], reason: str, cursor: str | None) -> None:
        snapshot = None
        if delivery.fallbacks.snapshot is not None:
            try:
                snapshot = await delivery.fallbacks.snapshot()
            except (TransportError, SubscriptionError):
                raise
            except Exception as failure:
                raise ConnectionFailed(f"the snapshot could not be read: {failure}") from failure
        handler = delivery.fallbacks.on_gap
        if handler is None or delivery.state.is_end:
            return
        try:
            result = handler(Gap(reason=reason, snapshot=snapshot, cursor=cursor))
            if inspect.isawaitable(result):
                await result
        except Exception as failure:  # noqa: BLE001 (a handler may raise anything; it ends nothing)
            delivery.consumer.handlers.report(handler, failure)
