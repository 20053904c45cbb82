"""Share the event loop fairly: turns, time slices and a gate for requests, with one queue for each key.

The event loop is shared by every subscriber. What takes long there (a long list, a document that is parsed)
is cut into slices: in each turn of the loop one slice is done, and principals take turns whatever each has
asked for. So a flood of heavy operations makes heavy operations slow, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar, final

__all__ = ["SLICE_SECONDS", "Gate", "Slices", "Turns"]

SLICE_SECONDS: Final = 0.001
"""The longest time that an operation may keep the event loop before others have their turn."""

_HEAVY_VALUES: Final = 10_000
_HEAVY_AT_ONCE: Final = 1
_MIDDLING_AT_ONCE: Final = 8
"""Operations that are executed side by side: a value takes about 400 bytes until the answer is written."""
_REST_OF_ONE: Final = 1.0
_REST_OF_MANY: Final = 3.0
"""The rest after a slice, in lengths of the slice: if one principal waits, and if several do."""
_ENTER_AT_ONCE: Final = 8
"""Requests that are admitted in each turn of the loop, as long as it has time for them."""
_SWITCH_SECONDS: Final = 0.00002
"""The interpreter's switch interval while the thread works, so that it soon yields to the event loop."""

_T = TypeVar("_T")


@final
class _Queue:
    """A fair queue of waiters: one of each key in turn, however many each key has."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, OrderedDict[asyncio.Future[None], None]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def keys(self) -> int:
        """The number of keys that have waiters."""
        return len(self._waiting)

    async def wait(self, key: str, *, unused: Callable[[], object]) -> None:
        """Wait to be woken; ``unused`` is called if the waiter is woken and cancelled at the same time."""
        turn = asyncio.get_running_loop().create_future()
        queue = self._waiting.get(key)
        if queue is None:
            queue = self._waiting[key] = OrderedDict()
        queue[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                unused()
            else:
                self._forget(key, turn)
            raise

    def _forget(self, key: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(key)
        if queue is not None:
            queue.pop(turn, None)  # it may have been passed over already
            if not queue:
                del self._waiting[key]

    def wake(self) -> bool:
        """Wake the next waiter; return ``False`` if there is none."""
        while self._waiting:
            key, queue = self._waiting.popitem(last=False)
            turn, _ = queue.popitem(last=False)
            if queue:
                self._waiting[key] = queue  # behind the others
            if not turn.done():
                turn.set_result(None)
                return True
        return False


@final
class Turns:
    """Let a bounded number of holders through at a time; of the waiters, one of each key in turn.

    :param at_once: the number of holders.

    Example::

        async with turns.of("user-7"):
            ...
    """

    def __init__(self, at_once: int = 1) -> None:
        self._free = at_once
        self._queue = _Queue()

    @property
    def waiting(self) -> int:
        """The number of waiters."""
        return len(self._queue)

    @property
    def keys(self) -> int:
        """The number of keys that have waiters."""
        return self._queue.keys

    def take_now(self) -> bool:
        """Take a turn if one is free and there are no waiters; :meth:`give_on` ends it."""
        if not self._free or self._queue.keys:
            return False
        self._free -= 1
        return True

    async def take(self, key: str) -> None:
        """Wait for a turn and take it; :meth:`give_on` ends it. Cancelling gives up the place."""
        if not self.take_now():
            await self._queue.wait(key, unused=self.give_on)

    def give_on(self) -> None:
        """Give the turn to the next waiter."""
        if not self._queue.wake():
            self._free += 1

    @contextlib.asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Hold a turn."""
        await self.take(key)
        try:
            yield
        finally:
            self.give_on()


@final
class Gate:
    """Let work through for some time of each turn of the event loop; what is left waits for the next.

    Much that arrives together would else be worked on in one turn, and what is due meanwhile would come late.

    :param seconds: the time in each turn.
    :param at_once: how many waiters are woken in each turn.

    Example::

        if not gate.enter_now():
            await gate.enter("192.0.2.7")
    """

    def __init__(
        self,
        *,
        seconds: float = SLICE_SECONDS,
        at_once: int = _ENTER_AT_ONCE,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._seconds = seconds
        self._at_once = at_once
        self._clock = clock
        self._queue = _Queue()
        self._ends: float | None = None
        self._is_due = False

    def enter_now(self) -> bool:
        """Enter if there is time in this turn of the loop and there are no waiters."""
        return not self._queue.keys and self._has_time()

    async def enter(self, key: str) -> None:
        """Wait until there is time; of the waiters, one of each key goes first in turn."""
        while True:
            self._end_soon()
            await self._queue.wait(key, unused=_nothing)
            if self._has_time():
                return

    def _has_time(self) -> bool:
        now = self._clock()
        if self._ends is None:  # the first one in a turn of the loop has it in any case
            self._ends = now + self._seconds
            self._end_soon()
        return now < self._ends

    def _end_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._is_due, self._ends = False, None
        if self._queue.keys:
            for _ in range(self._at_once):
                self._queue.wake()
            self._end_soon()


@final
class Slices:
    """The event loop, shared in slices: one slice of some operation, then a rest, then the next.

    In the rest the loop does what else there is to do. It is as long as the slice was, and three times as
    long while several principals wait: then all of their operations together have a quarter of the loop.

    :param clock: seconds.

    Example::

        async for item in slices.over(items, "user-7"):
            ...
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._turns = Turns()
        self._clock = clock
        self._began = 0.0
        self._thread: ThreadPoolExecutor | None = None
        self._thread_turns = Turns()
        # What is heavy takes as long side by side as one after another, and more memory.
        self._heavy = Turns(_HEAVY_AT_ONCE)
        self._middling = Turns(_MIDDLING_AT_ONCE)

    def take_now(self) -> bool:
        """Take a slice if the loop is free for one; it ends with the turn of the loop."""
        if not self._turns.take_now():
            return False
        self._begin()
        return True

    async def take(self, key: str) -> None:
        """Wait for a slice; it ends with the turn of the loop in which it began."""
        await self._turns.take(key)
        self._begin()

    def _begin(self) -> None:
        self._began = self._clock()
        asyncio.get_running_loop().call_soon(self._rest)

    def _rest(self) -> None:
        used = self._clock() - self._began
        times = _REST_OF_MANY if self._turns.keys > 1 else _REST_OF_ONE
        asyncio.get_running_loop().call_later(used * times, self._turns.give_on)

    def room_for(self, values: int, key: str) -> contextlib.AbstractAsyncContextManager[None]:
        """Wait until the memory for an answer of so many values is there, and hold it."""
        return (self._heavy if values > _HEAVY_VALUES else self._middling).of(key)

    async def beside(self, work: Callable[[], _T], key: str) -> _T:
        """Do what cannot be cut into slices in a thread: one at a time, keys in turn.

        The thread gives way to the event loop often. Cancelling does not stop what has begun.
        """
        async with self._thread_turns.of(key):
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="circuit-breaker-beside")
            began = self._clock()
            try:
                return await asyncio.get_running_loop().run_in_executor(self._thread, _giving_way, work)
            finally:
                if self._thread_turns.keys:
                    await asyncio.sleep((self._clock() - began) * _REST_OF_MANY)

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


def _nothing() -> None:
    """Do nothing."""


def _giving_way(work: Callable[[], _T]) -> _T:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        return work()
    finally:
        sys.setswitchinterval(usual)
