"""When to try again after a connection was lost or could not be made."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from typing import final

from circuit_breaker_sdk.config import ErrorRecoveryPolicy
from circuit_breaker_sdk.errors import ConnectionFailed, RateLimitExceeded, TransportError
from circuit_breaker_sdk.protocol.close_codes import GOES_AWAY

__all__ = ["Backoff"]

_STABLE_SECONDS = 5.0
_CLEAN_SECONDS = 1.0
_AT_ONCE, _AT_ONCE_SECONDS = 3, 10.0


@final
class Backoff:
    """Count what fails in a row, and say how long to wait before the next attempt.

    A connection ends the row once it has proven itself: it has lived for 5 s, or delivered two events to one
    subscription, or lived for 1 s until the server closed it to go away or to restart (close codes 1001 and
    1012). One that is made and lost at once, over and over, is no success. At most 3 attempts in 10 s
    are made without a delay, whatever happens. No delay is longer than the row has lasted (or the base delay,
    if that is more), so a server that was away for a second is found again a second later at the latest.
    Only what the server itself asks for is longer: ``Retry-After`` of HTTP 429, and ``retry-after=SECONDS``
    in the reason of a close, up to ``max_delay``.

    Example::

        seconds = backoff.failed(error)  # None: do not try again
    """

    def __init__(
        self,
        policy: ErrorRecoveryPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        part: Callable[[], float] = random.random,
    ) -> None:
        """``clock`` gives seconds, ``part`` a number from 0 to 1."""
        self._policy = policy
        self._clock = clock
        self._part = part
        self._failures = 0
        self._began_at = 0.0
        self._connected_at: float | None = None
        self._was_proven = False
        self._at_once: deque[float] = deque(maxlen=_AT_ONCE)

    def connected(self) -> None:
        """Note that a connection stands."""
        self._connected_at = self._clock()
        self._was_proven = False

    def proven(self) -> None:
        """Note that the connection that stands has delivered."""
        self._was_proven = self._connected_at is not None

    @property
    def is_proven(self) -> bool:
        """Whether the connection that stands, or was lost last, has proven itself."""
        lived = self._connected_at is not None and self._clock() - self._connected_at >= _STABLE_SECONDS
        return self._was_proven or lived

    def failed(self, error: TransportError, *, goes_elsewhere: bool = False) -> float | None:
        """Note what was lost or could not be made; return the seconds to wait, ``None`` to give up.

        :param goes_elsewhere: whether another server is tried next, so that it does not matter when this one
            asks its clients to come back.
        """
        policy, now = self._policy, self._clock()
        if self.is_proven or self._was_closed_well(error):
            self._failures = 0
        self._connected_at, self._was_proven = None, False
        if not error.retryable or (policy.max_retries is not None and self._failures >= policy.max_retries):
            return None
        if not self._failures:
            self._began_at = now
        self._failures += 1
        delay = self._delay(now)
        if isinstance(error, RateLimitExceeded) and error.retry_after is not None:
            delay = max(delay, error.retry_after)
        elif isinstance(error, ConnectionFailed) and error.retry_after is not None and not goes_elsewhere:
            delay = max(delay, min(error.retry_after, policy.max_delay))
        return delay

    def _was_closed_well(self, error: TransportError) -> bool:
        """Tell whether a server that worked has said that it goes away: it is expected back."""
        if self._connected_at is None or self._clock() - self._connected_at < _CLEAN_SECONDS:
            return False
        return isinstance(error, ConnectionFailed) and error.close_code in GOES_AWAY

    def _delay(self, now: float) -> float:
        policy, growths = self._policy, self._failures - 2
        if growths < 0:
            growths = 0
            if len(self._at_once) < _AT_ONCE or now - self._at_once[0] >= _AT_ONCE_SECONDS:
                self._at_once.append(now)
                return 0.0
        try:
            bound = min(policy.max_delay, policy.base_delay * policy.backoff_multiplier**growths)
        except OverflowError:
            bound = policy.max_delay
        return self._part() * min(bound, max(policy.base_delay, now - self._began_at))
