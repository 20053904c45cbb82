"""Events as the log holds them: derived from records, with their cursors, and read again after a place."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias, final

import msgspec

from circuit_breaker_server.engine.cursor import Cursor, Cursors
from circuit_breaker_server.engine.event_fields import EventBodies
from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.engine.skipped_records import Skipped, is_skipped
from circuit_breaker_server.gateway.channel import END_OF_RECORD, Channel, Position
from circuit_breaker_server.gateway.record_encoder import NO_EVENTS, Events, RecordEncoder
from circuit_breaker_server.gateway.record_traces import RecordTraces
from circuit_breaker_server.gateway.resume_gaps import Gap, GapReason, refuse_gap, refuse_if_trimmed
from circuit_breaker_server.log.event_log import EventLog, Record

__all__ = ["MAX_PAGE_BYTES", "MIN_PAGE_BYTES", "Found", "LogReader", "LoggedEvent", "Page"]

MIN_PAGE_BYTES: Final = 64 * 1024
MAX_PAGE_BYTES: Final = 256 * 1024
"""A page's bytes in the log: of a peer that has been slow, and of one that has taken whole pages so far."""


@final
class LoggedEvent(msgspec.Struct, frozen=True, gc=False):
    """One event of a record, its place in the log and the text of its cursor.

    :ivar size_bytes: of the record it comes from: what it takes in memory, roughly, until it is encoded.
    """

    position: Position
    cursor: str
    stream: str
    value: dict[str, object]
    size_bytes: int


Found: TypeAlias = tuple[Position, str, Events, Record, Any, Any]
"""Of an event that was read again: its place in the log, the text of its cursor, and what encodes it from its
record, the record's body and the item."""


@final
class Page:
    """A stretch of the log that was read for a channel. Its events are found one by one, as they are taken.

    :ivar has_events: whether an event was found yet.
    :ivar is_read: whether all of them were taken.
    :ivar reached: the position up to which the events are complete then.
    """

    __slots__ = ("_denied", "_events", "encoder", "has_events", "is_read", "reached")

    def __init__(
        self,
        channel: Channel,
        records: Sequence[Record],
        encoder: RecordEncoder,
        cursors: Cursors,
        *,
        after: Position,
        reached: Position,
    ) -> None:
        """Hold the records; the events are those after ``after``."""
        self.has_events = False
        self.is_read = False
        self.reached = reached
        self.encoder = encoder
        self._denied = 0
        self._events = self._matching(channel, records, encoder, cursors, after)

    def __iter__(self) -> Iterator[Found | None]:
        """Go on where the last iteration was left; ``None`` after each record: reading one takes its time."""
        return self._events

    def _matching(
        self,
        channel: Channel,
        records: Sequence[Record],
        encoder: RecordEncoder,
        cursors: Cursors,
        after: Position,
    ) -> Iterator[Found | None]:
        # As few calls for each event as there can be.
        matches, permits, text = channel.selection.matches, channel.view.permits, cursors.text
        takes_all = matches is None and permits is None
        read, by_body = encoder.read, encoder.by_body
        for record in records:
            body = read(record)
            events = by_body.get(type(body), NO_EVENTS)
            offset = record.offset
            only = events.only
            for index, item in events.items(body) if only is None else only:
                position = (offset, index)
                if position <= after:
                    continue
                if not takes_all:
                    value = events.value(record, body, item)
                    if matches is not None and not matches(value):
                        continue
                    if permits is not None and not permits(value):
                        self._denied += 1
                        continue
                self.has_events = True
                # `Record.check`, without its call.
                yield position, text(offset, index, record.id[-8:]), events, record, body, item
            yield None
        self.is_read = True

    def take_denied(self) -> int:
        """Return how many events were passed, since this was last asked, that the caller may not read."""
        taken, self._denied = self._denied, 0
        return taken


@final
class LogReader:
    """Reads a channel's events from the log.

    :ivar cursors: writes and reads the texts of cursors.
    :ivar derive: from a record to its events, a pure function.
    :ivar traces: remembers the traces of what is read; ``None``: no peer has asked for them.
    :ivar page_records: how many records are read at once.
    :param bodies: the sources of events in records; ``None``: all that is read again is derived.
    :param skipped: by offset: records that are not applied to the state, whose events are not sent either.

    Example::

        page = await LogReader(log, derive).read(channel, after=(7, 0))
    """

    def __init__(
        self,
        log: EventLog,
        derive: Callable[[Record], Sequence[StreamEvent]],
        *,
        page_records: int = 512,
        cursors: Cursors | None = None,
        skipped: Mapping[int, Skipped] = MappingProxyType({}),
        bodies: EventBodies | None = None,
    ) -> None:
        self.log = log
        self._bodies = bodies
        self.cursors = cursors or Cursors(log.epoch)
        self._derive = derive
        self._page_records = page_records
        self._skipped = skipped
        self.traces: RecordTraces | None = None

    def events(self, record: Record, streams: Container[str]) -> Sequence[LoggedEvent]:
        """Derive a record's events of these streams.

        :raises LogCorruptError: the record cannot be read.
        """
        offset, check, size, text = record.offset, record.check, len(record.data), self.cursors.text
        events = []
        for index, event in enumerate(self._derive(record)):
            if event.stream in streams:
                cursor = text(offset, index, check)
                events.append(LoggedEvent((offset, index), cursor, event.stream, event.value, size))
        return events

    def end_cursor(self, record: Record) -> Cursor:
        """Return the cursor of a record's last event; of the record itself if it has none."""
        index = max(len(self._derive(record)) - 1, 0)
        return Cursor(self.log.epoch, record.offset, index, record.check)

    async def present_end(self) -> Cursor:
        """Return the cursor of the log's present end."""
        offset = self.log.last_offset
        if offset and (cursor := await self.cursor_at(offset)):
            return cursor
        removed = await self.log.last_removed()
        return Cursor(self.log.epoch, 0, 0, "00000000") if removed is None else self.end_cursor(removed)

    async def cursor_at(self, offset: int) -> Cursor | None:
        """Return the cursor after the last event of the record at an offset; ``None`` if it is not kept.

        :raises LogError: the log cannot be read.
        """
        records = await self.log.read(after=offset - 1, limit=1)
        return self.end_cursor(records[0]) if records and records[0].offset == offset else None

    async def verify(self, cursor: Cursor, subjects: Sequence[str]) -> None:
        """Make sure that everything after the cursor can be read.

        :param subjects: patterns of the records that are read.
        :raises Gap: it cannot.
        """
        await refuse_gap(self.log, cursor, self.end_cursor)
        if self._skipped and is_skipped(self._skipped.values(), after=cursor.offset, subjects=subjects):
            raise Gap(GapReason.SKIPPED)

    async def read(
        self,
        channel: Channel,
        *,
        after: Position,
        max_bytes: int = MAX_PAGE_BYTES,
        max_records: int | None = None,
    ) -> Page:
        """Read a page of a channel's events after a place; of ``max_records`` records, if that is less.

        :param max_bytes: the page ends with the record at which its bytes reach this.

        :raises Gap: records after the place were trimmed, before the reading or meanwhile.
        :raises LogError: the log cannot be read.
        """
        offset, index = after
        limit = self._page_records if max_records is None else min(self._page_records, max(1, max_records))
        records, upto = await self.log.read_page(
            # A place inside a record: its later events are still to come.
            after=offset if index >= END_OF_RECORD else max(offset - 1, 0),
            subjects=channel.selection.subjects,
            limit=limit,
            max_bytes=max_bytes,
        )
        # Looked at after the reading: a trim in between must not go unnoticed.
        await refuse_if_trimmed(self.log, self.end_cursor, after)
        if self._skipped and any(record.offset in self._skipped for record in records):
            raise Gap(GapReason.SKIPPED)
        if self.traces is not None:
            self.traces.note(records)
        reached = max((upto, END_OF_RECORD), after)
        encoder = channel.encoder
        if encoder is None:
            encoder = channel.encoder = RecordEncoder(
                channel.projection,
                channel.stream,
                self._derive,
                self._bodies,
                subjects=channel.selection.subjects,
            )
        return Page(channel, records, encoder, self.cursors, after=after, reached=reached)
