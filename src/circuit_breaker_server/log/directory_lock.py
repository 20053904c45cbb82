"""One process per data directory: a lock that the kernel drops when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import final

from circuit_breaker_server.log.event_log import LogError
from circuit_breaker_server.storage.private_files import PRIVATE_FILE

__all__ = ["DirectoryLock"]


@final
class DirectoryLock:
    """Hold a directory for this process until :meth:`release` or the end of the process.

    The file ``events.lock`` stays behind on purpose: removing it would race with the next holder.

    :raises LogError: another process holds it, or the lock file cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "events.lock"
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        except OSError as error:
            raise LogError(
                f"{self.path}: cannot be written ({error.strerror}); "
                "make the data directory writable for this user or choose another one"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            if isinstance(error, BlockingIOError):
                raise LogError(
                    f"{directory}: in use by another process (pid {holder or 'unknown'}); "
                    "stop it or choose another data directory"
                ) from error
            raise LogError(
                f"{self.path}: cannot be locked ({error.strerror}); choose a data directory on a local disk"
            ) from error
        with contextlib.suppress(
            OSError
        ):  # The number only serves the message above: a full disk may lose it.
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next process in. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
