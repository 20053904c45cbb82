"""Limit the time of an operation, as ``asyncio.timeout`` does, at a fraction of what that costs.

Each query and mutation has a limit, and nearly none meets it: all there is to do is to set a timer and to
take it back. ``asyncio.timeout`` can be moved and asked as well, which took a twentieth of a mutation.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import final

__all__ = ["TimeLimit"]


@final
class TimeLimit:
    """Cancel what is awaited in the block after some time, and raise ``TimeoutError`` instead.

    Entered once, in a task. A task that is cancelled by others as well stays cancelled.

    Example::

        with TimeLimit(30.0):
            await work()
    """

    __slots__ = ("_cancelling", "_has_ended", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._has_ended = False

    def __enter__(self) -> None:
        """Begin the time.

        :raises RuntimeError: there is no task to cancel.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit is for a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._end)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the limit.

        :raises TimeoutError: the time had ended first.
        """
        self._timer.cancel()
        # Without a count above that at the beginning, the request to cancel was ours alone.
        if self._has_ended and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _end(self) -> None:
        self._has_ended = True
        self._task.cancel()
