"""The head of an answer and the beginning of its body in one write: one packet, one wake-up of the peer."""

from __future__ import annotations

import asyncio
from typing import final

__all__ = ["JoinedWrites"]


@final
class JoinedWrites:
    """A transport for one of uvicorn's answers, which holds the head back until the body comes.

    If none comes in the same turn of the event loop, the head is written alone.

    Example::

        cycle.transport = JoinedWrites(transport, loop)
    """

    __slots__ = ("_has_begun", "_head", "_loop", "_plain")

    def __init__(self, plain: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._plain = plain
        self._loop = loop
        self._head: bytes | None = None
        self._has_begun = False

    def write(self, data: bytes) -> None:
        """Write, the first time with what comes next."""
        if self._head is not None:
            data, self._head = self._head + data, None
            self._plain.write(data)
        elif self._has_begun:
            self._plain.write(data)
        else:
            self._has_begun, self._head = True, data
            self._loop.call_soon(self.flush)

    def close(self) -> None:
        """Write what is held back, and close."""
        self.flush()
        self._plain.close()

    def flush(self) -> None:
        """Write what is held back, if there is something."""
        head, self._head = self._head, None
        if head is not None:
            self._plain.write(head)

    def __getattr__(self, name: str) -> object:
        return getattr(self._plain, name)
