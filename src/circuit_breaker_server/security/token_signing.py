"""Sign tokens, for tests and first steps; in production an issuer does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError

from circuit_breaker_server.security.signing_keys import (
    KINDS,
    KeyUnusable,
    PinnedAlgorithm,
    read_key,
    read_secret,
)

__all__ = ["sign"]


def sign(claims: Mapping[str, Any], key: bytes, algorithm: str) -> str:
    """Return the token (JWT) with these claims.

    :param key: the secret of HS256, or a private key as PEM or JWK.
    :param algorithm: one of :data:`.signing_keys.KINDS`.
    :raises KeyUnusable: the key is none for the algorithm, or the public half only.
    """
    if algorithm not in KINDS:
        raise KeyUnusable(f"no key is for {algorithm}: the algorithms are {', '.join(KINDS)}")
    if KINDS[algorithm] == "oct":
        # A line end behind a secret that is text does not belong to it, as for the server.
        secret = read_secret(key.removesuffix(b"\n").removesuffix(b"\r"))
        return jwt.encode({"alg": algorithm}, dict(claims), secret, registry=PinnedAlgorithm(algorithm))
    try:
        pair = read_key(key.decode(), algorithm)
    except UnicodeDecodeError as error:
        raise KeyUnusable(f"is no PEM or JWK of a key for {algorithm}") from error
    if not pair.is_private:
        raise KeyUnusable("is a public key, which signs nothing: name its private half")
    try:
        return jwt.encode({"alg": algorithm}, dict(claims), pair, registry=PinnedAlgorithm(algorithm))
    except JoseError as error:
        raise KeyUnusable(f"does not fit {algorithm}: {error.description or error.error}") from error
