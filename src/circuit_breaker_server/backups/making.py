"""Copy a data directory while the server runs, so that the copies belong together.

The audit log and its anchor are copied before the event log: at its start a server writes the audit lines of
the records that it finds without one. Secrets are copied before and after it: a record may name one that was
kept just before, or removed just after.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from circuit_breaker_sdk._version import __version__
from circuit_breaker_server.backups.checking import check_backup, read_log
from circuit_breaker_server.backups.manifest import (
    ANCHOR_FILE,
    AUDIT_DIRECTORY,
    AUDIT_KEY_FILE,
    EVENTS_FILE,
    KEY_FILES,
    SECRETS_FILE,
    BackupError,
    Manifest,
    digest_of,
    sync,
)
from circuit_breaker_server.security.audit import AuditPaths
from circuit_breaker_server.storage.private_files import make_private_directory, make_private_file

__all__ = ["make_backup"]

_ATTEMPTS: Final = 5


def make_backup(data_dir: Path, target: Path, *, anchor: Path | None = None) -> Manifest:
    """Copy a data directory, whose server may run, and read the copy back.

    Keys that are in the directory are in the backup: keep it as private as the directory itself.

    :param target: the directory to make; it appears whole, or not at all.
    :param anchor: of the audit log; ``None`` stands beside the data directory.
    :raises BackupError: there is no event log, the target is there already, a file cannot be read or
        written, or the copy is not whole.
    """
    if not (data_dir / EVENTS_FILE).exists():
        raise BackupError(f"{data_dir}: has no event log; name the server's data directory")
    if target.exists():
        raise BackupError(f"{target}: is there already; name a directory that is not")
    partial = target.with_name(f"{target.name}.partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        make_private_directory(partial)
        _copy(data_dir, partial, anchor or AuditPaths.of(data_dir).anchor)
        names = sorted(path for path in partial.rglob("*") if path.is_file())
        manifest = Manifest(
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
            log=read_log(partial / EVENTS_FILE),
            files={str(path.relative_to(partial)): digest_of(path) for path in names},
        )
        for path in names:
            sync(path)
        manifest.write(partial)
        sync(partial)
        check_backup(partial)
        partial.rename(target)
        sync(target.parent)
    except OSError as error:
        raise BackupError(f"{error.filename or target}: {error.strerror}") from error
    return manifest


def _copy(data_dir: Path, target: Path, anchor: Path) -> None:
    for name in KEY_FILES:
        if (data_dir / name).exists():
            _copy_file(data_dir / name, target / name)
    for _ in range(_ATTEMPTS):
        written = _copy_audit(data_dir, target, anchor, target / ANCHOR_FILE)
        for worker in sorted((data_dir / "workers").glob("*/")):
            written = _copy_worker(worker, target / "workers" / worker.name, written)
        _copy_database(data_dir / SECRETS_FILE, target / f"{SECRETS_FILE}.before")
        _copy_database(data_dir / EVENTS_FILE, target / EVENTS_FILE)
        _copy_database(data_dir / SECRETS_FILE, target / SECRETS_FILE)
        _join_secrets(target / SECRETS_FILE, target / f"{SECRETS_FILE}.before")
        if written is None or _trimmed(target / EVENTS_FILE) <= written:
            return
    raise BackupError(
        f"{data_dir}: records were removed from the event log while it was copied, each time before their "
        "audit lines were: try again, or keep records longer (retention)"
    )


def _copy_worker(directory: Path, target: Path, written: int | None) -> int | None:
    """Copy the audit log of a worker with its key; return the higher offset."""
    if (directory / AUDIT_KEY_FILE).exists():
        _copy_file(directory / AUDIT_KEY_FILE, target / AUDIT_KEY_FILE)
    paths, copies = AuditPaths.of(directory), AuditPaths.of(target)
    its = _copy_audit(directory, target, paths.anchor, copies.anchor)
    return written if its is None else max(its, written or 0)


def _copy_audit(data_dir: Path, target: Path, anchor: Path, anchor_copy: Path) -> int | None:
    """Copy the anchor, then the lines, which go on behind it; return the offset of the last record with one.

    ``None``: there is no audit log.
    """
    source = data_dir / AUDIT_DIRECTORY
    if not source.is_dir():
        return None
    shutil.rmtree(target / AUDIT_DIRECTORY, ignore_errors=True)
    make_private_directory(target / AUDIT_DIRECTORY)
    if anchor.exists():
        _copy_file(anchor, anchor_copy)
    offset = 0
    # The present file last: a line that is in none of the others when they are copied is in it.
    for path in sorted(source.glob("*.jsonl"), key=lambda each: (each.name == "audit.jsonl", each.name)):
        copy = target / AUDIT_DIRECTORY / path.name
        _copy_file(path, copy)
        offset = max(offset, _cut_to_whole_lines(copy))
    return offset


def _cut_to_whole_lines(path: Path) -> int:
    """Cut what was being written; return the highest offset of a record that a line is for."""
    offset, end = 0, 0
    with path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            end += len(line)
            if b'"record":"' in line:
                offset = max(offset, _record_of(line))
        file.truncate(end)
    return offset


def _record_of(line: bytes) -> int:
    try:
        found = msgspec.json.decode(line)
        return int(str(found.get("record", "")).rpartition(".")[2] or 0)
    except (msgspec.DecodeError, ValueError, AttributeError):
        return 0  # a line that is damaged is found by `audit verify`


def _trimmed(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        ((offset,),) = database.execute("SELECT trimmed_offset FROM log").fetchall()
    return int(offset)


def _join_secrets(path: Path, before: Path) -> None:
    """Keep secrets that were there before the event log was copied, and are not after it."""
    if not before.exists():
        return
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("ATTACH ? AS before", (str(before),))
        database.execute("INSERT OR IGNORE INTO main.secrets SELECT * FROM before.secrets")
    before.unlink()


def _copy_file(source: Path, target: Path) -> None:
    make_private_directory(target.parent)
    make_private_file(target)
    shutil.copyfile(source, target)


def _copy_database(source: Path, target: Path) -> None:
    """Copy a database in one step, as it is at one moment, into one file.

    :raises BackupError: it cannot be read.
    """
    if not source.exists():
        return
    target.unlink(missing_ok=True)
    make_private_file(target)
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=rw", uri=True, timeout=30)) as read,
            closing(sqlite3.connect(target)) as written,
        ):
            # All pages in one step: a writer does not make it begin anew.
            read.backup(written, pages=-1)
            # The copy has no journal beside it.
            written.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise BackupError(f"{source}: cannot be copied: {error}") from error
