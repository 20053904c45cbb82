"""Buffer of a subscription's events: bounded in events and bytes, per subscription and shared."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar, final

from circuit_breaker_sdk.config import BufferLimits, OverflowPolicy
from circuit_breaker_sdk.delivery.decoding import Response

__all__ = ["BufferBudget", "EventBuffer"]

T = TypeVar("T")


_SHARE: Final = 64
"""A subscription's reserve is this part of the client's bytes; of more than 32 subscriptions, less."""

_DEMAND: Final = 8
"""Above its reserve, a buffer may hold this many times what is still free: the fullest are paused first."""


@final
class BufferBudget:
    """The bytes that all buffers of a client may hold together, fairly shared.

    Each buffer has a reserve that its neighbours cannot take, and always room for one event; the reserves
    together are at most half of the bytes. What is above the reserves is shared so that the buffers which
    hold most are refused first (a dynamic threshold, as in network switches).

    :param count: tells how many subscriptions there are.
    :ivar used: what they hold now.
    :ivar easy_bytes: up to so much in all, no buffer has to be compared with the others.
    :ivar is_watched: someone waits for it to be low: what is taken is to be given back by the method.

    Example::

        budget = BufferBudget(64 * 1024 * 1024)
    """

    __slots__ = ("_count", "_waiting", "easy_bytes", "is_watched", "max_bytes", "on_full", "used")

    def __init__(self, max_bytes: int, count: Callable[[], int] = lambda: 1) -> None:
        self.max_bytes: int = max_bytes
        self.easy_bytes: int = max_bytes // 2
        self._count = count
        self._waiting: dict[Callable[[], None], None] = {}
        self.used: int = 0
        self.is_watched: bool = False
        self.on_full: Callable[[], None] | None = None
        """Called when a buffer is refused because of the others."""

    def fits_alone(self, size_bytes: int) -> bool:
        """Tell whether so much would fit if nothing were held."""
        return size_bytes <= self.max_bytes

    @property
    def reserve_bytes(self) -> int:
        """The bytes of each buffer that its neighbours cannot take."""
        return self.max_bytes // max(_SHARE, 2 * self._count())

    def has_room(self, held: int, size_bytes: int) -> bool:
        """Tell whether a buffer that holds so much may hold so much more."""
        if self.used + size_bytes <= self.easy_bytes:
            return True
        reserve = self.reserve_bytes
        if held + size_bytes <= reserve or (not held and size_bytes <= self.max_bytes):
            return True
        free = self.max_bytes - reserve * self._count() - self.used - size_bytes
        return free >= 0 and held + size_bytes - reserve <= _DEMAND * free

    @property
    def is_low(self) -> bool:
        """Whether at most half of it is used."""
        return self.used * 2 <= self.max_bytes

    def when_low(self, call: Callable[[], None]) -> None:
        """Call once, as soon as no more than half is used; once more for the same changes nothing."""
        self._waiting[call] = None
        self.is_watched = True

    def give_back(self, size_bytes: int) -> None:
        """Note that so much is not held any more."""
        self.used -= size_bytes
        if self.is_watched and self.is_low:
            self.is_watched = False
            waiting, self._waiting = self._waiting, {}
            for call in waiting:
                call()


@final
class EventBuffer(Generic[T]):
    """A first-in, first-out queue of decoded events with the bounds of :class:`BufferLimits`.

    :ivar size_bytes: encoded size of what is held; a decoded event keeps its text alive, so this bounds
        memory well.
    :ivar items: what is held, oldest first; ``None`` or empty for nothing. To be read only.
    :ivar budget: the bytes that it shares with the client's other buffers.
    :ivar dropped: events that were dropped: under ``drop_oldest``, or by ``unsubscribe``.
    """

    __slots__ = ("_max_bytes", "_max_events", "_policy", "budget", "dropped", "items", "size_bytes")

    def __init__(self, limits: BufferLimits, budget: BufferBudget) -> None:
        # A deque takes 600 bytes, and the events of most subscriptions never wait.
        self.items: deque[Response[T]] | None = None
        self.budget: BufferBudget = budget
        self._max_events = limits.max_events
        self._max_bytes = limits.max_bytes
        self._policy = limits.overflow
        self.size_bytes: int = 0
        self.dropped: int = 0

    def __len__(self) -> int:
        items = self.items
        return 0 if items is None else len(items)

    def put(self, response: Response[T], size_bytes: int) -> bool:
        """Append an event; ``False``, with nothing changed, if it does not fit under ``fail`` or ``resume``.

        Under ``drop_oldest`` the oldest events make room; one for which none can be made is the one dropped.
        Under ``block`` it always fits: the caller stops the flow when :attr:`is_full`.
        """
        if not self.has_room(1, size_bytes) and self._policy is not OverflowPolicy.BLOCK:
            if self._policy is not OverflowPolicy.DROP_OLDEST:
                return False
            if not self._make_room(size_bytes):
                self.dropped += 1
                return True
        if self.items is None:
            self.items = deque()
        response.size_bytes = size_bytes
        self.size_bytes += size_bytes
        self.budget.used += size_bytes
        self.items.append(response)
        return True

    def add(self, response: Response[T], size_bytes: int) -> bool:
        """Append an event if it simply fits, as most do; ``False``: :meth:`put` is to decide."""
        items = self.items
        held = self.size_bytes + size_bytes
        budget = self.budget
        used = budget.used + size_bytes
        if (
            items is None
            or len(items) >= self._max_events
            or held > self._max_bytes
            or used > budget.easy_bytes
        ):
            return False
        response.size_bytes = size_bytes
        self.size_bytes = held
        budget.used = used
        items.append(response)
        return True

    def has_room(self, events: int, size_bytes: int) -> bool:
        """Tell whether so many events of so much in all would simply fit."""
        items, budget = self.items, self.budget
        return (
            (0 if items is None else len(items)) + events <= self._max_events
            and self.size_bytes + size_bytes <= self._max_bytes
            and (
                budget.used + size_bytes <= budget.easy_bytes or budget.has_room(self.size_bytes, size_bytes)
            )
        )

    def extend(self, responses: Iterable[Response[T]], size_bytes: int) -> None:
        """Append events that fit, as :meth:`has_room` has told; each knows its size."""
        if self.items is None:
            self.items = deque()
        self.items.extend(responses)
        self.size_bytes += size_bytes
        self.budget.used += size_bytes

    def fits_by_itself(self, size_bytes: int) -> bool:
        """Tell whether one more event fits this buffer's own bounds."""
        return len(self) < self._max_events and self.size_bytes + size_bytes <= self._max_bytes

    def _make_room(self, size_bytes: int) -> bool:
        if size_bytes > self._max_bytes or not self.budget.fits_alone(size_bytes):
            return False  # no room that ours make is enough: they stay
        while not self.has_room(1, size_bytes):
            self.take()
            self.dropped += 1
        return True

    def take(self) -> Response[T]:
        """Remove and return the oldest event.

        :raises IndexError: there is none.
        """
        if self.items is None:
            raise IndexError("the buffer is empty")
        response = self.items.popleft()
        size_bytes = response.size_bytes
        self.size_bytes -= size_bytes
        budget = self.budget
        if budget.is_watched:
            budget.give_back(size_bytes)
        else:
            budget.used -= size_bytes
        return response

    def ahead(self, most: int) -> list[Response[T]]:
        """Return the oldest events, which stay: at most an eighth of what it may hold, and at least one.

        Under ``drop_oldest`` none: each may be dropped before it is taken.
        """
        if self.items is None or self._policy is OverflowPolicy.DROP_OLDEST:
            return []
        return list(itertools.islice(self.items, max(1, min(most, self._max_events // 8))))

    @property
    def is_full(self) -> bool:
        """Whether the next event would be over a bound."""
        return not self.has_room(1, 1)

    @property
    def is_low(self) -> bool:
        """Whether a flow that was stopped may go on: no bound is used by more than half."""
        own = len(self) * 2 <= self._max_events and self.size_bytes * 2 <= self._max_bytes
        # What its reserve holds does not wait for its neighbours.
        return own and (self.size_bytes * 2 <= self.budget.reserve_bytes or self.budget.is_low)

    def refused_by_others(self) -> None:
        """Note that an event did not fit because of what the client's other buffers hold."""
        if self.budget.on_full is not None:
            self.budget.on_full()

    def fits_client(self, size_bytes: int) -> bool:
        """Tell whether the client's bound is at least so much, were nothing else held."""
        return self.budget.fits_alone(size_bytes)

    def when_client_is_low(self, call: Callable[[], None]) -> None:
        """Call once, as soon as all buffers of the client together are low."""
        self.budget.when_low(call)

    def is_half_full(self) -> bool:
        """Tell whether a consumer that waits for a batch had better take what is there."""
        return len(self) * 2 >= self._max_events or self.size_bytes * 2 >= self._max_bytes

    def clear(self) -> None:
        """Drop everything that is held."""
        self.dropped += len(self)
        self.items = None
        held, self.size_bytes = self.size_bytes, 0
        self.budget.give_back(held)
