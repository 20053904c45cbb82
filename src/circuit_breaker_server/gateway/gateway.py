"""The gateway: attach peers, begin, review and end their subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, final

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.caller import OPEN, Caller
from circuit_breaker_server.access.streams import EVERYTHING_SEEN, View
from circuit_breaker_server.engine.cursor import Cursor, Cursors
from circuit_breaker_server.engine.errors import EngineError
from circuit_breaker_server.engine.event_fields import EventBodies
from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.engine.skipped_records import Skipped
from circuit_breaker_server.gateway.channel import Position
from circuit_breaker_server.gateway.cursor_advance import CursorAdvance
from circuit_breaker_server.gateway.event_reader import LogReader
from circuit_breaker_server.gateway.fan_out import FanOut, Select
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.gateway.finite_streams import FiniteStreams
from circuit_breaker_server.gateway.guarded_calls import call_each, guarded
from circuit_breaker_server.gateway.pacing import Pacing, TokenBucket
from circuit_breaker_server.gateway.peer import Frame, Peer
from circuit_breaker_server.gateway.permission_review import Look, PermissionReview
from circuit_breaker_server.gateway.record_traces import RecordTraces
from circuit_breaker_server.gateway.subscriber import Subscriber
from circuit_breaker_server.gateway.subscription_errors import internal_error, refusal_error
from circuit_breaker_server.gateway.subscription_log import note_begin, note_refusal
from circuit_breaker_server.gateway.subscription_plan import Plan, Refused
from circuit_breaker_server.gateway.subscription_start import AfterCursor, Start, asked_after, read_start
from circuit_breaker_server.gateway.traced_feed import TracedFeed
from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.log.event_log import EventLog, Record
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.scheduling import Gate
from circuit_breaker_server.security.rights import Rights
from circuit_breaker_server.tracing import Tracer, start_span

__all__ = ["Gateway"]

logger = get_logger("gateway")

_CATCH_UP_SECONDS: Final = 0.004
"""The share of those who catch up in each turn of the event loop, all together."""


def _see_everything(_rights: Rights, _field: str, _arguments: Mapping[str, object]) -> View:
    return EVERYTHING_SEEN


@final
class Gateway:
    """The peers and their subscriptions; its :class:`FanOut` takes the records of the log to them.

    Example::

        gateway = Gateway(log, derive=derive, select=select)
        await gateway.start()
        feed = gateway.attach(session, frame=text_frames, resume=True)
        gateway.subscribe(feed, "1", plan, prefix=next_prefix("1"))
    """

    def __init__(
        self,
        log: EventLog,
        *,
        derive: Callable[[Record], Sequence[StreamEvent]],
        select: Select,
        ring_size: int = 1024,
        ring_bytes: int = 256 * 1024,
        advance_seconds: float = 30.0,
        begin_seconds: float = 60.0,
        page_records: int = 512,
        cursors: Cursors | None = None,
        pacing: Pacing | None = None,
        look: Look = _see_everything,
        select_nothing: Select | None = None,
        skipped: Mapping[int, Skipped] = MappingProxyType({}),
        instruments: Instruments | None = None,
        tracer: Tracer | None = None,
        bodies: EventBodies | None = None,
    ) -> None:
        """Hold the parts; :meth:`start` follows the log.

        :param pacing: bounds the events of one subscription in a second; ``None``: there is no bound.
        :param look: returns the view of a subscription for a caller's rights; raises ``EngineError``.
        :param select_nothing: as ``select``, if the arguments name an object that the caller may not see.
        :param tracer: makes spans for records whose mutations are traced; ``None``: nothing does.
        :param skipped: by offset: records that an operator had skipped.
        :param bodies: the sources of events in records; ``None``: all that is read again is derived.
        """
        self.reader = LogReader(
            log, derive, page_records=page_records, cursors=cursors, skipped=skipped, bodies=bodies
        )
        self.instruments = instruments or Instruments()
        self.pacing = pacing
        self.catch_up_gate = Gate(seconds=_CATCH_UP_SECONDS, at_once=1)
        self._look = look
        self._log_tail = log.tail
        self._feeds: dict[Feed, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fan_out = FanOut(
            self.reader,
            select=select,
            fail=self._fail,
            end_subscription=self._end_subscription,
            end_peer=self.end_peer,
            select_nothing=select_nothing,
            ring_size=ring_size,
            ring_bytes=ring_bytes,
        )
        self._permissions = PermissionReview(
            look,
            self._fan_out,
            self.reader,
            end=lambda: self.end,
            fail=self._fail,
            end_subscription=self._end_subscription,
        )
        self._finite_streams = FiniteStreams(
            self.reader,
            look,
            begin_seconds=begin_seconds,
            fail=self._fail,
            end_subscription=self._end_subscription,
        )
        self._cursor_advance = CursorAdvance(
            self._feeds, self._fan_out, seconds=advance_seconds, end_peer=self.end_peer
        )
        self._end_tail: Callable[[], None] | None = None
        self._tracer = tracer

    async def start(self) -> None:
        """Follow the log from its present end. The engine must follow it already: its state goes first."""
        self._end_tail = self._log_tail(self._fan_out.on_records)
        if self._tracer is not None:
            self._note_traces()
        self._fan_out.start(await self.reader.present_end())
        self._cursor_advance.start()

    async def aclose(self) -> None:
        """Leave the log, forget every peer, end and await the readers. Idempotent."""
        if self._end_tail is not None:
            self._end_tail()
            self._end_tail = None
        self._fan_out.stop()
        self._cursor_advance.stop()
        call_each(self._feeds, Feed.close, self.end_peer)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- the channels ------------------------------------------------------------------------------

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self._fan_out.channels

    @property
    def fallbacks(self) -> int:
        """The number of events that graphql-core encoded, as the compiled encoder did not fit them."""
        return self._fan_out.fallbacks

    @property
    def end(self) -> Position:
        """The place up to which everything was offered to the channels."""
        return self._fan_out.end

    @property
    def end_cursor(self) -> Cursor:
        """The cursor of the last record that was offered to the channels."""
        return self._fan_out.end_cursor

    @property
    def last_offset(self) -> int:
        """The offset of the last record that was offered to the channels."""
        return self._fan_out.last_offset

    @property
    def events_delivered(self) -> int:
        """The number of events that subscribers have got; what rings gave them is summed up only here."""
        return self.instruments.events_delivered + sum(feed.uncounted_events for feed in self._feeds)

    @property
    def event_bytes(self) -> int:
        """The bytes of these events in their frames."""
        return self.instruments.event_bytes + sum(feed.framed_bytes for feed in self._feeds)

    def flush(self) -> None:
        """Write to every socket with room all that is new for it, in one write each."""
        self._fan_out.flush()

    def advance(self) -> None:
        """Move on the cursors of the subscriptions for which nothing matched since their last event."""
        self._cursor_advance.advance()

    def schedule(self, feed: Feed) -> None:
        """Flush this feed in the next turn of the loop."""
        self._fan_out.schedule(feed)

    def leave(self, subscriber: Subscriber[Feed]) -> None:
        """Take a subscriber out of its channel; the last one takes the channel with it."""
        self._fan_out.leave(subscriber)

    # --- peers -------------------------------------------------------------------------------------

    def attach(
        self,
        peer: Peer,
        *,
        frame: Frame,
        resume: bool,
        caller: Caller = OPEN,
        is_lasting: bool = True,
        traces: bool = False,
    ) -> Feed:
        """Begin to feed a peer; :meth:`detach` ends it.

        :param resume: whether it negotiated cursors.
        :param is_lasting: whether its subscriptions stay until they are over; those of a poll do not.
        :param traces: whether it asked for the traces of mutations beside them.
        """
        if traces and resume:
            found = self._note_traces()
            feed: Feed = TracedFeed(
                self, peer, frame=frame, caller=caller, traces=found, is_lasting=is_lasting
            )
        else:
            feed = Feed(self, peer, frame=frame, resume=resume, caller=caller, is_lasting=is_lasting)
        self._feeds[feed] = None
        return feed

    def _note_traces(self) -> RecordTraces:
        """Remember the traces of records from now on; before, that costs nothing."""
        traces = self.reader.traces
        if traces is None:
            traces = self.reader.traces = RecordTraces(self._tracer)
            if self._end_tail is not None:
                # In one step: no record comes between.
                self._end_tail()
                self._end_tail = self._log_tail(traces.around(self._fan_out.on_records))
        return traces

    def detach(self, feed: Feed) -> None:
        """End every operation of a peer. Idempotent."""
        feed.close()
        self._feeds.pop(feed, None)
        self._fan_out.forget(feed)

    def subscribe(
        self,
        feed: Feed,
        operation_id: str,
        plan: Plan,
        *,
        prefix: bytes,
        extensions: Mapping[str, object] | None = None,
        patience: Callable[[], float] | None = None,
        bucket: TokenBucket | None = None,
    ) -> None:
        """Put an operation into its channel: from here on it misses nothing.

        ``extensions.resume`` says where it begins (:func:`.read_start`); without it that is the log's present
        end, of a finite stream its beginning.
        The peer gets the live signal at once, or as soon as its cursor was looked up. A finite stream that
        does not begin within ``begin_seconds`` ends with an error; for a subscriber that does not stay all
        the while, ``patience`` tells how many seconds are left of them. ``bucket`` is the subscription's own.
        ``prefix`` goes to the peer's ``frame``.

        :raises Refused: the arguments name nothing, or the cursor is of another log. A cursor that turns
            out to be unusable only in the log ends the operation through ``Peer.fail``. A finite stream whose
        beginning was trimmed is refused with ``NOT_FOUND``, rather than told in part.
        """
        with start_span(self._tracer, plan.field, extensions, is_lasting=feed.is_lasting):
            after = asked_after(extensions)
            try:
                subscriber = self._join(
                    feed,
                    operation_id,
                    plan,
                    prefix=prefix,
                    asked=read_start(self.reader, extensions),
                    patience=patience,
                    bucket=bucket,
                )
            except Refused as refused:
                self.instruments.operations["subscription", "refused"] += 1
                note_refusal(feed, plan, refused, after=after)
                raise
            try:
                note_begin(feed, subscriber, plan, after=after)
                feed.add(subscriber)
                self.instruments.operations["subscription", "ok"] += 1
            except BaseException:
                feed.unsubscribe(operation_id)
                self._fan_out.leave(subscriber)
                raise

    def _join(
        self,
        feed: Feed,
        operation_id: str,
        plan: Plan,
        *,
        prefix: bytes,
        asked: Start | None,
        patience: Callable[[], float] | None,
        bucket: TokenBucket | None,
    ) -> Subscriber[Feed]:
        try:
            channel = self._fan_out.channel(plan, self._look(feed.caller.rights, plan.field, plan.arguments))
        except EngineError as error:
            raise Refused([refusal_error(plan, error)]) from error
        finite = channel.selection.finite
        try:
            begun = (
                None
                if finite is None
                else self._finite_streams.beginning(finite, is_resumed=asked is not None)
            )
        except EngineError as error:
            self._fan_out.close_if_empty(channel)
            raise Refused([refusal_error(plan, error)]) from error
        except BaseException:
            self._fan_out.close_if_empty(channel)
            raise
        start = asked.cursor if isinstance(asked, AfterCursor) else begun or self.end_cursor
        text = None if asked is None else asked.text
        subscriber = Subscriber(
            feed,
            operation_id,
            prefix,
            channel,
            position=(start.offset, start.index),
            cursor=text or self.reader.cursors.of(start),
            live=asked is None and begun is None,
            unverified=asked,
            bucket=self.pacing.bucket() if bucket is None and self.pacing is not None else bucket,
        )
        self._fan_out.join(subscriber, channel)
        if finite is not None and begun is None:
            self._finite_streams.give_up_later(subscriber, patience)
        return subscriber

    def review(self, feed: Feed) -> None:
        """Look again at what a peer may see: its rights have changed (:class:`PermissionReview`)."""
        self._permissions.review(feed)

    # --- what fails ends alone ---------------------------------------------------------------------

    def end_peer(self, feed: Feed, error: Exception) -> None:
        """End a peer that has raised: what was collected for its operations may be lost with it."""
        caller, peer = feed.caller, feed.peer
        logger.error("peer_failed", address=caller.address, principal=caller.id, exc_info=error)
        self.detach(feed)
        peer.drop()

    def _end_subscription(self, subscriber: Subscriber[Feed], error: Exception) -> None:
        """End a subscription that has raised, with the error of the engine or an internal one."""
        plan = subscriber.channel.plan
        if isinstance(error, EngineError):
            self._fail(subscriber, [refusal_error(plan, error)])
            return
        logger.error("subscription_failed", operation=subscriber.id, field=plan.field, exc_info=error)
        self._fail(subscriber, [internal_error()])

    def _fail(self, subscriber: Subscriber[Feed], errors: Sequence[GraphQLError]) -> None:
        """End a subscription with errors; the peer, if it does not take them."""
        guarded(
            subscriber.feed,
            lambda feed: feed.fail(subscriber, errors),
            self.end_peer,
            otherwise=None,
        )

    def own(self, task: asyncio.Task[None]) -> None:
        """Keep a feed's task and await it when the gateway closes."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
