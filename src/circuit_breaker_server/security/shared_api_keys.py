"""API keys that all nodes of a cluster share, in its bucket: one entry for each, by its id."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, final

import msgspec

from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.api_key_file import API_KEY_FILE, ApiKeyFile
from circuit_breaker_server.security.api_key_records import (
    ApiKey,
    ApiKeyFileError,
    MadeKey,
    NoSuchKey,
    made_key,
)
from circuit_breaker_server.security.api_keys import ApiKeys
from circuit_breaker_server.security.clock import Clock, WallClock
from circuit_breaker_server.shared.bucket import Bucket
from circuit_breaker_server.shared.entries import EntryChanged

__all__ = ["MOVED_KEY_FILE", "BucketApiKeys", "move_api_keys", "open_shared_api_keys"]

MOVED_KEY_FILE: Final = "api_keys.json.moved"

_KIND: Final = "api-key"

logger = get_logger("api_keys")


@final
class BucketApiKeys:
    """The API keys of a cluster, for the command. Processes may write them at once.

    Example::

        made = await BucketApiKeys(bucket).create("user-7", label="laptop", expires_in_seconds=90 * 86_400)
    """

    def __init__(self, bucket: Bucket, *, clock: Clock | None = None) -> None:
        """Keep them in an open bucket, which the caller closes."""
        self._bucket = bucket
        self._clock = clock or WallClock()

    async def create(
        self, principal: str, *, label: str = "", expires_in_seconds: float | None = None
    ) -> MadeKey:
        """Make a key; the brokers have stored it when this returns.

        :raises ValueError: principal, label or time have no sense.
        :raises BucketError: it cannot be said to be stored; the broker may be away.
        """
        while True:
            made = made_key(
                principal,
                label=label,
                expires_in_seconds=expires_in_seconds,
                now=self._clock.now(),
                taken=self._bucket.items(_KIND),
            )
            try:
                await self._bucket.put(_KIND, made.key.id, msgspec.json.encode(made.key), expected=0)
            except EntryChanged:
                continue  # another process has made this id just now
            return made

    async def list(self) -> tuple[ApiKey, ...]:
        """Return the keys, the oldest first."""
        return tuple(sorted(_keys(self._bucket).values(), key=lambda key: (key.created_at, key.id)))

    async def revoke(self, id: str) -> ApiKey:  # noqa: A002 (what a key calls it)
        """Revoke a key for good, durably; one that was revoked before stays as it was.

        :returns: the key as it is now.
        :raises NoSuchKey: there is none of that id.
        :raises BucketError: it cannot be said to be stored; the broker may be away.
        """
        while True:
            entry = await self._bucket.find(_KIND, id)
            found = None if entry is None or entry.value is None else _decoded(id, entry.value)
            if entry is None or found is None:
                raise NoSuchKey(f"{self._bucket.where}: there is no key of that id")
            if found.revoked_at is not None:
                return found
            revoked = msgspec.structs.replace(found, revoked_at=self._clock.now())
            try:
                await self._bucket.put(_KIND, id, msgspec.json.encode(revoked), expected=entry.revision)
            except EntryChanged:
                continue
            return revoked

    async def add(self, keys: Iterable[ApiKey]) -> None:
        """Add keys that were made elsewhere; those that are there stay as they are.

        :raises BucketError: they cannot be said to be stored; the broker may be away.
        """
        for key in keys:
            if await self._bucket.find(_KIND, key.id) is None:
                await self._bucket.put(_KIND, key.id, msgspec.json.encode(key))


async def open_shared_api_keys(bucket: Bucket, *, clock: Clock | None = None) -> ApiKeys:
    """Take the API keys of a bucket, and follow it: a key that is revoked anywhere is refused a moment later.

    While the broker is away, keys stay as they were.
    """
    return await ApiKeys.open_from(lambda adopt: _Watched(bucket, adopt), clock=clock)


async def move_api_keys(data_dir: Path, bucket: Bucket) -> None:
    """Bring the keys of a data directory into the bucket, once.

    The directory's file is then renamed to :data:`MOVED_KEY_FILE`, and not looked at again.

    :raises ApiKeyFileError: the file cannot be read or renamed.
    :raises BucketError: the bucket cannot be written.
    """
    path = data_dir / API_KEY_FILE
    if not path.exists():
        return
    keys = ApiKeyFile(data_dir).list()
    await BucketApiKeys(bucket).add(keys)
    try:
        path.rename(path.with_name(MOVED_KEY_FILE))
    except OSError as error:
        raise ApiKeyFileError(f"{path}: cannot be renamed ({error.strerror})") from error
    logger.info("keys_moved", bucket=bucket.where, keys=len(keys))


@final
class _Watched:
    """Hands on all keys of a bucket whenever one has changed."""

    def __init__(self, bucket: Bucket, adopt: Callable[[dict[str, ApiKey]], object]) -> None:
        self._bucket = bucket
        self._adopt = adopt
        # What was read of each entry: one that has not changed is not decoded again.
        self._read: dict[str, tuple[bytes, ApiKey | None]] = {}
        self._end: Callable[[], None] = lambda: None

    async def start(self) -> None:
        self._end = self._bucket.on_change(_KIND, self._hand_on)
        self._hand_on()

    async def check_now(self) -> None:
        self._hand_on()

    async def aclose(self) -> None:
        self._end()

    def _hand_on(self) -> None:
        before, self._read = self._read, {}
        for id_, value in self._bucket.items(_KIND).items():
            known = before.get(id_)
            if known is None or known[0] != value:
                known = value, _decoded(id_, value)
            self._read[id_] = known
        self._adopt({key.id: key for _, key in self._read.values() if key is not None})


def _keys(bucket: Bucket) -> dict[str, ApiKey]:
    decoded = (_decoded(id_, value) for id_, value in bucket.items(_KIND).items())
    return {key.id: key for key in decoded if key is not None}


def _decoded(id_: str, value: bytes) -> ApiKey | None:
    try:
        key = msgspec.json.decode(value, type=ApiKey)
    except msgspec.DecodeError:
        key = None
    if key is None or key.id != id_ or key.fault() is not None:
        # A later version may have written it. A key that cannot be judged is not taken.
        logger.error("key_unreadable", id=id_)
        return None
    return key
