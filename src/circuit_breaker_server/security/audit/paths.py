"""The paths of an audit log, its key and its anchor; read and create the key."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, final

from circuit_breaker_server.storage.private_files import make_private_directory

__all__ = ["KEY_VARIABLE", "AuditLogError", "AuditPaths", "make_key", "read_key", "sync_directory"]

KEY_VARIABLE: Final = "CIRCUIT_BREAKER_AUDIT_KEY"
"""The environment variable with the key, in base64; without it the key is a file."""

_KEY_BYTES: Final = 32


class AuditLogError(Exception):
    """The audit log cannot be used. The text names the file and what to do, and nothing of the key."""


@final
@dataclass(frozen=True, slots=True)
class AuditPaths:
    """The files of an audit log.

    :ivar log: the lines; its directory holds the lock too.
    :ivar key: the 32 bytes that seal lines; in production away from the log.
    :ivar anchor: the last seal that is on the disk; in production on another machine's disk.

    Example::

        AuditPaths.of(Path("data"), key=Path("/run/secrets/audit.key"))
    """

    log: Path
    key: Path
    anchor: Path

    @classmethod
    def of(cls, data_dir: Path, *, key: Path | None = None, anchor: Path | None = None) -> Self:
        """Name the files of a data directory.

        :param key: ``None`` is ``audit.key`` in the data directory.
        :param anchor: ``None`` stands beside the data directory and has its name: ``data.audit-anchor``.
        """
        beside = Path(os.path.abspath(data_dir))
        return cls(
            log=data_dir / "audit" / "audit.jsonl",
            key=key or data_dir / "audit.key",
            anchor=anchor or beside.with_name(f"{beside.name}.audit-anchor"),
        )


def read_key(path: Path, environment: Mapping[str, str] = os.environ) -> bytes:
    """Read the key: of the environment (:data:`KEY_VARIABLE`), else of the file.

    :raises AuditLogError: there is none, it is no key, or others may read the file.
    """
    given = environment.get(KEY_VARIABLE)
    if given:
        return _decode(given)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read(_KEY_BYTES + 1)
    except OSError as error:
        raise AuditLogError(f"{path}: the key of the audit log cannot be read ({error.strerror})") from error
    if stat.S_IMODE(mode) & 0o077:
        raise AuditLogError(f"{path}: others than its owner may use the key of the audit log; chmod 600 it")
    if len(key) != _KEY_BYTES:
        raise AuditLogError(f"{path}: is no key of an audit log; it has to be {_KEY_BYTES} bytes")
    return key


def make_key(path: Path, environment: Mapping[str, str] = os.environ) -> bytes:
    """Read the key, making the file where there is neither it nor the variable.

    :raises AuditLogError: as :func:`read_key`, or the file cannot be made.
    """
    if not environment.get(KEY_VARIABLE) and not path.exists():
        new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
        try:
            make_private_directory(path.parent)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(secrets.token_bytes(_KEY_BYTES))
                    file.flush()
                    os.fsync(fd)
                # A link, for it never replaces the key that another process has made meanwhile.
                with contextlib.suppress(FileExistsError):
                    os.link(new, path)
            finally:
                new.unlink()
            sync_directory(path.parent)
        except OSError as error:
            raise AuditLogError(
                f"{path}: the key of the audit log cannot be made ({error.strerror})"
            ) from error
    return read_key(path, environment)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable.

    :raises OSError: they are not.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _decode(text: str) -> bytes:
    try:
        key = base64.b64decode(text.strip().replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise AuditLogError(
            f"{KEY_VARIABLE} is no key of an audit log; it has to be {_KEY_BYTES} bytes in base64"
        )
    return key
