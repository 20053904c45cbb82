"""Signed tokens (JWT): keys checked, tokens verified with one pinned algorithm, tokens signed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from joserfc import jwt
from joserfc.errors import JoseError

from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.json_values import json_equal
from circuit_breaker_server.engine.mcp.records import Jwt
from circuit_breaker_server.engine.validation import refuse
from circuit_breaker_server.security.signed_tokens import MAX_TOKEN, TokenBroken, decode
from circuit_breaker_server.security.signing_keys import KeyPair, KeyUnusable, misfit, read_key

__all__ = ["ALGORITHMS", "check_keys", "sign", "verify"]

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Of two keys only: the key of the others is shown to everyone who may read the configuration."""


def check_keys(public_key: str, private_key: str | None, algorithm: str, where: str) -> None:
    """Refuse keys that do not fit the algorithm or one another.

    :raises EngineError: ``INVALID_INPUT``.
    """
    if algorithm not in ALGORITHMS:
        refuse(f"{where}.algorithm: {shown(algorithm)} is none of {', '.join(ALGORITHMS)}")
    public = _key(public_key, algorithm, f"{where}.publicKey")
    if public.is_private:
        refuse(f"{where}.publicKey: is a private key; give its public half only")
    reason = misfit(public, algorithm)
    if reason is not None:
        refuse(f"{where}.publicKey: does not fit {algorithm}: {reason}")
    if private_key is None:
        return
    private = _key(private_key, algorithm, f"{where}.privateKey")
    try:
        token = jwt.encode({"alg": algorithm}, {}, private, algorithms=[algorithm])
        jwt.decode(token, public, algorithms=[algorithm])
    except (JoseError, ValueError, TypeError):
        refuse(f"{where}.privateKey: is not the other half of publicKey")


def _key(text: str, algorithm: str, where: str) -> KeyPair:
    try:
        return read_key(text, algorithm)
    except KeyUnusable as error:
        raise EngineError(ErrorCode.INVALID_INPUT, f"{where}: {error}") from error


def verify(token: str, config: Jwt, user_id: str, *, now_seconds: int) -> Mapping[str, object]:
    """Verify a token of a user; return its claims.

    :raises EngineError: ``AUTHENTICATION_FAILED``: says why.
    """
    if len(token) > MAX_TOKEN:
        refuse(f"token: has at most {MAX_TOKEN} characters")
    key = _key(config.public_key, config.algorithm, "publicKey")
    try:
        claims = decode(token, key, config.algorithm)
        registry = jwt.JWTClaimsRegistry(
            now=now_seconds,
            iss={"essential": True, "value": config.issuer},
            sub={"essential": True, "value": user_id},
            exp={"essential": True},
        )
        registry.validate(claims)
        _check_audience(claims, config.audience)
        _check_claims(claims, config.custom_claims)
    except JoseError as error:
        raise _refusal(error.description or error.error) from error
    except (ValueError, TypeError, TokenBroken, _Refused) as error:
        raise _refusal(str(error)) from error
    return claims


def _check_audience(claims: Mapping[str, object], wanted: str | None) -> None:
    given = claims.get("aud")
    # RFC 7519, section 4.1.3: a token for an audience is for no other peer; several audiences come as a list.
    audiences = given if isinstance(given, list) else [given]
    if wanted not in audiences:
        raise _Refused("the token is for another audience")


def _check_claims(claims: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    for name, value in wanted.items():
        if name not in claims or not json_equal(claims[name], value):
            raise _Refused(f"the claim {name} is not as configured")


class _Refused(Exception):
    """A claim is not what it must be."""


def _refusal(reason: str) -> EngineError:
    return EngineError(ErrorCode.AUTHENTICATION_FAILED, f"the token was refused: {reason}")


def sign(config: Jwt, private_key: str, *, now_seconds: int) -> str:
    """Sign a token that a check presents.

    :raises EngineError: ``INVALID_INPUT``: the key cannot be read.
    """
    claims: dict[str, object] = {
        **config.custom_claims,
        "iss": config.issuer,
        "iat": now_seconds,
        "exp": now_seconds + config.expiration_seconds,
    }
    if config.audience is not None:
        claims["aud"] = config.audience
    key = _key(private_key, config.algorithm, "privateKey")
    return jwt.encode({"alg": config.algorithm}, claims, key, algorithms=[config.algorithm])
