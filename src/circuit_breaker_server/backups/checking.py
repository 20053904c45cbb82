"""Read a backup back: each file by its digest, the event log record by record."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from circuit_breaker_server.backups.manifest import (
    EVENTS_FILE,
    SECRETS_FILE,
    BackupError,
    Manifest,
    digest_of,
)
from circuit_breaker_server.log.contents import LogContents, contents_of_database
from circuit_breaker_server.log.event_log import LogCorruptError

__all__ = ["check_backup", "read_log"]


def check_backup(directory: Path) -> Manifest:
    """Return the manifest of a backup that is whole.

    :raises BackupError: a file is missing, or is not as it was written.
    """
    manifest = Manifest.read(directory)
    for name, expected in manifest.files.items():
        path = directory / name
        try:
            found = digest_of(path)
        except OSError as error:
            raise BackupError(f"{path}: {error.strerror}; the backup is not whole") from error
        if found != expected:
            raise BackupError(f"{path}: is not as it was written; the backup is damaged")
    if read_log(directory / EVENTS_FILE) != manifest.log:
        raise BackupError(f"{directory / EVENTS_FILE}: has other records than were written")
    if SECRETS_FILE in manifest.files:
        _check_integrity(directory / SECRETS_FILE)
    return manifest


def read_log(path: Path) -> LogContents:
    """Read an event log that no process writes, each record whole.

    :raises BackupError: it is damaged.
    """
    _check_integrity(path)
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
            return contents_of_database(database)
    except (sqlite3.Error, LogCorruptError, ValueError) as error:
        raise BackupError(f"{path}: is damaged: {error}") from error


def _check_integrity(path: Path) -> None:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
            found = [row for (row,) in database.execute("PRAGMA integrity_check")]
    except sqlite3.Error as error:
        raise BackupError(f"{path}: is damaged: {error}") from error
    if found != ["ok"]:
        raise BackupError(f"{path}: is damaged: {found[0]}")
