"""Deadlines for polled streams that have not begun."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final, final

from circuit_breaker_server.endpoints.long_poll.poll_request import MAX_WAIT_MS
from circuit_breaker_server.gateway.subscription_plan import PlanKey

__all__ = ["Patience"]

_MAX_REMEMBERED: Final = 10_000


@final
class Patience:
    """Remember since when polls wait for each stream that has not begun.

    A poll without a cursor restarts the time of its stream, for all polls for the same stream.

    Example::

        seconds = Patience(60).left(plan.key, anew=True)
    """

    def __init__(self, begin_seconds: float) -> None:
        self._begin_seconds = begin_seconds
        # A client that polls on must find its entry again; a hash holds no document of a stranger.
        self._keep_seconds = 2 * begin_seconds + MAX_WAIT_MS / 1000
        self._since: OrderedDict[int, float] = OrderedDict()

    def __len__(self) -> int:
        """The number of streams that are remembered."""
        return len(self._since)

    def left(self, key: PlanKey, *, anew: bool) -> float:
        """Return the seconds left for a stream to begin; ``anew`` restarts them (no cursor)."""
        now = asyncio.get_running_loop().time()
        hashed = hash(key)
        since = None if anew else self._since.get(hashed)
        if since is None:
            since = now
            self._since.pop(hashed, None)
            self._since[hashed] = now
            self._forget_old(now)
        return max(0.0, since + self._begin_seconds - now)

    def _forget_old(self, now: float) -> None:
        """Drop from the front, where the oldest are."""
        while (
            len(self._since) > _MAX_REMEMBERED or next(iter(self._since.values())) + self._keep_seconds < now
        ):
            self._since.popitem(last=False)
