"""Batches of messages: what is sent in one turn of the event loop is written together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

from circuit_breaker_sdk.config import MessageBatching

__all__ = ["WriteBatch"]


@final
class WriteBatch:
    """The messages that wait to be written together, and the timer that writes them.

    Example::

        writes = WriteBatch(MessageBatching(batch_size=100, flush_interval=0.01))
        writes.flush_soon(protocol.messages_to_send, flush)
    """

    __slots__ = ("_batching", "_flushing", "_loop")

    def __init__(self, batching: MessageBatching) -> None:
        self._batching = batching
        self._loop = asyncio.get_running_loop()
        self._flushing: asyncio.Handle | None = None

    @property
    def delay_seconds(self) -> float:
        """Seconds that a message may wait for others before it is written; 0: the end of the turn."""
        return self._batching.flush_interval

    @property
    def is_waiting(self) -> bool:
        """Whether the timer runs."""
        return self._flushing is not None

    def flush_soon(self, waiting: int, flush: Callable[[], None]) -> None:
        """Call ``flush`` when the batch is to be written: at once where it is full.

        :param waiting: messages in the batch.
        """
        if waiting >= self._batching.batch_size:
            flush()
        elif self._flushing is None:
            loop, interval = self._loop, self._batching.flush_interval
            self._flushing = loop.call_later(interval, flush) if interval else loop.call_soon(flush)

    def cancel(self) -> None:
        """Stop the timer: the batch is written now, or never. Idempotent."""
        flushing, self._flushing = self._flushing, None
        if flushing is not None:
            flushing.cancel()
