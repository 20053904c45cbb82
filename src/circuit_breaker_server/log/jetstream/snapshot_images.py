"""The body of a snapshot's image, written and read in pieces: a big one must not hold the event loop.

A body is a byte that no body of older versions begins with, and pieces: length in four bytes, entries.
"""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import Iterable
from typing import Final

import msgspec

__all__ = ["Entries", "check_sum", "encode_entries", "fold_into"]

Entries = Iterable[tuple[str, bytes | None]]

_IN_PIECES: Final = b"\xc1"
_PIECE: Final = 500
_decode: Final = msgspec.msgpack.Decoder(list[tuple[str, bytes | None]]).decode
_encode: Final = msgspec.msgpack.Encoder().encode


async def encode_entries(entries: Entries) -> bytearray:
    """Return the body of an image."""
    body, left = bytearray(_IN_PIECES), iter(entries)
    while batch := list(itertools.islice(left, _PIECE)):
        piece = _encode(batch)
        body += len(piece).to_bytes(4)
        body += piece
        await asyncio.sleep(0)
    return body


async def fold_into(entries: dict[str, bytes | None], body: bytes | bytearray) -> None:
    """Apply the entries of an image: the later one of a key counts, and one without data removes it.

    :raises msgspec.DecodeError: it is no image.
    """
    if not body.startswith(_IN_PIECES):  # of an older version: one piece
        _fold(entries, _decode(body))
        return
    view, at = memoryview(body), 1
    while at < len(view):
        end = at + 4 + int.from_bytes(view[at : at + 4])
        _fold(entries, _decode(view[at + 4 : end]))
        at = end
        await asyncio.sleep(0)


async def check_sum(body: bytes | bytearray) -> int:
    """Return the check sum of a body; in a thread, as it takes a while and needs no lock."""
    return await asyncio.to_thread(zlib.crc32, body)


def _fold(entries: dict[str, bytes | None], changed: Entries) -> None:
    for key, data in changed:
        if data is None:
            entries.pop(key, None)
        else:
            entries[key] = data
