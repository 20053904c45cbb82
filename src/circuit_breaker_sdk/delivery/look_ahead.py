"""Events shown to a reader in another thread, many at once, before they are taken from their buffer."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Final, Generic, TypeVar, final

from circuit_breaker_sdk.delivery.acknowledgements import Acknowledgements
from circuit_breaker_sdk.delivery.consumer import Consumer, value_of
from circuit_breaker_sdk.delivery.decoding import Response

__all__ = ["LookAhead", "PendingLookAhead", "Taken"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

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

    def check(self) -> None:
        """Refuse to show events while others are pending.

        :raises UsageError: some are.
        """
        self._consumer.check_nothing_pending()

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

    async def wait_for_room(self) -> None:
        """Wait for nothing: the buffer alone bounds what is shown."""

    def withdraw(self) -> None:
        """Show nothing any more: what the reader has not taken waits in the buffer."""
        self.settle()
        self._shown.clear()
        self.values.clear()


@final
class Taken(Generic[T_co]):
    """An event for a reader in another thread, which acknowledges it.

    Nothing in it leads to the client: what is pending keeps no client alive.

    :ivar value: the event.
    :ivar is_acknowledged: set on the event loop.
    """

    __slots__ = ("is_acknowledged", "value")

    def __init__(self, value: T_co) -> None:
        self.value: T_co = value
        self.is_acknowledged: bool = False


@final
class PendingLookAhead(Generic[T]):
    """Show the oldest events of a buffer to a reader in another thread, which acknowledges them.

    As with :class:`LookAhead`, what is shown stays in the buffer until it is known that the reader has taken
    it; from then on it is pending. All methods belong on the event loop.

    :ivar values: what the reader may take, from the left, in its own thread.
    """

    __slots__ = ("_consumer", "_max_pending", "_shown", "values")

    def __init__(self, consumer: Consumer[T], max_pending: int) -> None:
        self._consumer = consumer
        self._max_pending = max_pending
        self._shown: deque[tuple[Taken[T], Response[T]]] = deque()
        self.values: deque[Taken[T]] = deque()

    @property
    def acknowledgements(self) -> Acknowledgements[T]:
        """Those of the subscription, whichever reader has taken its events."""
        return Acknowledgements.of(self._consumer)

    def check(self) -> None:
        """Refuse nothing: it goes on where another reader left events pending."""

    def settle(self) -> None:
        """Take from the buffer what the reader has taken, and hold the cursor back for it."""
        shown, consumer = self._shown, self._consumer
        for _ in range(len(shown) - len(self.values)):
            event, response = shown.popleft()
            items = consumer.buffer.items
            if items and items[0] is response:  # else the buffer was cleared, at the end
                consumer.take_pending()
            self.acknowledgements.hold(event, response.extensions)

    def show(self) -> bool:
        """Show more to a reader that has nothing left; ``False``: none waits, or too many are pending."""
        consumer = self._consumer
        self.settle()
        consumer.mark_handled()
        most = _MOST_EVENTS
        if not consumer.stream.state.is_end:
            most = min(most, self._max_pending - len(self.acknowledgements))
        if most < 1 or not consumer.buffer.items:
            return False
        # Under `drop_oldest` one is taken at once: it could be dropped before the reader has taken it.
        for response in consumer.buffer.ahead(most) or [consumer.take_pending()]:
            event = Taken(value_of(response))
            self._shown.append((event, response))
            self.values.append(event)
        return True

    async def wait_for_room(self) -> None:
        """Wait until fewer than ``max_pending`` are pending, or the stream has ended."""
        await self.acknowledgements.wait_below(self._max_pending)

    def withdraw(self) -> None:
        """Show nothing any more: what the reader has not taken waits in the buffer."""
        with contextlib.suppress(IndexError):
            while True:  # one by one: the reader may take others meanwhile, which are to be held
                self.values.pop()
                self._shown.pop()
        self.settle()
