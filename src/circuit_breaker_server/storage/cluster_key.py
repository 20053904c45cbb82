"""The key that the nodes of a cluster share: the keys of cursors, secrets and the bucket come from it."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from circuit_breaker_server.storage.secret_store import SecretStoreError

__all__ = ["ClusterKey", "ClusterKeyError"]

_KEY_BYTES: Final = 32
_MAX_FILE_BYTES: Final = 1024
"""Fifteen keys."""
_OTHERS: Final = 0o077


class ClusterKeyError(SecretStoreError):
    """The cluster key cannot be used. The text names the file and what to do, and has nothing of the key."""


@final
class ClusterKey:
    """The key of a cluster, which itself encrypts nothing: each use has a key derived from it.

    The derivation is HKDF with SHA-256, without a salt (the key is random), and with a text of its own for
    each use. ``repr`` shows nothing of it.

    :ivar others: keys of before or after, while the key is replaced: what they have encrypted is read too.

    Example::

        key = ClusterKey.read(Path("cluster.key"))
        Cursors(log.epoch, key.cursor_key)
    """

    __slots__ = ("_key", "others")

    def __init__(self, key: bytes, others: Sequence[bytes] = ()) -> None:
        """Hold the 32 bytes of the key, and those of others.

        :raises ValueError: a key has more or fewer.
        """
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a cluster key has {_KEY_BYTES} bytes, not {len(key)}")
        self._key = key
        self.others: tuple[ClusterKey, ...] = tuple(map(ClusterKey, others))

    @classmethod
    def read(cls, path: Path) -> ClusterKey:
        """Read the key from its file: 32 bytes, or lines of 64 hexadecimal digits.

        The first line is the key, those behind it are of other ones.

        :raises ClusterKeyError: it cannot be read, holds no key, or others than its owner may use it.
        """
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ClusterKeyError(f"{path}: the cluster key cannot be read ({error.strerror})") from error
        if stat.S_IMODE(mode) & _OTHERS:
            raise ClusterKeyError(f"{path}: others than its owner may use the cluster key; chmod 600 it")
        if len(data) == _KEY_BYTES:
            return cls(data)
        keys = [_unhexlified(line) for line in data.split()]
        if not keys or len(data) > _MAX_FILE_BYTES or any(len(key) != _KEY_BYTES for key in keys):
            raise ClusterKeyError(
                f"{path}: is no cluster key; it has to be {_KEY_BYTES} random bytes, or a line of "
                f"{2 * _KEY_BYTES} hexadecimal digits (openssl rand -hex {_KEY_BYTES}), and one for each "
                f"other key, of up to {_MAX_FILE_BYTES} bytes in all"
            )
        return cls(keys[0], keys[1:])

    @property
    def cursor_key(self) -> bytes:
        """The key that seals cursors: 32 bytes."""
        return self._derived(b"circuit-breaker cursors")

    @property
    def secret_keys(self) -> tuple[bytes, ...]:
        """The keys of a data directory's secrets, as Fernet writes them: the first encrypts, all decrypt."""
        return (
            self._fernet_key(b"circuit-breaker secrets"),
            *(k for o in self.others for k in o.secret_keys),
        )

    @property
    def bucket_keys(self) -> tuple[bytes, ...]:
        """The keys of the shared bucket, as Fernet writes them: the first encrypts, all decrypt."""
        return (self._fernet_key(b"circuit-breaker bucket"), *(k for o in self.others for k in o.bucket_keys))

    def _fernet_key(self, use: bytes) -> bytes:
        return base64.urlsafe_b64encode(self._derived(use))

    def _derived(self, use: bytes) -> bytes:
        return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=use).derive(self._key)

    def __repr__(self) -> str:
        return f"<ClusterKey, {len(self.others)} others>"


def _unhexlified(digits: bytes) -> bytes:
    """Return the bytes of hexadecimal digits; none if they are none."""
    try:
        return binascii.unhexlify(digits)
    except ValueError:
        return b""
