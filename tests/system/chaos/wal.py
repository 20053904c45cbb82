"""SQLite's write-ahead file, as far as it must be known to damage only what was never committed."""

from __future__ import annotations

import struct
from pathlib import Path

__all__ = ["HEADER_BYTES", "commit_ends", "torn_frame"]

HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_Sum = tuple[int, int]


def commit_ends(path: Path) -> list[int]:
    """Return where the header ends and where each committed transaction does; nothing where there is none.

    What stands behind the last one was never acknowledged: half a transaction, or frames of before the last
    checkpoint.
    """
    data = path.read_bytes() if path.exists() else b""
    if len(data) < HEADER_BYTES:
        return []
    magic, _, page_bytes = struct.unpack_from(">3I", data)
    order = ">" if magic & 1 else "<"
    total = _checksum(order, data[:24], (0, 0))
    ends, at, size = [HEADER_BYTES], HEADER_BYTES, _FRAME_HEADER_BYTES + page_bytes
    while at + size <= len(data):
        frame = data[at : at + size]
        total = _checksum(order, frame[:8] + frame[_FRAME_HEADER_BYTES:], total)
        if frame[8:16] != data[16:24] or total != struct.unpack_from(">2I", frame, 16):
            break
        at += size
        (pages_after_commit,) = struct.unpack_from(">I", frame, 4)
        if pages_after_commit:
            ends.append(at)
    return ends


def torn_frame(path: Path, noise: bytes) -> bytes:
    """Make a frame that claims to be a commit of the present generation, and holds noise."""
    salts = path.read_bytes()[16:24]
    return struct.pack(">2I", 2, 2) + salts + noise


def _checksum(order: str, data: bytes, total: _Sum) -> _Sum:
    first, second = total
    for one, two in struct.iter_unpack(f"{order}2I", data):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return first, second
