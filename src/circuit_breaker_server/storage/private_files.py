"""Files of the data directory are for their owner only: prompts, tokens and keys are in them.

The process's umask is left alone, which belongs to the program around the server: files are made with their
mode. SQLite gives a database's journals the mode of the database.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

__all__ = [
    "PRIVATE_FILE",
    "exposed_files",
    "make_private_directory",
    "make_private_file",
    "replace_private_file",
]

PRIVATE_FILE: Final = 0o600
_PRIVATE_DIRECTORY: Final = 0o700
_OTHERS: Final = 0o077


def make_private_directory(path: Path) -> None:
    """Make a directory, and those above it, where there is none; one that is there is left as it is.

    :raises OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=_PRIVATE_DIRECTORY, exist_ok=True)


def make_private_file(path: Path) -> None:
    """Make an empty file where there is none; one that is there is left as it is.

    :raises OSError: it cannot be made.
    """
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))


def replace_private_file(path: Path, data: bytes) -> None:
    """Replace a file at once and durably: after a crash the old one or the new one is there, whole.

    :raises OSError: it cannot be written; the old one is whole still.
    """
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def exposed_files(directory: Path) -> list[Path]:
    """Return the directory and what is in it, as far as others than the owner have rights to it."""
    found = []
    for path in (directory, *sorted(directory.rglob("*"))):
        try:
            mode = path.lstat().st_mode
        except OSError:
            continue  # a journal may go at any time
        if not stat.S_ISLNK(mode) and mode & _OTHERS:
            found.append(path)
    return found
