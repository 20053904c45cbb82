"""The state kept in step with the log: restored at the start, followed, saved now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import final

from circuit_breaker_server.engine.state import FoldedState
from circuit_breaker_server.log.event_log import EventLog, LogError, Record
from circuit_breaker_server.logs import get_logger

__all__ = ["Folding"]

_log = get_logger("engine")


@final
class Folding:
    """Folds a log into a state, and saves the state so that the next start is short.

    :ivar state: in step with the log from the end of :meth:`start` on: when an append returns, its record
        is in it.
    :ivar snapshot_every: after how many records the state is saved.

    Example::

        folding = Folding(log, snapshot_every=10_000)
        await folding.start()
        ...
        await folding.aclose()
    """

    def __init__(self, log: EventLog, *, snapshot_every: int) -> None:
        self.state = FoldedState()
        self.snapshot_every = snapshot_every
        self._log = log
        self._tried = 0
        self._due = asyncio.Event()
        self._closing = False
        self._saver: asyncio.Task[None] | None = None
        self._end_tail: Callable[[], None] | None = None

    @property
    def running(self) -> bool:
        """Whether the state follows the log: between :meth:`start` and :meth:`aclose`."""
        return self._saver is not None and not self._closing

    async def start(self) -> None:
        """Fold the log's snapshot and the records after it, then follow the log.

        :raises LogCorruptError: a record or the snapshot cannot be read.
        """
        self.state.restore(await self._log.load_snapshot())
        self._tried = self.state.applied
        async for record in self._log.scan(after=self.state.applied):
            self.state.apply(record)
        self._end_tail = self._log.tail(self._follow)
        self._saver = asyncio.create_task(self._save_when_due(), name="engine-snapshots")
        self._notice_due()

    async def aclose(self) -> None:
        """Stop following and save the state. Idempotent; the log stays open."""
        if self._saver is None or self._closing:
            return
        self._closing = True
        self._due.set()
        await self._saver
        if self._end_tail is not None:
            self._end_tail()
        await self._save()

    def _follow(self, records: Sequence[Record]) -> None:
        for record in records:
            self.state.apply(record)
        self._notice_due()

    def _notice_due(self) -> None:
        if self.state.applied - self._tried >= self.snapshot_every:
            self._due.set()

    async def _save_when_due(self) -> None:
        while True:
            await self._due.wait()
            if self._closing:
                return
            self._due.clear()
            await self._save()

    async def _save(self) -> None:
        """Save what changed; a failure is logged and tried again with the next changes."""
        offset, changes = self.state.take_changes()
        self._tried = offset
        if not changes:
            return
        try:
            await self._log.save_snapshot(offset, changes)
        except LogError as error:
            self.state.give_back(changes)
            _log.warning("snapshot_not_saved", offset=offset, reason=str(error))
