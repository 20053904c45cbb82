"""RSA keys that callers hand over: read without OpenSSL's long test for primes, and refused all the same."""

from __future__ import annotations

import math
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Final

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPrivateNumbers,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from circuit_breaker_server.engine.errors import EngineError
from circuit_breaker_server.engine.mcp.jwt import check_keys
from circuit_breaker_server.security import signing_keys
from circuit_breaker_server.security.signing_keys import KeyUnusable, read_key

_E: Final = 65537


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return generate_private_key(_E, 2048)


def public_pem(key: RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key: RSAPrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def jwk(**numbers: int) -> str:
    def written(number: int) -> str:
        size = (number.bit_length() + 7) // 8
        return urlsafe_b64encode(number.to_bytes(size, "big")).rstrip(b"=").decode()

    return msgspec.json.encode({"kty": "RSA", **{name: written(n) for name, n in numbers.items()}}).decode()


def numbers_of(key: RSAPrivateKey) -> dict[str, int]:
    found = key.private_numbers()
    return {
        "n": found.public_numbers.n,
        "e": found.public_numbers.e,
        "d": found.d,
        "p": found.p,
        "q": found.q,
        "dp": found.dmp1,
        "dq": found.dmq1,
        "qi": found.iqmp,
    }


def numbers_from(p: int, q: int) -> dict[str, int]:
    d = pow(_E, -1, math.lcm(p - 1, q - 1))
    dp, dq, qi = d % (p - 1), d % (q - 1), pow(q, -1, p)
    return {"n": p * q, "e": _E, "d": d, "p": p, "q": q, "dp": dp, "dq": dq, "qi": qi}


def test_both_forms_of_a_pem_and_a_jwk_of_a_private_key_are_read(key: RSAPrivateKey) -> None:
    for text in (
        private_pem(key),
        private_pem(key, PrivateFormat.TraditionalOpenSSL),
        jwk(**numbers_of(key)),
        jwk(**numbers_from(key.private_numbers().p, key.private_numbers().q)),
    ):
        read = read_key(text, "RS256")
        assert read.is_private
        check_keys(public_pem(key), text, "RS256", "auth")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda n: {**n, "d": n["d"] + 2},
        lambda n: {**n, "dp": n["dp"] + 2},
        lambda n: {**n, "dq": n["dq"] + 2},
        lambda n: {**n, "qi": n["qi"] + 1},
        lambda n: {**n, "n": n["n"] + 2},
        lambda n: {**n, "p": 1, "q": n["n"]},
        lambda n: {**n, "p": n["q"]},
        lambda n: {**n, "p": 2 * n["p"], "n": 2 * n["n"]},
        lambda n: {**n, "p": 0},
        lambda n: {name: number for name, number in n.items() if name not in ("p", "q", "dp", "dq", "qi")},
        lambda n: {**n, "d": 1 << 100_000},
    ],
)
def test_a_private_key_whose_numbers_do_not_belong_together_is_refused(
    key: RSAPrivateKey, spoil: Callable[[dict[str, int]], dict[str, int]]
) -> None:
    with pytest.raises(KeyUnusable):
        read_key(jwk(**spoil(numbers_of(key))), "RS256")


def test_a_pem_whose_numbers_do_not_belong_together_is_refused(key: RSAPrivateKey) -> None:
    found = key.private_numbers()
    spoilt = RSAPrivateNumbers(
        p=found.p,
        q=found.q,
        d=found.d + 2,
        dmp1=found.dmp1,
        dmq1=found.dmq1,
        iqmp=found.iqmp,
        public_numbers=found.public_numbers,
    )
    text = private_pem(spoilt.private_key(unsafe_skip_rsa_key_validation=True))
    with pytest.raises(KeyUnusable, match="do not belong together"):
        read_key(text, "RS256")


def test_a_factor_that_is_no_prime_shows_itself_in_a_signature() -> None:
    small, large = (generate_private_key(_E, size).private_numbers() for size in (1024, 2048))
    composite = numbers_from(small.p * small.q, large.p)
    public = jwk(n=composite["n"], e=composite["e"])
    assert not read_key(public, "RS256").is_private
    with pytest.raises(EngineError, match="is not the other half of publicKey"):
        check_keys(public, jwk(**composite), "RS256", "auth")


def test_a_private_key_that_is_too_large_or_has_a_password_is_refused(
    key: RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"swordfish"))
    with pytest.raises(KeyUnusable, match="is no PEM or JWK"):
        read_key(locked.decode(), "RS256")
    monkeypatch.setattr(signing_keys, "_MOST_BITS", 2047)
    with pytest.raises(KeyUnusable, match="a private key of 2048 bits; at most 2047 are used"):
        read_key(private_pem(key), "RS256")
    assert not read_key(public_pem(key), "RS256").is_private
