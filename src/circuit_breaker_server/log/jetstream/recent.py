"""Knowledge of the log's end: its bounds, and the newest ids and subjects, in bounded memory."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Sequence
from typing import Final, Generic, TypeVar, final

from circuit_breaker_server.log.event_log import Record

__all__ = ["Generations", "RecentRecords"]

_REMEMBERED: Final = 65_536

K = TypeVar("K")


@final
class Generations(Generic[K]):
    """Offsets by key. Between one and two times so many of the newest keys are kept."""

    __slots__ = ("_capacity", "_new", "_old")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._new: dict[K, int] = {}
        self._old: dict[K, int] = {}

    def get(self, key: K) -> int | None:
        found = self._new.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: K, offset: int) -> None:
        self._new[key] = offset
        if len(self._new) >= self._capacity:
            self._old, self._new = self._new, {}


@final
class RecentRecords:
    """Follow the tail.

    :ivar first_offset: of the first kept record, as this process knows it.
    :ivar last_offset: the tail has delivered every record up to it; a message there may be none of ours.
    :ivar last_record: the offset of the last record that the tail has delivered.

    Example::

        recent = RecentRecords(first_offset=1, last_offset=0)
        recent.add(records, records[-1].offset)
        await recent.wait_for(17)
    """

    def __init__(
        self,
        *,
        first_offset: int,
        last_offset: int,
        last_record: int | None = None,
        remembered: int = _REMEMBERED,
    ) -> None:
        """Begin at the bounds of the log; without ``last_record`` its last message is a record."""
        self.last_record = last_offset if last_record is None else last_record
        self.first_offset = first_offset
        self.last_offset = last_offset
        self._ids: Generations[str] = Generations(remembered)
        self._subjects: Generations[str] = Generations(remembered)
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._cancelled = 0
        self._order = itertools.count()

    def add(self, records: Sequence[Record], last_offset: int) -> None:
        """Remember what the tail delivers. Those that wait for it are woken by :meth:`wake`."""
        for record in records:
            self._ids.put(record.id, record.offset)
            self._subjects.put(record.subject, record.offset)
        if records:
            self.last_record = records[-1].offset
        self.last_offset = last_offset

    def wake(self) -> None:
        """Wake those that wait for an offset that has been reached."""
        while self._waiting and self._waiting[0][0] <= self.last_offset:
            _, _, reached = heapq.heappop(self._waiting)
            if not reached.done():
                reached.set_result(None)

    def offset_of_id(self, record_id: str) -> int | None:
        """Return the offset of the record with this id, if it is remembered and kept."""
        offset = self._ids.get(record_id)
        return None if offset is None or offset < self.first_offset else offset

    def last_offset_of(self, subject: str) -> int | None:
        """Return the last offset of a subject, if it is remembered and kept."""
        offset = self._subjects.get(subject)
        return None if offset is None or offset < self.first_offset else offset

    def move_first(self, offset: int) -> None:
        """Move the first offset; it never goes back."""
        self.first_offset = max(self.first_offset, offset)

    async def wait_for(self, offset: int) -> None:
        """Wait until the tail has delivered everything up to an offset."""
        if self.last_offset < offset:
            reached = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (offset, next(self._order), reached))
            try:
                await reached
            except asyncio.CancelledError:
                self._forget_cancelled()
                raise

    def _forget_cancelled(self) -> None:
        """Forget those that do not wait any more, once they are as many as the others."""
        self._cancelled += 1
        if self._cancelled * 2 > len(self._waiting):
            self._waiting = [each for each in self._waiting if not each[2].done()]
            heapq.heapify(self._waiting)
            self._cancelled = 0
