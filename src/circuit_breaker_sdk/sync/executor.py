"""The thread that handlers run on where the caller gives none."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar, final

__all__ = ["OneThread"]

P = ParamSpec("P")
T = TypeVar("T")


@final
class OneThread(Executor):
    """Run calls one after the other in a daemon thread, which starts with the first one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_shut = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See :meth:`concurrent.futures.Executor.submit`."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 (it is the caller's to read)
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._is_shut:
                raise RuntimeError("the client is closed")
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_run, args=(self._calls,), name=self._name, daemon=True
                )
                self._thread.start()
            self._calls.put(run)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 (few wait)
        """End the thread after the calls that wait; ``wait`` for it, unless this is that thread."""
        with self._lock:
            if not self._is_shut:
                self._is_shut = True
                self._calls.put(None)
        if wait and self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def __del__(self) -> None:
        self._calls.put(None)


def _run(calls: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()
        del call
