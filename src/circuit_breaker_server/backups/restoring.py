"""Put a backup back as a data directory."""

from __future__ import annotations

import shutil
from pathlib import Path

from circuit_breaker_server.backups.checking import check_backup
from circuit_breaker_server.backups.manifest import ANCHOR_FILE, MANIFEST_FILE, BackupError, Manifest, sync
from circuit_breaker_server.security.audit import AuditPaths
from circuit_breaker_server.storage.private_files import make_private_directory, make_private_file

__all__ = ["restore_backup"]


def restore_backup(backup: Path, data_dir: Path, *, anchor: Path | None = None) -> Manifest:
    """Make a data directory of a backup, after reading it whole.

    :param data_dir: the directory to make; it appears whole, or not at all.
    :param anchor: of the audit log; ``None`` stands beside the data directory.
    :raises BackupError: the backup is not whole, the directory or the anchor is there already, or a file
        cannot be written.
    """
    manifest = check_backup(backup)
    beside = anchor or AuditPaths.of(data_dir).anchor
    for path in (data_dir, beside):
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise BackupError(f"{path}: is there already, and a backup replaces nothing; move it away")
    partial = data_dir.with_name(f"{data_dir.name}.partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        make_private_directory(partial)
        for name in manifest.files:
            target = beside if name == ANCHOR_FILE else partial / name
            make_private_directory(target.parent)
            make_private_file(target)
            shutil.copyfile(backup / name, target)
            sync(target)
        _check_copy(backup, partial, manifest)
        if data_dir.exists():
            data_dir.rmdir()
        partial.rename(data_dir)
        sync(data_dir.parent)
    except OSError as error:
        raise BackupError(f"{error.filename or data_dir}: {error.strerror}") from error
    return manifest


def _check_copy(backup: Path, partial: Path, manifest: Manifest) -> None:
    """Read the copy back, by the manifest, which does not stay in a data directory."""
    shutil.copyfile(backup / MANIFEST_FILE, partial / MANIFEST_FILE)
    anchor = partial / ANCHOR_FILE
    if ANCHOR_FILE in manifest.files:
        shutil.copyfile(backup / ANCHOR_FILE, anchor)
    try:
        check_backup(partial)
    finally:
        (partial / MANIFEST_FILE).unlink()
        anchor.unlink(missing_ok=True)
