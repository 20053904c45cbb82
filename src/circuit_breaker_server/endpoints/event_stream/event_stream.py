"""One open stream of server-sent events: the peer of its feed, its keep-alive and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.bounded_log import BoundedLogger
from circuit_breaker_server.endpoints.event_stream.event_frames import KEEP_ALIVE, EventFrames
from circuit_breaker_server.endpoints.event_stream.streamed_answer import HandOver, StreamedAnswer
from circuit_breaker_server.endpoints.principal_connections import TOO_MANY
from circuit_breaker_server.endpoints.rights_review import RightsReview
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.gateway.subscription_plan import Plan
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.authentication import EXPIRED, REVOKED, Principal
from circuit_breaker_server.security.clock import Alarm

__all__ = ["EventStream"]

_NAME: Final = "event stream"
"""Its name in the audit log."""

logger = get_logger("event_stream")
lines = BoundedLogger("event_stream", lines_per_second=1_000)


@final
class EventStream:
    """One open stream; it takes over the connection whose head says ``text/event-stream``.

    Nothing of it blocks or raises. It ends in one of two ways: *finished*, behind the last ``complete``, or
    cut, which tells the client to come again with its cursor.

    Example::

        stream = EventStream(services, caller, DistinctFrames(resume=True), on_end=open_streams.discard)
        if stream.begin(scope[HAND_OVER]):
            stream.subscribe("", plan, extensions=None)
    """

    __slots__ = (
        "_answer",
        "_caller",
        "_ends_with_last",
        "_feed",
        "_frames",
        "_is_over",
        "_on_end",
        "_opened_at",
        "_rights",
        "_services",
        "_taken_at",
        "_ticking",
        "_token_end",
        "_traces",
        "_unsent",
        "_wrote",
    )

    def __init__(
        self,
        services: Services,
        caller: Caller,
        frames: EventFrames,
        *,
        on_end: Callable[[EventStream], None],
        ends_with_last: bool = True,
        traces: bool = False,
    ) -> None:
        """Prepare a stream; :meth:`begin` opens it.

        :param on_end: called once, when it is over; also when its client had left before it began.
        :param ends_with_last: whether it is finished when an operation has ended (distinct connections).
        :param traces: whether its client, which knows resume, wants the traces of mutations.
        """
        self._services = services
        self._caller = caller
        self._rights = RightsReview(services, caller)
        self._frames = frames
        self._on_end = on_end
        self._ends_with_last = ends_with_last
        self._traces = traces
        self._answer: StreamedAnswer | None = None
        self._feed: Feed | None = None
        self._token_end: Alarm | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._is_over = False
        self._wrote = False
        self._unsent = 0
        self._opened_at = self._taken_at = 0.0

    @property
    def caller(self) -> Caller:
        """The caller that opened it."""
        return self._caller

    @property
    def principal(self) -> Principal:
        """The principal of the caller."""
        return self._caller.principal

    @property
    def remote(self) -> str:
        """The peer's address and port, as logged."""
        return self._caller.address if self._answer is None else self._answer.remote

    @property
    def is_open(self) -> bool:
        """Whether operations can be added to it."""
        return self._answer is not None and not self._is_over

    @property
    def subscriptions(self) -> int:
        """The number of its subscriptions."""
        return 0 if self._feed is None else len(self._feed.subscribers)

    def subscribes(self, operation_id: str) -> bool:
        """Tell whether an id has a subscription."""
        return self._feed is not None and operation_id in self._feed.subscribers

    # --- its life ----------------------------------------------------------------------------------

    def begin(self, hand_over: HandOver) -> bool:
        """Take the connection over; ``False``: its client has left, and the stream is over."""
        answer = None if self._is_over else hand_over(self)
        if answer is None:
            self._end("the client has left")
            return False
        services, caller = self._services, self._caller
        self._answer = answer
        caller.audit.note(caller, "connect", _NAME, "allowed")
        lines.info("opened", remote=answer.remote, principal=caller.id)
        self._feed = services.gateway.attach(
            self,
            frame=self._frames.frame,
            resume=self._frames.with_cursors,
            caller=caller,
            traces=self._traces,
        )
        self._token_end = services.authenticator.at_end(caller.principal, self._on_token_end)
        self._opened_at = self._taken_at = asyncio.get_running_loop().time()
        self._tick_later()
        return True

    def subscribe(self, operation_id: str, plan: Plan, *, extensions: Mapping[str, object] | None) -> None:
        """Begin a subscription; nothing happens if the stream is over.

        :raises Refused: as :meth:`Gateway.subscribe`.
        """
        if self._feed is not None and not self._is_over:
            prefix = self._frames.prefix(operation_id)
            self._services.gateway.subscribe(
                self._feed, operation_id, plan, prefix=prefix, extensions=extensions
            )

    def unsubscribe(self, operation_id: str) -> None:
        """End a subscription; unknown ids are ignored."""
        if self._feed is not None:
            self._feed.unsubscribe(operation_id)

    def result(self, operation_id: str, payload: bytes) -> None:
        """Send the answer of a query or mutation, which ends its operation."""
        frames = self._frames
        self._write(frames.result(operation_id, payload) + frames.complete(operation_id))
        self._ended_one()

    def review(self) -> None:
        """Look again at what the peer may see; end if its principal may do nothing any more."""
        if self._feed is None or self._is_over:
            return
        self._rights.look(self._feed, on_disabled=self.revoke)

    def revoke(self) -> None:
        """Cut: the principal, or their API key, is no longer accepted."""
        self.cut(REVOKED)  # first: it ends also where its line cannot be written
        self._caller.audit.note(self._caller, "revoke", _NAME, "ended", reason=REVOKED)

    def end_surplus(self) -> None:
        """Cut: its principal has too many connections, and has not given one up for it."""
        self.cut(TOO_MANY)

    def shut_down(self) -> None:
        """Cut behind what was written: the server stops."""
        self.cut("the server is shutting down")

    def cut(self, reason: str) -> None:
        """End unfinished: the client comes again, with its cursor. Idempotent."""
        if self._is_over:
            return
        answer = self._answer
        self._end(reason)
        if answer is not None:
            answer.close()

    def abort(self) -> None:
        """Drop the connection now."""
        if self._answer is not None:
            self._answer.abort()
        self._end("aborted")

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        if self._answer is not None:
            await self._answer.wait_closed()

    # --- the sink of its connection ----------------------------------------------------------------

    def on_writable(self, writable: bool) -> None:
        """Stop or go on feeding the connection."""
        if self._feed is not None:
            self._feed.set_writable(writable)

    def on_lost(self) -> None:
        """End: the connection is gone."""
        if not self._is_over:
            self._end("the client has left")

    # --- the peer of its feed ----------------------------------------------------------------------

    def write(self, frames: bytes) -> None:
        """Write framed events."""
        self._write(frames)

    def signal(self, cursors: Sequence[tuple[str, str]]) -> None:
        """Send the live signal of operations, in one write."""
        self._write(b"".join(self._frames.signal(operation, cursor) for operation, cursor in cursors))

    def caught_up(self, operation_id: str) -> None:
        """Say nothing: the live signal has told where the operation stands."""

    def fail(self, operation_id: str, errors: Sequence[GraphQLError]) -> None:
        """End one operation with errors."""
        frames = self._frames
        self._write(frames.errors(operation_id, errors) + frames.complete(operation_id))
        self._ended_one()

    def complete(self, operation_id: str) -> None:
        """End one operation: its stream is over."""
        self._write(self._frames.complete(operation_id))
        self._ended_one()

    def drop(self) -> None:
        """Cut: the server failed while it served this peer."""
        self.cut("internal error")

    # -----------------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        answer = self._answer
        if answer is None or self._is_over:
            return
        self._wrote = True
        answer.write(data)
        # Only answers and signals can pile up: events wait in their channel while a connection is full.
        if answer.unsent_bytes > self._services.settings.max_unsent_bytes:
            logger.warning("peer_does_not_read", remote=answer.remote)
            self.abort()

    def _ended_one(self) -> None:
        if self._ends_with_last and self._answer is not None and not self._is_over:
            answer = self._answer
            self._end("finished")
            answer.finish()

    def _on_token_end(self) -> None:
        """Cut between two events: a client that resumes with a new token and last cursor misses none."""
        self.cut(EXPIRED)

    def _tick_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._ticking = loop.call_later(self._services.settings.ping_seconds, self._tick)

    def _tick(self) -> None:
        """Send a comment if nothing else was sent; drop a peer that takes nothing for too long."""
        answer, now = self._answer, asyncio.get_running_loop().time()
        if answer is None:
            return
        unsent = answer.unsent_bytes
        if not unsent or unsent != self._unsent:
            self._unsent, self._taken_at = unsent, now
        elif now - self._taken_at >= self._services.settings.stall_seconds:
            logger.info("peer_silent", remote=answer.remote, unsent_bytes=unsent)
            self.abort()
            return
        if not self._wrote and not unsent:
            answer.write(KEEP_ALIVE)
        self._wrote = False
        self._tick_later()

    def _end(self, reason: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._answer is not None:
            lines.info(
                "closed",
                remote=self.remote,
                reason=reason,
                seconds=round(asyncio.get_running_loop().time() - self._opened_at, 3),
                events=0 if self._feed is None else self._feed.delivered_events,
            )
        if self._ticking is not None:
            self._ticking.cancel()
        if self._token_end is not None:
            self._token_end.cancel()
        if self._feed is not None:
            self._services.gateway.detach(self._feed)
            self._caller.audit.note(self._caller, "close", _NAME, "ended")
        self._on_end(self)
