"""The gateway: from the log's tail to every socket, each written once per turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias, final

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.caller import OPEN, Caller
from circuit_breaker_server.access.streams import EVERYTHING_SEEN, View
from circuit_breaker_server.engine.cursor import Cursor, Cursors
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.events import Finite, Selection, StreamEvent
from circuit_breaker_server.engine.skipped_records import Skipped
from circuit_breaker_server.gateway.channel import Channel, ChannelKey, Position
from circuit_breaker_server.gateway.event_reader import GapReason, LoggedEvent, LogReader
from circuit_breaker_server.gateway.feed import (
    EncodingFailed,
    Feed,
    Frame,
    Memo,
    Peer,
    Subscriber,
    gap_error,
    internal_error,
)
from circuit_breaker_server.gateway.guarded_calls import call_each, guarded, isolate
from circuit_breaker_server.gateway.pacing import Pacing, TokenBucket
from circuit_breaker_server.gateway.subject_index import SubjectIndex
from circuit_breaker_server.gateway.subscription_plan import Plan, Refused
from circuit_breaker_server.log.event_log import EventLog, Record
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.rights import Rights

__all__ = ["Gateway", "Look", "resume_after"]

logger = get_logger("gateway")

_ADVANCED_AT_ONCE: Final = 200
_ADVANCE_PAUSE_SECONDS: Final = 0.01
_NO_LONGER_KEPT: Final = "the beginning of this stream is no longer kept: the server's event log was trimmed"


def resume_after(extensions: Mapping[str, object] | None) -> str | None:
    """Return the cursor in ``extensions.resume.after`` of an operation; ``None`` if it names none.

    :raises Refused: ``RESUME_GAP``: what stands there is no text.
    """
    resume = (extensions or {}).get("resume")
    if resume is None:
        return None
    after = resume.get("after") if isinstance(resume, dict) else resume
    if after is None or isinstance(after, str):
        return after
    raise Refused([gap_error(GapReason.MALFORMED)])


Look: TypeAlias = Callable[[Rights, str, Mapping[str, object]], View]


def _see_everything(_rights: Rights, _field: str, _arguments: Mapping[str, object]) -> View:
    return EVERYTHING_SEEN


def _missing(plan: Plan, finite: Finite) -> GraphQLError:
    return GraphQLError(
        message=finite.missing, path=(plan.field,), extensions={"code": ErrorCode.NOT_FOUND.value}
    )


def _refusal(plan: Plan, error: EngineError) -> GraphQLError:
    return GraphQLError(message=error.message, path=(plan.field,), extensions=error.extensions)


@final
class Gateway:
    """Every channel, and the peers that follow them.

    Records reach it through one tail of the log; each is derived once, offered to the channels whose
    subjects it matches, and flushed in the next turn of the loop.

    :ivar select: from a subscription field and its arguments to what it reads; raises ``EngineError``.

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
        select: Callable[[str, Mapping[str, object]], Selection],
        ring_size: int = 1024,
        ring_bytes: int = 256 * 1024,
        advance_seconds: float = 30.0,
        begin_seconds: float = 60.0,
        page_records: int = 512,
        cursors: Cursors | None = None,
        pacing: Pacing | None = None,
        look: Look = _see_everything,
        select_nothing: Callable[[str, Mapping[str, object]], Selection] | None = None,
        skipped: Mapping[int, Skipped] = MappingProxyType({}),
    ) -> None:
        """Hold the parts; :meth:`start` follows the log.

        :param pacing: bounds the events of one subscription in a second; ``None``: there is no bound.
        :param look: returns the view of a subscription for a caller's rights; raises ``EngineError``.
        :param select_nothing: as ``select``, if the arguments name an object that the caller may not see.
        :param skipped: by offset: records that an operator had skipped.
        """
        self.reader = LogReader(log, derive, page_records=page_records, cursors=cursors, skipped=skipped)
        self.pacing = pacing
        self._look = look
        self._select_nothing = select_nothing or select
        self._log_tail = log.tail
        self._select = select
        self._ring_size = ring_size
        self._ring_bytes = ring_bytes
        self._advance_seconds = advance_seconds
        self._begin_seconds = begin_seconds
        self._channels: dict[ChannelKey, Channel] = {}
        self._members: dict[Channel, dict[Subscriber, None]] = {}
        # The members that a flush walks over: who joins or leaves meanwhile changes a copy.
        self._walked: Mapping[Subscriber, None] | None = None
        self._index: SubjectIndex[Channel] = SubjectIndex()
        self._feeds: dict[Feed, None] = {}
        self._fallbacks = 0
        self._dirty: list[Channel] = []
        self._due: dict[Feed, None] = {}
        self._flush_handle: asyncio.Handle | None = None
        self._advance_handle: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._end_record: Record | None = None
        self._end: Cursor | None = None
        self._end_tail: Callable[[], None] | None = None

    async def start(self) -> None:
        """Follow the log from its present end. The engine must follow it already: its state goes first."""
        self._end_tail = self._log_tail(self._on_records)
        end = await self.reader.present_end()
        if self._end_record is None:  # nothing was appended meanwhile
            self._end = end
        self._arm_advance(asyncio.get_running_loop().time() + self._advance_seconds)

    async def aclose(self) -> None:
        """Leave the log, forget every peer, end and await the readers. Idempotent."""
        if self._end_tail is not None:
            self._end_tail()
            self._end_tail = None
        for handle in (self._flush_handle, self._advance_handle):
            if handle is not None:
                handle.cancel()
        self._flush_handle = self._advance_handle = None
        call_each(self._feeds, Feed.close, self.end_peer)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- peers -------------------------------------------------------------------------------------

    @property
    def channels(self) -> int:
        """The number of channels."""
        return len(self._channels)

    @property
    def fallbacks(self) -> int:
        """The number of events that graphql-core encoded, as the compiled encoder did not fit them."""
        return self._fallbacks + sum(channel.projection.fallbacks for channel in self._members)

    @property
    def end(self) -> Position:
        cursor = self.end_cursor
        return (cursor.offset, cursor.index)

    @property
    def end_cursor(self) -> Cursor:
        """The cursor of the last record that was offered to the channels."""
        if self._end is None:
            if self._end_record is None:
                raise RuntimeError("the gateway was not started")
            try:
                self._end = self.reader.end_cursor(self._end_record)
            except Exception:
                # A place before its events, if there are any: whoever resumes from it is told.
                record = self._end_record
                logger.exception("record_unreadable", offset=record.offset, subject=record.subject)
                self._end = Cursor(self.reader.log.epoch, record.offset, 0, record.check)
        return self._end

    def attach(self, peer: Peer, *, frame: Frame, resume: bool, caller: Caller = OPEN) -> Feed:
        """Begin to feed a peer; :meth:`detach` ends it. ``resume``: it negotiated cursors."""
        feed = Feed(self, peer, frame=frame, resume=resume, caller=caller)
        self._feeds[feed] = None
        return feed

    def detach(self, feed: Feed) -> None:
        """End every operation of a peer. Idempotent."""
        feed.close()
        self._feeds.pop(feed, None)
        self._due.pop(feed, None)

    def subscribe(
        self,
        feed: Feed,
        operation_id: str,
        plan: Plan,
        *,
        prefix: bytes,
        after: str | None = None,
        patience: Callable[[], float] | None = None,
        bucket: TokenBucket | None = None,
    ) -> None:
        """Put an operation into its channel: from here on it misses nothing.

        ``after`` is a cursor; ``None`` begins at the log's present end, a finite stream at its beginning.
        The peer gets the live signal at once, or as soon as its cursor was looked up. A finite stream that
        does not begin within ``begin_seconds`` ends with an error; for who does not stay subscribed all the
        while, ``patience`` tells how many seconds are left of them, and ``bucket`` is the subscription's own.
        ``prefix`` goes to the peer's ``frame``.

        :raises Refused: the arguments name nothing, or the cursor is of another log. A cursor that turns
            out to be unusable only in the log ends the operation through ``Peer.fail``. A finite stream whose
        beginning was trimmed is refused with ``NOT_FOUND``, rather than told in part.
        """
        caller, action = feed.caller, "subscribe" if after is None else "resume"
        what = caller.audit.named(plan.field, plan.arguments)
        try:
            subscriber = self._join(
                feed, operation_id, plan, prefix=prefix, after=after, patience=patience, bucket=bucket
            )
        except Refused as refused:
            code = (refused.errors[0].extensions or {}).get("code")
            caller.audit.note(caller, action, what, "refused", reason=str(code), first_cursor=after)
            raise
        try:
            caller.audit.note(caller, action, what, "allowed", first_cursor=subscriber.cursor)
            feed.add(subscriber)
        except BaseException:
            feed.unsubscribe(operation_id)
            self.leave(subscriber)
            raise

    def _join(
        self,
        feed: Feed,
        operation_id: str,
        plan: Plan,
        *,
        prefix: bytes,
        after: str | None,
        patience: Callable[[], float] | None,
        bucket: TokenBucket | None,
    ) -> Subscriber:
        unverified = None if after is None else self._parse(after)
        try:
            channel = self._channel(plan, self._look(feed.caller.rights, plan.field, plan.arguments))
        except EngineError as error:
            raise Refused([_refusal(plan, error)]) from error
        finite = channel.selection.finite
        try:
            begun = None if finite is None else self._beginning(finite, is_resumed=unverified is not None)
        except EngineError as error:
            self._close_if_empty(channel)
            raise Refused([_refusal(plan, error)]) from error
        except BaseException:
            self._close_if_empty(channel)
            raise
        start = unverified or begun or self.end_cursor
        subscriber = Subscriber(
            feed,
            operation_id,
            prefix,
            channel,
            position=(start.offset, start.index),
            cursor=after or self.reader.cursors.of(start),
            live=unverified is None and begun is None,
            unverified=unverified,
            bucket=self.pacing.bucket() if bucket is None and self.pacing is not None else bucket,
        )
        self._join_channel(subscriber, channel)
        if finite is not None and begun is None:
            loop = asyncio.get_running_loop()
            seconds = self._begin_seconds if patience is None else patience()
            subscriber.deadline = loop.call_later(seconds, self._on_deadline, subscriber)
        return subscriber

    def _beginning(self, finite: Finite, *, is_resumed: bool) -> Cursor | None:
        """Return where a finite stream begins, ``None`` if it has not begun.

        :raises EngineError: it cannot be read, or not from there.
        """
        begun = finite.start()
        if begun is not None and not is_resumed and begun.offset + 1 < self.reader.log.first_offset:
            raise EngineError(ErrorCode.NOT_FOUND, _NO_LONGER_KEPT)
        return begun

    def _on_deadline(self, subscriber: Subscriber) -> None:
        guarded(subscriber, self._give_up, self._end_subscription, otherwise=None)

    def _give_up(self, subscriber: Subscriber) -> None:
        """End a finite stream that has not begun, or that has begun and is not to be seen."""
        plan, finite = subscriber.channel.plan, subscriber.channel.selection.finite
        if finite is None:
            return
        is_there = finite.start() is not None
        view = self._look(subscriber.feed.caller.rights, plan.field, plan.arguments)
        if not is_there or view.hides:
            self._fail(subscriber, [_missing(plan, finite)])

    def review(self, feed: Feed) -> None:
        """Look again at what a peer may see: its rights have changed.

        Its subscriptions go on from where they are; those of which it may see nothing any more are failed.
        Each is reviewed for itself: one that cannot be reviewed ends, and the others keep no old rights.
        """
        call_each(feed.subscribers.values(), self._review, self._end_subscription)

    def _review(self, subscriber: Subscriber) -> None:
        if subscriber.ended:  # with its peer, in the review of another one
            return
        feed, channel = subscriber.feed, subscriber.channel
        plan = channel.plan
        view = self._look(feed.caller.rights, plan.field, plan.arguments)
        if view.key == channel.view.key:
            return
        other = self._channel(plan, view)
        try:
            finite = other.selection.finite
            if view.hides and finite is not None:
                self._fail(subscriber, [_missing(plan, finite)])
                return
            begun = None if finite is None else finite.start()
            if begun is not None:
                # It is told whole: from the last event that was seen, or from its beginning.
                last = self.reader.cursors.parse(subscriber.cursor)
                subscriber.position = max((begun.offset, begun.index), (last.offset, last.index))
            elif subscriber.is_current:
                subscriber.position = max(subscriber.position, self.end)
            self.leave(subscriber)
            self._join_channel(subscriber, other)
        finally:
            self._close_if_empty(other)
        feed.move(subscriber, other)

    # --- what fails ends alone ---------------------------------------------------------------------

    def end_peer(self, feed: Feed, error: Exception) -> None:
        """End a peer that has raised: what was collected for its operations may be lost with it."""
        caller, peer = feed.caller, feed.peer
        logger.error("peer_failed", address=caller.address, principal=caller.id, exc_info=error)
        self.detach(feed)
        peer.drop()

    def _end_subscription(self, subscriber: Subscriber, error: Exception) -> None:
        """End a subscription that has raised, with the error of the engine or an internal one."""
        plan = subscriber.channel.plan
        if isinstance(error, EngineError):
            self._fail(subscriber, [_refusal(plan, error)])
            return
        logger.error("subscription_failed", operation=subscriber.id, field=plan.field, exc_info=error)
        self._fail(subscriber, [internal_error()])

    def _fail(self, subscriber: Subscriber, errors: Sequence[GraphQLError]) -> None:
        """End a subscription with errors; the peer, if it does not take them."""
        guarded(
            subscriber.feed,
            lambda feed: feed.fail(subscriber, errors),
            self.end_peer,
            otherwise=None,
        )

    def _parse(self, after: str) -> Cursor:
        try:
            cursor = self.reader.cursors.parse(after)
        except ValueError as error:
            raise Refused([gap_error(GapReason.MALFORMED)]) from error
        if cursor.epoch != self.reader.log.epoch:
            raise Refused([gap_error(GapReason.EPOCH)])
        return cursor

    def _channel(self, plan: Plan, view: View) -> Channel:
        """Return the channel of a plan and a view; who has it opened joins or closes it.

        :raises EngineError: the arguments name nothing.
        """
        known = self._channels.get((plan.key, view.key))
        if known is not None:
            return known
        select = self._select_nothing if view.hides else self._select
        selection = select(plan.field, plan.arguments)
        end = self.end_cursor
        channel = Channel(
            plan,
            view,
            selection,
            base=(end.offset, end.index),
            base_cursor=self.reader.cursors.of(end),
            ring_size=self._ring_size,
            ring_bytes=self._ring_bytes,
        )
        self._channels[channel.key] = channel
        self._members[channel] = {}
        self._index.add(selection.subjects, channel)
        return channel

    def _join_channel(self, subscriber: Subscriber, channel: Channel) -> None:
        self._members_to_change(channel)[subscriber] = None

    def leave(self, subscriber: Subscriber) -> None:
        """Take a subscriber out of its channel; the last one takes the channel with it."""
        channel = subscriber.channel
        if channel in self._members:
            self._members_to_change(channel).pop(subscriber, None)
            self._close_if_empty(channel)

    def _members_to_change(self, channel: Channel) -> dict[Subscriber, None]:
        """Return the members of a channel; a copy takes their place while a flush walks over them."""
        members = self._members[channel]
        if members is self._walked:
            members = self._members[channel] = dict(members)
        return members

    def _close_if_empty(self, channel: Channel) -> None:
        if channel in self._members and not self._members[channel]:
            self._fallbacks += channel.projection.take_fallbacks()
            del self._members[channel]
            del self._channels[channel.key]
            self._index.remove(channel.selection.subjects, channel)

    def own(self, task: asyncio.Task[None]) -> None:
        """Keep a feed's task and await it when the gateway closes."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- from the log to the sockets ---------------------------------------------------------------

    def _on_records(self, records: Sequence[Record]) -> None:
        for record in records:
            channels = self._index.find(record.subject)
            if channels:
                self._offer(record, channels)
        self._end_record, self._end = records[-1], None

    def _offer(self, record: Record, channels: Sequence[Channel]) -> None:
        try:
            # Mostly one: no set is made for it.
            first = channels[0]
            streams = (first.stream,) if channels[-1] is first else {c.stream for c in channels}
            events = self.reader.events(record, streams)
        except Exception:
            # Going on would hide an event: those who would have got it are told instead.
            logger.exception("record_unreadable", offset=record.offset, subject=record.subject)
            for channel in channels:
                self._fail_channel(channel)
            return
        for channel in channels:
            self._offer_to(channel, events)

    def _offer_to(self, channel: Channel, events: Sequence[LoggedEvent]) -> None:
        try:
            for event in events:
                if channel.wants(event.stream, event.value):
                    if channel.is_full_of_news:
                        # A burst greater than the ring: better an extra write than all falling behind it.
                        self.flush()
                    channel.offer(event.position, event.cursor, event.value, size_bytes=event.size_bytes)
                    if not channel.dirty:
                        channel.dirty = True
                        self._dirty.append(channel)
                        if self._flush_handle is None:
                            self._schedule_flush()
        except Exception:
            logger.exception("filter_failed", field=channel.stream)
            self._fail_channel(channel)

    def schedule(self, feed: Feed) -> None:
        """Flush this feed in the next turn of the loop."""
        self._due[feed] = None
        self._schedule_flush()

    def _schedule_flush(self) -> None:
        if self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write to every socket with room all that is new for it, in one write each."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        dirty, self._dirty = self._dirty, []
        due, self._due = self._due, {}
        ready: dict[Feed, None] = {}
        for channel in dirty:
            channel.dirty = False
            if channel in self._members:
                self._collect(self._members[channel], ready)
            channel.flushed()
        for feed in due:
            if feed.writable and not feed.closed:
                for subscriber in feed.unsent():
                    self._collect({subscriber: None}, ready)
                feed.read_on()
        self._walked = None
        if ready:
            call_each(ready, Feed.write, self.end_peer)

    def _collect(self, members: Mapping[Subscriber, None], ready: dict[Feed, None]) -> None:
        """Collect what is new for each member of a channel; write at once where nothing can be added.

        One guard stands around all of them, not around each: that would be felt with every event. After a
        failure each of the others is collected for itself.
        """
        memo: Memo = []
        self._walked = members
        try:
            for subscriber in members:
                feed = subscriber.feed
                if subscriber.live and feed.writable and feed.collect(subscriber, memo):
                    if feed.has_one and not feed.finished:
                        # Nothing can be added to it, and written now, its bytes are still in the cache.
                        feed.write()
                    else:
                        ready[feed] = None
        except Exception as error:  # noqa: BLE001 (it is handled as the failure of this one)
            isolate(subscriber, error, self._on_collect_error)
            for other in [s for s in members if s is not subscriber and s.live and not s.is_current]:
                self._collect({other: None}, ready)

    def _on_collect_error(self, subscriber: Subscriber, error: Exception) -> None:
        if isinstance(error, EncodingFailed):
            # Every member that still needs the event would fail alike: one line in the log is enough.
            channel = subscriber.channel
            logger.error("projection_failed", field=channel.stream, exc_info=error.__cause__)
            for each in [s for s in self._members[channel] if s.live and not s.is_current]:
                self._fail(each, [internal_error()])
        elif subscriber.is_current:  # its events were collected and could not be written
            self.end_peer(subscriber.feed, error)
        else:
            self._end_subscription(subscriber, error)

    def _fail_channel(self, channel: Channel) -> None:
        for subscriber in list(self._members.get(channel, ())):
            self._fail(subscriber, [internal_error()])

    # --- cursors of those who receive nothing ------------------------------------------------------

    def _arm_advance(self, due: float) -> None:
        """Begin the next round at a time of the loop's clock."""
        self._advance_handle = asyncio.get_running_loop().call_at(due, self._on_advance, due)

    def _on_advance(self, due: float) -> None:
        self._advance_some(iter(list(self._feeds)), due + self._advance_seconds)

    def _advance_some(self, feeds: Iterator[Feed], next_due: float) -> None:
        """Move cursors on a few at a time: telling a hundred thousand at once would stop everything else."""
        loop, told = asyncio.get_running_loop(), 0
        for feed in feeds:
            told += guarded(feed, self._advance, self.end_peer, otherwise=0)
            if told >= _ADVANCED_AT_ONCE:
                self._advance_handle = loop.call_later(
                    _ADVANCE_PAUSE_SECONDS, self._advance_some, feeds, next_due
                )
                return
        self._arm_advance(max(next_due, loop.time()))

    def advance(self) -> None:
        """Move on the cursors of the subscriptions for which nothing matched since their last event."""
        call_each(self._feeds, self._advance, self.end_peer)

    def _advance(self, feed: Feed) -> int:
        """Move on the cursors of one peer; return how many."""
        end = self.end
        moved = [s for s in feed.subscribers.values() if s.is_current and s.position < end]
        for subscriber in moved:
            subscriber.position = end
        if moved and feed.resume and feed.writable:
            cursor = self.reader.cursors.of(self.end_cursor)
            feed.peer.signal([(subscriber.id, cursor) for subscriber in moved])
        return len(moved)
