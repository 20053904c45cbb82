"""A log on JetStream while it is copied from another one: marked as unfinished until it is whole."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, final

from circuit_breaker_server.log.contents import ContentsDigest, LogContents
from circuit_breaker_server.log.event_log import LogError, Record, Snapshot, SnapshotEntry
from circuit_breaker_server.log.jetstream.broker import Broker, check_api
from circuit_breaker_server.log.jetstream.credentials import NO_CREDENTIALS, Credentials
from circuit_breaker_server.log.jetstream.envelope import headers_of_copy
from circuit_breaker_server.log.jetstream.errors import ApiError, BrokerUnavailable
from circuit_breaker_server.log.jetstream.reads import Reader
from circuit_breaker_server.log.jetstream.snapshots import Snapshots
from circuit_breaker_server.log.jetstream.stream import Streams

__all__ = ["JetStreamCopy"]

_PATIENCE_SECONDS: Final = 12.0
_READ_SECONDS: Final = 30.0
_ANSWER_SECONDS: Final = 10.0
_IN_FLIGHT: Final = 256
_IN_FLIGHT_BYTES: Final = 8 * 1024 * 1024
_PAGE: Final = 1000
# No token that `subject` makes: a percent sign there is followed by two hex digits.
_HOLE: Final = "%hole"

_Message = tuple[str, bytes, Mapping[str, str]]


@final
class JetStreamCopy:
    """The target of a copy. A server refuses its streams before the copy is finished.

    Each message expects to follow the one before it, so no message is stored twice, and each has the offset
    that it has in the source. A hole is filled with a message that is deleted at the end.

    :ivar last_offset: of the last message that is there.

    Example::

        target = await JetStreamCopy.open(url, name="events", epoch=source.epoch, first_offset=1)
        await target.put(records)
        contents = await target.complete(source.last_offset)
        await target.finish(await source.load_snapshot(), await source.last_removed())
        await target.aclose()
    """

    def __init__(self, broker: Broker, streams: Streams, *, last_offset: int) -> None:
        """Go on behind an offset; use :meth:`open`."""
        self._broker = broker
        self._streams = streams
        self.last_offset = last_offset

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        name: str,
        epoch: str,
        first_offset: int,
        replicas: int = 1,
        open_seconds: float = 10.0,
        credentials: Credentials = NO_CREDENTIALS,
    ) -> JetStreamCopy:
        """Make the streams, or find those of a copy that was begun before.

        :raises LogError: a stream is there that is neither empty nor the beginning of a copy of this log, or
            the brokers cannot be used.
        """
        broker = await Broker.open(url, timeout_seconds=open_seconds, credentials=credentials)
        try:
            streams = Streams(broker, name)
            state = await streams.prepare_copy(replicas=replicas, epoch=epoch, first_offset=first_offset)
        except BaseException:
            await broker.aclose()
            raise
        return cls(broker, streams, last_offset=state.last_offset)

    async def put(self, records: Sequence[Record]) -> None:
        """Append records as they are, each at its offset.

        :raises LogError: they cannot be written.
        """
        waiting: list[_Message] = []
        size = 0
        for record in records:
            waiting += self._holes(upto=record.offset - 1, after=self.last_offset + len(waiting))
            headers = headers_of_copy(record)
            waiting.append((self._streams.prefix + record.subject, record.data, headers))
            size += len(record.data)
            if len(waiting) >= _IN_FLIGHT or size >= _IN_FLIGHT_BYTES:
                await self._publish(waiting)
                waiting, size = [], 0
        await self._publish(waiting)

    def _holes(self, *, after: int, upto: int) -> list[_Message]:
        return [(self._streams.prefix + _HOLE, b"", {})] * (upto - after)

    async def _publish(self, messages: Sequence[_Message]) -> None:
        try:
            for i in range(0, len(messages), _IN_FLIGHT):
                await self._publish_group(messages[i : i + _IN_FLIGHT])
        except (ApiError, BrokerUnavailable) as error:
            raise LogError(
                f"{self._broker.url}, stream {self._streams.name}: cannot be written behind offset "
                f"{self.last_offset}: {error}; run the same copy again, and it goes on"
            ) from error

    async def _publish_group(self, group: Sequence[_Message]) -> None:
        with self._broker.replies() as (reply, answers):
            for number, (subject, data, headers) in enumerate(group):
                expected = {"Nats-Expected-Last-Sequence": str(self.last_offset + number)}
                await self._broker.publish(subject, data, headers={**headers, **expected}, reply=reply)
                await asyncio.sleep(0)
            for _ in group:
                answer = await self._broker.next_reply(
                    answers, timeout_seconds=_ANSWER_SECONDS, subject=self._streams.name
                )
                self.last_offset = max(self.last_offset, int(check_api(answer.data)["seq"]))

    async def complete(self, last_offset: int) -> LogContents:
        """Fill the holes up to ``last_offset``, delete the fillings, and read back what was copied.

        :raises LogError: it cannot be written or read.
        """
        await self._publish(self._holes(after=self.last_offset, upto=last_offset))
        try:
            await self._broker.api_patiently(
                f"STREAM.PURGE.{self._streams.name}",
                {"filter": self._streams.prefix + _HOLE},
                patience_seconds=_PATIENCE_SECONDS,
            )
        except (ApiError, BrokerUnavailable) as error:
            raise LogError(f"{self._broker.url}, stream {self._streams.name}: {error}") from error
        reader, digest, after = (
            Reader(self._broker, self._streams, patience_seconds=_READ_SECONDS),
            ContentsDigest(),
            0,
        )
        while after < last_offset:
            page = await reader.page(
                (">",), after=after, upto=last_offset, limit=_PAGE, max_bytes=_IN_FLIGHT_BYTES
            )
            for record in page.records:
                digest.add(record)
            after = page.reached
        return digest.contents(epoch=self._streams.epoch, last_offset=last_offset)

    async def finish(self, snapshot: Snapshot, removed: Record | None) -> None:
        """Put the snapshot and the last removed record beside the records, and let the log be served.

        :raises LogError: they cannot be written.
        """
        where = f"{self._broker.url}, stream {self._streams.state_name}"
        try:
            await self._broker.api_patiently(
                f"STREAM.PURGE.{self._streams.state_name}", {}, patience_seconds=_PATIENCE_SECONDS
            )
            snapshots = Snapshots(self._broker, self._streams, patience_seconds=_PATIENCE_SECONDS)
            await snapshots.open()
            entries = [SnapshotEntry(key=key, data=data) for key, data in snapshot.entries.items()]
            if entries or snapshot.offset:
                await snapshots.save(snapshot.offset, entries)
            if removed is not None:
                await snapshots.remember_removed(removed)
            await self._streams.finish_copy()
        except (ApiError, BrokerUnavailable) as error:
            raise LogError(f"{where}: cannot be written: {error}; run the same copy again") from error

    async def aclose(self) -> None:
        """Close the connection. What is not finished is gone on with by the next copy."""
        await self._broker.aclose()
