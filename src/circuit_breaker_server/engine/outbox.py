"""Pieces on their way into the log: what comes while one record is written goes into the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, final

__all__ = ["Outbox"]

P = TypeVar("P")

_MAX_WAITING = 1_000


@final
class Outbox(Generic[P]):
    """Writes pieces in order, in as few records as the log's pace asks for, one record at a time.

    :param write: writes one record of all the pieces it is given.

    Example::

        outbox = Outbox(write)
        async for piece in pieces:
            await outbox.put(piece)
        await outbox.flush()
    """

    def __init__(self, write: Callable[[list[P]], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: list[P] = []
        self._writing: asyncio.Task[None] | None = None

    async def put(self, piece: P) -> None:
        """Hand over a piece; waits while too many are unwritten. Raises what a write before has raised."""
        writing = self._writing
        if writing is not None and (writing.done() or len(self._waiting) >= _MAX_WAITING):
            await writing
            self._writing = None
        self._waiting.append(piece)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._drain())

    async def flush(self) -> None:
        """Wait until everything is written. Raises what a write has raised."""
        if self._writing is not None:
            await self._writing

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
            pieces, self._waiting = self._waiting, []
            await self._write(pieces)
