"""The state kept in step with the log: restored at the start, followed, saved now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import final

from circuit_breaker_server.engine.tables import Part
from circuit_breaker_server.log.event_log import (
    EventLog,
    LogCorruptError,
    LogError,
    Record,
    Snapshot,
    SnapshotEntry,
)
from circuit_breaker_server.logs import get_logger

__all__ = ["Folding", "State"]

_log = get_logger("engine")


@final
class State:
    """The state of all domains: each part folds the records of its subjects.

    :ivar applied: the offset of the last record applied.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.applied = 0
        self._by_token: dict[str, list[Part]] = {}
        self._by_prefix: dict[str, Part] = {}
        self._parts = parts
        for part in parts:
            for token in part.tokens:
                self._by_token.setdefault(token, []).append(part)
            for prefix in part.prefixes:
                self._by_prefix[prefix] = part

    def apply(self, record: Record) -> None:
        """Apply the next record.

        :raises LogCorruptError: the record cannot be read, is of no known kind, or changes what is not there.
        """
        parts = self._by_token.get(record.subject.partition(".")[0])
        if parts is None:
            raise LogCorruptError(
                f"record {record.offset} ({record.subject}) is of a kind that this program does not know; "
                "run the program that wrote it"
            )
        for part in parts:
            part.apply(record)
        self.applied = record.offset

    def take_changes(self) -> tuple[int, list[SnapshotEntry]]:
        """Return what changed since it was last taken, and the offset up to which it did."""
        return self.applied, [change for part in self._parts for change in part.take_changes()[1]]

    def give_back(self, changes: Sequence[SnapshotEntry]) -> None:
        """Take back changes that could not be saved, for the next time."""
        by_part: dict[Part, list[SnapshotEntry]] = {}
        for change in changes:
            by_part.setdefault(self._part_of(change.key), []).append(change)
        for part, own in by_part.items():
            part.give_back(own)

    def restore(self, snapshot: Snapshot) -> None:
        """Begin with a snapshot instead of nothing.

        :raises LogCorruptError: an entry is of a newer version, or cannot be read.
        """
        by_part: dict[Part, dict[str, bytes]] = {}
        for key, data in snapshot.entries.items():
            by_part.setdefault(self._part_of(key), {})[key] = data
        for part in self._parts:
            part.restore(Snapshot(offset=snapshot.offset, entries=by_part.get(part, {})))
        self.applied = snapshot.offset

    def _part_of(self, key: str) -> Part:
        part = self._by_prefix.get(key.partition("/")[0])
        if part is None:
            raise LogCorruptError(
                f"snapshot entry {key} is of a kind that this program does not know; run the newer program"
            )
        return part


@final
class Folding:
    """Folds a log into a state, and saves the state so that the next start is short.

    :ivar state: in step with the log from the end of :meth:`start` on: when an append returns, its record
        is in it.
    :ivar snapshot_every: after how many records the state is saved.
    :ivar saved: the offset up to which the state is durable without the log's records.

    Example::

        folding = Folding(log, [workflows], snapshot_every=1_000)
        await folding.start()
        ...
        await folding.aclose()
    """

    def __init__(self, log: EventLog, parts: Sequence[Part], *, snapshot_every: int) -> None:
        self.state = State(parts)
        self.snapshot_every = snapshot_every
        self.saved = 0
        self._log = log
        self._tried = 0
        self._due = asyncio.Event()
        self._saving = asyncio.Lock()
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
        self._tried = self.saved = self.state.applied
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
        try:
            await self.save()
        except LogError as error:
            _log.warning("snapshot_not_saved", offset=self._tried, reason=str(error))

    async def save(self) -> None:
        """Save what changed.

        :raises LogError: it is not saved; it is tried again with the next changes.
        """
        # One at a time: what one fails to save must not be missing in the next one, which covers it.
        async with self._saving:
            offset, changes = self.state.take_changes()
            self._tried = offset
            if offset == self.saved and not changes:
                return
            try:
                await self._log.save_snapshot(offset, changes)
            except BaseException:  # also when cancelled, which leaves open whether it was saved
                self.state.give_back(changes)
                raise
            self.saved = offset
