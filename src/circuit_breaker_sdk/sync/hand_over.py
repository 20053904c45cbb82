"""Events handed from the loop to a thread: many in one hop, and never more than the thread has asked for."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, final

from circuit_breaker_sdk.delivery.look_ahead import LookAhead
from circuit_breaker_sdk.errors import StreamFailure, SubscriptionError, TransportError, UsageError
from circuit_breaker_sdk.subscriptions import Subscription

__all__ = ["Ahead", "HandOver"]

T = TypeVar("T")
V = TypeVar("V")


class Ahead(Protocol[V]):
    """Interface of one way to show events to the thread: as they are, or to be acknowledged.

    :ivar values: what the thread takes, from the left; the rest belongs on the loop.
    """

    values: deque[V]

    def check(self) -> None:
        """Refuse to show anything, where another way has left events pending.

        :raises UsageError: it has.
        """
        ...

    def settle(self) -> None:
        """Note how far the thread is."""
        ...

    def show(self) -> bool:
        """Show more to a thread that has nothing left; ``False``: there is nothing to show now."""
        ...

    async def wait_for_room(self) -> None:
        """Wait until one more event may be shown, if there is one."""
        ...

    def withdraw(self) -> None:
        """Show nothing any more: what the thread has not taken waits in the buffer."""
        ...


@final
class HandOver(Generic[T]):
    """One subscription's events, on their way from the loop to whoever iterates.

    The thread takes from :attr:`values` and, when nothing is left, asks the loop for more and waits for a
    sign. It may ask as often as it likes, so an interrupt at any point loses neither a question nor an event.

    :ivar plain: shows events as they are.
    """

    def __init__(self, subscription: Subscription[T]) -> None:
        """It is made on the loop."""
        self._subscription = subscription
        self._consumer = subscription._delivery.consumer  # noqa: SLF001 (its other half)
        self.plain: Ahead[T] = LookAhead(self._consumer)
        self._ahead: Ahead[Any] = self.plain  # the one that shows something; Any: events, or pending ones
        self._consumer.on_asked = self.plain.settle
        self._signs: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._turn = threading.Lock()
        self._wait: asyncio.Task[None] | None = None
        self._is_over = False
        self._error: StreamFailure | None = None
        self._refusal: UsageError | None = None

    # In the thread -----------------------------------------------------------------------------------------

    def next(self, ahead: Ahead[V], wake: Callable[[Callable[[], object]], None], timeout: float | None) -> V:
        """Wait for the next event.

        :param ahead: what shows it; another one that showed events before shows none any more.
        :param wake: lets a function be called on the loop.
        :raises StopIteration: the stream has ended.
        :raises TimeoutError: none came in time.
        """
        if not self._turn.acquire(blocking=False):
            raise UsageError("another thread is waiting for this subscription's next event")
        try:
            until = None if timeout is None else time.monotonic() + timeout
            while True:
                try:
                    return ahead.values.popleft()
                except IndexError:
                    pass
                if self._is_over:
                    if self._error is not None:
                        raise self._error
                    raise StopIteration
                while not self._signs.empty():
                    self._signs.get_nowait()  # of a question whose answer was taken without it
                wake(lambda: self._serve(ahead))
                try:
                    self._signs.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
                except queue.Empty:
                    raise TimeoutError(f"no event of {self._subscription!r} within {timeout:g} s") from None
                refusal, self._refusal = self._refusal, None
                if refusal is not None:
                    raise refusal
        finally:
            self._turn.release()

    def forget(self) -> None:
        """Drop what could still be taken: in a fork, where all of it belongs to the parent."""
        self._ahead.values.clear()

    # On the loop -------------------------------------------------------------------------------------------

    def _serve(self, ahead: Ahead[Any]) -> None:
        try:
            self._turn_to(ahead)
        except UsageError as error:
            self._refusal = error
            self._signs.put(None)
            return
        if self._wait is not None:
            return  # its end gives the sign
        if self._is_over or ahead.values or ahead.show():
            self._signs.put(None)
        else:
            self._wait = asyncio.get_running_loop().create_task(self._wait_for_more())
            self._wait.add_done_callback(self._waited)

    def _turn_to(self, ahead: Ahead[Any]) -> None:
        if self._consumer.handlers.has_data:
            raise UsageError(f"{self._subscription!r} has handlers: it cannot be iterated as well")
        if ahead is self._ahead:
            return
        self._ahead.withdraw()
        ahead.check()
        self._ahead = ahead
        # No method of this object, which would keep the subscription alive.
        self._consumer.on_asked = ahead.settle
        if self._wait is not None:
            self._wait.cancel()  # it waits for what the other one may show

    async def _wait_for_more(self) -> None:
        try:
            await self._ahead.wait_for_room()
            await self._subscription._wait(1)  # noqa: SLF001 (its other half)
            self._ahead.show()
        except StopAsyncIteration:
            self._is_over = True
        except UsageError as error:
            self._refusal = error
        except (TransportError, SubscriptionError) as error:
            self._error, self._is_over = error, True

    def _waited(self, _task: asyncio.Task[None]) -> None:
        self._wait = None
        self._signs.put(None)

    async def leave(self) -> None:
        """Wait no longer for the next event, where a timeout or an interrupt has ended the thread's wait."""
        if self._wait is not None and not self._turn.locked():
            self._wait.cancel()
            await asyncio.wait((self._wait,))

    def settle(self) -> None:
        """Note how far the thread is."""
        self._ahead.settle()

    def withdraw(self) -> None:
        """Show the thread nothing any more: what it has not taken goes to handlers."""
        self._ahead.withdraw()

    def end(self) -> None:
        """End it for the thread: nothing more is handed over, and what was not taken is not handled."""
        self._ahead.withdraw()
        self._is_over = True
        self._signs.put(None)

    def abandon(self) -> None:
        """Note how far the thread came, which is gone; stop waiting for the subscription."""
        self._ahead.withdraw()
        if self._wait is not None:
            self._wait.cancel()
