"""The file of API keys in a data directory, and the watch of it.

The file is written whole by the command while the server runs, which sees it within a second.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal, final

import msgspec

from circuit_breaker_server.security.api_key_records import (
    ApiKey,
    ApiKeyFileError,
    MadeKey,
    NoSuchKey,
    made_key,
)
from circuit_breaker_server.security.clock import Clock, WallClock
from circuit_breaker_server.security.watched_file import FileRefused, WatchedFile, read_bounded
from circuit_breaker_server.storage.private_files import make_private_directory

__all__ = ["API_KEY_FILE", "ApiKeyFile", "watched_key_file"]

API_KEY_FILE: Final = "api_keys.json"

_MAX_BYTES: Final = 4 * 1024 * 1024


class _Contents(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()


def watched_key_file(
    data_dir: Path, adopt: Callable[[dict[str, ApiKey]], object]
) -> WatchedFile[dict[str, ApiKey]]:
    """Return the watch of the file of a data directory; it hands the keys on, by id."""
    path = data_dir / API_KEY_FILE
    return WatchedFile(
        path,
        parse=lambda data: {key.id: key for key in _parse(data, path)},
        adopt=adopt,
        max_bytes=_MAX_BYTES,
        may_be_missing=True,
        is_written_whole=True,
    )


@final
class ApiKeyFile:
    """The file of a data directory with its keys, for the command. Processes that write it take turns.

    Example::

        made = ApiKeyFile(Path("data")).create("user-7", label="laptop", expires_in_seconds=90 * 86_400)
    """

    def __init__(self, data_dir: Path, *, clock: Clock | None = None) -> None:
        """Hold the directory; nothing is read as yet."""
        self._directory = data_dir
        self._path = data_dir / API_KEY_FILE
        self._clock = clock or WallClock()

    def create(self, principal: str, *, label: str = "", expires_in_seconds: float | None = None) -> MadeKey:
        """Make a key, and the directory where there is none; the key is durable when this returns.

        :raises ValueError: principal, label or time have no sense.
        :raises ApiKeyFileError: the file cannot be read or written.
        """
        now = self._clock.now()
        # Before anything is made: they may have no sense.
        made_key(principal, label=label, expires_in_seconds=expires_in_seconds, now=now, taken=())
        with self._writing(may_make=True):
            keys = self.list()
            made = made_key(
                principal,
                label=label,
                expires_in_seconds=expires_in_seconds,
                now=now,
                taken={key.id for key in keys},
            )
            self._write((*keys, made.key))
        return made

    def list(self) -> tuple[ApiKey, ...]:
        """Read the keys, the oldest first.

        :raises ApiKeyFileError: the file cannot be read or used.
        """
        try:
            return _parse(read_bounded(self._path, _MAX_BYTES), self._path)
        except ApiKeyFileError:
            raise
        except FileRefused as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return ()
            raise ApiKeyFileError(str(error)) from error

    def revoke(self, id: str) -> ApiKey:  # noqa: A002 (what a key calls it)
        """Revoke a key for good, durably; one that was revoked before stays as it was.

        :returns: the key as it is now.
        :raises NoSuchKey: there is none of that id.
        :raises ApiKeyFileError: the file cannot be read or written.
        """
        with self._writing(may_make=False):
            keys = self.list()
            found = next((key for key in keys if key.id == id), None)
            if found is None:
                raise NoSuchKey(f"{self._path}: there is no key of that id")
            if found.revoked_at is not None:
                return found
            revoked = msgspec.structs.replace(found, revoked_at=self._clock.now())
            self._write(tuple(revoked if key is found else key for key in keys))
            return revoked

    @contextlib.contextmanager
    def _writing(self, *, may_make: bool) -> Iterator[None]:
        try:
            if may_make:
                make_private_directory(self._directory)
            elif not self._directory.is_dir():
                raise NoSuchKey(f"{self._path}: there is no key of that id")
            # Not the file itself, which is replaced; it stays, since removing it would race with the next.
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
            finally:
                os.close(lock)
        except OSError as error:
            raise ApiKeyFileError(
                f"{self._path}: cannot be written ({error.strerror}); give a directory this user may write to"
            ) from error

    def _write(self, keys: tuple[ApiKey, ...]) -> None:
        data = msgspec.json.format(msgspec.json.encode(_Contents(keys=keys)), indent=1) + b"\n"
        if len(data) > _MAX_BYTES:
            raise ApiKeyFileError(f"{self._path}: is full with {len(keys)} keys; remove revoked ones from it")
        new = Path(f"{self._path}.new")
        # What a killed writer left behind; the holder of the lock is the only writer.
        new.unlink(missing_ok=True)
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            new.replace(self._path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _parse(data: bytes, path: Path) -> tuple[ApiKey, ...]:
    try:
        keys = msgspec.json.decode(data, type=_Contents).keys
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiKeyFileError(f"{path}: is no file of keys ({error}); restore it from a backup") from None
    seen: set[str] = set()
    for number, key in enumerate(keys):
        if (fault := key.fault()) is not None:
            raise ApiKeyFileError(f"{path}: keys[{number}]: {fault}")
        if key.id in seen:
            raise ApiKeyFileError(f"{path}: keys[{number}]: its id is there twice; remove one of them")
        seen.add(key.id)
    return keys
