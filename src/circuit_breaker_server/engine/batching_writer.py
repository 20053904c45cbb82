"""Pieces on their way into the log: what comes while one record is written goes into the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, final

__all__ = ["Outbox"]

P = TypeVar("P")

_MAX_WAITING = 1_000
_MAX_RECORD_BYTES = 1024 * 1024  # a quarter of what a record may hold


@final
class Outbox(Generic[P]):
    """Writes pieces in order, in as few records as the log's pace asks for, one record at a time.

    :param write: writes one record of all the pieces it is given.
    :param weigh: how many bytes a piece takes in a record. A record holds 1 MiB of pieces, or one piece.

    Example::

        outbox = Outbox(write, weigh=lambda piece: piece.json_bytes)
        async for piece in pieces:
            await outbox.put(piece)
        await outbox.flush()
    """

    def __init__(self, write: Callable[[list[P]], Awaitable[None]], *, weigh: Callable[[P], int]) -> None:
        self._write = write
        self._weigh = weigh
        self._waiting: list[P] = []
        self._writing: asyncio.Task[None] | None = None

    async def put(self, piece: P) -> None:
        """Hand over a piece; waits while too many are unwritten. Raises what a write before has raised."""
        writing = self._writing
        if writing is not None and (writing.done() or len(self._waiting) >= _MAX_WAITING):
            await _written(writing)
            self._writing = None
        self._waiting.append(piece)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._drain())

    async def flush(self) -> None:
        """Wait until everything is written. Raises what a write has raised."""
        if self._writing is not None:
            await _written(self._writing)

    async def aclose(self) -> None:
        """Stop writing; what waits is dropped, what is being written may be in the log. Idempotent."""
        writing = self._writing
        if writing is not None:
            writing.cancel()
            await asyncio.wait((writing,))
            if not writing.cancelled():
                writing.exception()

    async def _drain(self) -> None:
        while self._waiting:
            count = self._room()
            pieces, self._waiting = self._waiting[:count], self._waiting[count:]
            await self._write(pieces)

    def _room(self) -> int:
        """Return how many of the pieces that wait go into one record."""
        size = 0
        for count, piece in enumerate(self._waiting):
            size += self._weigh(piece)
            if size > _MAX_RECORD_BYTES and count:
                return count
        return len(self._waiting)


async def _written(writing: asyncio.Task[None]) -> None:
    """Wait for a write without cancelling it: the caller may have a time limit, and what waits is kept."""
    await asyncio.wait((writing,))
    writing.result()
