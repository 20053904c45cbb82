"""API keys: authenticate a principal by a secret that the server made, and of which it keeps only the hash.

A key reads ``cbk_ID_SECRET``. Its text is shown once, when it is made, and is in no file, log, error or repr.
The hash is a plain SHA-256 with the id as its salt: the secret is 256 random bits, too many to
try, so that a slow hash (which protects passwords that people think up) would only make each request slow.

The file is written whole by the command while the server runs, which sees it within a second.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self, final

import msgspec

from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.clock import Clock, WallClock
from circuit_breaker_server.security.watched_file import FileRefused, Listeners, WatchedFile, read_bounded
from circuit_breaker_server.storage.private_files import make_private_directory

__all__ = [
    "KEY_EXPIRED",
    "KEY_INVALID",
    "KEY_PREFIX",
    "KEY_REVOKED",
    "ApiKey",
    "ApiKeyFile",
    "ApiKeyFileError",
    "ApiKeyRefused",
    "ApiKeys",
    "MadeKey",
    "NoSuchKey",
]

KEY_PREFIX: Final = "cbk_"
"""The prefix of every API key; no JWT begins with it."""

KEY_INVALID: Final = "key invalid"
KEY_EXPIRED: Final = "key expired"
KEY_REVOKED: Final = "key revoked"

_FILE: Final = "api_keys.json"
_ID: Final = re.compile(r"[a-z2-7]{12}")
_TEXT: Final = re.compile(r"cbk_([a-z2-7]{12})_([A-Za-z0-9_-]{43})")
_LENGTH: Final = 60
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NO_DIGEST: Final = "0" * 64
_MAX_BYTES: Final = 4 * 1024 * 1024
_MAX_TEXT: Final = 255
_LONGEST_SECONDS: Final = 36_525 * 86_400
_LATEST: Final = 253_402_300_800.0  # the year 10000, which no date can show

logger = get_logger("api_keys")


class ApiKeyRefused(Exception):
    """The API key is not accepted; the text is one of three reasons and holds nothing of the key."""


class ApiKeyFileError(FileRefused):
    """The file of API keys cannot be read or written. The text names the file and what to do."""


class NoSuchKey(Exception):
    """There is no key of that id. The text does not repeat it: it may be a whole key, given by mistake."""


@final
class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The stored record of an API key: its digest, never its text.

    :ivar id: names the key; no secret.
    :ivar principal: the id of the principal that the key authenticates.
    :ivar label: a name for people; may be empty.
    :ivar created_at: in seconds since 1970, as the two others.
    :ivar expires_at: the key is refused from then on; ``None``: it never expires.
    :ivar revoked_at: the key is refused since then; ``None`` if it was not revoked.

    Example::

        keys.verify(text).principal
    """

    id: str
    sha256: str
    principal: str
    label: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None

    def __repr__(self) -> str:
        return f"<ApiKey {self.id} principal={self.principal!r}>"

    def state(self, now: float) -> Literal["active", "expired", "revoked"]:
        """Tell whether it would be taken at that time."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.expires_at is None or now < self.expires_at else "expired"


@final
@dataclass(frozen=True, slots=True)
class MadeKey:
    """A key that was just made.

    :ivar text: the key itself, to be given to its user: it is nowhere else.

    Example::

        sys.stdout.write(made.text)
    """

    key: ApiKey
    text: str = field(repr=False)


class _Contents(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()


@final
class ApiKeys:
    """The keys as they are now.

    Keys of a file that has become absent or invalid stay as they were; one error is logged.

    Example::

        keys = await ApiKeys.open(Path("data"))
        principal = keys.verify("cbk_…").principal
        await keys.aclose()
    """

    def __init__(self, data_dir: Path, *, clock: Clock | None = None) -> None:
        """Hold the directory; :meth:`open` is the way in."""
        path = data_dir / _FILE
        self._clock = clock or WallClock()
        self._keys: dict[str, ApiKey] = {}
        self._listeners: Listeners[ApiKey] = Listeners()
        self._file: WatchedFile[dict[str, ApiKey]] = WatchedFile(
            path,
            parse=lambda data: {key.id: key for key in _parse(data, path)},
            adopt=self._adopt,
            max_bytes=_MAX_BYTES,
            may_be_missing=True,
            is_written_whole=True,
        )

    @classmethod
    async def open(
        cls,
        data_dir: Path,
        on_revoked: Callable[[ApiKey], object] | None = None,
        *,
        clock: Clock | None = None,
    ) -> Self:
        """Read the keys of a data directory and watch them until :meth:`aclose`. No file: no keys, as yet.

        :param on_revoked: as :meth:`on_revoked`.
        :raises ApiKeyFileError: the file cannot be read or used.
        """
        keys = cls(data_dir, clock=clock)
        try:
            await keys._file.start()
        except ApiKeyFileError:
            raise
        except FileRefused as error:
            raise ApiKeyFileError(str(error)) from error
        if on_revoked is not None:
            keys.on_revoked(on_revoked)
        return keys

    def verify(self, text: str) -> ApiKey:
        """Return the API key of this text.

        It takes as long for an id that is not there as for a secret that is wrong. A client learns
        that a key has expired or was revoked only if it has the key.

        :raises ApiKeyRefused: with the reason.
        """
        parts = _TEXT.fullmatch(text) if len(text) == _LENGTH else None
        if parts is None:
            raise ApiKeyRefused(KEY_INVALID)
        key = self._keys.get(parts[1])
        is_right = hmac.compare_digest(_hash(parts[1], parts[2]), _NO_DIGEST if key is None else key.sha256)
        if key is None or not is_right:
            raise ApiKeyRefused(KEY_INVALID)
        state = key.state(self._clock.now())
        if state != "active":
            raise ApiKeyRefused(KEY_REVOKED if state == "revoked" else KEY_EXPIRED)
        return key

    def on_revoked(self, callback: Callable[[ApiKey], object]) -> Callable[[], None]:
        """Call with every key, as it was, that is revoked, removed or given to another principal.

        Calls come in a turn of the loop. A key that expires does not count: its end is known from the start.

        :returns: what ends the calls (idempotent).
        """
        return self._listeners.add(callback)

    async def check_now(self) -> None:
        """Look at the file now; when this returns it is in force and told, or refused."""
        await self._file.check_now()

    async def aclose(self) -> None:
        """Watch no more; the keys stay. Idempotent."""
        await self._file.aclose()

    def _adopt(self, keys: dict[str, ApiKey]) -> None:
        before, self._keys = self._keys, keys
        for key in before.values():
            if key.revoked_at is None and not _is_same(key, keys.get(key.id)):
                logger.info("key_revoked", id=key.id)
                self._listeners.tell(key)

    def __repr__(self) -> str:
        return f"<ApiKeys {len(self._keys)}>"


@final
class ApiKeyFile:
    """The file of a data directory with its keys, for the command. Processes that write it take turns.

    Example::

        made = ApiKeyFile(Path("data")).create("user-7", label="laptop", expires_in_seconds=90 * 86_400)
    """

    def __init__(self, data_dir: Path, *, clock: Clock | None = None) -> None:
        """Hold the directory; nothing is read as yet."""
        self._directory = data_dir
        self._path = data_dir / _FILE
        self._clock = clock or WallClock()

    def create(self, principal: str, *, label: str = "", expires_in_seconds: float | None = None) -> MadeKey:
        """Make a key, and the directory where there is none; the key is durable when this returns.

        :raises ValueError: principal, label or time have no sense.
        :raises ApiKeyFileError: the file cannot be read or written.
        """
        if not principal or not _is_text(principal):
            raise ValueError(f"a principal is a text of 1 to {_MAX_TEXT} characters")
        if not _is_text(label):
            raise ValueError(f"a label is a text of up to {_MAX_TEXT} characters")
        if expires_in_seconds is not None and not 0 < expires_in_seconds <= _LONGEST_SECONDS:
            raise ValueError("the time until a key expires is greater than 0, and up to a hundred years")
        with self._writing(may_make=True):
            keys = self.list()
            id_ = _new_id({key.id for key in keys})
            secret = secrets.token_urlsafe(32)
            now = self._clock.now()
            key = ApiKey(
                id=id_,
                sha256=_hash(id_, secret),
                principal=principal,
                label=label,
                created_at=now,
                expires_at=None if expires_in_seconds is None else now + expires_in_seconds,
                revoked_at=None,
            )
            self._write((*keys, key))
        return MadeKey(key, f"{KEY_PREFIX}{id_}_{secret}")

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


def _hash(id_: str, secret: str) -> str:
    return hashlib.sha256(f"{id_}:{secret}".encode()).hexdigest()


def _new_id(taken: set[str]) -> str:
    while True:
        id_ = base64.b32encode(secrets.token_bytes(8)).decode()[:12].lower()
        if id_ not in taken:
            return id_


def _is_text(text: str) -> bool:
    return len(text) <= _MAX_TEXT and not any("\ud800" <= c <= "\udfff" for c in text)


def _is_same(key: ApiKey, now: ApiKey | None) -> bool:
    return (
        now is not None
        and now.revoked_at is None
        and (key.sha256, key.principal, key.expires_at) == (now.sha256, now.principal, now.expires_at)
    )


def _parse(data: bytes, path: Path) -> tuple[ApiKey, ...]:
    try:
        keys = msgspec.json.decode(data, type=_Contents).keys
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiKeyFileError(f"{path}: is no file of keys ({error}); restore it from a backup") from None
    seen: set[str] = set()
    for number, key in enumerate(keys):
        if not _ID.fullmatch(key.id) or not _DIGEST.fullmatch(key.sha256) or not key.principal:
            raise ApiKeyFileError(f"{path}: keys[{number}]: its id, sha256 or principal is none; remove it")
        times = (key.created_at, key.expires_at or 0, key.revoked_at or 0)
        if not all(0 <= when < _LATEST for when in times):
            raise ApiKeyFileError(f"{path}: keys[{number}]: one of its times is none; correct it")
        if key.id in seen:
            raise ApiKeyFileError(f"{path}: keys[{number}]: its id is there twice; remove one of them")
        seen.add(key.id)
    return keys
