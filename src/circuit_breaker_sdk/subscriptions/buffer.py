"""Where a subscription's events wait for a consumer: bounded in events and bytes, alone and together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar, final

from circuit_breaker_sdk.config import BufferLimits, OverflowPolicy
from circuit_breaker_sdk.subscriptions.decoding import Response

__all__ = ["BufferBudget", "EventBuffer"]

T = TypeVar("T")


@final
class BufferBudget:
    """The bytes that all buffers of a client may hold together.

    :ivar used: what they hold now.

    Example::

        budget = BufferBudget(64 * 1024 * 1024)
    """

    __slots__ = ("_waiting", "max_bytes", "used")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes: int = max_bytes
        self._waiting: dict[Callable[[], None], None] = {}
        self.used: int = 0

    def fits_alone(self, size_bytes: int) -> bool:
        """Tell whether so much would fit if nothing were held."""
        return size_bytes <= self.max_bytes

    @property
    def is_low(self) -> bool:
        """Whether at most half of it is used."""
        return self.used * 2 <= self.max_bytes

    def when_low(self, call: Callable[[], None]) -> None:
        """Call once, as soon as no more than half is used; once more for the same changes nothing."""
        self._waiting[call] = None

    def give_back(self, size_bytes: int) -> None:
        """Note that so much is not held any more."""
        self.used -= size_bytes
        if self._waiting:
            self._tell_if_low()

    def _tell_if_low(self) -> None:
        if self.is_low:
            waiting, self._waiting = self._waiting, {}
            for call in waiting:
                call()


@final
class EventBuffer(Generic[T]):
    """A first-in, first-out queue of decoded events with the bounds of :class:`BufferLimits`.

    :ivar size_bytes: encoded size of what is held; a decoded event keeps its text alive, so this bounds
        memory well.
    :ivar dropped: events dropped under ``drop_oldest``.
    """

    __slots__ = ("_budget", "_items", "_max_bytes", "_max_events", "_policy", "dropped", "size_bytes")

    def __init__(self, limits: BufferLimits, budget: BufferBudget) -> None:
        # A deque takes 600 bytes, and the events of most subscriptions never wait.
        self._items: deque[Response[T]] | None = None
        self._budget = budget
        self._max_events = limits.max_events
        self._max_bytes = limits.max_bytes
        self._policy = limits.overflow
        self.size_bytes: int = 0
        self.dropped: int = 0

    def __len__(self) -> int:
        items = self._items
        return 0 if items is None else len(items)

    def put(self, response: Response[T], size_bytes: int) -> bool:
        """Append an event; ``False``, with nothing changed, if it does not fit under ``fail`` or ``resume``.

        Under ``drop_oldest`` the oldest events make room; one for which none can be made is the one dropped.
        Under ``block`` it always fits: who calls stops the flow when :attr:`is_full`.
        """
        items = self._items
        if items is None:
            items = self._items = deque()
        held = self.size_bytes + size_bytes
        budget = self._budget
        if (
            # `_fits`, without the call.
            (
                len(items) >= self._max_events
                or held > self._max_bytes
                or budget.used + size_bytes > budget.max_bytes
            )
            and self._policy is not OverflowPolicy.BLOCK
        ):
            if self._policy is not OverflowPolicy.DROP_OLDEST:
                return False
            if not self._make_room(size_bytes):
                self.dropped += 1
                return True
            held = self.size_bytes + size_bytes
        response.size_bytes = size_bytes
        self.size_bytes = held
        budget.used += size_bytes
        items.append(response)
        return True

    def _fits(self, size_bytes: int) -> bool:
        return (
            len(self) < self._max_events
            and self.size_bytes + size_bytes <= self._max_bytes
            and self._budget.used + size_bytes <= self._budget.max_bytes
        )

    def _make_room(self, size_bytes: int) -> bool:
        held = self.size_bytes
        budget = self._budget
        if size_bytes > self._max_bytes or budget.used + size_bytes - held > budget.max_bytes:
            return False  # no room that ours make is enough: they stay
        while not self._fits(size_bytes):
            self.take()
            self.dropped += 1
        return True

    def take(self) -> Response[T]:
        """Remove and return the oldest event.

        :raises IndexError: there is none.
        """
        if self._items is None:
            raise IndexError("the buffer is empty")
        response = self._items.popleft()
        self.size_bytes -= response.size_bytes
        self._budget.give_back(response.size_bytes)
        return response

    @property
    def is_full(self) -> bool:
        """Whether the next event would be over a bound."""
        return not self._fits(1)

    @property
    def is_low(self) -> bool:
        """Whether a flow that was stopped may go on: no bound is used by more than half."""
        own = len(self) * 2 <= self._max_events and self.size_bytes * 2 <= self._max_bytes
        return own and self._budget.is_low

    def fits_client(self, size_bytes: int) -> bool:
        """Tell whether the client's bound is at least so much, were nothing else held."""
        return self._budget.fits_alone(size_bytes)

    def when_client_is_low(self, call: Callable[[], None]) -> None:
        """Call once, as soon as all buffers of the client together are low."""
        self._budget.when_low(call)

    def is_half_full(self) -> bool:
        """Tell whether a consumer that waits for a batch had better take what is there."""
        return len(self) * 2 >= self._max_events or self.size_bytes * 2 >= self._max_bytes

    def clear(self) -> None:
        """Forget everything that is held."""
        self._items = None
        held, self.size_bytes = self.size_bytes, 0
        self._budget.give_back(held)
