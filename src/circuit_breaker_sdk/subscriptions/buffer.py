"""Where a subscription's events wait for a consumer: bounded in events and in bytes."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar, final

from circuit_breaker_sdk.config import BufferLimits, OverflowPolicy
from circuit_breaker_sdk.subscriptions.decoding import Response

__all__ = ["EventBuffer"]

T = TypeVar("T")


@final
class EventBuffer(Generic[T]):
    """A first-in, first-out queue of decoded events with the bounds of :class:`BufferLimits`.

    :ivar size_bytes: encoded size of what is held; a decoded event keeps its text alive, so this bounds
        memory well.
    :ivar dropped: events dropped under ``drop_oldest``.
    """

    __slots__ = ("_drop_oldest", "_items", "_max_bytes", "_max_events", "dropped", "size_bytes")

    def __init__(self, limits: BufferLimits) -> None:
        self._items: deque[Response[T]] = deque()
        self._max_events = limits.max_events
        self._max_bytes = limits.max_bytes
        self._drop_oldest = limits.overflow is OverflowPolicy.DROP_OLDEST
        self.size_bytes: int = 0
        self.dropped: int = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, response: Response[T], size_bytes: int) -> bool:
        """Append an event; ``False``, with nothing changed, if it does not fit under ``fail``.

        Under ``drop_oldest`` the oldest events make room; one that is over ``max_bytes`` by itself is the
        one dropped.
        """
        items = self._items
        if self._drop_oldest and size_bytes > self._max_bytes:
            # No room that others make is enough: they stay.
            self.dropped += 1
            return True
        if len(items) >= self._max_events or self.size_bytes + size_bytes > self._max_bytes:
            if not self._drop_oldest:
                return False
            while items and (
                len(items) >= self._max_events or self.size_bytes + size_bytes > self._max_bytes
            ):
                self.take()
                self.dropped += 1
        response.size_bytes = size_bytes
        self.size_bytes += size_bytes
        items.append(response)
        return True

    def take(self) -> Response[T]:
        """Remove and return the oldest event.

        :raises IndexError: there is none.
        """
        response = self._items.popleft()
        self.size_bytes -= response.size_bytes
        return response

    def is_half_full(self) -> bool:
        """Tell whether a consumer that waits for a batch had better take what is there."""
        return len(self._items) * 2 >= self._max_events or self.size_bytes * 2 >= self._max_bytes

    def clear(self) -> None:
        """Forget everything that is held."""
        self._items.clear()
        self.size_bytes = 0
