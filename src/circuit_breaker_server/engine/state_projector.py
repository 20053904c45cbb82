"""The state kept in step with the log: restored at the start, followed, saved now and then.

A record that cannot be applied stops the engine (fail-stop): a state that lacks one record is wrong in every
answer after it, and the next snapshot would hide the hole for ever. Nothing is appended or saved after that;
a restart applies the record again. An operator can have one record skipped (:mod:`.skipping`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import final

from circuit_breaker_server.engine.command_origin import origin_of
from circuit_breaker_server.engine.record_bodies import NewerRecord, require_readable
from circuit_breaker_server.engine.record_versions import VERSION
from circuit_breaker_server.engine.skipped_records import ABOUT_LOG, Skipped, load_skipped
from circuit_breaker_server.engine.state_tables import Part
from circuit_breaker_server.log.event_log import (
    EventLog,
    LogCorruptError,
    LogError,
    Record,
    Snapshot,
    SnapshotEntry,
)
from circuit_breaker_server.logs import get_logger

__all__ = ["Folding", "RecordNotApplied", "State"]

# Appends wait while a snapshot is written: some 5 ms for so many entries. What changes over and over is
# written once for many records.
_MANY_CHANGES = 1_000

_log = get_logger("engine")


@final
class RecordNotApplied(LogError):
    """A record, or a change that follows from it, could not be applied: the engine stopped or did not start.

    :ivar offset: of the record.
    """

    def __init__(self, offset: int, text: str) -> None:
        self.offset = offset
        super().__init__(text)


def _not_applied(record: Record, error: BaseException) -> RecordNotApplied:
    try:
        release = origin_of(record).release or "unknown"
    except LogCorruptError:
        release = "unknown"
    if isinstance(error, NewerRecord):
        return RecordNotApplied(
            record.offset,
            f"{error}. It was written by release {release} (record {record.offset}). Nothing is lost, and "
            "the nodes that read it go on; docs/cluster.md",
        )
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return RecordNotApplied(
        record.offset,
        f"record {record.offset} ({record.subject}), written by release {release}, could not be applied to "
        f"the state: {reason}. Nothing is lost: start the release that wrote it, or have the record skipped "
        f"with `circuit-breaker log skip {record.offset} --reason …`",
    )


@final
class State:
    """The state of all domains: each part folds the records of its subjects.

    :param reads: the newest version of records that is read.
    :ivar applied: the offset of the last record applied.
    :ivar skipped: by offset: records that are not applied because an operator said so.
    """

    def __init__(self, parts: Sequence[Part], *, reads: int = VERSION) -> None:
        self.applied = 0
        self._reads = reads
        self.skipped: Mapping[int, Skipped] = {}
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
        token = record.subject.partition(".")[0]
        if token == ABOUT_LOG or record.offset in self.skipped:
            self.applied = record.offset
            return
        parts = self._by_token.get(token)
        if parts is None:
            raise LogCorruptError(
                f"record {record.offset} ({record.subject}) is of a kind that this program does not know; "
                "run the program that wrote it"
            )
        if self._reads < VERSION:
            require_readable(record, self._reads)
        for part in parts:
            part.apply(record)
        self.applied = record.offset

    def count_changes(self) -> int:
        """Return how many entries have changed since changes were last taken."""
        return sum([part.count_changes() for part in self._parts])

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
        by_part: dict[Part | None, dict[str, bytes]] = {}
        for key, data in snapshot.entries.items():
            by_part.setdefault(self._by_prefix.get(key.partition("/")[0]), {})[key] = data
        # In this order: the nodes' part refuses a newer format, which explains whatever else is unknown.
        for part in self._parts:
            part.restore(Snapshot(offset=snapshot.offset, entries=by_part.get(part, {})))
        for key in by_part.get(None, ()):
            self._part_of(key)
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

    :param reads: the newest version of records that is read.
    :param may_save: tells whether the state is saved when that is due, or another node does it.
    :param followers: called with each record that was appended since the start, after it was applied; one
        that raises stops the engine as a record that cannot be applied does.
    :param catch_up: brings the followers to the end of the log before they are called; it is called again
        while others append.
    :ivar failure: why the state stopped following the log for good; ``None`` while it follows.
    :ivar state: in step with the log from the end of :meth:`start` on: when an append returns, its record
        is in it.
    :ivar snapshot_every: after how many records the state is saved; after 1,000 already, if they changed as
        many of its entries.
    :ivar saved: the offset up to which the state is durable without the log's records.

    Example::

        folding = Folding(log, [workflows], snapshot_every=10_000)
        await folding.start()
        ...
        await folding.aclose()
    """

    def __init__(
        self,
        log: EventLog,
        parts: Sequence[Part],
        *,
        snapshot_every: int,
        reads: int = VERSION,
        may_save: Callable[[], bool] = lambda: True,
        followers: Sequence[Callable[[Record], None]] = (),
        catch_up: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.state = State(parts, reads=reads)
        self.failure: RecordNotApplied | None = None
        self.on_failure: Callable[[RecordNotApplied], object] | None = None
        self._followers = tuple(followers)
        self._catch_up = catch_up
        self.snapshot_every = snapshot_every
        self._may_save = may_save
        self.saved = 0
        self._log = log
        self._tried = 0
        self._due = asyncio.Event()
        self._saving = asyncio.Lock()
        self._closing = False
        # True while records are being applied: where it stays so, half of a change may be in the state.
        self._is_applying = False
        self._saver: asyncio.Task[None] | None = None
        self._end_tail: Callable[[], None] | None = None

    @property
    def running(self) -> bool:
        """Whether the state follows the log: between :meth:`start` and :meth:`aclose`."""
        return self._saver is not None and not self._closing and self.failure is None

    async def start(self) -> None:
        """Fold the log's snapshot and the records after it, then follow the log.

        :raises LogCorruptError: the snapshot, or a record that has to be skipped, cannot be read.
        :raises RecordNotApplied: a record cannot be applied, or the log is of a newer format.
        :raises LogError: the log cannot be asked how far it is.
        """
        self.state.skipped = await load_skipped(self._log)
        snapshot = await self._log.load_snapshot()
        try:
            self.state.restore(snapshot)
        except NewerRecord as error:
            raise RecordNotApplied(
                snapshot.offset,
                f"{error}. Nothing is lost, and the nodes that read it go on; docs/cluster.md",
            ) from error
        self._tried = self.saved = self.state.applied
        # Another node may have saved it, up to a record that the tail of this one has not seen yet.
        await self._log.reaches(snapshot.offset)
        upto = -1
        while upto < self._log.last_offset:  # others may append while this reads
            upto = self._log.last_offset
            async for record in self._log.scan(after=self.state.applied, upto=upto):
                try:
                    self.state.apply(record)
                except Exception as error:
                    raise _not_applied(record, error) from error
            if self._catch_up is not None:
                await self._catch_up()
        # No await in between: the tail goes on where the scan ended.
        self._end_tail = self._log.tail(self._follow)
        self._saver = asyncio.create_task(self._save_when_due(), name="engine-snapshots")
        self._notice_due()

    async def aclose(self, *, save: bool = True) -> None:
        """Stop following, and save the state if asked to. Idempotent; the log stays open."""
        if self._saver is None or self._closing:
            return
        self._closing = True
        self._due.set()
        await self._saver
        if self._end_tail is not None:
            self._end_tail()
        if self.failure is None and save:
            await self._save()

    def has_applied(self, offset: int) -> bool:
        """Tell whether a record that the tails have seen is in the state; if not, the engine stops."""
        is_applied = offset <= self.state.applied and not self._is_applying
        if not is_applied and self.failure is None:
            self._fail(RecordNotApplied(offset, f"record {offset} was not applied to the state"), None)
        return self.failure is None

    def _follow(self, records: Sequence[Record]) -> None:
        if self._is_applying or self.failure is not None:
            return
        self._is_applying = True
        record = records[0]
        try:
            for record in records:
                self.state.apply(record)
                for follower in self._followers:
                    follower(record)
            self._notice_due()
        except BaseException as error:
            self._fail(_not_applied(record, error), error)
            if not isinstance(error, Exception):
                raise
        else:
            self._is_applying = False

    def _fail(self, failure: RecordNotApplied, cause: BaseException | None) -> None:
        """Stop for good: what is in memory may be half of a change."""
        self.failure = failure
        self._due.set()  # ends the saver
        _log.critical("engine_stopped", offset=failure.offset, reason=str(failure), exc_info=cause)
        if self.on_failure is not None:
            self.on_failure(failure)

    def _notice_due(self) -> None:
        if not self._may_save():
            return
        records = self.state.applied - self._tried
        if records >= self.snapshot_every or (
            records >= _MANY_CHANGES and self.state.count_changes() >= _MANY_CHANGES
        ):
            self._due.set()

    async def _save_when_due(self) -> None:
        while True:
            await self._due.wait()
            if self._closing or self.failure is not None:
                return
            self._due.clear()
            await self._save()

    async def _save(self) -> None:
        """Save what changed; a failure is logged and tried again with the next changes."""
        try:
            await self.save()
        except (LogError, ValueError) as error:  # ValueError: another node has saved a newer one
            _log.warning("snapshot_not_saved", offset=self._tried, reason=str(error))

    async def save(self) -> None:
        """Save what changed.

        :raises LogError: it is not saved; it is tried again with the next changes.
        """
        # One at a time: what one fails to save must not be missing in the next one, which covers it.
        async with self._saving:
            if not self.has_applied(self._log.last_offset):
                raise self.failure or LogError("the state does not follow the log any more")
            try:
                offset, changes = self.state.take_changes()
            except Exception as error:
                # Some of the changes are taken out of their tables, and not in our hands.
                raise self._cannot_save(error) from error
            self._tried = offset
            if offset == self.saved and not changes:
                return
            try:
                await self._log.save_snapshot(offset, changes)
            except BaseException:  # also when cancelled, which leaves open whether it was saved
                try:
                    self.state.give_back(changes)
                except Exception as error:
                    raise self._cannot_save(error) from error
                raise
            self.saved = offset

    def _cannot_save(self, cause: Exception) -> RecordNotApplied:
        offset = self.state.applied
        failure = RecordNotApplied(
            offset,
            f"the state at record {offset} could not be written: {type(cause).__name__}: {cause}. "
            "Nothing is lost: start the server again",
        )
        self._fail(failure, cause)
        return failure
