"""Events shown to a reader in another thread, many at once, before they are taken from their buffer."""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, TypeVar, final

from circuit_breaker_sdk.delivery.consumer import Consumer, value_of
from circuit_breaker_sdk.delivery.decoding import Response

__all__ = ["LookAhead"]

T = TypeVar("T")

_MOST_EVENTS: Final = 256


@final
class LookAhead(Generic[T]):
    """Show the oldest events of a buffer to a reader in another thread.

    What is shown stays in the buffer, and counts there, until it is known that the reader has gone on: so its
    bounds hold, and an event that the reader never took was never handled. The reader takes from
    :attr:`values` and tells nothing; how far it is follows from what it has left. All methods belong on the
    event loop.

    :ivar values: what the reader may take, from the left, in its own thread.
    """

    __slots__ = ("_consumer", "_shown", "values")

    def __init__(self, consumer: Consumer[T]) -> None:
        self._consumer = consumer
        self._shown: deque[Response[T]] = deque()
        self.values: deque[T] = deque()
        consumer.on_asked = self.settle

    def settle(self) -> None:
        """Take from the buffer what the reader has taken; all but the last of it has been handled."""
        shown, consumer = self._shown, self._consumer
        for _ in range(len(shown) - len(self.values)):
            response, items = shown.popleft(), consumer.buffer.items
            if items and items[0] is response:  # else the buffer was cleared, at the end
                consumer.next_value()

    def show(self) -> bool:
        """Show more to a reader that has nothing left and is done with what it had; ``False``: none waits."""
        consumer = self._consumer
        self.settle()
        consumer.mark_handled()
        if not consumer.buffer.items:
            return False
        ahead = consumer.buffer.ahead(_MOST_EVENTS)
        self._shown.extend(ahead)
        self.values.extend([value_of(response) for response in ahead] or [consumer.next_value()])
        return True

    def withdraw(self) -> None:
        """Show nothing any more: what the reader has not taken waits in the buffer."""
        self.settle()
        self._shown.clear()
        self.values.clear()
