"""Read records by direct gets, many at a time.

Any replica may answer a direct get, and a replica may lag. What it has is right; what it does not have may
be missing there only. So the end of a page is believed where a later record was seen, or where the stream's
leader has come to the offset that was asked for and has none before it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Final, final

from nats.aio.msg import Msg

from circuit_breaker_server.log.event_log import LogError, LogPage, Record
from circuit_breaker_server.log.jetstream.broker import Broker, status_of
from circuit_breaker_server.log.jetstream.envelope import record_from_direct_get
from circuit_breaker_server.log.jetstream.errors import ApiError, BrokerUnavailable
from circuit_breaker_server.log.jetstream.stream import Streams

__all__ = ["Reader", "stored_bytes"]

_EVERYTHING: Final = ">"
_BATCH_MESSAGES: Final = 1000
_BATCH_BYTES: Final = 16 * 1024 * 1024
_ANSWER_SECONDS: Final = 2.0
# Each holds a batch in memory.
_CONCURRENT: Final = 8
_END_OF_BATCH, _NO_MESSAGE = "204", "404"
_OVERHEAD_BYTES: Final = 100


def stored_bytes(record: Record) -> int:
    """Return about what a record takes in the stream: its body, its subject and its headers."""
    return len(record.data) + len(record.subject) + _OVERHEAD_BYTES


@final
class Reader:
    """Read the record stream.

    Example::

        page = await Reader(broker, streams, patience_seconds=30).page(
            ["resource.*.a"], after=0, upto=100, limit=10, max_bytes=1_000_000
        )
    """

    def __init__(self, broker: Broker, streams: Streams, *, patience_seconds: float) -> None:
        """Read by way of a connection; while the broker is away, a read waits so long."""
        self._broker = broker
        self._streams = streams
        self._patience_seconds = patience_seconds
        self._free = asyncio.Semaphore(_CONCURRENT)

    async def page(
        self, patterns: Sequence[str], *, after: int, upto: int, limit: int, max_bytes: int
    ) -> LogPage:
        """Return the next records that match any pattern, as the port's ``read_page`` does.

        :param upto: an offset that the stream is known to have come to.
        :raises LogError: the broker does not answer, or refuses.
        """
        wanted = (_EVERYTHING,) if _EVERYTHING in patterns else tuple(dict.fromkeys(patterns))
        found: list[Record] = []
        size = 0
        while after < upto and len(found) < limit and size < max_bytes:
            parts = await asyncio.gather(
                *(
                    self._fetch(
                        pattern, after=after, upto=upto, limit=limit - len(found), max_bytes=max_bytes - size
                    )
                    for pattern in wanted
                )
            )
            end = min((part.reached for part in parts), default=upto)
            if len(parts) == 1:
                merged = list(parts[0].records)
            else:
                by_offset = {r.offset: r for part in parts for r in part.records if r.offset <= end}
                merged = [by_offset[offset] for offset in sorted(by_offset)]
            for record in merged:
                found.append(record)
                size += stored_bytes(record)
                after = record.offset
                if len(found) >= limit or size >= max_bytes:
                    return LogPage(found, after)
            after = end
        return LogPage(found, after)

    async def record_at(self, offset: int) -> Record | None:
        """Return the record at an offset, if it is kept.

        :raises LogError: the broker does not answer, or refuses.
        """
        page = await self._fetch(_EVERYTHING, after=offset - 1, upto=offset, limit=1, max_bytes=_BATCH_BYTES)
        return page.records[0] if page.records else None

    async def last_before(self, offset: int, *, first: int) -> Record | None:
        """Return the last record below ``offset`` and not below ``first``.

        :raises LogError: the broker does not answer, or refuses.
        """
        width = 1
        end = offset
        while end > first:
            start = max(first, end - width)
            found: Record | None = None
            after = start - 1
            while after < end - 1:
                page = await self._fetch(
                    _EVERYTHING, after=after, upto=end - 1, limit=_BATCH_MESSAGES, max_bytes=_BATCH_BYTES
                )
                found = page.records[-1] if page.records else found
                after = page.reached
            if found is not None:
                return found
            end, width = start, width * 8
        return None

    async def _fetch(self, pattern: str, *, after: int, upto: int, limit: int, max_bytes: int) -> LogPage:
        """Return the next records that match one pattern, asking again while a replica lags."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_seconds
        while True:
            try:
                async with self._free:
                    page = await self._batch(
                        pattern, after=after, upto=upto, limit=limit, max_bytes=max_bytes
                    )
                if page is not None and (page.records or page.reached > after):
                    return page
                problem: Exception | None = None
            except ApiError as error:
                if not error.is_temporary:
                    raise LogError(f"{self._streams.name}: cannot be read: {error}") from error
                problem = error
            except BrokerUnavailable as error:
                problem = error
            if loop.time() >= deadline:
                reason = problem or "no replica has what the leader has"
                raise LogError(f"{self._streams.name}: cannot be read now: {reason}") from problem
            await self._broker.pause(deadline - loop.time())

    async def _batch(
        self, pattern: str, *, after: int, upto: int, limit: int, max_bytes: int
    ) -> LogPage | None:
        """Ask once; ``None`` where the replica that answered lags."""
        query: dict[str, object] = {
            "seq": max(1, after + 1),
            "batch": min(limit, _BATCH_MESSAGES),
            "max_bytes": min(max_bytes, _BATCH_BYTES),
        }
        if pattern != _EVERYTHING:
            query["next_by_subj"] = self._streams.prefix + pattern
        messages, is_end = await self._ask(query)
        records: list[Record] = []
        reached = after
        for message in messages:
            record = record_from_direct_get(message, self._streams.prefix)
            sequence = int((message.headers or {})["Nats-Sequence"])
            if sequence > upto:
                return LogPage(records, upto)
            reached = sequence
            if record is not None:
                records.append(record)
        if not is_end or reached >= upto:
            return LogPage(records, reached)
        if self._streams.replicas == 1:
            return LogPage(records, upto)
        following = await self._streams.message_of_records(
            {"seq": reached + 1, "next_by_subj": self._streams.prefix + pattern},
            known=upto,
            patience_seconds=_ANSWER_SECONDS,
        )
        if following is None or int(following["seq"]) > upto:
            return LogPage(records, upto)
        return LogPage(records, reached) if records else None

    async def _ask(self, query: dict[str, object]) -> tuple[list[Msg], bool]:
        """Return the messages of a direct get, and whether the replica has no further ones."""
        subject = f"$JS.API.DIRECT.GET.{self._streams.name}"
        messages: list[Msg] = []
        last = 0
        with self._broker.replies() as (reply, answers):
            await self._broker.publish(subject, json.dumps(query).encode(), reply=reply)
            while True:
                try:
                    message = await self._broker.next_reply(
                        answers, timeout_seconds=_ANSWER_SECONDS, subject=subject
                    )
                except BrokerUnavailable:
                    if messages:  # go on behind what has come
                        return messages, False
                    raise
                headers = message.headers or {}
                status = status_of(message)
                if status == _NO_MESSAGE:
                    return messages, True
                if status is not None and status != _END_OF_BATCH:
                    raise ApiError(int(status), 0, headers.get("Description", "direct get refused"))
                if int(headers["Nats-Last-Sequence"]) != last:
                    return messages, False  # one between was dropped
                if status == _END_OF_BATCH:
                    return messages, headers["Nats-Num-Pending"] == "0"
                last = int(headers["Nats-Sequence"])
                messages.append(message)
