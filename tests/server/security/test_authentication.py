"""Tokens: which are taken, whom they name, when they end; and which keys a server starts with."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from circuit_breaker_server import Server, ServerSettings, ServerStartError, TokenSettings, logs
from circuit_breaker_server.security.authentication import (
    ANYONE,
    Authenticator,
    Principal,
    TokenKeyError,
    Unauthenticated,
)
from circuit_breaker_server.security.clock import WallClock
from tests.server.tokens import (
    LEEWAY,
    NOW,
    SECRET,
    SetClock,
    authenticator,
    forged,
    token,
    token_of,
    unsigned,
)

RSA = RSAKey.generate_key(2048)
EC = ECKey.generate_key("P-256")
ED = OKPKey.generate_key("Ed25519")
WEAK = (
    rsa.generate_private_key(65_537, 1024)  # noqa: S505 (weak on purpose)
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
)


def public(key: RSAKey | ECKey | OKPKey) -> bytes:
    return key.as_pem(private=False)


def reason_for(given: str, by: Authenticator | None = None) -> str:
    with pytest.raises(Unauthenticated) as refused:
        (by or authenticator()).of_headers([f"Bearer {given}"])
    return str(refused.value)


def test_without_settings_everybody_is_let_in_whatever_he_shows() -> None:
    off = Authenticator.open(None)
    assert off.of_headers(["Bearer rubbish"]) is ANYONE
    assert off.of_socket("rubbish", {"Authorization": 7}) is ANYONE
    assert off.at_end(ANYONE, pytest.fail) is None


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_a_good_token_names_its_subject_and_ends_a_leeway_after_its_exp(scheme: str) -> None:
    assert authenticator().of_headers([scheme + token()]) == Principal("user-1", NOW + 3600 + LEEWAY)


@pytest.mark.parametrize(
    "given",
    [
        forged(),
        unsigned(),
        token(b"x" * 32),
        token(SECRET + SECRET, algorithm="HS384"),
        token(SECRET, algorithm="HS512"),
        token()[:-1],
        token() + "x",
        token().rpartition(".")[0],
        token(exp=None),
        token(exp="tomorrow"),
        token(exp=True),
        token(exp=10**400),
        token(exp=float("nan")),
        token(exp=float("inf")),
        token(sub=None),
        token(sub=""),
        token(sub=7),
        token(sub=["user-1"]),
        token(sub="x" * 256),
        token(sub="half a pair: \ud800"),
        token(nbf=NOW + LEEWAY + 0.5),
        token(nbf="now"),
        token(padding="x" * 20_000),
        "rubbish",
        "..",
        "a.b.c",
        ".".join(["[" * 20_000] * 3),
        "eyJhbGciOiJIUzI1NiJ9.W10.x",
        "tök.én.x",
        "\ud800",
        "\x00\xff",
    ],
)
def test_a_token_that_is_none_or_not_ours_is_invalid(given: str) -> None:
    assert reason_for(given) == "token invalid"


def test_no_token_is_missing_and_two_are_invalid() -> None:
    for given, reason in (
        ([], "token missing"),
        (["Bearer "], "token missing"),
        (["Bearer"], "token missing"),
        (["Basic dXNlcjpwYXNz"], "token invalid"),
        ([token()], "token invalid"),
        ([f"Bearer {token()}"] * 2, "token invalid"),
    ):
        with pytest.raises(Unauthenticated, match=reason):
            authenticator().of_headers(given)


def test_a_token_is_taken_up_to_the_instant_at_which_it_ends() -> None:
    clock = SetClock()
    by = authenticator(clock)
    given = token(exp=NOW, nbf=NOW)
    (ends_at,) = {by.of_headers([f"Bearer {given}"]).ends_at}
    assert ends_at == NOW + LEEWAY
    clock.time = ends_at - 0.001
    by.of_headers([f"Bearer {given}"])
    clock.time = ends_at
    assert reason_for(given, by) == "token expired"
    clock.time = NOW - LEEWAY
    by.of_headers([f"Bearer {given}"])
    clock.time = NOW - LEEWAY - 0.001
    assert reason_for(given, by) == "token invalid"


def test_a_token_that_was_taken_is_known_again_and_nothing_that_is_like_it() -> None:
    by, given = authenticator(SetClock()), token()
    first = by.of_headers([f"Bearer {given}"])
    assert by.of_headers([f"Bearer {given}"]) is first
    head, claims, signature = given.split(".")
    for like_it in (
        given[:-2],
        given + "A",
        f"{head}.{claims}.",
        f"{head}.{signature}.{claims}",
        given.swapcase(),
    ):
        assert reason_for(like_it, by) == "token invalid"


def test_expired_is_said_only_of_a_token_that_is_otherwise_good() -> None:
    clock = SetClock(NOW + 9999)
    assert reason_for(token(), authenticator(clock)) == "token expired"
    assert reason_for(token(b"x" * 32), authenticator(clock)) == "token invalid"
    assert reason_for(token(iss="other"), authenticator(clock, issuer="us")) == "token invalid"


@pytest.mark.parametrize(
    ("claims", "good"),
    [
        ({"iss": "us", "aud": "here"}, True),
        ({"iss": "us", "aud": ["there", "here"]}, True),
        ({"iss": "us", "aud": "there"}, False),
        ({"iss": "us", "aud": ["there"]}, False),
        ({"iss": "us", "aud": []}, False),
        ({"iss": "us", "aud": {"here": 1}}, False),
        ({"iss": "us"}, False),
        ({"aud": "here"}, False),
        ({"iss": "them", "aud": "here"}, False),
        ({"iss": ["us"], "aud": "here"}, False),
    ],
)
def test_issuer_and_audience_are_checked_where_they_are_set(claims: dict[str, object], good: bool) -> None:
    by = authenticator(issuer="us", audience="here")
    if good:
        assert by.of_headers([f"Bearer {token_of(claims)}"]).id == "user-1"
    else:
        assert reason_for(token_of(claims), by) == "token invalid"
    assert authenticator().of_headers([f"Bearer {token_of(claims)}"]).id == "user-1"


def test_the_payload_of_a_socket_wins_over_its_header() -> None:
    by = authenticator()
    header = f"Bearer {token(sub='header')}"
    payload = f"Bearer {token(sub='payload')}"
    for name in ("Authorization", "authorization", "AUTHORIZATION"):
        assert by.of_socket(header, {name: payload}).id == "payload"
        assert by.of_socket(None, {name: payload}).id == "payload"
    nothings: list[Mapping[str, object] | None] = [None, {}, {"resume": {}}, {"Authorization": None}]
    for nothing in nothings:
        assert by.of_socket(header, nothing).id == "header"
        with pytest.raises(Unauthenticated, match="token missing"):
            by.of_socket(None, nothing)
    for wrong in (
        {"Authorization": 7},
        {"Authorization": "x"},
        {"authorization": payload, "Authorization": payload},
    ):
        with pytest.raises(Unauthenticated, match="token invalid"):
            by.of_socket(header, wrong)


@pytest.mark.parametrize(("algorithm", "key"), [("RS256", RSA), ("ES256", EC), ("EdDSA", ED)])
def test_public_keys_verify_what_the_private_half_has_signed_with_the_pinned_algorithm_only(
    tmp_path: Path, algorithm: str, key: RSAKey | ECKey | OKPKey
) -> None:
    claims = {"sub": "user-1", "exp": int(NOW) + 3600}
    with pytest.warns() if algorithm == "EdDSA" else contextlib.nullcontext():
        signed = jwt.encode({"alg": algorithm}, claims, key, algorithms=[algorithm])
    file = tmp_path / "key.pem"
    file.write_bytes(public(key))
    for given in (public(key), file):
        by = Authenticator.open(TokenSettings(key=given, algorithm=algorithm), clock=SetClock())
        assert by.of_headers([f"Bearer {signed}"]).id == "user-1"
        assert reason_for(token(), by) == "token invalid"
        assert reason_for(unsigned(), by) == "token invalid"
    assert reason_for(signed) == "token invalid"


# --- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "algorithm", "says"),
    [
        (b"", "HS256", "0 bytes"),
        (b"swordfish" * 3, "HS256", "27 bytes; HS256 needs at least 32"),
        (b'{"kty": "oct", "k": "c3dvcmRmaXNoc3dvcmRmaXNo"}', "HS256", "18 bytes"),
        (public(RSA), "HS256", "PEM"),
        (EC.as_pem(private=True), "HS256", "PEM"),
        (b"swordfish" * 9, "RS256", "no PEM"),
        (b"\xff" * 64, "EdDSA", "no PEM"),
        (public(EC), "RS256", "no PEM"),
        (WEAK, "RS256", "1024 bits"),
        (RSA.as_pem(private=True), "RS256", "private"),
        (public(ECKey.generate_key("P-384")), "ES256", "P-256"),
        (public(OKPKey.generate_key("X25519")), "EdDSA", "does not fit"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
async def test_a_key_that_is_none_is_an_error_at_the_start_that_does_not_show_it(
    tmp_path: Path, key: bytes, algorithm: str, says: str
) -> None:
    file = tmp_path / "token.key"
    file.write_bytes(key)
    for given in (key, file):
        settings = TokenSettings(key=given, algorithm=algorithm)
        server = Server(ServerSettings(data_dir=tmp_path / "data", port=0, token_keys=settings))
        with pytest.raises(ServerStartError) as failed:
            await server.start()
        await server.aclose()
        assert says in str(failed.value)
        assert "swordfish" not in str(failed.value)
        if isinstance(given, Path):
            assert str(file) in str(failed.value)
    assert not (tmp_path / "data").exists()


def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(TokenKeyError, match=str(path)):
            Authenticator.open(TokenSettings(key=path))
    (tmp_path / "big").write_bytes(b"x" * 70_000)
    with pytest.raises(TokenKeyError, match="this is no key"):
        Authenticator.open(TokenSettings(key=tmp_path / "big"))


def test_the_line_end_of_a_text_is_no_part_of_the_secret_and_that_of_bytes_is(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for content, secret in (
        (SECRET + b"\n", SECRET),
        (SECRET + b"\r\n", SECRET),
        (b"\xfe" * 40 + b"\n", b"\xfe" * 40 + b"\n"),
    ):
        file.write_bytes(content)
        by = Authenticator.open(TokenSettings(key=file), clock=SetClock())
        assert by.of_headers([f"Bearer {token(secret)}"]).id == "user-1"


def test_the_key_is_in_no_repr() -> None:
    settings = TokenSettings(key=SECRET)
    shown = repr(settings) + repr(ServerSettings(data_dir=Path("x"), token_keys=settings))
    shown += repr(Authenticator.open(settings))
    assert SECRET.decode() not in shown
    assert "TokenSettings(algorithm='HS256'" in shown


@pytest.mark.parametrize(
    "wrong",
    [
        {"algorithm": "none"},
        {"algorithm": "HS512"},
        {"leeway_seconds": -1},
        {"leeway_seconds": float("nan")},
        {"leeway_seconds": float("inf")},
        {"issuer": ""},
        {"audience": ""},
    ],
)
def test_settings_of_tokens_that_make_no_sense_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TokenSettings(key=SECRET, **wrong)  # type: ignore[arg-type]  # wrong on purpose


# --- the clock -------------------------------------------------------------------------------------


async def test_the_machine_s_clock_calls_once_the_instant_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, called = WallClock(), asyncio.Event()
    when = clock.now() + 0.02
    clock.call_at(when, called.set)
    cancelled = clock.call_at(when - 0.01, pytest.fail)
    cancelled.cancel()
    await called.wait()
    assert time.time() >= when
    cancelled.cancel()
    # Woken before its time, as after the clock was set back, it sleeps again.
    called.clear()
    alarm = clock.call_at(clock.now() + 1e9, called.set)
    alarm._wake()  # type: ignore[attr-defined]
    assert not called.is_set()
    alarm.cancel()


def test_what_is_refused_is_told_in_the_log_without_the_token(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug")
    for given in (forged(), unsigned(), token(sub="swordfish" * 99), "swordfish.swordfish.swordfish"):
        reason_for(given)
    captured = capsys.readouterr()
    assert captured.err.count("token_refused") == 4
    assert "swordfish" not in captured.err
    assert not any(part in captured.err for part in forged().split("."))
