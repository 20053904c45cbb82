"""The event loop of a blocking client, in a thread of its own, and the way into it."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, Final, ParamSpec, Protocol, TypeVar, final

from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.observability import log
from circuit_breaker_sdk.sync.executor import OneThread

__all__ = ["CLOSED", "Portal", "Reader"]

P = ParamSpec("P")
T = TypeVar("T")

CLOSED: Final = "the client is closed: make a new one"
_FORKED: Final = "the client belongs to the process that made it, not to its fork: make a new one here"
_EXIT_SECONDS: Final = 2.0


class Reader(Protocol):
    """Interface of a reader, in another thread, of the loop's events."""

    def end(self) -> None:
        """End it: nothing more will come; on the loop, or when that has ended."""
        ...

    def forget(self) -> None:
        """Drop what it could still take: in a fork."""
        ...


@final
class Portal:
    """Run coroutines in the loop of a blocking client, from any thread; the thread starts with the first.

    Dropping the last reference closes it as :meth:`close` does, and so does the end of the program.

    :ivar executor: what handlers run on.

    Example::

        answer = portal.call(client.execute, "{ health }")
    """

    def __init__(self, aclose: Callable[[], Coroutine[Any, Any, None]], *, executor: Executor | None) -> None:
        """``aclose`` is run at the end, in the loop; the default of ``executor`` is one thread."""
        self.executor: Executor = executor or OneThread("circuit-breaker-handlers")
        self._owns_executor = executor is None
        self._aclose = aclose
        self._lock = threading.RLock()  # a handler of a signal may come in its middle
        self._is_closed = False
        self._process = os.getpid()
        self._inside: _Inside | None = None
        _PORTALS.add(self)

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more calls."""
        return self._is_closed

    def call(
        self, method: Callable[P, Coroutine[Any, Any, T]], /, *arguments: P.args, **named: P.kwargs
    ) -> T:
        """Run a coroutine function to its end; an interrupt of the wait cancels it.

        :raises UsageError: it is closed, or this is its own thread, or a fork.
        """
        return self._result(self._submit(method, *arguments, **named), None)

    def call_within(
        self,
        seconds: float | None,
        method: Callable[P, Coroutine[Any, Any, T]],
        /,
        *arguments: P.args,
        **named: P.kwargs,
    ) -> T:
        """Run a coroutine function to its end, for so long at most.

        :raises TimeoutError: it was cancelled.
        """
        return self._result(self._submit(method, *arguments, **named), seconds)

    def do(self, function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
        """Call a plain function in the loop."""

        async def run() -> T:
            return function(*arguments, **named)

        return self.call(run)

    def read(self, function: Callable[[], T]) -> T:
        """Call a function that only reads: in the loop while it runs, otherwise here."""
        if self._inside is None or self._is_closed or self._process != os.getpid() or self._is_inside():
            return function()
        try:
            return self.do(function)
        except UsageError:
            if not self.is_closed:
                raise
            return function()  # it was closed meanwhile

    def wake(self, function: Callable[[], object]) -> None:
        """Let a function be called in the loop soon; not at all once it is closed, which ends all readers.

        :raises UsageError: this is the loop's own thread, or a fork.
        """
        if self._process != os.getpid():
            raise UsageError(_FORKED)
        with self._lock:
            if self._is_closed:
                return
            self._opened().loop.call_soon_threadsafe(function)

    def add(self, reader: Reader) -> asyncio.AbstractEventLoop:
        """Remember, weakly, what is to end with this; on the loop, which is returned."""
        inside = self._inside
        if inside is None:
            raise UsageError(CLOSED)
        inside.readers.add(reader)
        return inside.loop

    def close(self) -> None:
        """Run ``aclose`` in the loop, end the loop and its thread, and the thread of handlers. Idempotent.

        :raises UsageError: this is the loop's own thread: a filter or a token function is being called.
        """
        if self._process != os.getpid():
            self._is_closed = True
            return
        if self._is_inside():
            raise UsageError("a client cannot be closed on its own loop: in a filter, a token function")
        with self._lock:
            self._is_closed = True
        inside = self._inside
        if inside is not None:
            inside.stop()
            inside.thread.join()
        if self._owns_executor:
            self.executor.shutdown(wait=inside is not None)

    def _is_inside(self) -> bool:
        return self._inside is not None and self._inside.thread is threading.current_thread()

    def _opened(self) -> _Inside:
        """Return what runs the loop, and start it; the lock is held."""
        if self._process != os.getpid():
            raise UsageError(_FORKED)
        if self._is_closed:
            raise UsageError(CLOSED)
        if self._inside is None:
            self._inside = _Inside(self._aclose)
        elif self._is_inside():
            raise UsageError("a blocking call on the client's own loop would wait for itself")
        return self._inside

    def _submit(
        self, method: Callable[P, Coroutine[Any, Any, T]], /, *arguments: P.args, **named: P.kwargs
    ) -> Future[T]:
        if self._process != os.getpid():
            raise UsageError(_FORKED)  # before the lock: a thread that is not in the fork may hold it
        # What is submitted comes before the end, which is ordered under the same lock.
        with self._lock:
            inside = self._opened()
            future = asyncio.run_coroutine_threadsafe(method(*arguments, **named), inside.loop)
            inside.waiting.add(future)
        future.add_done_callback(inside.waiting.discard)
        return future

    def _result(self, future: Future[T], seconds: float | None) -> T:
        try:
            return future.result(seconds)
        except concurrent.futures.CancelledError:
            if self._is_closed:
                raise UsageError(CLOSED) from None
            raise
        finally:
            future.cancel()  # where the wait was left: nothing otherwise

    def abandon(self, seconds: float = 0.0) -> None:
        """End the thread without waiting for it longer than this."""
        self._is_closed = True
        inside = self._inside
        if inside is not None and self._process == os.getpid():
            inside.stop()
            if seconds:
                inside.thread.join(seconds)

    def forget(self) -> None:
        """Drop what readers could still take: this is a fork."""
        if self._inside is not None:
            for reader in tuple(self._inside.readers):
                reader.forget()

    def __del__(self) -> None:
        self.abandon()


@final
class _Inside:
    """The loop and its thread. It does not know the portal, which ends with its last reference."""

    def __init__(self, aclose: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.loop = asyncio.new_event_loop()
        self.readers: weakref.WeakSet[Reader] = weakref.WeakSet()
        self._aclose = aclose
        self.waiting: set[Future[Any]] = set()
        self.thread = threading.Thread(target=self._run, name="circuit-breaker-loop", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Let the thread end. No lock is taken: the garbage collection calls it in the middle of anything."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self.loop.stop)

    def _run(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(self._end())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
            for reader in tuple(self.readers):
                reader.end()
            for future in tuple(self.waiting):
                future.cancel()

    async def _end(self) -> None:
        for reader in tuple(self.readers):
            reader.end()
        try:
            await self._aclose()
        except Exception as error:  # noqa: BLE001 (the loop is to end all the same)
            log(logging.ERROR, "closing failed", error=repr(error))
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)


_PORTALS: weakref.WeakSet[Portal] = weakref.WeakSet()


def _at_exit() -> None:
    for portal in tuple(_PORTALS):
        portal.abandon(_EXIT_SECONDS)


def _after_fork() -> None:
    for portal in tuple(_PORTALS):
        portal.forget()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
