"""Read your writes, on whatever node: a request names what it has seen, and is not answered from behind it.

A node tells with each answer how far its state is (:data:`HEADER`); the client names it with its next
requests, which may go to another node. That one waits for its tail, or asks to be asked again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, final

from circuit_breaker_sdk.protocol.positions import HEADER
from circuit_breaker_server.engine.cursor import Cursors
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.log.event_log import EventLog, LogError

__all__ = ["BEHIND", "HEADER", "MAX_NAMED", "Positions", "named_in"]

BEHIND: Final = "this server is behind what you have seen of the log; nothing was executed, try again"
MAX_NAMED: Final = 16
"""The most positions that a request may name; what is beyond them is not looked at."""
_PATIENCE_SECONDS: Final = 2.0
_MAX_WAITING: Final = 100
"""The most requests of one principal that wait at once."""


def named_in(extensions: Mapping[str, object] | None) -> list[str]:
    """Return the positions that ``extensions.resume.position`` of a ``subscribe`` names."""
    resume = (extensions or {}).get("resume")
    named = resume.get("position") if isinstance(resume, Mapping) else None
    return [each for each in named[:MAX_NAMED] if isinstance(each, str)] if isinstance(named, list) else []


@final
class Positions:
    """Tells where this node is, and waits until it is where a caller has been.

    For a server that shares its log with others. A position of another log, and a text that is none, say
    nothing about this one, and are ignored.

    Example::

        if not await positions.reach(["7e2f…"], "ada"):
            refuse(BEHIND)
    """

    def __init__(self, log: EventLog, gateway: Gateway, cursors: Cursors) -> None:
        self._log = log
        self._gateway = gateway
        self._cursors = cursors
        self._waiting: Counter[str] = Counter()

    @property
    def own(self) -> str:
        """Where the state is now."""
        return self._cursors.of(self._gateway.end_cursor)

    def are_ahead(self, named: Iterable[str]) -> bool:
        """Tell whether one of the positions is ahead of this node."""
        return self._highest(named) > self._log.last_offset

    async def reach(self, named: Iterable[str], principal: str) -> bool:
        """Wait until this node is behind none of the positions; tell whether it has come there in time."""
        offset = self._highest(named)
        if offset <= self._log.last_offset:
            return True
        if self._waiting[principal] >= _MAX_WAITING:
            return False
        self._waiting[principal] += 1
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                # Where the log has never come to be there, it was cut off since: there is no more to see.
                await self._log.reaches(offset)
        except (TimeoutError, LogError):
            return False
        finally:
            self._waiting[principal] -= 1
            if not self._waiting[principal]:
                del self._waiting[principal]
        return True

    def _highest(self, named: Iterable[str]) -> int:
        highest = 0
        for text in named:
            try:
                cursor = self._cursors.parse(text)
            except ValueError:
                continue
            if cursor.epoch == self._log.epoch:
                highest = max(highest, cursor.offset)
        return highest
