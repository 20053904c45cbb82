"""The log signs in at a real broker in each way that the settings have; a refusal is one clear error."""

from __future__ import annotations

import base64
import dataclasses
import json
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from circuit_breaker_server.config import ClusterSettings
from circuit_breaker_server.log.event_log import LogError
from circuit_breaker_server.log.jetstream import JetStreamEventLog, read_credentials
from circuit_breaker_server.log.jetstream.credentials import NKey, _text
from tests.conformance.nats_server import NatsServer
from tests.server.certificates import Authority
from tests.server.log.jetstream.log_stage import new

_SEED = 18 << 3
_OPERATOR, _ACCOUNT, _USER = 14 << 3, 0, 20 << 3


def new_seed(kind: int = _USER) -> str:
    """Make the seed of an NKey: two bytes that say what it is of, then the key."""
    return _text(
        bytes([_SEED | kind >> 5, (kind & 31) << 3]) + Ed25519PrivateKey.generate().private_bytes_raw()
    )


def claims(issuer: NKey, subject: NKey, kind: str, **more: object) -> str:
    """Sign a JWT as nsc does."""
    body = {
        "iss": issuer.public,
        "sub": subject.public,
        "iat": 1,
        "nats": {"type": kind, "version": 2, **more},
    }
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body)
    ]
    return f"{'.'.join(parts)}.{issuer.sign('.'.join(parts).encode()).decode()}"


async def append_one(url: str, settings: ClusterSettings) -> None:
    log = await JetStreamEventLog.open(url, credentials=read_credentials(settings), open_seconds=20)
    try:
        await log.append(new())
    finally:
        await log.aclose()


@pytest.fixture(name="secret")
def _secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("hush-hush\n")
    return path


async def test_a_user_signs_in_with_a_password_from_a_file(tmp_path: Path, secret: Path) -> None:
    more = 'authorization { users: [{user: "circuit", password: "hush-hush"}] }'
    with NatsServer(tmp_path / "nats", more=more).running() as server:
        await append_one(server.url, ClusterSettings(user="circuit", password_file=secret))
        secret.write_text("wrong-one")
        with pytest.raises(LogError, match="refuses the credentials") as refused:
            await append_one(server.url, ClusterSettings(user="circuit", password_file=secret))
        assert "wrong-one" not in str(refused.value)
        with pytest.raises(LogError, match="refuses the credentials"):
            await append_one(server.url, ClusterSettings())


async def test_a_token_is_read_from_a_file(tmp_path: Path, secret: Path) -> None:
    with NatsServer(tmp_path / "nats", more='authorization { token: "hush-hush" }').running() as server:
        await append_one(server.url, ClusterSettings(token_file=secret))
        secret.write_text("wrong-one")
        with pytest.raises(LogError, match="refuses the credentials"):
            await append_one(server.url, ClusterSettings(token_file=secret))


async def test_an_nkey_signs_what_the_broker_asks(tmp_path: Path, secret: Path) -> None:
    seed = new_seed()
    more = f"authorization {{ users: [{{nkey: {NKey(seed).public}}}] }}"
    with NatsServer(tmp_path / "nats", more=more).running() as server:
        secret.write_text(seed)
        await append_one(server.url, ClusterSettings(nkey_file=secret))
        secret.write_text(new_seed())
        with pytest.raises(LogError, match="refuses the credentials"):
            await append_one(server.url, ClusterSettings(nkey_file=secret))


async def test_a_credentials_file_has_the_jwt_and_the_seed_of_a_user(tmp_path: Path, secret: Path) -> None:
    operator, account, seed = NKey(new_seed(_OPERATOR)), NKey(new_seed(_ACCOUNT)), new_seed()
    unlimited = {"subs": -1, "data": -1, "payload": -1}
    storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    limits = {**unlimited, "imports": -1, "exports": -1, "conn": -1, "leaf": -1, **storage}
    known = claims(operator, account, "account", limits=limits)
    user = claims(account, NKey(seed), "user", pub={}, sub={}, **unlimited)
    system = NKey(new_seed(_ACCOUNT))
    more = (
        f"operator: {claims(operator, operator, 'operator')}\nresolver: MEMORY\n"
        f"system_account: {system.public}\n"
        f"resolver_preload: {{ {account.public}: {known}, "
        f"{system.public}: {claims(operator, system, 'account', limits=unlimited)} }}"
    )
    secret.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    with NatsServer(tmp_path / "nats", more=more).running() as server:
        await append_one(server.url, ClusterSettings(credentials_file=secret))


async def test_tls_verifies_the_broker_and_shows_a_certificate(tmp_path: Path) -> None:
    authority = Authority()
    ca, (certificate, key) = tmp_path / "ca.pem", authority.write(tmp_path)
    ca.write_bytes(authority.certificate)
    more = f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{ca}", verify: true }}'
    settings = ClusterSettings(tls_ca_file=ca, tls_cert_file=certificate, tls_key_file=key)
    with NatsServer(tmp_path / "nats", more=more).running() as server:
        await append_one(server.url, settings)
        other = tmp_path / "other.pem"
        other.write_bytes(Authority().certificate)
        unknown = dataclasses.replace(settings, tls_ca_file=other)
        with pytest.raises(LogError, match="CERTIFICATE_VERIFY_FAILED"):
            await JetStreamEventLog.open(server.url, credentials=read_credentials(unknown), open_seconds=0.5)


async def test_a_broker_without_tls_is_refused_where_tls_is_wanted(tmp_path: Path, secret: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Authority().certificate)
    settings = ClusterSettings(tls_ca_file=ca, token_file=secret)
    with (
        NatsServer(tmp_path / "nats", more='authorization { token: "hush-hush" }').running() as server,
        pytest.raises(LogError, match="offers no TLS"),
    ):
        await JetStreamEventLog.open(server.url, credentials=read_credentials(settings), open_seconds=0.5)


@pytest.mark.parametrize(
    ("field", "content", "says"),
    [
        ("token_file", None, "cannot be read"),
        ("token_file", "  \n", "is empty"),
        ("nkey_file", "SUAIO3FHUX5", "no seed of an NKey"),
        ("credentials_file", "-----BEGIN hush", "no JWT and seed"),
        ("tls_ca_file", "hush", "holds no certificates"),
    ],
)
def test_a_file_that_does_not_hold_what_it_should_is_named(
    tmp_path: Path, field: str, content: str | None, says: str
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    with pytest.raises(LogError, match=says) as refused:
        read_credentials(ClusterSettings(**{field: path}))  # type: ignore[arg-type]
    assert str(path) in str(refused.value)
    assert "hush" not in str(refused.value)


def test_the_context_of_tls_checks_names() -> None:
    tls = read_credentials(ClusterSettings(urls=("tls://broker:4222",))).tls
    assert tls is not None
    assert tls.check_hostname
    assert tls.verify_mode is ssl.CERT_REQUIRED
