"""The store of secrets: encrypted, beside the log and never in it. Records name secrets by id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self, final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from circuit_breaker_server.storage.private_files import replace_private_file
from circuit_breaker_server.storage.provider_keys import provider_key

__all__ = [
    "KEY_FILE",
    "KEY_VARIABLE",
    "SecretStore",
    "SecretStoreError",
    "key_file",
    "rotate_secret_key",
]

KEY_VARIABLE: Final = "CIRCUIT_BREAKER_SECRET_KEY"
"""The environment variable with the key of the store; without it the key is a file beside the store."""

KEY_FILE: Final = "secrets.key"

_OTHER_KEY: Final = "{} was written with another key: give the server the key it was written with"


class SecretStoreError(Exception):
    """The store cannot be used. The text names the file and what to do."""


@final
class SecretStore:
    """Secrets by id, kept in ``secrets.db``.

    Reading is done from memory. A value is encrypted with a key that is not in the store
    (:data:`KEY_VARIABLE`, or the file ``secrets.key``, which only its owner may read). ``repr`` shows no
    value.

    Example::

        store = await SecretStore.open(Path("data"))
        await store.put("mcp-client-1", "…")
    """

    def __init__(
        self, path: Path, fernet: MultiFernet, values: dict[str, str], *, is_shared: bool = False
    ) -> None:
        """Hold what was read; :meth:`open` is the way in."""
        self._path = path
        self._fernet = fernet
        self._values = values
        self._is_shared = is_shared
        self._writing = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        data_dir: Path,
        environment: Mapping[str, str] = os.environ,
        *,
        cluster_keys: Sequence[bytes] = (),
        is_shared: bool = False,
    ) -> Self:
        """Open the store of a data directory, making it if it is missing.

        :param is_shared: whether other processes write into it too.
        :param cluster_keys: keys of Fernet, of which the first encrypts from now on; no key is made. The
            others decrypt, and so do keys of the environment and of the directory.
        :raises SecretStoreError: a file cannot be read or written, or the key is not the store's.
        """
        return await asyncio.to_thread(cls._open, data_dir, environment, cluster_keys, is_shared)

    @classmethod
    def _open(
        cls,
        data_dir: Path,
        environment: Mapping[str, str],
        cluster_keys: Sequence[bytes],
        is_shared: bool,
    ) -> Self:
        path = data_dir / "secrets.db"
        try:
            fernet = _keys(data_dir, environment, cluster_keys)
        except OSError as error:
            raise SecretStoreError(f"{data_dir / KEY_FILE}: {error.strerror}") from error
        try:
            with _database(path) as database:
                rows = database.execute("SELECT id, value FROM secrets").fetchall()
        except sqlite3.Error as error:
            raise SecretStoreError(f"{path}: {error}") from error
        try:
            values = {id_: fernet.decrypt(value).decode() for id_, value in rows}
        except InvalidToken as error:
            raise SecretStoreError(_OTHER_KEY.format(path)) from error
        return cls(path, fernet, values, is_shared=is_shared)

    def get(self, id: str) -> str | None:  # noqa: A002 (what records call it)
        """Return a secret, ``None`` if there is none of that id."""
        return self._values.get(id)

    def api_key(
        self,
        id: str,  # noqa: A002 (as above)
        *,
        base_url: str,
        tenant: str | None,
        environment: Mapping[str, str] = os.environ,
    ) -> str | None:
        """Return a provider's key of the environment.

        See :func:`~circuit_breaker_server.storage.provider_keys.provider_key`.
        """
        return provider_key(id, base_url=base_url, tenant=tenant, environment=environment)

    async def find(self, id: str) -> str | None:  # noqa: A002 (as above)
        """Return a secret, also one that another process has just put.

        :raises SecretStoreError: the store cannot be read.
        """
        return await asyncio.to_thread(self._read, id) if self._is_shared else self.get(id)

    def _read(self, id_: str) -> str | None:
        try:
            with _database(self._path) as database:
                row = database.execute("SELECT value FROM secrets WHERE id = ?", (id_,)).fetchone()
        except sqlite3.Error as error:
            raise SecretStoreError(f"{self._path}: {error}") from error
        try:
            return None if row is None else self._fernet.decrypt(row[0]).decode()
        except InvalidToken as error:
            raise SecretStoreError(_OTHER_KEY.format(self._path)) from error

    def ids(self) -> list[str]:
        """Return the ids of all secrets that are kept."""
        return list(self._values)

    async def put(self, id: str, value: str) -> None:  # noqa: A002 (as above)
        """Keep a secret, replacing the one before; durable when this returns.

        :raises SecretStoreError: it could not be written.
        """
        async with self._writing:
            await asyncio.to_thread(self._write, id, value)
            self._values[id] = value

    def _write(self, id_: str, value: str) -> None:
        try:
            with _database(self._path) as database, database:
                encrypted = self._fernet.encrypt(value.encode())
                database.execute("INSERT OR REPLACE INTO secrets VALUES (?, ?)", (id_, encrypted))
        except sqlite3.Error as error:
            raise SecretStoreError(f"{self._path}: {error}") from error

    async def remove(self, id: str) -> None:  # noqa: A002 (as above)
        """Forget a secret, if it is there; durable when this returns.

        :raises SecretStoreError: it could not be written.
        """
        async with self._writing:
            if self._values.pop(id, None) is not None or self._is_shared:
                await asyncio.to_thread(self._delete, id)

    def _delete(self, id_: str) -> None:
        try:
            with _database(self._path) as database, database:
                database.execute("DELETE FROM secrets WHERE id = ?", (id_,))
        except sqlite3.Error as error:
            raise SecretStoreError(f"{self._path}: {error}") from error

    def __repr__(self) -> str:
        return f"<SecretStore {self._path} {len(self._values)} secrets>"


def rotate_secret_key(
    data_dir: Path, environment: Mapping[str, str] = os.environ, *, cluster_keys: Sequence[bytes] = ()
) -> int:
    """Encrypt all secrets anew, with a new key; return how many. No server may run.

    Where the environment has the keys, the first of :data:`KEY_VARIABLE` is the new one, and the others can
    be left out afterwards; the same goes for the keys of a cluster.

    :raises SecretStoreError: a file cannot be read or written, or the key is not the store's.
    """
    path, own = data_dir / "secrets.db", data_dir / KEY_FILE
    is_given = bool(cluster_keys or environment.get(KEY_VARIABLE))
    try:
        _keys(data_dir, environment, cluster_keys)
        new = b""
        if not is_given:
            new = Fernet.generate_key()
            # First: after a crash both are known, and nothing is lost.
            replace_private_file(own, new + b"\n" + own.read_bytes())
        keys = _keys(data_dir, environment, cluster_keys)
        with _database(path) as database, database:
            rows = database.execute("SELECT id, value FROM secrets").fetchall()
            again = [(keys.rotate(value), id_) for id_, value in rows]
            database.executemany("UPDATE secrets SET value = ? WHERE id = ?", again)
        if not is_given:
            replace_private_file(own, new)
    except InvalidToken as error:
        raise SecretStoreError(_OTHER_KEY.format(path)) from error
    except sqlite3.Error as error:
        raise SecretStoreError(f"{path}: {error}") from error
    except OSError as error:
        raise SecretStoreError(f"{own}: {error.strerror}") from error
    return len(again)


def _keys(data_dir: Path, environment: Mapping[str, str], cluster_keys: Sequence[bytes] = ()) -> MultiFernet:
    """Return the keys: the first encrypts, all decrypt.

    :raises SecretStoreError: one is no key.
    :raises OSError: their file cannot be read or written.
    """
    given, own = environment.get(KEY_VARIABLE), data_dir / KEY_FILE
    if given:
        text = given.encode()
    elif cluster_keys and not own.exists():
        text = b""
    else:
        text = key_file(own, Fernet.generate_key)
    keys = text.replace(b",", b" ").split()
    try:
        return MultiFernet([Fernet(key) for key in (*cluster_keys, *keys)])
    except ValueError as error:
        raise SecretStoreError(
            f"the key of {data_dir / 'secrets.db'} is no key: set {KEY_VARIABLE} to 32 bytes in URL-safe "
            "base64 (several with commas: the first encrypts, all decrypt)"
        ) from error


def key_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """Read a key from its file; make both if there is no file. Only its owner may read it.

    :raises OSError: it cannot be read or written.
    """
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(made, "wb") as file:
        file.write(make())
        file.flush()
        os.fsync(file.fileno())
    return path.read_bytes()


@contextlib.contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    path.touch(0o600)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE IF NOT EXISTS secrets (id TEXT PRIMARY KEY, value BLOB NOT NULL)")
        yield database
