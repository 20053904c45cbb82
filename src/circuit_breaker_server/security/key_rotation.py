"""Make new keys for what seals cursors and encrypts secrets, while no server runs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, final

from circuit_breaker_server.log.directory_lock import DirectoryLock
from circuit_breaker_server.log.event_log import LogError
from circuit_breaker_server.storage.cluster_key import ClusterKey
from circuit_breaker_server.storage.cursor_keys import CURSOR_KEY_FILE, rotate_cursor_key
from circuit_breaker_server.storage.secret_store import SecretStoreError, rotate_secret_key

__all__ = ["KeyRotationError", "Rotated", "rotate_keys"]


class KeyRotationError(Exception):
    """The keys could not be rotated; the text says why. What was there before is still good."""


@final
class Rotated(NamedTuple):
    """The result of a rotation.

    :ivar secrets: how many were encrypted anew.
    :ivar until: when cursors of before cease to be good; seconds since 1970. ``None``: when their key is
        taken out of the file of the cluster key.
    """

    secrets: int
    until: float | None


def rotate_keys(
    data_dir: Path, *, cursors_for_seconds: float, cluster_key: ClusterKey | None = None
) -> Rotated:
    """Make new keys, holding the directory meanwhile.

    :param cluster_key: its first key is the new one, and none is made.
    :raises KeyRotationError: a server runs, there is no event log, or a file cannot be used.
    """
    if not (data_dir / "events.db").exists():
        raise KeyRotationError(f"{data_dir}: has no event log; name the server's data directory")
    try:
        lock = DirectoryLock(data_dir)
        try:
            if cluster_key is not None:
                count = rotate_secret_key(data_dir, cluster_keys=cluster_key.secret_keys)
                if (data_dir / CURSOR_KEY_FILE).exists():
                    # It is from before the cluster key, and would be good for ever.
                    rotate_cursor_key(data_dir, valid_seconds=cursors_for_seconds)
                return Rotated(count, None)
            count = rotate_secret_key(data_dir)
            return Rotated(count, rotate_cursor_key(data_dir, valid_seconds=cursors_for_seconds))
        finally:
            lock.release()
    except (LogError, SecretStoreError, ValueError) as error:
        raise KeyRotationError(str(error)) from error
    except OSError as error:
        raise KeyRotationError(f"{error.filename or data_dir}: {error.strerror}") from error
