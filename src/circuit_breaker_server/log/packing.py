"""Many values through SQLite in one step.

A connection gives up the interpreter's lock at every step of a statement (row in, row out) and has to win it
back from the event loop, which takes up to 5 ms while the loop computes. Rows one by one would make a batch
of 1,000 records take seconds beside a busy loop; so a batch travels as one value: a blob of all bodies, with
a JSON array that says where each begins, into the database, and one concatenated blob out of it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import TypeVar, final

import msgspec

from circuit_breaker_server.log.event_log import Record

__all__ = [
    "Damaged",
    "decode_entries",
    "decode_records",
    "encode_entry",
    "encode_record",
    "json_text",
    "pack",
]


T = TypeVar("T")


class Damaged(Exception):
    """A record or snapshot entry that was read differs from what was written."""


@final
class _Stored(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record as it is encoded: SQLite has no checksums of its own in the file.

    :ivar sum: not there in records of the versions that wrote none; null, which no version wrote, is damage.
    """

    offset: int
    subject: str
    id: str
    time_ms: int
    data: bytes
    sum: int | msgspec.UnsetType = msgspec.UNSET


_encode = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode
_records = msgspec.msgpack.Decoder(list[_Stored])
_entries = msgspec.msgpack.Decoder(list[tuple[str, bytes]])


def json_text(value: Iterable[str] | Iterable[tuple[object, ...]]) -> str:
    """Encode a parameter for SQLite's ``json_each``."""
    return _encode_json(value).decode()


def pack(rows: Iterable[tuple[tuple[object, ...], bytes]]) -> tuple[bytes, str]:
    """Lay rows of (columns, body) out for ``json_each``: the blob of all bodies, and its array.

    Each element of the array is the columns followed by the body's start, from 1 as ``substr`` counts, and
    its length in bytes.
    """
    elements, bodies, start = [], [], 1
    for columns, body in rows:
        elements.append((*columns, start, len(body)))
        bodies.append(body)
        start += len(body)
    return b"".join(bodies), json_text(elements)


def encode_record(record: Record) -> bytes:
    """Encode a record with its checksum."""
    r = record
    return _encode(_Stored(r.offset, r.subject, r.id, r.time_ms, r.data, _sum(r)))


def _sum(record: Record) -> int:
    fields = f"{record.offset} {record.subject} {record.id} {record.time_ms}"
    return zlib.crc32(record.data, zlib.crc32(fields.encode()))


def _decode(decoder: msgspec.msgpack.Decoder[list[T]], count: int, bodies: bytes | None) -> list[T]:
    # MessagePack's "array 32" header turns concatenated values into one array.
    try:
        return decoder.decode(b"\xdd" + struct.pack(">I", count) + (bodies or b""))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(str(error)) from error


def decode_records(count: int, bodies: bytes | None) -> list[Record]:
    """Read ``count`` concatenated records; ``bodies`` is ``None`` where there is none.

    :raises Damaged: one is not as it was written.
    """
    stored = _decode(_records, count, bodies)
    crc32 = zlib.crc32  # not `_sum`: a replay reads very many, and a call for each is felt
    for r in stored:
        head = f"{r.offset} {r.subject} {r.id} {r.time_ms}".encode()
        if r.sum != crc32(r.data, crc32(head)) and r.sum is not msgspec.UNSET:
            raise Damaged("its checksum is another")
    return [
        Record(offset=r.offset, subject=r.subject, id=r.id, time_ms=r.time_ms, data=r.data) for r in stored
    ]


def encode_entry(key: str, data: bytes) -> bytes:
    """Encode one entry of the snapshot."""
    return _encode((key, data))


def decode_entries(count: int, bodies: bytes | None) -> list[tuple[str, bytes]]:
    """Read ``count`` concatenated entries of the snapshot.

    :raises Damaged: they cannot be read.
    """
    return _decode(_entries, count, bodies)
