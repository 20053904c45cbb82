"""Write the SQLite log on the writer thread: a transaction per group of appends, snapshots, trimming."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import final

import msgspec

from circuit_breaker_server.log.database import is_corruption, is_io_error, reason, subject_key
from circuit_breaker_server.log.event_log import (
    ExpectationFailed,
    LogCorruptError,
    LogError,
    LogWriteError,
    NewRecord,
    Record,
    SnapshotEntry,
)
from circuit_breaker_server.log.last_offsets import LastOffsets
from circuit_breaker_server.log.marks import Marks
from circuit_breaker_server.log.packing import (
    Damaged,
    decode_records,
    encode_entry,
    encode_record,
    json_text,
    pack,
)

__all__ = ["Writer"]

# Trimming goes in steps of this many records, so that appends wait for a step and not for all of it.
_TRIM_STEP = 500
_SNAPSHOT_CHUNK = 2000

# The records that have one of the ids, and the last offset of each subject, from the end of its part of the
# index: max() would walk over all of it, because other subjects may have the same key.
_LOOK_UP = """
    SELECT count(*), CAST(group_concat(body, '') AS BLOB), (
        SELECT json_group_object(wanted.subject, (
            SELECT offset FROM records
            WHERE subject_key = wanted.subject_key AND subject = wanted.subject
            ORDER BY offset DESC LIMIT 1
        ))
        FROM (
            SELECT json_extract(value, '$[0]') AS subject_key, json_extract(value, '$[1]') AS subject
            FROM json_each(?)
        ) AS wanted
    )
    FROM records WHERE id IN (SELECT value FROM json_each(?))
"""
_INSERT_VALUES = "INSERT INTO records (offset, subject_key, subject, id, body) VALUES (?, ?, ?, ?, ?)"
# Rows whose offset is null are left out: one statement serves for groups of many sizes.
_INSERT_ROWS = """
    INSERT INTO records (offset, subject_key, subject, id, body)
    SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL
"""
# For groups that are too big for values of their own.
_INSERT = """
    INSERT INTO records (offset, subject_key, subject, id, body)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
           json_extract(value, '$[3]'), substr(?, json_extract(value, '$[4]'), json_extract(value, '$[5]'))
    FROM json_each(?)
"""
# A prepared statement keeps the last values that it was given.
_VALUES_BYTES = 1024 * 1024
_ROWS = 1024
_PARAMETERS = 5
_PUT_ENTRIES = """
    INSERT OR REPLACE INTO snapshot (key, body)
    SELECT json_extract(value, '$[0]'),
           substr(?, json_extract(value, '$[1]'), json_extract(value, '$[2]'))
    FROM json_each(?)
"""
_REMEMBER_CHECK = """
    UPDATE log SET (trimmed_offset, trimmed_check) =
        (SELECT offset, substr(id, -8) FROM records WHERE offset < ? ORDER BY offset DESC LIMIT 1)
"""
_REMEMBER_RECORD = """
    INSERT OR REPLACE INTO removed (one, body)
    SELECT 1, body FROM records WHERE offset < ? ORDER BY offset DESC LIMIT 1
"""
_last_offsets = msgspec.json.Decoder(dict[str, int | None])


# A statement for each power of two: the connection keeps them prepared.
_INSERTS = {1: _INSERT_VALUES} | {
    count: _INSERT_ROWS.format(rows=", ".join(["(?, ?, ?, ?, ?)"] * count))
    for count in (1 << power for power in range(1, _ROWS.bit_length()))
}


@final
class Writer:
    """Own the connection that writes. Every method runs on the writer thread, one at a time.

    Only the attributes may be read from elsewhere: whole numbers and a string, each true when read.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        row = connection.execute(
            "SELECT epoch, snapshot_offset, trimmed_offset, "
            "(SELECT min(offset) FROM records), (SELECT max(offset) FROM records) FROM log"
        ).fetchone()
        if row is None:
            raise LogCorruptError(f"{path}: has no description of itself; restore it from a backup")
        self.epoch: str = row[0]
        self.snapshot_offset: int = row[1]
        self.last_offset: int = max(row[2], row[4] or 0)
        self.first_offset: int = row[3] or self.last_offset + 1
        self._last_offsets = LastOffsets()
        self._marks = Marks(began_at=self.last_offset)
        parameters = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        self._max_rows = min(_ROWS, 1 << (parameters // _PARAMETERS).bit_length() - 1)

    def append(self, group: Sequence[NewRecord]) -> list[Record | ExpectationFailed]:
        """Commit a group; the outcomes are in its order. A failure to write fails all of it.

        What takes the least is tried first, one statement: subjects end where it is remembered that they do,
        and all ids are new. Nothing is answered that rests on the second: an id that there is already keeps
        the statement from inserting anything.

        :raises LogError: nothing of the group was appended.
        """
        with self._write_errors("append"):
            last, others = self._remembered(group)
            if not others:
                outcomes, new, marks = self._decide(group, {}, last)
                # A record that does not fit may be one that has been appended before.
                if len(new) == len(group) and self._try_insert(new):
                    self._marks.put(marks)
                    return outcomes
                last, _ = self._remembered(group)
            known, found = self._look_up(group, others)
            outcomes, new, marks = self._decide(group, known, last | found)
            if new:
                self._insert(new)
                self._marks.put(marks)
        return outcomes

    def _remembered(self, group: Sequence[NewRecord]) -> tuple[dict[str, int | None], set[str]]:
        """Return the last offset of each expected subject that is remembered, and the other ones."""
        last: dict[str, int | None] = {}
        others: set[str] = set()
        get, first_offset = self._last_offsets.get, self.first_offset
        for record in group:
            if record.expected is not None:
                subject = record.subject
                offset = get(subject)
                if offset is None:
                    others.add(subject)
                else:
                    last[subject] = offset if offset >= first_offset else None
        return last, others

    def _try_insert(self, new: Sequence[Record]) -> bool:
        """Insert the records, or none of them where an id is there already."""
        try:
            self._insert(new)
        except sqlite3.IntegrityError:
            return False
        return True

    def _insert(self, new: Sequence[Record]) -> None:
        """Insert the records. One statement in autocommit mode is one transaction, synced when it returns."""
        bodies = [encode_record(record) for record in new]
        if len(new) <= self._max_rows and sum(map(len, bodies)) <= _VALUES_BYTES:
            count = 1 << (len(new) - 1).bit_length()
            values: list[object] = []
            for r, body in zip(new, bodies, strict=True):
                values += (r.offset, subject_key(r.subject), r.subject, r.id, body)
            values += [None] * (_PARAMETERS * count - len(values))
            self._connection.execute(_INSERTS[count], values)
        else:
            columns = ((r.offset, subject_key(r.subject), r.subject, r.id) for r in new)
            self._connection.execute(_INSERT, pack(zip(columns, bodies, strict=True)))
        self.last_offset = new[-1].offset
        self._last_offsets.put(new)

    def _look_up(
        self, group: Sequence[NewRecord], subjects: Set[str]
    ) -> tuple[dict[str, Record], dict[str, int | None]]:
        """Return what is there already of the group's ids, and the last offset of each of the subjects."""
        ids = [record.id for record in group]
        parameters = (json_text([(subject_key(each), each) for each in subjects]), json_text(ids))
        count, bodies, last = self._connection.execute(_LOOK_UP, parameters).fetchone()
        return {r.id: r for r in decode_records(count, bodies)}, _last_offsets.decode(last)

    def _decide(
        self, group: Sequence[NewRecord], known: dict[str, Record], last: dict[str, int | None]
    ) -> tuple[list[Record | ExpectationFailed], list[Record], dict[str, int]]:
        """Return the outcomes, and what is new: the records, and the marks that come with them."""
        outcomes: list[Record | ExpectationFailed] = []
        new: list[Record] = []
        marks: dict[str, int] = {}
        time_ms = time.time_ns() // 1_000_000
        offset = self.last_offset
        for wanted in group:
            if (record := known.get(wanted.id)) is not None:
                outcomes.append(record)
                continue
            if wanted.expected is not None:
                actual = last[wanted.subject]
                holds = wanted.expected < self.first_offset if actual is None else wanted.expected == actual
                if not holds:
                    outcomes.append(
                        ExpectationFailed(wanted.subject, expected=wanted.expected, actual=actual or 0)
                    )
                    continue
            if wanted.guards is not None:
                refusal = self._marks.refusal(wanted.guards, marks)
                if refusal is not None:
                    outcomes.append(refusal)
                    continue
                marks.update(dict.fromkeys(wanted.guards.marks, offset + 1))
            offset += 1
            record = Record(
                offset=offset, subject=wanted.subject, id=wanted.id, time_ms=time_ms, data=wanted.data
            )
            known[record.id] = record
            last[record.subject] = offset
            new.append(record)
            outcomes.append(record)
        return outcomes, new, marks

    def save_snapshot(self, offset: int, changed: Sequence[SnapshotEntry]) -> None:
        """Write the entries and the offset in one transaction.

        :raises ValueError: the snapshot would go backwards, or a key holds a NUL character.
        :raises LogError: nothing changed.
        """
        if offset < self.snapshot_offset:
            raise ValueError(f"the snapshot is at {self.snapshot_offset} already, it does not go to {offset}")
        final_data = {entry.key: entry.data for entry in changed}
        if any("\x00" in key for key in final_data):
            raise ValueError("a key of the snapshot has no NUL characters")
        removed = [key for key, data in final_data.items() if data is None]
        put = [(key, data) for key, data in final_data.items() if data is not None]
        with self._write_errors("save a snapshot"), self._transaction():
            for i in range(0, len(put), _SNAPSHOT_CHUNK):
                rows = (((key,), encode_entry(key, data)) for key, data in put[i : i + _SNAPSHOT_CHUNK])
                self._connection.execute(_PUT_ENTRIES, pack(rows))
            self._connection.execute(
                "DELETE FROM snapshot WHERE key IN (SELECT value FROM json_each(?))", (json_text(removed),)
            )
            self._connection.execute("UPDATE log SET snapshot_offset = ?", (offset,))
        self.snapshot_offset = offset

    def trim(self, before: int) -> int:
        """Remove the next few records below ``before``; return how many, 0 when all are gone.

        :raises ValueError: records would go that the snapshot does not cover.
        :raises LogError: nothing was removed.
        """
        if before > self.snapshot_offset + 1:
            raise ValueError(f"the snapshot covers {self.snapshot_offset}: {before} would trim above it")
        end = min(before, self.first_offset + _TRIM_STEP)
        if end <= self.first_offset:
            return 0
        first_before = self.first_offset
        try:
            with self._write_errors("trim"), self._transaction():
                self._connection.execute(_REMEMBER_CHECK, (end,))
                self._connection.execute(_REMEMBER_RECORD, (end,))
                removed = self._connection.execute("DELETE FROM records WHERE offset < ?", (end,)).rowcount
                (first,) = self._connection.execute("SELECT min(offset) FROM records").fetchone()
                # Before the commit: a reader of what it leaves must find the offset moved.
                self.first_offset = first or self.last_offset + 1
        except LogError:
            self.first_offset = first_before
            raise
        return removed

    def touch(self) -> None:
        """Write, and sync, what changes nothing.

        :raises LogError: that was not possible.
        """
        with self._write_errors("write"):
            self._connection.execute("UPDATE log SET write_failures = write_failures")

    def close(self) -> None:
        """Close the connection; SQLite moves what is in the write-ahead file to the database."""
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        yield
        self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def _write_errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self._undo(error)
            kind: type[LogError] = LogCorruptError if is_corruption(error) else LogWriteError
            raise kind(f"{self._path}: cannot {doing}: {reason(error)}") from error
        except (msgspec.MsgspecError, Damaged) as error:
            raise LogCorruptError(f"{self._path}: holds what no log has written: {error}") from error

    def _undo(self, error: sqlite3.Error) -> None:
        self._last_offsets.clear()
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        if is_io_error(error):
            # When only the sync failed, the transaction stands complete in the write-ahead file, and recovery
            # after a crash would take it for committed. Writing anything else there overwrites its start.
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("UPDATE log SET write_failures = write_failures + 1")
