"""Turns: work that is done one piece at a time, by those who wait for it in turn.

The event loop is shared by every subscriber. What takes long there (a long list, a document that is parsed)
is cut into slices: in each turn of the loop one slice is done, and principals take turns whatever each has
asked for. So a flood of heavy operations makes heavy operations slow, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar, final

__all__ = ["SLICE_SECONDS", "Slices", "Turns"]

SLICE_SECONDS: Final = 0.001
"""How long an operation may keep the event loop before others have their turn."""

_SWITCH_SECONDS: Final = 0.0005
"""How long the thread keeps the interpreter while the event loop wants it."""

_T = TypeVar("_T")


@final
class Turns:
    """Let one at a time through; of those who wait, one of each key after the other.

    Example::

        async with turns.of("user-7"):
            ...
    """

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    def take_now(self) -> bool:
        """Take the turn if nobody has it and nobody waits for it; :meth:`give_on` ends it."""
        if self._is_taken or self._waiting:
            return False
        self._is_taken = True
        return True

    async def take(self, key: str) -> None:
        """Wait for a turn and take it; :meth:`give_on` ends it. Cancelling gives up the place."""
        if self.take_now():
            return
        turn = asyncio.get_running_loop().create_future()
        queue = self._waiting.get(key)
        if queue is None:
            queue = self._waiting[key] = deque()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_on()
            else:
                queue.remove(turn)
                if not queue:
                    del self._waiting[key]
            raise

    def give_on(self) -> None:
        """Give the turn to the next one who waits."""
        while self._waiting:
            key, queue = self._waiting.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._waiting[key] = queue  # behind the others
            if not turn.done():
                turn.set_result(None)
                return
        self._is_taken = False

    @contextlib.asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Hold a turn."""
        await self.take(key)
        try:
            yield
        finally:
            self.give_on()


@final
class Slices:
    """The event loop, shared in slices: one slice of some operation in each turn of the loop.

    :param clock: seconds.

    Example::

        async for item in slices.over(items, "user-7"):
            ...
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._turns = Turns()
        self._clock = clock
        self._thread: ThreadPoolExecutor | None = None
        self._thread_turns = Turns()

    def take_now(self) -> bool:
        """Take the slice of this turn of the loop if it is free; it ends with the turn."""
        if not self._turns.take_now():
            return False
        self._end_with_this_turn()
        return True

    async def take(self, key: str) -> None:
        """Wait for a slice; it ends with the turn of the loop in which it began."""
        await self._turns.take(key)
        self._end_with_this_turn()

    def _end_with_this_turn(self) -> None:
        asyncio.get_running_loop().call_soon(self._turns.give_on)

    async def beside(self, work: Callable[[], _T], key: str) -> _T:
        """Do what cannot be cut into slices in a thread: one at a time, keys in turn.

        The thread gives way to the event loop often. Cancelling does not stop what has begun.
        """
        async with self._thread_turns.of(key):
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="circuit-breaker-beside")
            return await asyncio.get_running_loop().run_in_executor(self._thread, _giving_way, work)

    def close(self) -> None:
        """End the thread, once it has done what it has begun: a fraction of a second. Idempotent."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    async def over(self, items: Iterable[_T | None], key: str) -> AsyncIterator[_T]:
        """Yield the items, as many in a slice as are made and used in its time; ``None`` is left out.

        ``None`` stands for what was looked at and is not wanted: looking takes its time as well.
        """
        if not self.take_now():
            await self.take(key)
        began = self._clock()
        for item in items:
            if self._clock() - began > SLICE_SECONDS:
                await self.take(key)
                began = self._clock()
            if item is not None:
                yield item


def _giving_way(work: Callable[[], _T]) -> _T:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        return work()
    finally:
        sys.setswitchinterval(usual)
