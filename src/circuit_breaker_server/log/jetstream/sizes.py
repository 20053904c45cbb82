"""The sizes of stretches of the log: whole blocks of offsets are counted once and remembered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, final

from circuit_breaker_server.log.event_log import Record
from circuit_breaker_server.log.jetstream.reads import stored_bytes

__all__ = ["BLOCK_OFFSETS", "BlockSizes"]

BLOCK_OFFSETS: Final = 1024
_MAX_BLOCKS: Final = 65_536


@final
class BlockSizes:
    """Bytes by block of 1,024 offsets, from the tail or from one reading.

    Example::

        sizes = BlockSizes(after=log_end)
        sizes.add(records)
        total = await sizes.total(after=0, upto=5000, read=read_size)
    """

    def __init__(self, *, after: int) -> None:
        """Begin behind an offset: the tail delivers every record above it."""
        self._sizes: dict[int, int] = {}
        self._block = after // BLOCK_OFFSETS
        self._is_whole = after % BLOCK_OFFSETS == 0
        self._size = 0

    def add(self, records: Sequence[Record]) -> None:
        """Count what the tail delivers."""
        for record in records:
            block = (record.offset - 1) // BLOCK_OFFSETS
            if block != self._block:
                if self._is_whole:
                    self._put(self._block, self._size)
                self._block, self._size, self._is_whole = block, 0, True
            self._size += stored_bytes(record)

    def _put(self, block: int, size: int) -> None:
        if len(self._sizes) >= _MAX_BLOCKS:
            del self._sizes[min(self._sizes)]
        self._sizes[block] = size

    async def total(self, *, after: int, upto: int, read: Callable[[int, int], Awaitable[int]]) -> int:
        """Return the bytes above ``after`` up to and including ``upto``; both are kept offsets' bounds.

        ``read`` counts a stretch by reading it.
        """
        total = 0
        while after < upto:
            block = after // BLOCK_OFFSETS
            end = min(upto, (block + 1) * BLOCK_OFFSETS)
            is_whole = after == block * BLOCK_OFFSETS and end == (block + 1) * BLOCK_OFFSETS
            size = self._sizes.get(block) if is_whole else None
            if size is None:
                size = await read(after, end)
                if is_whole:
                    self._put(block, size)
            total += size
            after = end
        return total
