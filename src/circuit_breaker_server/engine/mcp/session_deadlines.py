"""Deadlines of sessions: when a session expires, a heap of moments, and the wait for the earliest."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, final

import msgspec

from circuit_breaker_server.engine.mcp.records import Jwt, ServerImage, SessionImage
from circuit_breaker_server.engine.timestamps import parse_timestamp, timestamp

__all__ = ["Due", "after", "prolonged"]

_MAX_SLEEP_SECONDS: Final = 60.0
"""A timer runs on the monotonic clock: after so long the system's clock is looked at again."""


@final
class Due:
    """The moment of each session, the earliest first; wakes the waiter when an earlier one comes."""

    def __init__(self) -> None:
        self._moments: dict[str, datetime] = {}
        # With entries of sessions whose moment has changed since, which count no more.
        self._heap: list[tuple[datetime, str]] = []
        self._earlier = asyncio.Event()

    def __contains__(self, session_id: str) -> bool:
        """Tell whether something is due for a session."""
        return session_id in self._moments

    def add(self, moment: datetime, session_id: str) -> None:
        """Set the moment of a session, in the place of the one before."""
        if not self._heap or moment < self._heap[0][0]:
            self._earlier.set()
        self._moments[session_id] = moment
        heapq.heappush(self._heap, (moment, session_id))
        if len(self._heap) > 2 * len(self._moments) + 16:
            self._heap = [(at, id_) for id_, at in self._moments.items()]
            heapq.heapify(self._heap)

    def forget(self, session_id: str) -> None:
        """Forget the moment of a session, if it has one."""
        self._moments.pop(session_id, None)

    def take(self, now: datetime) -> Iterator[str]:
        """Take the sessions whose moment has come, the earliest first; what is not asked for stays."""
        while self._heap and self._heap[0][0] <= now:
            moment, session_id = heapq.heappop(self._heap)
            if self._moments.get(session_id) == moment:
                del self._moments[session_id]
                yield session_id

    async def wait(self, now: datetime) -> None:
        """Wait until the first moment, until an earlier one comes, or for a minute."""
        self._earlier.clear()
        seconds = (self._heap[0][0] - now).total_seconds() if self._heap else _MAX_SLEEP_SECONDS
        try:
            async with asyncio.timeout(min(max(0.0, seconds), _MAX_SLEEP_SECONDS)):
                await self._earlier.wait()
        except TimeoutError:
            return


def prolonged(session: SessionImage, server: ServerImage, at: str, *, session_seconds: float) -> SessionImage:
    """Return a session with the moment at which it expires unless it is refreshed.

    :param at: the moment from which it lasts.
    :param session_seconds: how long it lasts at most.
    """
    seconds = session_seconds
    if session.method == "JWT" and isinstance(server.auth, Jwt):
        seconds = min(seconds, server.auth.expiration_seconds)
    expires_at = after(at, seconds)
    if session.method == "OAUTH" and not session.renewable and session.token_expires_at is not None:
        expires_at = min(expires_at, session.token_expires_at)
    return msgspec.structs.replace(session, expires_at=expires_at)


def after(at: str, seconds: float) -> str:
    """Return the moment that comes so many seconds after another."""
    return timestamp(parse_timestamp(at) + timedelta(seconds=seconds))
