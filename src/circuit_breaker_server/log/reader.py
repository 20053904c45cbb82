"""Read the SQLite log on the reader thread: batches of records, one record's check, the snapshot."""

from __future__ import annotations

import contextlib
import functools
import re
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from operator import attrgetter
from pathlib import Path
from typing import final

from circuit_breaker_server.log.database import connect, is_corruption, open_error, reason, subject_key
from circuit_breaker_server.log.event_log import LogCorruptError, LogError, LogPage, Record, Snapshot
from circuit_breaker_server.log.packing import Damaged, decode_entries, decode_records

__all__ = ["Reader", "Selector", "open_reader"]

_ENTRIES_STEP = 5000

_BATCH = """
    SELECT count(*), CAST(group_concat(body, '') AS BLOB) FROM (
        SELECT body FROM records WHERE offset > ? AND offset <= ? {condition} ORDER BY offset LIMIT ?
    )
"""
# The sizes are looked at first: of a body that does not fit, no more is read than its length.
_SIZES = """
    SELECT group_concat(size) FROM (
        SELECT length(body) AS size FROM records
        WHERE offset > ? AND offset <= ? {condition} ORDER BY offset LIMIT ?
    )
"""
_ENTRIES = """
    SELECT count(*), CAST(group_concat(body, '') AS BLOB), max(rowid) FROM (
        SELECT rowid, body FROM snapshot WHERE rowid > ? ORDER BY rowid LIMIT ?
    )
"""
_SINGLE = """
    SELECT offset, body FROM records WHERE offset > ? AND offset <= ? {condition} ORDER BY offset LIMIT ?
"""
_SIZE = "SELECT coalesce(sum(length(body)), 0) FROM records WHERE offset > ? AND offset <= ?"
_by_offset = attrgetter("offset")


@final
class Selector:
    """The subject patterns of one read, as SQL and as a filter for what SQL cannot express."""

    def __init__(self, patterns: Sequence[str]) -> None:
        exact = [p for p in patterns if "*" not in p and ">" not in p]
        wild = [p for p in patterns if "*" in p or ">" in p]
        self.takes_all = ">" in patterns
        self.is_indexed = not wild
        """Whether SQLite finds the records by subject; otherwise it walks over all offsets."""
        self._keeps = None if self.takes_all or not wild else _one_of(tuple(patterns))
        # GLOB took too much of a lone pattern of `*` only where a subject has more dots than the pattern.
        self._dots = (
            patterns[0].count(".") if len(wild) == len(patterns) == 1 and _has_stars(wild[0]) else None
        )
        # GLOB's * crosses dots: it selects somewhat more than wanted, `keep` is exact. (A Python function in
        # the query would need the interpreter's lock for every row.)
        terms = ["subject_key = ? AND subject = ?"] * len(exact) + ["subject GLOB ?"] * len(wild)
        keyed = (parameter for subject in exact for parameter in (subject_key(subject), subject))
        self.parameters: tuple[object, ...] = () if self.takes_all else (*keyed, *map(_glob, wild))
        condition = "" if self.takes_all else f"AND ({' OR '.join(terms) or 'FALSE'})"
        self.query = _BATCH.format(condition=condition)
        self.sizes_query = _SIZES.format(condition=condition)
        self.one_by_one = _SINGLE.format(condition=condition)

    def keep(self, records: list[Record]) -> list[Record]:
        """Drop what the query selected too much."""
        keeps, dots = self._keeps, self._dots
        if dots is not None:
            return [r for r in records if r.subject.count(".") == dots]
        return records if keeps is None else [r for r in records if keeps(r.subject)]


def _has_stars(pattern: str) -> bool:
    """Tell whether ``*`` is the only wildcard of a pattern, and stands for whole tokens."""
    return ">" not in pattern and all(part == "*" or "*" not in part for part in pattern.split("."))


@functools.lru_cache(maxsize=1024)
def _one_of(patterns: tuple[str, ...]) -> Callable[[str], object]:
    """Return what tells whether a subject fits one of the patterns: ``matches``, many times faster."""
    return re.compile("|".join(map(_expression, patterns)), re.DOTALL).fullmatch


def _expression(pattern: str) -> str:
    *parts, last = pattern.split(".")
    wild = {"*": "[^.]*"}
    expressions = [wild.get(part, re.escape(part)) for part in parts]
    return r"\.".join((*expressions, (wild | {">": ".*"}).get(last, re.escape(last))))


def _glob(pattern: str) -> str:
    escaped = pattern.replace("[", "[[]").replace("?", "[?]")
    return f"{escaped[:-1]}*" if escaped.endswith(">") else escaped


def _fitting(sizes: str | None, max_bytes: int) -> int:
    """Return how many of the bodies it takes to reach ``max_bytes``, or how many there are."""
    sums = list(accumulate(map(int, sizes.split(",")))) if sizes else []
    return min(len(sums), bisect_left(sums, max_bytes) + 1)


@final
class Reader:
    """Own a connection that only reads. Every method runs on the reader thread, one at a time."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        connection.execute("PRAGMA query_only = ON")
        # What is read once is kept by the system too: a replay would fill the writer's 32 MB, and keep them.
        connection.execute("PRAGMA cache_size = -1000")

    def batch(
        self, selector: Selector, *, after: int, upto: int, limit: int, max_bytes: int | None = None
    ) -> tuple[LogPage, int]:
        """Return up to ``limit`` records in (after, upto], and their bytes.

        It ends with the record at which the bytes reach ``max_bytes``, as they are encoded: slightly more
        than those of the bodies.
        """
        with self._read_errors():
            if max_bytes is None:
                count = limit
                parameters = (after, upto, *selector.parameters, count)
                row = self._connection.execute(selector.query, parameters).fetchone()
            else:
                with self._transaction():  # of both steps: a trim between them would move the bound
                    parameters = (after, upto, *selector.parameters, limit)
                    (sizes,) = self._connection.execute(selector.sizes_query, parameters).fetchone()
                    count = _fitting(sizes, max_bytes)
                    parameters = (after, upto, *selector.parameters, count)
                    row = self._connection.execute(selector.query, parameters).fetchone()
            try:
                found = decode_records(*row)
            except Damaged:
                self._name_the_damaged(selector, parameters)
                raise
        # SQLite does not promise that group_concat keeps the order of its input; sorting the sorted is cheap.
        found.sort(key=_by_offset)
        size = len(row[1] or b"")
        is_cut = len(found) == limit or (max_bytes is not None and size >= max_bytes)
        reached = found[-1].offset if is_cut else upto
        return LogPage(selector.keep(found), reached), size

    def _name_the_damaged(self, selector: Selector, parameters: tuple[object, ...]) -> None:
        """Find the first record of a batch that cannot be read.

        :raises LogCorruptError: it is found.
        """
        for offset, body in self._connection.execute(selector.one_by_one, parameters):
            try:
                decode_records(1, body)
            except Damaged as error:
                raise LogCorruptError(
                    f"{self._path}: holds what no log has written: record {offset} is damaged ({error}); "
                    "restore it from a backup"
                ) from error

    def check(self, offset: int) -> str | None:
        """Return the check of the record at the offset, also for the last one trimmed."""
        with self._read_errors():
            row = self._connection.execute(
                "SELECT substr(id, -8) FROM records WHERE offset = ? "
                "UNION ALL SELECT trimmed_check FROM log WHERE trimmed_offset = ?",
                (offset, offset),
            ).fetchone()
        return None if row is None else str(row[0])

    def bounds(self) -> tuple[str, int, int]:
        """Return the log's epoch, and the offsets of its first kept record, or where it will be, and last."""
        with self._read_errors():
            epoch, trimmed, first, last = self._connection.execute(
                "SELECT epoch, trimmed_offset, (SELECT min(offset) FROM records), "
                "(SELECT max(offset) FROM records) FROM log"
            ).fetchone()
        return epoch, first or trimmed + 1, max(trimmed, last or 0)

    def last_removed(self) -> Record | None:
        """Return the last record that a trim removed."""
        with self._read_errors():
            row = self._connection.execute("SELECT count(*), max(body) FROM removed").fetchone()
            return next(iter(decode_records(*row)), None)

    def size_bytes(self, *, after: int, upto: int) -> int:
        """Return the bytes of the encoded records in (after, upto]; long bodies are not read for it."""
        with self._read_errors():
            (size,) = self._connection.execute(_SIZE, (after, upto)).fetchone()
        return int(size)

    def snapshot(self) -> Snapshot:
        """Read the snapshot as it stands at one moment."""
        entries: dict[str, bytes] = {}
        with self._read_errors(), self._transaction():
            (offset,) = self._connection.execute("SELECT snapshot_offset FROM log").fetchone()
            last: int | None = 0
            while last is not None:
                count, bodies, last = self._connection.execute(_ENTRIES, (last, _ENTRIES_STEP)).fetchone()
                entries.update(decode_entries(count, bodies))
        return Snapshot(offset=offset, entries=entries)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _read_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            kind = LogCorruptError if is_corruption(error) else LogError
            raise kind(f"{self._path}: cannot be read: {reason(error)}") from error
        except Damaged as error:
            raise LogCorruptError(f"{self._path}: holds what no log has written: {error}") from error


def open_reader(path: Path, *, busy_timeout_seconds: float = 5.0) -> Reader:
    """Open a file that another process may be writing.

    :raises LogCorruptError: it is no log.
    :raises LogError: it cannot be opened.
    """
    try:
        connection = connect(path, busy_timeout_seconds=busy_timeout_seconds)
        try:
            return Reader(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise open_error(path, error) from error
