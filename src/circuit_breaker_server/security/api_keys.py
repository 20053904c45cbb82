"""API keys: authenticate a principal by a secret of which only the hash is kept."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self, final

from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.api_key_file import watched_key_file
from circuit_breaker_server.security.api_key_records import ApiKey, ApiKeyFileError, ApiKeyRefused, hash_of
from circuit_breaker_server.security.clock import Clock, WallClock
from circuit_breaker_server.security.watched_file import FileRefused, Listeners, WatchedSource

__all__ = ["KEY_EXPIRED", "KEY_INVALID", "KEY_REVOKED", "ApiKeys"]

KEY_INVALID: Final = "key invalid"
KEY_EXPIRED: Final = "key expired"
KEY_REVOKED: Final = "key revoked"

_TEXT: Final = re.compile(r"cbk_([a-z2-7]{12})_([A-Za-z0-9_-]{43})")
_LENGTH: Final = 60
_NO_DIGEST: Final = "0" * 64

logger = get_logger("api_keys")


@final
class ApiKeys:
    """The keys as they are now.

    Keys of a file that has become absent or invalid stay as they were; one error is logged.

    Example::

        keys = await ApiKeys.open(Path("data"))
        principal = keys.verify("cbk_…").principal
        await keys.aclose()
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        """Have no keys; :meth:`open` and :meth:`open_from` are the ways in."""
        self._clock = clock or WallClock()
        self._keys: dict[str, ApiKey] = {}
        self._listeners: Listeners[ApiKey] = Listeners()
        self._source: WatchedSource | None = None

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
        try:
            return await cls.open_from(
                lambda adopt: watched_key_file(data_dir, adopt), on_revoked, clock=clock
            )
        except ApiKeyFileError:
            raise
        except FileRefused as error:
            raise ApiKeyFileError(str(error)) from error

    @classmethod
    async def open_from(
        cls,
        source: Callable[[Callable[[dict[str, ApiKey]], object]], WatchedSource],
        on_revoked: Callable[[ApiKey], object] | None = None,
        *,
        clock: Clock | None = None,
    ) -> Self:
        """Read the keys of another source and watch it until :meth:`aclose`.

        :param source: makes the source, given what it calls with all keys, by id, whenever they have changed.
        :param on_revoked: as :meth:`on_revoked`.
        """
        keys = cls(clock=clock)
        keys._source = source(keys._adopt)
        await keys._source.start()
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
        is_right = hmac.compare_digest(hash_of(parts[1], parts[2]), _NO_DIGEST if key is None else key.sha256)
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
        """Look at the source now; when this returns it is in force and told, or refused."""
        if self._source is not None:
            await self._source.check_now()

    async def aclose(self) -> None:
        """Watch no more; the keys stay. Idempotent."""
        if self._source is not None:
            await self._source.aclose()

    def _adopt(self, keys: dict[str, ApiKey]) -> None:
        before, self._keys = self._keys, keys
        for key in before.values():
            if key.revoked_at is None and not _is_same(key, keys.get(key.id)):
                logger.info("key_revoked", id=key.id)
                self._listeners.tell(key)

    def __repr__(self) -> str:
        return f"<ApiKeys {len(self._keys)}>"


def _is_same(key: ApiKey, now: ApiKey | None) -> bool:
    return now is key or (
        now is not None
        and now.revoked_at is None
        and (key.sha256, key.principal, key.expires_at) == (now.sha256, now.principal, now.expires_at)
    )
