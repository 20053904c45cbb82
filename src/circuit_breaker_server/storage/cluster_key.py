"""The key that the nodes of a cluster share: the keys of cursors, secrets and the bucket come from it."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path
from typing import Final, final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from circuit_breaker_server.storage.secret_store import SecretStoreError

__all__ = ["ClusterKey", "ClusterKeyError"]

_KEY_BYTES: Final = 32
_MAX_FILE_BYTES: Final = 1024
_OTHERS: Final = 0o077


class ClusterKeyError(SecretStoreError):
    """The cluster key cannot be used. The text names the file and what to do, and has nothing of the key."""


@final
class ClusterKey:
    """The key of a cluster, which itself encrypts nothing: each use has a key derived from it.

    The derivation is HKDF with SHA-256, without a salt (the key is random), and with a text of its own for
    each use. ``repr`` shows nothing of it.

    Example::

        key = ClusterKey.read(Path("cluster.key"))
        Cursors(log.epoch, key.cursor_key)
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Hold the 32 bytes of the key.

        :raises ValueError: there are more or fewer.
        """
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a cluster key has {_KEY_BYTES} bytes, not {len(key)}")
        self._key = key

    @classmethod
    def read(cls, path: Path) -> ClusterKey:
        """Read the key from its file: 32 bytes, or 64 hexadecimal digits with or without an end of line.

        :raises ClusterKeyError: it cannot be read, holds no key, or others than its owner may use it.
        """
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(_MAX_FILE_BYTES)
        except OSError as error:
            raise ClusterKeyError(f"{path}: the cluster key cannot be read ({error.strerror})") from error
        if stat.S_IMODE(mode) & _OTHERS:
            raise ClusterKeyError(f"{path}: others than its owner may use the cluster key; chmod 600 it")
        if len(data) != _KEY_BYTES:
            try:
                data = binascii.unhexlify(data.strip())
            except ValueError:
                data = b""
        if len(data) != _KEY_BYTES:
            raise ClusterKeyError(
                f"{path}: is no cluster key; it has to be {_KEY_BYTES} random bytes, or "
                f"{2 * _KEY_BYTES} hexadecimal digits (openssl rand -hex {_KEY_BYTES})"
            )
        return cls(data)

    @property
    def cursor_key(self) -> bytes:
        """The key that seals cursors: 32 bytes."""
        return self._derived(b"circuit-breaker cursors")

    @property
    def secret_key(self) -> bytes:
        """The key that encrypts the secrets of a data directory, as Fernet writes it."""
        return base64.urlsafe_b64encode(self._derived(b"circuit-breaker secrets"))

    @property
    def bucket_key(self) -> bytes:
        """The key that encrypts what is in the shared bucket, as Fernet writes it."""
        return base64.urlsafe_b64encode(self._derived(b"circuit-breaker bucket"))

    def _derived(self, use: bytes) -> bytes:
        return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=use).derive(self._key)

    def __repr__(self) -> str:
        return "<ClusterKey>"
