"""Move on the cursors of subscriptions for which nothing matched, so that they can resume for longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final, final

from circuit_breaker_server.gateway.fan_out import FanOut
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.gateway.guarded_calls import call_each, guarded

__all__ = ["CursorAdvance"]

_ADVANCED_AT_ONCE: Final = 200
_ADVANCE_PAUSE_SECONDS: Final = 0.01


@final
class CursorAdvance:
    """The rounds in which the peers of a gateway are told new cursors.

    Example::

        advance = CursorAdvance(feeds, fan_out, seconds=30.0, end_peer=gateway.end_peer)
        advance.start()
        advance.stop()
    """

    def __init__(
        self,
        feeds: Iterable[Feed],
        fan_out: FanOut,
        *,
        seconds: float,
        end_peer: Callable[[Feed, Exception], None],
    ) -> None:
        """``feeds`` are walked over anew in each round; ``seconds`` lie between two rounds."""
        self._feeds = feeds
        self._fan_out = fan_out
        self._seconds = seconds
        self._end_peer = end_peer
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin: the first round is due after one interval."""
        self._arm(asyncio.get_running_loop().time() + self._seconds)

    def stop(self) -> None:
        """End. Idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def advance(self) -> None:
        """Move on the cursors of the subscriptions for which nothing matched since their last event."""
        call_each(self._feeds, self._advance, self._end_peer)

    def _arm(self, due: float) -> None:
        """Begin the next round at a time of the loop's clock."""
        self._handle = asyncio.get_running_loop().call_at(due, self._on_round, due)

    def _on_round(self, due: float) -> None:
        self._advance_some(iter(list(self._feeds)), due + self._seconds)

    def _advance_some(self, feeds: Iterator[Feed], next_due: float) -> None:
        """Move cursors on a few at a time: telling a hundred thousand at once would stop everything else."""
        loop, told = asyncio.get_running_loop(), 0
        for feed in feeds:
            told += guarded(feed, self._advance, self._end_peer, otherwise=0)
            if told >= _ADVANCED_AT_ONCE:
                self._handle = loop.call_later(_ADVANCE_PAUSE_SECONDS, self._advance_some, feeds, next_due)
                return
        self._arm(max(next_due, loop.time()))

    def _advance(self, feed: Feed) -> int:
        """Move on the cursors of one peer; return how many."""
        end = self._fan_out.end
        moved = [s for s in feed.subscribers.values() if s.is_current and s.position < end]
        for subscriber in moved:
            subscriber.position = end
        if moved and feed.resume and feed.writable:
            cursor = self._fan_out.reader.cursors.of(self._fan_out.end_cursor)
            feed.peer.signal([(subscriber.id, cursor) for subscriber in moved])
        return len(moved)
