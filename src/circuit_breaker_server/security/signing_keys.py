"""Signing keys: read RSA, EC, Ed25519 keys and secrets, and refuse those that are too weak or too large."""

from __future__ import annotations

import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final, final

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPrivateNumbers, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey, import_key
from joserfc.jws import JWSRegistry

__all__ = [
    "CURVES",
    "KINDS",
    "MEMBERS",
    "KeyPair",
    "KeyUnusable",
    "PinnedAlgorithm",
    "misfit",
    "read_key",
    "read_public",
    "read_secret",
]

KINDS: Final = {"HS256": "oct", "RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
CURVES: Final = {"EC": "P-256", "OKP": "Ed25519"}
MEMBERS: Final = ("kty", "k", "n", "e", "crv", "x", "y")

_LEAST_BITS = 2048  # RFC 7518, section 3.3
_MOST_BITS = 4096
"""Of a private key: to sign with a larger one takes too long."""
_LEAST_BYTES = 32  # RFC 7518, section 3.2

KeyPair = RSAKey | ECKey | OKPKey
"""A key of two halves: either the public one alone, or both."""


class KeyUnusable(Exception):
    """A key is none for its algorithm. The text continues a sentence and holds nothing of the key."""


@final
class PinnedAlgorithm(JWSRegistry):
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
        key = _read_rsa(data)
        bits = key.raw_value.key_size
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise KeyUnusable(f"is no PEM or JWK of a key for {algorithm}") from error
    if bits < _LEAST_BITS:
        raise KeyUnusable(f"a key of {bits} bits; at least {_LEAST_BITS} are needed")
    if isinstance(key.raw_value, RSAPrivateKey):
        _check_private(key.raw_value)
    return key


def _read_rsa(data: str | dict[str, str | list[str]]) -> RSAKey:
    """Read a key, without OpenSSL's test whether the factors of a private one are primes.

    It takes 35 ms for 2,048 bits and seconds for 16,384, and the interpreter waits; :func:`_check_private`
    looks at the rest of what OpenSSL looks at, and a composite factor shows itself when the key signs.
    """
    if isinstance(data, dict):
        if "d" not in data:
            return import_key(data, "RSA")
        n, e, d, p, q, dp, dq, qi = (
            _integer(data[name]) for name in ("n", "e", "d", "p", "q", "dp", "dq", "qi")
        )
        numbers = RSAPrivateNumbers(
            p=p, q=q, d=d, dmp1=dp, dmq1=dq, iqmp=qi, public_numbers=RSAPublicNumbers(e, n)
        )
        if not _fits(numbers):
            raise ValueError("the numbers do not belong together")
        return RSAKey.import_key(numbers.private_key(unsafe_skip_rsa_key_validation=True))
    if "PRIVATE" not in data:
        return import_key(data, "RSA")
    key = load_pem_private_key(data.encode(), None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("a key of another kind")
    return RSAKey.import_key(key)


def _integer(text: str | list[str]) -> int:
    if not isinstance(text, str) or len(text) > _MOST_BITS // 6 + 1:
        raise ValueError("not one of the numbers of a key that may be used")
    return int.from_bytes(urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


def _check_private(key: RSAPrivateKey) -> None:
    if key.key_size > _MOST_BITS:
        raise KeyUnusable(f"a private key of {key.key_size} bits; at most {_MOST_BITS} are used")
    if not _fits(key.private_numbers()):
        raise KeyUnusable("a private key whose numbers do not belong together")


def _fits(key: RSAPrivateNumbers) -> bool:
    """Tell whether the numbers belong together (RFC 8017, section 3.2)."""
    p, q, d, n = key.p, key.q, key.d, key.public_numbers.n
    least = n.bit_length() // 4
    return (
        p * q == n
        and p != q
        and bool(p & q & 1)
        and min(p.bit_length(), q.bit_length()) >= least
        and d * key.public_numbers.e % math.lcm(p - 1, q - 1) == 1
        and (key.dmp1, key.dmq1) == (d % (p - 1), d % (q - 1))
        and key.iqmp * q % p == 1
    )


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
        jwt.decode(f"{header}.e30.e30", key, registry=PinnedAlgorithm(algorithm))
    except JoseError as error:
        if error.error != "bad_signature":
            return error.description or error.error
    return None


def read_public(text: str, algorithm: str) -> KeyPair:
    """Read a PEM or a JWK of a public key that verifies tokens of an algorithm.

    :raises KeyUnusable: it is none, or private.
    """
    key = read_key(text, algorithm)
    if key.is_private:
        raise KeyUnusable("is a private key; a server needs its public half only")
    reason = misfit(key, algorithm)
    if reason is not None:
        raise KeyUnusable(f"does not fit {algorithm}: {reason}")
    return key
