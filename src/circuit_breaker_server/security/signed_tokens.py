"""Signed tokens (JWS): sets of keys (JWKS), and the claims of a token whose signature is good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, final

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from circuit_breaker_server.security.signing_keys import (
    CURVES,
    KINDS,
    MEMBERS,
    KeyPair,
    KeyUnusable,
    PinnedAlgorithm,
    read_public,
    read_secret,
)

__all__ = ["MAX_TOKEN", "KeySet", "TokenBroken", "decode", "read_set"]

MAX_TOKEN: Final = 16 * 1024
"""Characters of a token; a longer one is not looked at."""


class TokenBroken(Exception):
    """A token is malformed, or not signed with the key.

    :ivar code: names the fault and holds nothing of the token; the text may.
    """

    def __init__(self, code: str, text: str = "") -> None:
        self.code = code
        super().__init__(text or code)


class _Headed(Protocol):
    """A token with headers, by which its key is chosen."""

    def headers(self) -> dict[str, Any]:
        """Return the headers of the token."""


@final
class KeySet:
    """Several keys for one algorithm (JWKS, RFC 7517); a token names its key by ``kid``.

    Example::

        keys = read_set(Path("jwks.json").read_bytes(), "RS256")
    """

    def __init__(self, named: Mapping[str, KeyPair | OctKey], unnamed: Sequence[KeyPair | OctKey]) -> None:
        self._named = dict(named)
        everything = [*self._named.values(), *unnamed]
        self._only = everything[0] if len(everything) == 1 else None

    def choose(self, token: _Headed) -> KeyPair | OctKey:
        """Return the key of a token; one that names none gets the only one there is.

        :raises TokenBroken: there is no such key.
        """
        kid = token.headers().get("kid")
        key = self._only if kid is None else self._named.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise TokenBroken("no_such_key")
        return key


def read_set(data: bytes, algorithm: str) -> KeySet | None:
    """Read a JWKS; ``None`` if it is none. Keys for something else are left out.

    :raises KeyUnusable: no key is for this algorithm, one of them is unfit, two have one name, or one is a
        secret among public keys.
    """
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(found, dict) or "keys" not in found or "kty" in found:
        return None
    named: dict[str, KeyPair | OctKey] = {}
    unnamed: list[KeyPair | OctKey] = []
    try:
        entries = msgspec.convert(found["keys"], list[dict[str, object]])
    except msgspec.ValidationError:
        raise KeyUnusable("is no set of keys (JWKS): `keys` must be a list of objects") from None
    for number, entry in enumerate(entries, 1):
        kid = entry.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise KeyUnusable(f"key {number} of the set: its kid is no text")
        try:
            key = _of_set(entry, algorithm)
        except KeyUnusable as error:
            raise KeyUnusable(f"key {number} of the set: {error}") from error
        if key is None:
            continue
        if kid in named:
            raise KeyUnusable(f"key {number} of the set: another one for {algorithm} has its kid")
        if kid is None:
            unnamed.append(key)
        else:
            named[kid] = key
    if not named and not unnamed:
        raise KeyUnusable(f"no key of the set is for {algorithm}")
    return KeySet(named, unnamed)


def _of_set(entry: Mapping[str, object], algorithm: str) -> KeyPair | OctKey | None:
    """Read one key of a set; ``None`` if it is for something else."""
    kind = entry.get("kty")
    if kind == "oct" and algorithm != "HS256":
        raise KeyUnusable(f"is a secret, which has no place among the public keys for {algorithm}")
    if kind != "oct" and "d" in entry:
        raise KeyUnusable("is a private key; a server needs its public half only")
    operations = entry.get("key_ops")
    if (
        kind != KINDS[algorithm]
        or entry.get("alg", algorithm) != algorithm
        or entry.get("use", "sig") != "sig"
        or (isinstance(operations, list) and "verify" not in operations)
        or (kind in CURVES and entry.get("crv") != CURVES[str(kind)])
    ):
        return None
    if kind == "oct" and not isinstance(entry.get("k"), str):
        raise KeyUnusable("is no secret for HS256")  # else the text itself would be taken for one
    # What else issuers write, as the chain of a certificate, is not asked.
    own = msgspec.json.encode({name: entry[name] for name in MEMBERS if name in entry})
    return read_secret(own) if kind == "oct" else read_public(own.decode(), algorithm)


def decode(token: str, key: KeyPair | OctKey | KeySet, algorithm: str) -> dict[str, object]:
    """Return the claims of a token; that they hold is still to be seen.

    :raises TokenBroken: it is no token, or its signature is not of this key and algorithm.
    """
    if len(token) > MAX_TOKEN:
        raise TokenBroken("too_long", f"over {MAX_TOKEN} characters")
    try:
        by = key.choose if isinstance(key, KeySet) else key
        return jwt.decode(token, by, registry=PinnedAlgorithm(algorithm)).claims
    except JoseError as error:
        raise TokenBroken(error.error, error.description) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TokenBroken("no_token", "it is no signed token") from error
