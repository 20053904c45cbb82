"""Where a subscription begins: behind a cursor, or at a place that is looked for in the log."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final, Protocol, TypeAlias, final

import msgspec

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.gateway.channel import END_OF_RECORD, Channel, Position
from circuit_breaker_server.gateway.event_reader import LogReader
from circuit_breaker_server.gateway.resume_cursor import parse_resume_cursor, resume_after
from circuit_breaker_server.gateway.resume_gaps import Gap, GapReason, refuse_if_trimmed
from circuit_breaker_server.gateway.subscription_plan import Refused
from circuit_breaker_server.log.search import first_since, last_before

__all__ = ["MAX_LAST", "AfterCursor", "FromBeginning", "Last", "Since", "Start", "asked_after", "read_start"]

MAX_LAST: Final = 1_000
"""The most events that ``last`` asks for."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_WINDOW: Final = 256
_WINDOW_GROWTH: Final = 8
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)", re.ASCII)


Turn: TypeAlias = Callable[[], Awaitable[None]]


class Start(Protocol):
    """The interface of a place where a subscription begins, as it was asked for."""

    @property
    def text(self) -> str | None:
        """The text of the cursor, where one was named: the ``prev`` of the first event, as it was written.

        Another key may seal cursors by now (:mod:`circuit_breaker_server.security.key_rotation`).
        """
        ...

    async def find(self, reader: LogReader, channel: Channel, turn: Turn) -> Cursor:
        """Return the cursor behind which the channel's events are all to be read.

        :param turn: waits until the event loop has time for reading the log.
        :raises Gap: some of them are not kept.
        :raises LogError: the log cannot be read.
        """
        ...


@final
class AfterCursor(msgspec.Struct, frozen=True):
    """Behind a cursor of this log.

    :ivar text: as it was named.
    """

    cursor: Cursor
    text: str

    async def find(self, reader: LogReader, channel: Channel, _turn: Turn) -> Cursor:
        await reader.verify(self.cursor, channel.selection.subjects)
        return self.cursor


@final
class FromBeginning(msgspec.Struct, frozen=True):
    """At the beginning of the log, if nothing was trimmed."""

    text: ClassVar[None] = None

    async def find(self, reader: LogReader, channel: Channel, _turn: Turn) -> Cursor:
        cursor = Cursor(reader.log.epoch, 0, 0, "00000000")
        await refuse_if_trimmed(reader.log, reader.end_cursor, (0, 0))
        await reader.verify(cursor, channel.selection.subjects)
        return cursor


@final
class Since(msgspec.Struct, frozen=True):
    """At a time, by the clock of the server that appended the events."""

    time_ms: int
    text: ClassVar[None] = None

    async def find(self, reader: LogReader, channel: Channel, _turn: Turn) -> Cursor:
        log = reader.log
        offset = await first_since(log, self.time_ms)
        removed = await log.last_removed()
        if offset <= log.first_offset and removed is not None and removed.time_ms >= self.time_ms:
            raise Gap(GapReason.TRIMMED)
        cursor = await _end_before(reader, offset)
        await reader.verify(cursor, channel.selection.subjects)
        return cursor


@final
class Last(msgspec.Struct, frozen=True):
    """Before the last events of the subscription, as many as are asked for or as there are."""

    count: int
    text: ClassVar[None] = None

    async def find(self, reader: LogReader, channel: Channel, turn: Turn) -> Cursor:
        log = reader.log
        end = log.last_offset
        window = _FIRST_WINDOW
        while True:
            begin = max(log.first_offset - 1, end - window)
            found = await self._last_of(reader, channel, (begin, END_OF_RECORD), end, turn)
            if len(found) == self.count or begin < log.first_offset:
                break
            window *= _WINDOW_GROWTH
        if len(found) < self.count:
            # As many as there are, if they are all that there ever were.
            await refuse_if_trimmed(log, reader.end_cursor, (0, 0))
        cursor = await _before(reader, found[0] if found else (end + 1, 0))
        await reader.verify(cursor, channel.selection.subjects)
        return cursor

    async def _last_of(
        self, reader: LogReader, channel: Channel, after: Position, upto: int, turn: Turn
    ) -> deque[Position]:
        """Return the places of the last events up to an offset, as many as are asked for."""
        found: deque[Position] = deque(maxlen=self.count)
        while after[0] < upto:
            page = await reader.read(channel, after=after)
            await turn()
            for number, event in enumerate(page):
                if event is not None and event[0][0] <= upto:
                    found.append(event[0])
                if number % _FIRST_WINDOW == _FIRST_WINDOW - 1:
                    await turn()
            after = page.reached
        return found


async def _end_before(reader: LogReader, offset: int) -> Cursor:
    """Return the cursor behind the last record below an offset."""
    record = await last_before(reader.log, offset) or await reader.log.last_removed()
    return Cursor(reader.log.epoch, 0, 0, "00000000") if record is None else reader.end_cursor(record)


async def _before(reader: LogReader, place: Position) -> Cursor:
    """Return the cursor behind the event before a place, of whatever stream."""
    offset, index = place
    if index:
        (record,) = await reader.log.read(after=offset - 1, limit=1)
        return Cursor(reader.log.epoch, offset, index - 1, record.check)
    return await _end_before(reader, offset)


def asked_after(extensions: Mapping[str, object] | None) -> str | None:
    """Return the text of the cursor that an operation names, whatever is wrong with it; ``None`` for none."""
    try:
        return resume_after(extensions)
    except Refused:
        return None


def read_start(reader: LogReader, extensions: Mapping[str, object] | None) -> Start | None:
    """Read ``extensions.resume`` of an operation; ``None``: it begins now.

    :raises Refused: it asks for more than one beginning, or for none that there is.
    """
    resume = (extensions or {}).get("resume")
    asked = {
        name: resume[name]
        for name in ("after", "from", "since", "last")
        if isinstance(resume, Mapping) and resume.get(name) is not None
    }
    if len(asked) > 1:
        raise _invalid(f"has {' and '.join(asked)}, of which one is possible")
    if "from" in asked:
        if asked["from"] != "beginning":
            raise _invalid('.from must be "beginning"')
        return FromBeginning()
    if "last" in asked:
        count = asked["last"]
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_LAST:
            raise _invalid(f".last must be a whole number from 1 to {MAX_LAST}")
        return Last(count)
    if "since" in asked:
        return Since(_time_ms(asked["since"]))
    after = resume_after(extensions)
    return None if after is None else AfterCursor(parse_resume_cursor(reader, after), after)


def _time_ms(text: object) -> int:
    if isinstance(text, str) and _TIME.fullmatch(text):
        try:
            # Whole milliseconds, as records have them: nothing of the same one is left out.
            return (datetime.fromisoformat(text).astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)
        except (ValueError, OverflowError):
            pass
    raise _invalid(".since must be a time with a zone, as 2026-01-31T12:00:00Z")


def _invalid(text: str) -> Refused:
    error = GraphQLError(message=f"extensions.resume{text}", extensions={"code": "BAD_REQUEST"})
    return Refused([error])
