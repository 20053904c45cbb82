"""Snapshots in the state stream: complete bases, and deltas that name the image before them.

An *image* is a list of entries, encoded and cut into chunks of at most 512 KiB, one message each, all under
the subject ``NAME-state.snapshot``. Each chunk expects to follow the one before it, so that of two writers
one fails; the last chunk has the offset, and an image without it counts as never written. A base holds all
entries, a delta the changed ones. When the deltas behind a base have grown as large as the base, the next
image is a new base. The newest complete base and the one before it are kept.

The last record that was removed by trimming is under ``NAME-state.removed``.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import msgspec

from circuit_breaker_server.log.event_log import (
    LogCorruptError,
    LogError,
    LogWriteError,
    Record,
    Snapshot,
    SnapshotEntry,
)
from circuit_breaker_server.log.jetstream.broker import Broker, check_api
from circuit_breaker_server.log.jetstream.envelope import EXPECTED_HEADER, headers_of_leader
from circuit_breaker_server.log.jetstream.errors import WRONG_SEQUENCE, ApiError, BrokerUnavailable
from circuit_breaker_server.log.jetstream.snapshot_images import (
    Entries,
    check_sum,
    encode_entries,
    fold_into,
)
from circuit_breaker_server.log.jetstream.stream import Streams

__all__ = ["CHUNK_BYTES", "Snapshots"]

CHUNK_BYTES: Final = 512 * 1024
_SMALLEST_REBASE_BYTES: Final = 1024 * 1024
_MAX_DELTAS: Final = 256
_ANSWER_SECONDS: Final = 2.0
_READ_SECONDS: Final = 30.0
_IMAGE: Final = "Cb-Image"
_FOLLOWS: Final = "Cb-Follows"
_PART: Final = "Cb-Part"
_OFFSET: Final = "Cb-Offset"
_SUM: Final = "Cb-Sum"

_encode = msgspec.msgpack.Encoder().encode
_record_decoder = msgspec.msgpack.Decoder(Record)


@final
class _Image:
    """A complete image: its id, the image it changes (empty for a base), its place in the stream."""

    __slots__ = ("body", "follows", "id", "offset", "start")

    def __init__(self, image_id: str, follows: str, offset: int, start: int, body: bytes) -> None:
        self.id = image_id
        self.follows = follows
        self.offset = offset
        self.start = start
        self.body = body


@final
class Snapshots:
    """Save and load snapshots.

    :ivar offset: of the durable snapshot, as this process knows it.

    Example::

        snapshots = Snapshots(broker, streams, patience_seconds=8)
        await snapshots.open()
        await snapshots.save(17, [SnapshotEntry(key="a", data=b"1")])
    """

    def __init__(self, broker: Broker, streams: Streams, *, patience_seconds: float) -> None:
        """Use the state stream; while the broker is away, a write waits so long."""
        self._broker = broker
        self._streams = streams
        self._patience_seconds = patience_seconds
        self._subject = f"{streams.state_name}.snapshot"
        self._removed_subject = f"{streams.state_name}.removed"
        self.offset = 0
        self._last_sequence = 0
        self._last_image = ""
        self._bases: list[int] = []
        self._base_bytes = 0
        self._delta_bytes = 0
        self._deltas = 0
        self._writing = asyncio.Lock()

    async def open(self) -> None:
        """Find the durable snapshot.

        :raises LogError: it cannot be read.
        """
        await self._images()

    async def save(self, offset: int, changed: Sequence[SnapshotEntry]) -> None:
        """Make the changed entries durable and move the snapshot to an offset.

        :raises ValueError: the offset is below the present snapshot's.
        :raises LogWriteError: it could not be made durable, or another process has written meanwhile.
        """
        async with self._writing:
            self._refuse_backwards(offset)
            if offset == self.offset and not changed and self._last_image:
                return
            delta = ((entry.key, entry.data) for entry in changed)
            try:
                if self._is_rebase_due():
                    entries = await _folded(await self._images())
                    self._refuse_backwards(offset)
                    await fold_into(entries, await encode_entries(delta))
                    await self._write(offset, entries.items(), follows="")
                    await self._remove_old_bases()
                else:
                    await self._write(offset, delta, follows=self._last_image)
            except (ApiError, BrokerUnavailable) as error:
                raise LogWriteError(
                    f"{self._streams.state_name}: the snapshot cannot be saved: {error}"
                ) from error

    async def load(self) -> Snapshot:
        """Return the durable snapshot.

        :raises LogError: it cannot be read.
        """
        async with self._writing:
            entries = await _folded(await self._images())
            complete = {key: data for key, data in entries.items() if data is not None}
            return Snapshot(offset=self.offset, entries=complete)

    async def last_removed(self) -> Record | None:
        """Return the last record that was removed by trimming.

        :raises LogError: it cannot be read.
        """
        message = await self._from_leader({"last_by_subj": self._removed_subject})
        if message is None:
            return None
        return _record_decoder.decode(headers_of_leader(message)[1])

    async def remember_removed(self, record: Record) -> None:
        """Make the last record that will be removed durable, before it is removed.

        :raises LogWriteError: it could not be made durable.
        """
        body = _encode(record)
        try:
            await self._publish(self._removed_subject, body, {})
            await self._purge({"filter": self._removed_subject, "keep": 1})
        except (ApiError, BrokerUnavailable) as error:
            raise LogWriteError(f"{self._streams.state_name}: cannot trim: {error}") from error

    async def try_write(self) -> bool:
        """Write a message that means nothing, and remove the one before it; tell whether that has worked."""
        subject = f"{self._streams.state_name}.touch"
        try:
            message = await self._broker.request(subject, b"", timeout_seconds=_ANSWER_SECONDS)
            check_api(message.data)
            await self._purge({"filter": subject, "keep": 1})
        except (ApiError, BrokerUnavailable):
            return False
        return True

    def _refuse_backwards(self, offset: int) -> None:
        if offset < self.offset:
            raise ValueError(f"the snapshot is at {self.offset}: it does not go back to {offset}")

    def _is_rebase_due(self) -> bool:
        return (
            not self._last_image
            or self._deltas >= _MAX_DELTAS
            or self._delta_bytes > max(self._base_bytes, _SMALLEST_REBASE_BYTES)
        )

    async def _write(self, offset: int, entries: Entries, *, follows: str) -> None:
        image, body = secrets.token_hex(8), await encode_entries(entries)
        count = -(-len(body) // CHUNK_BYTES)
        last, start, total = self._last_sequence, 0, await check_sum(body)
        for part in range(count):
            headers = {_IMAGE: image, _FOLLOWS: follows, _PART: str(part), EXPECTED_HEADER: str(last)}
            if part == count - 1:
                headers |= {_OFFSET: str(offset), _SUM: str(total)}
            chunk = body[part * CHUNK_BYTES : (part + 1) * CHUNK_BYTES]
            last = await self._write_chunk(image, bytes(chunk), headers)
            start = start or last
        self._last_sequence, self._last_image, self.offset = last, image, offset
        self._count(len(body), follows=follows, start=start)

    async def _write_chunk(self, image: str, chunk: bytes, headers: dict[str, str]) -> int:
        """Write a chunk; a lost acknowledgement is settled by the subject's last message."""
        try:
            return await self._publish(self._subject, chunk, headers)
        except ApiError as error:
            if error.error_code not in WRONG_SEQUENCE:
                raise
            message = await self._from_leader({"last_by_subj": self._subject})
            if message is not None:
                there, _ = headers_of_leader(message)
                if (there.get(_IMAGE), there.get(_PART)) == (image, headers[_PART]):
                    return int(message["seq"])
            # Another process writes, or an image was left half-written: what is there counts.
            await self._images()
            raise

    async def _publish(self, subject: str, body: bytes, headers: dict[str, str]) -> int:
        """Publish, again after a lost acknowledgement: the expectation keeps a message from coming twice."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_seconds
        while True:
            try:
                message = await self._broker.request(
                    subject, body, headers=headers, timeout_seconds=_ANSWER_SECONDS
                )
                return int(check_api(message.data)["seq"])
            except (ApiError, BrokerUnavailable) as error:
                if isinstance(error, ApiError) and not error.is_temporary:
                    raise
                if loop.time() >= deadline:
                    raise
            await self._broker.pause(deadline - loop.time())

    async def _remove_old_bases(self) -> None:
        if len(self._bases) > 2:
            self._bases = self._bases[-2:]
            await self._purge({"filter": self._subject, "seq": self._bases[0]})

    async def _purge(self, what: dict[str, object]) -> None:
        await self._broker.api_patiently(
            f"STREAM.PURGE.{self._streams.state_name}", what, patience_seconds=self._patience_seconds
        )

    def _count(self, size: int, *, follows: str, start: int) -> None:
        if follows:
            self._delta_bytes += size
            self._deltas += 1
        else:
            self._bases.append(start)
            self._base_bytes, self._delta_bytes, self._deltas = size, 0, 0

    async def _images(self) -> list[_Image]:
        """Return the newest complete base and the deltas that follow it, and take them as the present."""
        order: list[_Image] = []
        parts: dict[str, list[bytes]] = {}
        starts: dict[str, int] = {}
        sequence, last = 1, 0
        while (
            message := await self._from_leader({"seq": sequence, "next_by_subj": self._subject})
        ) is not None:
            last = int(message["seq"])
            sequence = last + 1
            headers, data = headers_of_leader(message)
            image_id = headers[_IMAGE]
            chunks = parts.setdefault(image_id, [])
            starts.setdefault(image_id, last)
            if int(headers[_PART]) == len(chunks):  # else its first chunks were removed
                chunks.append(data)
                if _OFFSET in headers:
                    body = b"".join(parts.pop(image_id))
                    await self._check_sum(body, headers, last)
                    image = _Image(image_id, headers[_FOLLOWS], int(headers[_OFFSET]), starts[image_id], body)
                    order.append(image)
        chain = _newest_chain(order)
        self._last_sequence = last
        self._last_image = chain[-1].id if chain else ""
        self.offset = chain[-1].offset if chain else 0
        self._bases = [image.start for image in order if not image.follows]
        self._base_bytes = len(chain[0].body) if chain else 0
        self._delta_bytes = sum(len(image.body) for image in chain[1:])
        self._deltas = max(0, len(chain) - 1)
        return chain

    async def _check_sum(self, body: bytes, headers: Mapping[str, str], sequence: int) -> None:
        if await check_sum(body) != int(headers[_SUM]):
            raise LogCorruptError(
                f"{self._streams.state_name}: the snapshot that ends with message {sequence} is damaged"
            )

    async def _from_leader(self, query: dict[str, object]) -> dict[str, Any] | None:
        try:
            return await self._streams.message_from_leader(
                self._streams.state_name, query, patience_seconds=_READ_SECONDS
            )
        except (ApiError, BrokerUnavailable) as error:
            raise LogError(f"{self._streams.state_name}: cannot be read: {error}") from error


def _newest_chain(order: Sequence[_Image]) -> list[_Image]:
    chain: list[_Image] = []
    for image in order:
        if not image.follows:
            chain = [image]
        elif chain and image.follows == chain[-1].id:
            chain.append(image)
    return chain


async def _folded(chain: Sequence[_Image]) -> dict[str, bytes | None]:
    entries: dict[str, bytes | None] = {}
    for image in chain:
        await fold_into(entries, image.body)
    return entries
