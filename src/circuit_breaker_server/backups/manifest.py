"""The contents of a backup, written down beside them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import msgspec

from circuit_breaker_server.log.contents import LogContents

__all__ = [
    "ANCHOR_FILE",
    "AUDIT_DIRECTORY",
    "AUDIT_KEY_FILE",
    "EVENTS_FILE",
    "KEY_FILES",
    "MANIFEST_FILE",
    "SECRETS_FILE",
    "BackupError",
    "FileEntry",
    "LogContents",
    "Manifest",
    "digest_of",
    "sync",
]

MANIFEST_FILE: Final = "backup.json"
EVENTS_FILE: Final = "events.db"
SECRETS_FILE: Final = "secrets.db"
AUDIT_KEY_FILE: Final = "audit.key"
KEY_FILES: Final = (
    "cursors.key",
    "cursors.previous.json",
    "secrets.key",
    AUDIT_KEY_FILE,
    "api_keys.json",
)
AUDIT_DIRECTORY: Final = "audit"
ANCHOR_FILE: Final = "audit-anchor"
"""In a backup; beside a data directory it has the directory's name before it."""

FORMAT: Final = 1
_CHUNK_BYTES: Final = 1024 * 1024


class BackupError(Exception):
    """A backup cannot be made, is not whole, or cannot be put back. The text says what to do."""


@final
class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file.

    :ivar sha256: of its bytes, in hex.
    """

    size_bytes: int
    sha256: str


@final
class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a backup.

    :ivar made_at: RFC 3339, UTC.
    :ivar version: of the software that made it.
    :ivar files: by their path in the backup.
    """

    format: int = FORMAT
    made_at: str
    version: str
    log: LogContents
    files: Mapping[str, FileEntry]

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read that of a backup.

        :raises BackupError: there is none, or it is not one that this version can read.
        """
        path = directory / MANIFEST_FILE
        try:
            found = msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise BackupError(f"{path}: {error.strerror}; name the directory of a whole backup") from error
        except msgspec.DecodeError as error:
            raise BackupError(f"{path}: is not what a backup has: {error}") from error
        if found.format != FORMAT:
            raise BackupError(f"{path}: has format {found.format}, this version reads format {FORMAT}")
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in found.files):
            raise BackupError(f"{path}: names files that are not in the backup")
        return found

    def write(self, directory: Path) -> None:
        """Write it, durably.

        :raises OSError: it cannot be written.
        """
        path = directory / MANIFEST_FILE
        with path.open("xb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        path.chmod(0o600)


def digest_of(path: Path) -> FileEntry:
    """Read a file whole and return its size and digest.

    :raises OSError: it cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(size_bytes=size, sha256=digest.hexdigest())


def sync(path: Path) -> None:
    """Make a file, or the names in a directory, durable.

    :raises OSError: they are not.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
