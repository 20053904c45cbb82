"""The records of API keys, wherever they are kept: how a key is made, and what of it is stored.

A key reads ``cbk_ID_SECRET``. Its text is shown once, when it is made, and is in no file, log, error or repr.
The hash is a plain SHA-256 with the id as its salt: the secret is 256 random bits, too many to
try, so that a slow hash (which protects passwords that people think up) would only make each request slow.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final, Literal, final

import msgspec

from circuit_breaker_server.security.watched_file import FileRefused

__all__ = [
    "KEY_PREFIX",
    "ApiKey",
    "ApiKeyFileError",
    "ApiKeyRefused",
    "MadeKey",
    "NoSuchKey",
    "hash_of",
    "made_key",
]

KEY_PREFIX: Final = "cbk_"
"""The prefix of every API key; no JWT begins with it."""

_ID: Final = re.compile(r"[a-z2-7]{12}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MAX_TEXT: Final = 255
_LONGEST_SECONDS: Final = 36_525 * 86_400
_LATEST: Final = 253_402_300_800.0  # the year 10000, which no date can show


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

    def fault(self) -> str | None:
        """Say what is wrong with the record, and what to do; ``None``: nothing."""
        if not _ID.fullmatch(self.id) or not _DIGEST.fullmatch(self.sha256) or not self.principal:
            return "its id, sha256 or principal is none; remove it"
        times = (self.created_at, self.expires_at or 0, self.revoked_at or 0)
        if not all(0 <= when < _LATEST for when in times):
            return "one of its times is none; correct it"
        return None


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


def made_key(
    principal: str, *, label: str, expires_in_seconds: float | None, now: float, taken: Container[str]
) -> MadeKey:
    """Make a key with a new id; it is stored nowhere yet.

    :param now: when it is made, in seconds since 1970.
    :param taken: ids that it does not get.
    :raises ValueError: principal, label or time have no sense.
    """
    if not principal or not _is_text(principal):
        raise ValueError(f"a principal is a text of 1 to {_MAX_TEXT} characters")
    if not _is_text(label):
        raise ValueError(f"a label is a text of up to {_MAX_TEXT} characters")
    if expires_in_seconds is not None and not 0 < expires_in_seconds <= _LONGEST_SECONDS:
        raise ValueError("the time until a key expires is greater than 0, and up to a hundred years")
    id_ = _new_id(taken)
    secret = secrets.token_urlsafe(32)
    key = ApiKey(
        id=id_,
        sha256=hash_of(id_, secret),
        principal=principal,
        label=label,
        created_at=now,
        expires_at=None if expires_in_seconds is None else now + expires_in_seconds,
        revoked_at=None,
    )
    return MadeKey(key, f"{KEY_PREFIX}{id_}_{secret}")


def hash_of(id_: str, secret: str) -> str:
    """Return the digest of a key's secret, with its id as the salt."""
    return hashlib.sha256(f"{id_}:{secret}".encode()).hexdigest()


def _new_id(taken: Container[str]) -> str:
    while True:
        id_ = base64.b32encode(secrets.token_bytes(8)).decode()[:12].lower()
        if id_ not in taken:
            return id_


def _is_text(text: str) -> bool:
    return len(text) <= _MAX_TEXT and not any("\ud800" <= c <= "\udfff" for c in text)
