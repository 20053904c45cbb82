"""The server's credentials at the brokers, read from their files when the log is opened."""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from circuit_breaker_server.log.event_log import LogError
from circuit_breaker_server.settings.cluster import ClusterSettings

__all__ = ["NO_CREDENTIALS", "Credentials", "NKey", "read_credentials"]

T = TypeVar("T")

_SEED_PREFIX: Final = 18 << 3
_SEED_BYTES: Final = 36
_jwt = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END")
_seed = re.compile(r"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END")


@final
class NKey:
    """A key pair of NATS: Ed25519, written in base32 with a prefix and a check sum.

    Example::

        key = NKey("SUAIO3FHUX5PNV2LQIIP7TZ3N4L7TX3W53MQGEIVYFIGA635OZCKEYHFLM")
        signature = key.sign(b"nonce")
    """

    def __init__(self, seed: str) -> None:
        """Read the seed.

        :raises ValueError: it is none; the text does not repeat it.
        """
        try:
            raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
        except binascii.Error:
            raw = b""
        if len(raw) != _SEED_BYTES or raw[0] & 0xF8 != _SEED_PREFIX or _check_sum(raw[:-2]) != raw[-2:]:
            raise ValueError("it holds no seed of an NKey")
        self._prefix = (raw[0] & 7) << 5 | (raw[1] & 0xF8) >> 3
        self._key = Ed25519PrivateKey.from_private_bytes(raw[2:-2])

    @property
    def public(self) -> str:
        """The public key as NATS writes it."""
        key = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _text(bytes([self._prefix]) + key)

    def sign(self, data: bytes) -> bytes:
        """Return the signature, in the base64 of URLs without padding."""
        return base64.urlsafe_b64encode(self._key.sign(data)).rstrip(b"=")


def _check_sum(data: bytes) -> bytes:
    return binascii.crc_hqx(data, 0).to_bytes(2, "little")


def _text(data: bytes) -> str:
    return base64.b32encode(data + _check_sum(data)).decode().rstrip("=")


@final
class Credentials:
    """The credentials of a connection.

    :ivar user: with ``password``; ``None`` without them.
    :ivar key: signs what the broker asks for; alone, or with the JWT.
    :ivar tls: verifies the broker; ``None`` leaves TLS to the broker.
    :ivar requires_tls: whether a broker without TLS is refused, before anything secret is sent to it.
    """

    __slots__ = ("jwt", "key", "password", "requires_tls", "tls", "token", "user")

    def __init__(
        self,
        *,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        key: NKey | None = None,
        jwt: str | None = None,
        tls: ssl.SSLContext | None = None,
        requires_tls: bool = False,
    ) -> None:
        self.user = user
        self.password = password
        self.token = token
        self.key = key
        self.jwt = jwt
        self.tls = tls
        self.requires_tls = requires_tls


NO_CREDENTIALS: Final = Credentials()


def read_credentials(settings: ClusterSettings) -> Credentials:
    """Read the files that the settings name.

    :raises LogError: one cannot be read, or does not hold what it should; the text has nothing of it.
    """
    key: NKey | None = None
    jwt: str | None = None
    if settings.nkey_file is not None:
        key = _parsed(settings.nkey_file, NKey)
    if settings.credentials_file is not None:
        jwt, key = _parsed(settings.credentials_file, _user_and_seed)
    return Credentials(
        user=settings.user,
        password=None if settings.password_file is None else _secret(settings.password_file),
        token=None if settings.token_file is None else _secret(settings.token_file),
        key=key,
        jwt=jwt,
        tls=_context(settings) if settings.requires_tls else None,
        requires_tls=settings.requires_tls,
    )


def _user_and_seed(text: str) -> tuple[str, NKey]:
    jwt, seed = _jwt.search(text), _seed.search(text)
    if jwt is None or seed is None:
        raise ValueError("it holds no JWT and seed of a user, as nsc writes them")
    return jwt[1], NKey(seed[1])


def _secret(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise LogError(
            f"{path}: cannot be read ({error.strerror}); the broker's credentials are missing"
        ) from error
    except UnicodeDecodeError as error:
        raise LogError(f"{path}: it is no text") from error
    if not text:
        raise LogError(f"{path}: it is empty; the broker's credentials are missing")
    return text


def _parsed(path: Path, parse: Callable[[str], T]) -> T:
    try:
        return parse(_secret(path))
    except ValueError as error:
        raise LogError(f"{path}: {error}") from None


def _context(settings: ClusterSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
    except OSError as error:
        raise LogError(
            f"{settings.tls_ca_file}: holds no certificates ({error.strerror or error})"
        ) from error
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        try:
            # A password would be asked for on the terminal.
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file, password=_no_password)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise LogError(
                f"{settings.tls_cert_file}, {settings.tls_key_file}: no certificate with its key ({reason})"
            ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")
