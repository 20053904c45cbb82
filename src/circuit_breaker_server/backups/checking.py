"""Read a backup back: each file by its digest, the event log record by record."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from circuit_breaker_server.backups.manifest import (
    EVENTS_FILE,
    SECRETS_FILE,
    BackupError,
    LogContents,
    Manifest,
    digest_of,
)
from circuit_breaker_server.log.event_log import Record

__all__ = ["check_backup", "read_log"]

_RECORD = msgspec.msgpack.Decoder(Record)


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
    digest, count, first = hashlib.sha256(), 0, 0
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
            ((epoch, trimmed),) = database.execute("SELECT epoch, trimmed_offset FROM log").fetchall()
            last = trimmed
            for offset, body in database.execute("SELECT offset, body FROM records ORDER BY offset"):
                record = _RECORD.decode(body)
                if record.offset != offset or offset <= last:
                    raise BackupError(f"{path}: the record at offset {offset} is damaged")
                digest.update(offset.to_bytes(8, "big") + len(body).to_bytes(8, "big") + body)
                count, last, first = count + 1, offset, first or offset
    except (sqlite3.Error, msgspec.DecodeError, ValueError) as error:
        raise BackupError(f"{path}: is damaged: {error}") from error
    return LogContents(
        epoch=epoch,
        first_offset=first or last + 1,
        last_offset=last,
        records=count,
        digest=digest.hexdigest(),
    )


def _check_integrity(path: Path) -> None:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
            found = [row for (row,) in database.execute("PRAGMA integrity_check")]
    except sqlite3.Error as error:
        raise BackupError(f"{path}: is damaged: {error}") from error
    if found != ["ok"]:
        raise BackupError(f"{path}: is damaged: {found[0]}")
