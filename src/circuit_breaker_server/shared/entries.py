"""The entries of the bucket: their names in subjects, and their values encrypted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final
from urllib.parse import quote, unquote

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from circuit_breaker_server.log.event_log import LogError

__all__ = ["BucketError", "Entry", "EntryChanged", "Sealing", "token_of", "unescaped"]

_ESCAPES: Final = str.maketrans({"%": "=", ".": "=2E", "~": "=7E"})


class BucketError(LogError):
    """The bucket cannot be used now, or at all. The text names it, and says what to do."""


class EntryChanged(BucketError):
    """The entry has another revision than the expected one: another process wrote first."""


@final
class Entry(msgspec.Struct, frozen=True):
    """An entry as it was at one time.

    :ivar revision: grows with each write to the bucket.
    :ivar value: decrypted; ``None`` for an entry that was removed, or cannot be decrypted.
    """

    revision: int
    value: bytes | None

    def __repr__(self) -> str:
        return f"<Entry {self.revision}>"


@final
class Sealing:
    """Encrypt values. A value belongs to the name of its entry, and opens under no other one.

    Example::

        sealing = Sealing(cluster_key.bucket_keys)
        sealing.unseal("secret.a", sealing.seal("secret.a", b"…"))
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Hold keys, as Fernet writes them: the first encrypts, all decrypt."""
        self._first, *_ = fernets = [Fernet(key) for key in keys]
        self._all = MultiFernet(fernets)

    def seal(self, name: str, value: bytes) -> bytes:
        """Encrypt the value of an entry."""
        return self._first.encrypt(name.encode() + b"\n" + value)

    def unseal(self, name: str, sealed: bytes) -> bytes | None:
        """Decrypt the value of an entry; ``None`` if none of the keys has encrypted it, for this entry."""
        try:
            text = self._all.decrypt(sealed)
        except InvalidToken:
            return None
        head = name.encode() + b"\n"
        return text[len(head) :] if text.startswith(head) else None

    def is_of_first_key(self, sealed: bytes) -> bool:
        """Whether it is the first key that has encrypted a value."""
        try:
            self._first.decrypt(sealed)
        except InvalidToken:
            return False
        return True


def token_of(id: str) -> str:  # noqa: A002 (what records call it)
    """Write any text as one token of a subject, as key-value buckets allow it."""
    return quote(id, safe="").translate(_ESCAPES)


def unescaped(token: str) -> str:
    """Read what :func:`token_of` writes."""
    return unquote(token.replace("=", "%"))
