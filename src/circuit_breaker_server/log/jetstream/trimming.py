"""Trim the record stream: remove what a durable snapshot covers, and remember the last record of it."""

from __future__ import annotations

import asyncio
from typing import final

from circuit_breaker_server.log.event_log import LogWriteError
from circuit_breaker_server.log.jetstream.broker import Broker
from circuit_breaker_server.log.jetstream.errors import ApiError, BrokerUnavailable
from circuit_breaker_server.log.jetstream.kept_records import KeptRecords
from circuit_breaker_server.log.jetstream.reads import Reader
from circuit_breaker_server.log.jetstream.recent import RecentRecords
from circuit_breaker_server.log.jetstream.snapshots import Snapshots
from circuit_breaker_server.log.jetstream.stream import Streams

__all__ = ["Trimming"]


@final
class Trimming:
    """The removal of old records, one at a time.

    Example::

        trimming = Trimming(broker, streams, reader, recent, snapshots, kept=kept, patience_seconds=12)
        removed = await trimming.trim(before=17)
    """

    def __init__(
        self,
        broker: Broker,
        streams: Streams,
        reader: Reader,
        recent: RecentRecords,
        snapshots: Snapshots,
        *,
        kept: KeptRecords,
        patience_seconds: float,
    ) -> None:
        """Trim by way of a connection; while the broker is away, it is tried for so long."""
        self._broker = broker
        self._streams = streams
        self._reader = reader
        self._recent = recent
        self._snapshots = snapshots
        self._kept = kept
        self._patience_seconds = patience_seconds
        self._trimming = asyncio.Lock()

    async def trim(self, before: int) -> int:
        """See the port."""
        async with self._trimming:
            if before > self._snapshots.offset + 1:
                raise ValueError(
                    f"the snapshot covers {self._snapshots.offset}: {before} would trim above it"
                )
            first = self._recent.first_offset
            if before <= first:
                return 0
            last = await self._reader.last_before(before, first=first)
            if last is None:
                return 0
            # Remembered first: a crash in between leaves records too many, not a cursor nobody can check.
            await self._snapshots.remember_removed(last)
            self._recent.move_first(before)
            try:
                answer = await self._broker.api_patiently(
                    f"STREAM.PURGE.{self._streams.name}",
                    {"seq": before},
                    patience_seconds=self._patience_seconds,
                )
            except (ApiError, BrokerUnavailable) as error:
                raise LogWriteError(f"{self._streams.name}: cannot be trimmed: {error}") from error
            await self._kept.refresh_first_offset()
            return int(answer["purged"])
