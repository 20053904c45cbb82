"""Several keys for tokens (JWKS): which one verifies, which are left out, and which sets are refused."""

from __future__ import annotations

import json
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from circuit_breaker_server import TokenSettings
from circuit_breaker_server.security.authentication import Authenticator, TokenKeyError, Unauthenticated
from tests.server.tokens import NOW, SECRET, SetClock, unsigned

AnyKey = RSAKey | ECKey | OKPKey | OctKey

RSA, OTHER_RSA = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
EC, OTHER_EC = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
ED, OTHER_ED = OKPKey.generate_key("Ed25519"), OKPKey.generate_key("Ed25519")
OCT, OTHER_OCT = OctKey.import_key(SECRET), OctKey.import_key(b"swordfish" * 4)
PAIRS: list[tuple[str, AnyKey, AnyKey]] = [
    ("RS256", RSA, OTHER_RSA),
    ("ES256", EC, OTHER_EC),
    ("EdDSA", ED, OTHER_ED),
    ("HS256", OCT, OTHER_OCT),
]


def member(key: AnyKey, kid: str | None = None, **more: object) -> dict[str, object]:
    plain: dict[str, object] = dict(key.as_dict(private=isinstance(key, OctKey)))
    plain.pop("kid", None)
    return {**plain, **({} if kid is None else {"kid": kid}), **more}


def jwks(*members: Mapping[str, object], **more: object) -> bytes:
    return json.dumps({"keys": members, **more}, indent=1).encode()


def signed(key: AnyKey, algorithm: str, **header: object) -> str:
    claims = {"sub": "user-1", "exp": int(NOW) + 3600}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joserfc would have EdDSA called otherwise
        return jwt.encode({"alg": algorithm, **header}, claims, key, algorithms=[algorithm])


def by(data: bytes | Path, algorithm: str) -> Authenticator:
    return Authenticator.open(TokenSettings(key=data, algorithm=algorithm), clock=SetClock())


def takes(authenticator: Authenticator, token: str) -> bool:
    try:
        return authenticator.of_headers([f"Bearer {token}"]).id == "user-1"
    except Unauthenticated:
        return False


@pytest.mark.parametrize(("algorithm", "one", "two"), PAIRS)
def test_the_kid_of_a_token_chooses_the_key(tmp_path: Path, algorithm: str, one: AnyKey, two: AnyKey) -> None:
    data = jwks(member(one, "one"), member(two, "two"), note="of the issuer")
    file = tmp_path / "jwks.json"
    file.write_bytes(data + b"\n")
    for given in (data, file):
        authenticator = by(given, algorithm)
        assert takes(authenticator, signed(one, algorithm, kid="one"))
        assert takes(authenticator, signed(two, algorithm, kid="two"))
        assert not takes(authenticator, signed(one, algorithm, kid="two"))
        assert not takes(authenticator, signed(one, algorithm, kid="three"))
        assert not takes(authenticator, signed(one, algorithm, kid=""))
        assert not takes(authenticator, signed(one, algorithm))
        assert not takes(authenticator, unsigned())


@pytest.mark.parametrize(("algorithm", "one", "two"), PAIRS)
def test_a_token_without_kid_is_taken_where_one_key_alone_is_for_the_algorithm(
    algorithm: str, one: AnyKey, two: AnyKey
) -> None:
    others: list[dict[str, object]] = [
        member(ECKey.generate_key("P-384"), "p384"),
        member(two, "encrypts", use="enc"),
        member(two, "wraps", key_ops=["wrapKey"]),
        member(two, "another", alg="RS512"),
        {"kty": "from the future", "kid": "new", "a": 1},
        {"kid": "nothing"},
    ]
    for kid in ("one", None):
        mine = member(one, kid, use="sig", alg=algorithm, key_ops=["verify"], ext=True, x5c=["MIIB"])
        authenticator = by(jwks(*others, mine), algorithm)
        assert takes(authenticator, signed(one, algorithm))
        assert takes(authenticator, signed(one, algorithm, kid="one")) == (kid == "one")
        assert not takes(authenticator, signed(two, algorithm))
        assert not takes(authenticator, signed(two, algorithm, kid="encrypts"))
    assert not takes(by(jwks(member(one), member(two)), algorithm), signed(one, algorithm))


@pytest.mark.parametrize("kid", [7, ["one"], {"one": 1}, None, True])
def test_a_kid_that_is_no_text_names_no_key(kid: object) -> None:
    head = urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": kid}).encode()).rstrip(b"=").decode()
    token = head + "." + signed(OCT, "HS256").partition(".")[2]
    assert not takes(by(jwks(member(OCT, "one"), member(OTHER_OCT, "two")), "HS256"), token)


def test_the_algorithm_stays_pinned_whatever_a_token_says() -> None:
    public = OctKey.import_key(RSA.as_pem(private=False).replace(b"-----BEGIN", b"-----begin"))
    authenticator = by(jwks(member(RSA, "one"), member(EC, "two")), "RS256")
    assert takes(authenticator, signed(RSA, "RS256", kid="one"))
    assert not takes(authenticator, signed(EC, "ES256", kid="two"))
    assert not takes(authenticator, signed(public, "HS256", kid="one"))


@pytest.mark.parametrize(
    ("data", "algorithm", "says"),
    [
        (jwks(), "RS256", "no key of the set is for RS256"),
        (jwks(member(EC, "one")), "RS256", "no key of the set is for RS256"),
        (jwks(member(RSA, "one")), "HS256", "no key of the set is for HS256"),
        (b'{"keys": 7}', "RS256", "no set of keys"),
        (b'{"keys": ["swordfish"]}', "HS256", "no set of keys"),
        (jwks(member(RSA, "one"), member(OTHER_OCT, "two")), "RS256", "key 2 of the set: is a secret"),
        (
            jwks(member(EC, "one"), dict(OTHER_RSA.as_dict(private=True))),
            "ES256",
            "key 2 of the set: is a private",
        ),
        (jwks(dict(EC.as_dict(private=True))), "ES256", "key 1 of the set: is a private"),
        (jwks(member(RSA, "one"), member(OTHER_RSA, "one")), "RS256", "key 2 of the set: another one"),
        (jwks({**member(RSA), "kid": 7}), "RS256", "its kid is no text"),
        (jwks({**member(RSA, "one"), "n": "swordfish"}), "RS256", "key 1 of the set: "),
        (jwks({**member(RSA, "one"), "n": ["swordfish"]}), "RS256", "key 1 of the set: "),
        (jwks({**member(EC, "one"), "x": "swordfish"}), "ES256", "key 1 of the set: "),
        (jwks({"kty": "oct", "k": "c3dvcmRmaXNo", "kid": "one"}), "HS256", "9 bytes"),
        (jwks({"kty": "oct", "kid": "one", "k": [7] * 99}), "HS256", "key 1 of the set: "),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_set_that_cannot_be_used_is_an_error_that_does_not_show_it(
    tmp_path: Path, data: bytes, algorithm: str, says: str
) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(data)
    for given in (data, file):
        with pytest.raises(TokenKeyError) as failed:
            by(given, algorithm)
        assert says in str(failed.value)
        assert "swordfish" not in str(failed.value)
        assert "c3dvcmRmaXNo" not in str(failed.value)
        assert not isinstance(given, Path) or str(file) in str(failed.value)
