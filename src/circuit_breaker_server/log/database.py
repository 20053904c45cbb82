"""The SQLite file under the log: made, recognised, and its errors put into words."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

from circuit_breaker_server.log.event_log import LogCorruptError, LogError
from circuit_breaker_server.storage.private_files import make_private_file

__all__ = ["connect", "is_corruption", "is_io_error", "open_database", "open_error", "reason", "subject_key"]

APPLICATION_ID = 0x43424C47  # "CBLG"
SCHEMA_VERSION = 3

# The last record removed by trimming: only its events tell which cursors inside it have missed nothing.
# Beside `log`, not in it: a row of `log` is written again by every snapshot. Format 1 had no such table, and
# nothing that trimmed.
_REMOVED = "CREATE TABLE removed (one INTEGER PRIMARY KEY CHECK (one = 1), body BLOB NOT NULL)"

# The offset is the row's number, which every index entry ends with.
_BY_SUBJECT = "CREATE INDEX records_by_subject_key ON records (subject_key)"

# From the formats that indexed the subjects themselves.
_KEY_SUBJECTS = (
    "ALTER TABLE records ADD COLUMN subject_key INTEGER NOT NULL DEFAULT 0",
    "UPDATE records SET subject_key = subject_key(subject)",
    "DROP INDEX records_by_subject",
    _BY_SUBJECT,
)

# A record's subject and id stand beside its encoded form (`body`, MessagePack of `Record`) so that they can
# be looked for; `body` has all of it so that a batch is read as one value (see reader.py). What is indexed of
# the subject is a number made of it: entries go into the index in no order, each commit writes again every
# page that it touches, and an index of the subjects themselves has six times the pages.
_SCHEMA = (
    """
    CREATE TABLE log (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch TEXT NOT NULL,
        snapshot_offset INTEGER NOT NULL DEFAULT 0,
        trimmed_offset INTEGER NOT NULL DEFAULT 0,
        trimmed_check TEXT NOT NULL DEFAULT '00000000',
        write_failures INTEGER NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE TABLE records (
        offset INTEGER PRIMARY KEY,
        subject_key INTEGER NOT NULL,
        subject TEXT NOT NULL,
        id TEXT NOT NULL,
        body BLOB NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX records_by_id ON records (id)",
    _BY_SUBJECT,
    "CREATE TABLE snapshot (key TEXT PRIMARY KEY, body BLOB NOT NULL)",
    _REMOVED,
)


def subject_key(subject: str) -> int:
    """Return the number that a subject is indexed by, of 31 bits; others may have the same."""
    return zlib.crc32(subject.encode()) & 0x7FFF_FFFF


def is_corruption(error: sqlite3.Error) -> bool:
    """Tell whether the file itself is damaged, as opposed to a disk that refuses right now."""
    return _primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_io_error(error: sqlite3.Error) -> bool:
    """Tell whether the disk failed half-way, so that what was written is unknown."""
    return _primary_code(error) == sqlite3.SQLITE_IOERR


def _primary_code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # absent where Python itself raised
    return code & 0xFF


def reason(error: sqlite3.Error) -> str:
    """Put an error of SQLite into words that tell an operator what to do."""
    match _primary_code(error):
        case sqlite3.SQLITE_FULL:
            return f"{error}; free some space"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"{error}; another program holds the file, end it"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return f"{error}; make it and its directory writable for this user"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_ERROR:
            return f"{error}; restore it from a backup or choose another data directory"
    return str(error)


def connect(path: Path, *, busy_timeout_seconds: float) -> sqlite3.Connection:
    """Open one connection in autocommit mode; whichever thread uses it, only one does at a time."""
    connection = sqlite3.connect(
        path, timeout=busy_timeout_seconds, isolation_level=None, check_same_thread=False
    )
    with _closed_on_error(connection):
        connection.execute("PRAGMA cache_size = -32000")
    return connection


@contextlib.contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def open_database(path: Path, *, busy_timeout_seconds: float) -> sqlite3.Connection:
    """Open the file for writing, making it where there is none.

    :raises LogCorruptError: the file is no database, another program's, a newer version's, or damaged.
    :raises LogError: it cannot be opened or written.
    """
    try:
        with contextlib.suppress(OSError):  # SQLite says more about it
            make_private_file(path)
        connection = connect(path, busy_timeout_seconds=busy_timeout_seconds)
        with _closed_on_error(connection):
            _prepare(connection, path)
    except sqlite3.Error as error:
        raise open_error(path, error) from error
    return connection


def open_error(path: Path, error: sqlite3.Error) -> LogError:
    """Say why the file could not be opened."""
    # At this point a plain error is a table or column that is not there.
    is_damaged = is_corruption(error) or _primary_code(error) == sqlite3.SQLITE_ERROR
    kind = LogCorruptError if is_damaged else LogError
    return kind(f"{path}: cannot be opened: {reason(error)}")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection, path)
    is_new = version == 0
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
    # Also shows at once, not at the first append, that the file can be written.
    connection.execute("BEGIN IMMEDIATE")
    if is_new:
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO log (one, epoch) VALUES (1, ?)", (secrets.token_hex(8),))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    if version == 1:
        connection.execute(_REMOVED)
    if version in (1, 2):
        connection.create_function("subject_key", 1, subject_key, deterministic=True)
        for statement in _KEY_SUBJECTS:
            connection.execute(statement)
    if version != SCHEMA_VERSION:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
    if is_new:
        _sync_directory(path.parent)
        _sync_directory(path.parent.parent)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the file's format, 0 for a new file."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == 0 and version == 0 and tables == 0:
        return 0
    if application != APPLICATION_ID:
        raise LogCorruptError(
            f"{path}: is another program's database; move it away or choose another data directory"
        )
    if not 1 <= version <= SCHEMA_VERSION:
        raise LogCorruptError(
            f"{path}: has format {version}, this version reads up to format {SCHEMA_VERSION}; "
            "start the version that wrote it"
        )
    return int(version)


def _sync_directory(directory: Path) -> None:
    # SQLite syncs the directory for its journals only: without this a power cut may lose the new file's name.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
