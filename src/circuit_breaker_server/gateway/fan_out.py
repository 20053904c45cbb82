"""From the log's tail to every socket: the channels, their members, and one write per socket and turn."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeAlias, final

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.streams import View
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.events import Selection
from circuit_breaker_server.gateway.channel import Channel, ChannelKey, Position
from circuit_breaker_server.gateway.encoded_run import EncodingFailed, Memo
from circuit_breaker_server.gateway.event_reader import LoggedEvent, LogReader
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.gateway.flush_of_many import MANY, FlushOfMany
from circuit_breaker_server.gateway.guarded_calls import call_each, isolate
from circuit_breaker_server.gateway.subject_index import SubjectIndex
from circuit_breaker_server.gateway.subscriber import Subscriber
from circuit_breaker_server.gateway.subscription_errors import internal_error
from circuit_breaker_server.gateway.subscription_plan import Plan
from circuit_breaker_server.log.event_log import Record
from circuit_breaker_server.logs import get_logger

__all__ = ["FanOut", "Select"]

logger = get_logger("gateway")

Select: TypeAlias = Callable[[str, Mapping[str, object]], Selection]
"""From a subscription field and its arguments to what it reads; raises ``EngineError``."""

_LOOK_AFTER: Final = 128
"""Members that are given what is new before the clock is looked at."""
_TURN_SECONDS: Final = 0.008
_SOCKETS_IN_TURN: Final = 512
"""The share of a flush in one turn of the loop: time, and sockets that wait to be written to meanwhile."""
_SHORT_SECONDS: Final = 0.002
_LONGEST_REST_SECONDS: Final = 0.1
"""A flush of channels with very many members that is not short is followed by a rest for them, as long as it
took of the processor, up to the longest: what comes in the rest is one write for each socket."""


@final
class FanOut:
    """Every channel with its members, and the flushing of what is new in them.

    Each record is derived once, offered to the channels whose subjects it matches, and flushed in the next
    turn of the loop. Channels with very many members are flushed in several turns, in which the others go
    first.

    :ivar reader: derives the events of a record.

    Example::

        fan_out = FanOut(reader, select=select, fail=fail, end_subscription=end_subscription, end_peer=drop)
        end_tail = log.tail(fan_out.on_records)
        channel = fan_out.channel(plan, EVERYTHING_SEEN)
        fan_out.join(subscriber, channel)
    """

    def __init__(
        self,
        reader: LogReader,
        *,
        select: Select,
        fail: Callable[[Subscriber[Feed], Sequence[GraphQLError]], None],
        end_subscription: Callable[[Subscriber[Feed], Exception], None],
        end_peer: Callable[[Feed, Exception], None],
        select_nothing: Select | None = None,
        ring_size: int = 1024,
        ring_bytes: int = 256 * 1024,
    ) -> None:
        """Begin without channels.

        :param fail: ends a subscription with errors.
        :param end_subscription: ends a subscription that has raised.
        :param end_peer: ends a peer that has raised.
        :param select_nothing: as ``select``, if the arguments name an object that the caller may not see.
        """
        self.reader = reader
        self._select = select
        self._select_nothing = select_nothing or select
        self._fail = fail
        self._end_subscription = end_subscription
        self._end_peer = end_peer
        self._ring_size = ring_size
        self._ring_bytes = ring_bytes
        self._channels: dict[ChannelKey, Channel] = {}
        self._members: dict[Channel, dict[Subscriber[Feed], None]] = {}
        # The members that a flush walks over: a member that joins or leaves meanwhile changes a copy.
        self._walked: Collection[Subscriber[Feed]] | None = None
        self._great: dict[Channel, None] = {}
        self._flush_of_great: FlushOfMany | None = None
        self._index: SubjectIndex[Channel] = SubjectIndex()
        self._fallbacks = 0
        self._dirty: deque[Channel] = deque()
        self._due: OrderedDict[Feed, None] = OrderedDict()
        self._turn_ends = 0.0
        self._took_seconds = 0.0
        self._rests_until = 0.0
        self._flush_handle: asyncio.Handle | None = None
        self._rest_handle: asyncio.Handle | None = None
        self._end_record: Record | None = None
        self._end: Cursor | None = None

    def start(self, end: Cursor) -> None:
        """Begin at the log's end, unless a record was offered meanwhile."""
        if self._end_record is None:
            self._end = end

    def stop(self) -> None:
        """Cancel the flush that is due. Idempotent."""
        for handle in (self._flush_handle, self._rest_handle):
            if handle is not None:
                handle.cancel()
        self._flush_handle = self._rest_handle = None

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
        """The place up to which everything was offered to the channels."""
        cursor = self.end_cursor
        return (cursor.offset, cursor.index)

    @property
    def last_offset(self) -> int:
        """The offset of the last record that was offered to the channels; 0 before the start."""
        if self._end_record is not None:
            return self._end_record.offset
        return 0 if self._end is None else self._end.offset

    @property
    def end_cursor(self) -> Cursor:
        """The cursor of the last record that was offered to the channels."""
        if self._end is None:
            if self._end_record is None:
                raise RuntimeError("the gateway was not started")
            try:
                self._end = self.reader.end_cursor(self._end_record)
            except Exception:
                # A place before its events, if there are any: a client that resumes from it is told.
                record = self._end_record
                logger.exception("record_unreadable", offset=record.offset, subject=record.subject)
                self._end = Cursor(self.reader.log.epoch, record.offset, 0, record.check)
        return self._end

    # --- channels and their members ----------------------------------------------------------------

    def channel(self, plan: Plan, view: View) -> Channel:
        """Return the channel of a plan and a view; the caller joins it or closes it.

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

    def join(self, subscriber: Subscriber[Feed], channel: Channel) -> None:
        """Make a subscriber a member of a channel."""
        self._members_to_change(channel)[subscriber] = None

    def leave(self, subscriber: Subscriber[Feed]) -> None:
        """Take a subscriber out of its channel; the last one takes the channel with it."""
        channel = subscriber.channel
        if channel in self._members:
            self._members_to_change(channel).pop(subscriber, None)
            self.close_if_empty(channel)

    def _members_to_change(self, channel: Channel) -> dict[Subscriber[Feed], None]:
        """Return the members of a channel; a copy takes their place while a flush walks over them."""
        members = self._members[channel]
        others = self._flush_of_great
        if members is self._walked or (others is not None and members is others.members.get(channel)):
            members = self._members[channel] = dict(members)
        return members

    def close_if_empty(self, channel: Channel) -> None:
        """Forget a channel that has no members, and its subjects."""
        if channel in self._members and not self._members[channel]:
            self._fallbacks += channel.projection.take_fallbacks()
            del self._members[channel]
            del self._channels[channel.key]
            self._index.remove(channel.selection.subjects, channel)

    # --- from the log to the sockets ---------------------------------------------------------------

    def on_records(self, records: Sequence[Record]) -> None:
        """Offer new records of the log, in order, to the channels whose subjects they match."""
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
            # Going on would hide an event: its subscribers are told instead.
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
                    if self._rests_until and channel.is_half_full_of_news:
                        self._end_rest()
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

    def forget(self, feed: Feed) -> None:
        """Flush a feed no more that was scheduled. Idempotent."""
        self._due.pop(feed, None)

    def _schedule_flush(self) -> None:
        if self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_soon(self._flush_in_turn)

    def flush(self) -> None:
        """Write to every socket with room all that is new for it, in this turn of the loop."""
        self.stop()
        self._turn_ends, self._rests_until = math.inf, 0.0
        while not self._flush_some():
            pass

    def _flush_in_turn(self) -> None:
        """Write what is new, as long as this turn of the loop has time for it; the rest in the next one."""
        self._flush_handle = None
        self._turn_ends = 0.0
        if not self._flush_some():
            self._schedule_flush()

    def _flush_some(self) -> bool:
        """Collect what is new and write it, in one write for each socket; return whether nothing is left."""
        ready: dict[Feed, None] = {}
        dirty, due = self._dirty, self._due
        left = _LOOK_AFTER
        while dirty:
            channel = dirty.popleft()
            channel.dirty = False
            members = self._members.get(channel)
            if members is None:
                continue
            count = len(members)
            if count > MANY:
                self._great[channel] = None
                continue
            self._collect(members, ready)
            channel.flushed(channel.end_seq)
            left -= count
            if left <= 0:
                if not self._has_time(ready):
                    break
                left = _LOOK_AFTER
        if due:
            self._flush_due(ready)
        self._walked = None
        if ready:
            call_each(ready, Feed.write, self._end_peer)
        while self._flush_of_great is not None or (self._great and not self._rests()):
            self._flush_great()
            if not self._has_time(()):
                break
        is_resting = self._rest_handle is not None
        return not (dirty or due or self._flush_of_great or (self._great and not is_resting))

    def _flush_due(self, ready: dict[Feed, None]) -> None:
        """Collect for peers that have room again; they have a part of each turn, whatever the others take.

        One that becomes due again meanwhile, with more than one write takes, waits until it was written to.
        """
        due = self._due
        for _ in range(len(due)):
            if not due:
                return
            feed, _ = due.popitem(last=False)
            if feed.writable and not feed.closed:
                for subscriber in feed.unsent():
                    self._collect((subscriber,), ready)
                feed.read_on()
            if not self._has_time(ready):
                return

    def _has_time(self, ready: Collection[Feed]) -> bool:
        """Tell whether a flush may go on in this turn of the loop; its time begins with the first look."""
        now = time.perf_counter()
        if not self._turn_ends:
            self._turn_ends = now + _TURN_SECONDS
        return now < self._turn_ends and len(ready) < _SOCKETS_IN_TURN

    def _flush_great(self) -> None:
        """Take one step in the flush of the channels with very many members."""
        began = time.thread_time()
        if self._flush_of_great is None:
            members = {each: self._members[each] for each in self._great if each in self._members}
            self._great = {}
            self._flush_of_great = FlushOfMany(members, self._collect, self._end_peer)
            self._took_seconds = 0.0
        has_more = self._flush_of_great.step()
        self._took_seconds += time.thread_time() - began
        if not has_more:
            self._flush_of_great = None
            if self._took_seconds > _SHORT_SECONDS:
                self._rests_until = time.perf_counter() + min(self._took_seconds, _LONGEST_REST_SECONDS)

    def _rests(self) -> bool:
        """Tell whether the channels with very many members wait for the end of their rest; see to its end."""
        if self._rests_until and self._rest_handle is None:
            left = self._rests_until - time.perf_counter()
            if left <= 0:
                self._rests_until = 0.0
            else:
                self._rest_handle = asyncio.get_running_loop().call_later(left, self._end_rest)
        return self._rest_handle is not None

    def _end_rest(self) -> None:
        self._rests_until = 0.0
        if self._rest_handle is not None:
            self._rest_handle.cancel()
            self._rest_handle = None
        self._schedule_flush()

    def _collect(self, members: Collection[Subscriber[Feed]], ready: dict[Feed, None]) -> None:
        """Collect what is new for members of a channel; write at once where nothing can be added.

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
                self._collect((other,), ready)

    def _on_collect_error(self, subscriber: Subscriber[Feed], error: Exception) -> None:
        if isinstance(error, EncodingFailed):
            # Every member that still needs the event would fail alike: one line in the log is enough.
            channel = subscriber.channel
            logger.error("projection_failed", field=channel.stream, exc_info=error.__cause__)
            for each in [s for s in self._members[channel] if s.live and not s.is_current]:
                self._fail(each, [internal_error()])
        elif subscriber.is_current:  # its events were collected and could not be written
            self._end_peer(subscriber.feed, error)
        else:
            self._end_subscription(subscriber, error)

    def _fail_channel(self, channel: Channel) -> None:
        for subscriber in list(self._members.get(channel, ())):
            self._fail(subscriber, [internal_error()])
