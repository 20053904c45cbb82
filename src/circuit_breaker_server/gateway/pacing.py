"""Limit the events per second of each subscription, with a burst of one second's events."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Protocol, final

__all__ = ["Pacing", "PacingClock", "TokenBucket"]

_SHORTEST_WAIT_SECONDS: Final = 0.001
_WAITS_PER_SECOND: Final = 10


class PacingClock(Protocol):
    """A monotonic clock and its timers."""

    def time(self) -> float:
        """Return the seconds since some moment."""
        ...

    def call_later(self, delay: float, callback: Callable[[], object], /) -> asyncio.TimerHandle:
        """Call after so many seconds."""
        ...


@final
class _MonotonicClock:
    def time(self) -> float:
        # Not the loop's time: that is the one at which the loop's present turn began.
        return time.monotonic()

    def call_later(self, delay: float, callback: Callable[[], object], /) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay, callback)


@final
class TokenBucket:
    """The events that one subscription may still get; ``rate`` a second are added, up to ``rate`` in all.

    Any window of one second thus holds ``2 * rate`` events at most.

    Example::

        bucket = Pacing(20).bucket()
        bucket.take(50)  # 20: the others have to wait
    """

    __slots__ = ("__weakref__", "_at", "_clock", "_rate", "_tokens")

    def __init__(self, rate: float, clock: PacingClock) -> None:
        """Begin full."""
        self._rate = rate
        self._clock = clock
        self._tokens = self._capacity
        self._at = clock.time()

    @property
    def _capacity(self) -> float:
        return max(1.0, self._rate)

    def _refill(self) -> None:
        now = self._clock.time()
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._rate)
        self._at = now

    @property
    def count(self) -> int:
        """The number of events that may be sent now."""
        self._refill()
        return int(self._tokens)

    @property
    def is_empty(self) -> bool:
        """Not even one event may be sent now."""
        return not self.count

    @property
    def is_full(self) -> bool:
        """It is as if it had never been used."""
        self._refill()
        return self._tokens >= self._capacity

    def take(self, wanted: int) -> int:
        """Take as many tokens as there are, up to ``wanted``; return how many events may be sent."""
        self._refill()
        taken = min(wanted, int(self._tokens))
        self._tokens -= taken
        return taken

    def wake_later(self, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Call when there are tokens for a tenth of a second's events, at least for one."""
        self._refill()
        wanted = max(1.0, self._rate / _WAITS_PER_SECOND)
        seconds = (wanted - self._tokens) / self._rate
        return self._clock.call_later(max(_SHORTEST_WAIT_SECONDS, seconds), callback)


@final
class Pacing:
    """Makes the buckets of all subscriptions, and keeps those of polls from one poll to the next.

    Example::

        pacing = Pacing(20)
        pacing.bucket()  # of a subscription on a socket
        pacing.bucket_of(("user-7", plan.key))  # the same one for each poll
    """

    def __init__(self, rate: float, clock: PacingClock | None = None) -> None:
        """``rate`` is in events a second, of each subscription."""
        self._rate = rate
        self._clock = clock or _MonotonicClock()
        self._known: weakref.WeakValueDictionary[Hashable, TokenBucket] = weakref.WeakValueDictionary()
        # Buckets of polls that are not full yet, oldest first; perhaps no poll holds them any more.
        self._draining: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    @classmethod
    def of(cls, rate: float | None) -> Pacing | None:
        """Return the pacing of this rate; ``None``: there is no bound."""
        return None if rate is None else cls(rate)

    def __len__(self) -> int:
        """The number of buckets that are kept between polls."""
        return len(self._draining)

    def bucket(self) -> TokenBucket:
        """Return a new bucket, full."""
        return TokenBucket(self._rate, self._clock)

    def bucket_of(self, key: Hashable) -> TokenBucket:
        """Return the bucket of a subscription that comes again and again; it is kept until it is full."""
        hashed = hash(key)  # holds no document of a stranger
        bucket = self._known.get(hashed)
        if bucket is None:
            bucket = self._known[hashed] = self.bucket()
        self._forget_full()
        self._draining[hashed] = bucket
        return bucket

    def _forget_full(self) -> None:
        """Look at two for each that is added: there are never more than are in use, or were a second ago."""
        for _ in range(min(2, len(self._draining))):
            key, bucket = self._draining.popitem(last=False)
            if not bucket.is_full:
                self._draining[key] = bucket
