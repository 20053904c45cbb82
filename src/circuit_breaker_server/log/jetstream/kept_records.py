"""Read the kept records within the log's bounds, which move as nodes append and trim."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, final

from circuit_breaker_server.log.event_log import LogError, LogPage, Record
from circuit_breaker_server.log.jetstream.errors import ApiError, BrokerUnavailable
from circuit_breaker_server.log.jetstream.reads import Reader, stored_bytes
from circuit_breaker_server.log.jetstream.recent import RecentRecords
from circuit_breaker_server.log.jetstream.sizes import BlockSizes
from circuit_breaker_server.log.jetstream.snapshots import Snapshots
from circuit_breaker_server.log.jetstream.stream import Streams, StreamState

__all__ = ["KeptRecords"]

_PAGE_RECORDS: Final = 1000
_PAGE_BYTES: Final = 4 * 1024 * 1024
_LOOK_SECONDS: Final = 0.05
_SHORT_SECONDS: Final = 1.0
"""How long the leader has to say that the log does not come so far: it may be behind another replica."""


@final
class KeptRecords:
    """The records from the log's first offset to the last one that the tail has delivered.

    Example::

        kept = KeptRecords(
            reader, streams, recent, snapshots, sizes, patience_seconds=30, refuse_if_closed=refuse
        )
        page = await kept.read_page((">",), after=0, limit=10, max_bytes=1_000_000)
    """

    def __init__(
        self,
        reader: Reader,
        streams: Streams,
        recent: RecentRecords,
        snapshots: Snapshots,
        sizes: BlockSizes,
        *,
        patience_seconds: float,
        refuse_if_closed: Callable[[], None],
    ) -> None:
        """Read by way of a reader.

        :param recent: knows the bounds.
        :param sizes: counts what the tail delivers.
        :param patience_seconds: how long the stream is asked for its bounds while the broker is away.
        :param refuse_if_closed: raises where the log is closed or has failed.
        """
        self._reader = reader
        self._streams = streams
        self._recent = recent
        self._snapshots = snapshots
        self._sizes = sizes
        self._patience_seconds = patience_seconds
        self._refuse_if_closed = refuse_if_closed
        self._asking = asyncio.Lock()
        self._asked = self._answered = 0
        self._answer = StreamState(first_offset=1, last_offset=0)

    async def read_page(self, subjects: Sequence[str], *, after: int, limit: int, max_bytes: int) -> LogPage:
        """See the port."""
        return await self._page(
            subjects, after=after, upto=self._recent.last_record, limit=limit, max_bytes=max_bytes
        )

    async def _page(
        self, subjects: Sequence[str], *, after: int, upto: int, limit: int, max_bytes: int
    ) -> LogPage:
        if after >= upto:
            return LogPage((), after)
        start = max(after, self._recent.first_offset - 1)
        page = await self._reader.page(subjects, after=start, upto=upto, limit=limit, max_bytes=max_bytes)
        if not page.records or page.records[0].offset > start + 1:
            # Perhaps another node has trimmed meanwhile: what is missing for this must be below first_offset.
            await self.refresh_first_offset()
        return page

    async def _state(self) -> StreamState:
        try:
            return await self._streams.state(patience_seconds=self._patience_seconds)
        except (ApiError, BrokerUnavailable) as error:
            raise LogError(f"{self._streams.name}: cannot be read now: {error}") from error

    async def refresh_first_offset(self) -> None:
        """Ask the stream for its first offset: any node may have trimmed.

        :raises LogError: it cannot be asked now.
        """
        state = await self._state()
        self._recent.move_first(min(state.first_offset, self._recent.last_record + 1))

    async def scan(self, *, after: int, upto: int | None) -> AsyncIterator[Record]:
        """See the port."""
        self._refuse_if_closed()
        last = self._recent.last_record if upto is None else min(upto, self._recent.last_record)
        while after < last:
            self._refuse_if_closed()
            page = await self._page(
                (">",), after=after, upto=last, limit=_PAGE_RECORDS, max_bytes=_PAGE_BYTES
            )
            for record in page.records:
                yield record
            after = page.reached

    async def reaches(self, offset: int) -> bool:
        """See the port."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (_SHORT_SECONDS if self._streams.replicas > 1 else 0.0)
        while offset > self._recent.last_offset:
            # Mostly it is on its way.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._recent.wait_for(offset)
                    break
            is_last_look = loop.time() >= until
            state = await self._asked_state()
            if offset <= state.last_offset:
                await self._recent.wait_for(offset)
            elif not state.is_led:
                raise LogError(f"{self._streams.name}: its leader was cut off from the others; try again")
            elif is_last_look:
                return False
        return offset <= self._recent.last_record

    async def _asked_state(self) -> StreamState:
        """Ask the leader; those who want to know while one asks share the next answer."""
        asked = self._asked
        async with self._asking:
            if self._answered <= asked:  # its answer may be from before this call
                self._asked += 1
                self._answer = await self._state()
                self._answered = self._asked
            return self._answer

    async def check(self, offset: int) -> str | None:
        """See the port."""
        if offset > self._recent.last_record or offset < 0:
            return None
        removed = await self._snapshots.last_removed()
        if removed is None and offset == 0:
            return "00000000"
        if removed is not None and removed.offset == offset:
            return removed.check
        record = await self._reader.record_at(offset) if offset else None
        return None if record is None else record.check

    async def size_bytes(self, *, after: int, upto: int) -> int:
        """See the port. What was never counted is read once."""
        upto = min(upto, self._recent.last_record)
        after = max(after, self._recent.first_offset - 1)
        return await self._sizes.total(after=after, upto=upto, read=self._read_size)

    async def _read_size(self, after: int, upto: int) -> int:
        size = 0
        async for record in self.scan(after=after, upto=upto):
            size += stored_bytes(record)
        return size
