"""Signed tokens (JWS): keys that are fit for an algorithm, and what a token with a good signature says."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Final, final

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey, import_key
from joserfc.jws import JWSRegistry

__all__ = [
    "MAX_TOKEN",
    "KeyPair",
    "KeyUnusable",
    "TokenBroken",
    "decode",
    "misfit",
    "read_key",
    "read_secret",
]

MAX_TOKEN: Final = 16 * 1024
"""Characters of a token; a longer one is not looked at."""

_LEAST_BITS = 2048  # RFC 7518, section 3.3
_LEAST_BYTES = 32  # RFC 7518, section 3.2

KeyPair = RSAKey | ECKey | OKPKey
"""A key of two halves: either the public one alone, or both."""


class KeyUnusable(Exception):
    """A key is none for its algorithm. The text continues a sentence and holds nothing of the key."""


class TokenBroken(Exception):
    """A token is none, or nobody with the key has signed it.

    :ivar code: a word for it that holds nothing of the token; the text may.
    """

    def __init__(self, code: str, text: str = "") -> None:
        self.code = code
        super().__init__(text or code)


@final
class _Pinned(JWSRegistry):
    """Lets one algorithm through, whatever a token asks for; EdDSA without joserfc's advice to rename it."""

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[algorithm])
        self._algorithm = algorithm

    def get_alg(self, name: str) -> JWSAlgModel:
        if name != self._algorithm:
            raise UnsupportedAlgorithmError(f"the algorithm is not {self._algorithm}")
        return self.algorithms[name]


def read_key(text: str, algorithm: str) -> KeyPair:
    """Read a PEM or a JWK of a key for an algorithm of two keys.

    :raises KeyUnusable: it is none, or too weak.
    """
    try:
        data: str | dict[str, str | list[str]] = text
        if text.lstrip().startswith("{"):
            data = msgspec.json.decode(text, type=dict[str, str | list[str]])
        if algorithm.startswith("ES"):
            return import_key(data, "EC")
        if algorithm == "EdDSA":
            return import_key(data, "OKP")
        key = import_key(data, "RSA")
        bits = key.raw_value.key_size
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise KeyUnusable(f"is no PEM or JWK of a key for {algorithm}") from error
    if bits < _LEAST_BITS:
        raise KeyUnusable(f"a key of {bits} bits; at least {_LEAST_BITS} are needed")
    return key


def read_secret(data: bytes) -> OctKey:
    """Read the secret of HS256: its bytes, or a JWK of them.

    :raises KeyUnusable: it is too short, or a key of another kind, which others may know.
    """
    if b"-----BEGIN " in data:
        raise KeyUnusable("is a PEM, and HS256 needs a secret; name the algorithm of this key")
    try:
        key = OctKey.import_key(_jwk(data) or data) if len(data) >= _LEAST_BYTES else None
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise KeyUnusable("is no secret for HS256") from error
    size = len(data) if key is None else len(key.raw_value)
    if key is None or size < _LEAST_BYTES:
        raise KeyUnusable(f"a secret of {size} bytes; HS256 needs at least {_LEAST_BYTES}")
    return key


def _jwk(data: bytes) -> dict[str, str | list[str]] | None:
    try:
        found = msgspec.json.decode(data, type=dict[str, str | list[str]])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if "kty" in found else None


def misfit(key: KeyPair, algorithm: str) -> str | None:
    """Tell why a public key cannot verify tokens of an algorithm, ``None`` if it can."""
    header = urlsafe_b64encode(msgspec.json.encode({"alg": algorithm})).rstrip(b"=").decode()
    try:
        # Its signature is none; a key of another curve shows itself before that.
        jwt.decode(f"{header}.e30.e30", key, registry=_Pinned(algorithm))
    except JoseError as error:
        if error.error != "bad_signature":
            return error.description or error.error
    return None


def decode(token: str, key: KeyPair | OctKey, algorithm: str) -> dict[str, object]:
    """Return the claims of a token; that they hold is still to be seen.

    :raises TokenBroken: it is no token, or its signature is not of this key and algorithm.
    """
    if len(token) > MAX_TOKEN:
        raise TokenBroken("too_long", f"over {MAX_TOKEN} characters")
    try:
        return jwt.decode(token, key, registry=_Pinned(algorithm)).claims
    except JoseError as error:
        raise TokenBroken(error.error, error.description) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TokenBroken("no_token", "it is no signed token") from error
