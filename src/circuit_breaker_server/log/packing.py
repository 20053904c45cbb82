"""Many values through SQLite in one step.

A connection gives up the interpreter's lock at every step of a statement (row in, row out) and has to win it
back from the event loop, which takes up to 5 ms while the loop computes. Rows one by one would make a batch
of 1,000 records take seconds beside a busy loop; so a batch travels as one value: a blob of all bodies, with
a JSON array that says where each begins, into the database, and one concatenated blob out of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import msgspec

from circuit_breaker_server.log.event_log import Record

__all__ = ["decode_entries", "decode_records", "encode_entry", "encode_record", "json_text", "pack"]

encode_record = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode
_records = msgspec.msgpack.Decoder(list[Record])
_entries = msgspec.msgpack.Decoder(list[tuple[str, bytes]])


def json_text(value: Iterable[str] | Iterable[tuple[object, ...]]) -> str:
    """Encode a parameter for SQLite's ``json_each``."""
    return _encode_json(value).decode()


def pack(rows: Iterable[tuple[tuple[object, ...], bytes]]) -> tuple[str, bytes]:
    """Lay rows of (columns, body) out for ``json_each``: its array and the blob of all bodies.

    Each element of the array is the columns followed by the body's start, from 1 as ``substr`` counts, and
    its length in bytes.
    """
    elements, bodies, start = [], [], 1
    for columns, body in rows:
        elements.append((*columns, start, len(body)))
        bodies.append(body)
        start += len(body)
    return json_text(elements), b"".join(bodies)


def _as_array(count: int, bodies: bytes | None) -> bytes:
    # MessagePack's "array 32" header turns concatenated values into one array.
    return b"\xdd" + struct.pack(">I", count) + (bodies or b"")


def decode_records(count: int, bodies: bytes | None) -> list[Record]:
    """Read ``count`` concatenated records; ``bodies`` is ``None`` where there is none."""
    return _records.decode(_as_array(count, bodies))


def encode_entry(key: str, data: bytes) -> bytes:
    """Encode one entry of the snapshot."""
    return encode_record((key, data))


def decode_entries(count: int, bodies: bytes | None) -> list[tuple[str, bytes]]:
    """Read ``count`` concatenated entries of the snapshot."""
    return _entries.decode(_as_array(count, bodies))
