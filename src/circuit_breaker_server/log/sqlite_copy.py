"""A log in SQLite while it is copied from another one: in a file of its own until it is whole."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

from circuit_breaker_server.log.contents import LogContents, contents_of_database
from circuit_breaker_server.log.database import open_database, reason, subject_key
from circuit_breaker_server.log.directory_lock import DirectoryLock
from circuit_breaker_server.log.event_log import LogCorruptError, LogError, Record, Snapshot
from circuit_breaker_server.log.packing import encode_entry, encode_record
from circuit_breaker_server.storage.private_files import make_private_directory

__all__ = ["SqliteCopy"]

_BUSY_SECONDS: Final = 5.0
_INSERT: Final = "INSERT INTO records (offset, subject_key, subject, id, body) VALUES (?, ?, ?, ?, ?)"


@final
class SqliteCopy:
    """The target of a copy; ``events.db`` appears whole, or not at all.

    :ivar last_offset: of the last record that is there.

    Example::

        target = SqliteCopy(Path("data"), epoch=source.epoch, first_offset=source.first_offset)
        await target.put(records)
        await target.finish(await source.load_snapshot(), await source.last_removed())
        await target.aclose()
    """

    def __init__(self, directory: Path, *, epoch: str, first_offset: int) -> None:
        """Open the file of a copy that was begun before, or make one.

        :raises LogError: the directory is in use, has an event log, or a copy of another log was begun in it.
        """
        try:
            make_private_directory(directory)
        except OSError as error:
            raise LogError(f"{directory}: cannot be made a data directory ({error.strerror})") from error
        self._directory = directory
        self._lock = DirectoryLock(directory)
        self._path = directory / "events.db.copy"
        with contextlib.ExitStack() as opened:
            opened.callback(self._lock.release)
            self._refuse_a_log()
            self._database = open_database(self._path, busy_timeout_seconds=_BUSY_SECONDS)
            opened.callback(self._database.close)
            self.last_offset = self._begin(epoch, first_offset)
            self._opened = opened.pop_all()

    def _refuse_a_log(self) -> None:
        if (self._directory / "events.db").exists():
            raise LogError(f"{self._directory}: has an event log already; choose another directory")

    def _begin(self, epoch: str, first_offset: int) -> int:
        (last,) = self._database.execute("SELECT max(offset) FROM records").fetchone()
        ((begun,),) = self._database.execute("SELECT epoch FROM log").fetchall()
        if last is None:
            self._database.execute("UPDATE log SET epoch = ?", (epoch,))
        elif begun != epoch:
            raise LogError(f"{self._path}: is the beginning of a copy of another log; remove it")
        return first_offset - 1 if last is None else int(last)

    async def put(self, records: Sequence[Record]) -> None:
        """Append records as they are.

        :raises LogError: they cannot be written.
        """
        rows = [(r.offset, subject_key(r.subject), r.subject, r.id, encode_record(r)) for r in records]
        try:
            self._database.execute("BEGIN")
            self._database.executemany(_INSERT, rows)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise LogError(f"{self._path}: cannot be written: {reason(error)}") from error
        self.last_offset = records[-1].offset

    async def complete(self, last_offset: int) -> LogContents:
        """Read back what was copied. Holes up to ``last_offset`` need nothing here.

        :raises LogError: it cannot be read.
        """
        del last_offset
        try:
            return contents_of_database(self._database)
        except (sqlite3.Error, LogCorruptError) as error:
            raise LogError(f"{self._path}: cannot be read back: {error}") from error

    async def finish(self, snapshot: Snapshot, removed: Record | None) -> None:
        """Put the snapshot and the last removed record beside the records, and let the log be served.

        :raises LogError: they cannot be written.
        """
        entries = [(key, encode_entry(key, data)) for key, data in snapshot.entries.items()]
        trimmed = (0, "00000000") if removed is None else (removed.offset, removed.check)
        try:
            self._database.execute("BEGIN")
            self._database.execute("DELETE FROM snapshot")
            self._database.executemany("INSERT INTO snapshot (key, body) VALUES (?, ?)", entries)
            self._database.execute(
                "UPDATE log SET snapshot_offset = ?, trimmed_offset = ?, trimmed_check = ?",
                (snapshot.offset, *trimmed),
            )
            if removed is not None:
                self._database.execute(
                    "INSERT OR REPLACE INTO removed (one, body) VALUES (1, ?)", (encode_record(removed),)
                )
            self._database.execute("COMMIT")
            self._database.close()  # moves what is in the write-ahead file to the database
            self._path.rename(self._directory / "events.db")
            descriptor = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except sqlite3.Error as error:
            raise LogError(f"{self._path}: cannot be written: {reason(error)}") from error
        except OSError as error:
            raise LogError(f"{self._path}: cannot be renamed ({error.strerror})") from error

    async def aclose(self) -> None:
        """Release the directory. What is not finished is gone on with by the next copy."""
        self._opened.close()
