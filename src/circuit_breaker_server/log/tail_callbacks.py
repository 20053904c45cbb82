"""The callbacks of a log's tails: register them, and call them with each committed group."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import final

from circuit_breaker_server.log.event_log import Record

__all__ = ["TailCallbacks"]


@final
class TailCallbacks:
    """The tails of one log, in the order in which they were registered.

    Example::

        tails = TailCallbacks()
        end = tails.add(callback)
        tails.call(records)
        end()
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._callbacks: list[Callable[[Sequence[Record]], None]] = []

    def add(self, callback: Callable[[Sequence[Record]], None]) -> Callable[[], None]:
        """Register a tail; return a function that ends it."""
        self._callbacks.append(callback)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._callbacks.remove(callback)

        return end

    def call(self, records: Sequence[Record]) -> None:
        """Call every tail; one that raises is reported to the loop's exception handler."""
        for callback in tuple(self._callbacks):
            try:
                callback(records)
            except Exception as error:  # noqa: BLE001 -- one tail must not starve the others or the appends
                self._loop.call_exception_handler(
                    {"message": "a tail of the event log raised", "exception": error}
                )
