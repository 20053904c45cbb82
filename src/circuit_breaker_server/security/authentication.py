"""Authenticate callers by signed bearer tokens or API keys.

A token is valid until its ``exp`` and the leeway after it; a session that it opened ends at that same instant
(:meth:`Authenticator.at_end`). The error for a refused token holds nothing of the token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Self, final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.api_key_records import KEY_PREFIX, ApiKeyRefused
from circuit_breaker_server.security.api_keys import ApiKeys
from circuit_breaker_server.security.clock import Alarm, Clock, WallClock
from circuit_breaker_server.security.signed_tokens import KeySet, TokenBroken, decode, read_set
from circuit_breaker_server.security.signing_keys import KeyPair, KeyUnusable, read_public, read_secret
from circuit_breaker_server.settings.tokens import TokenSettings
from circuit_breaker_server.storage.lru import RecentlyUsed

__all__ = ["ANYONE", "EXPIRED", "REVOKED", "Authenticator", "Principal", "TokenKeyError", "Unauthenticated"]

MISSING: Final = "token missing"
INVALID: Final = "token invalid"
EXPIRED: Final = "token expired"
REVOKED: Final = "access revoked"

_HEADER: Final = "authorization"
_MAX_KEY_BYTES: Final = 64 * 1024
_MAX_SUBJECT: Final = 255
_LATEST: Final = 2.0**53
_VERIFIED_KEPT: Final = 4_096

logger = get_logger("authentication")


class TokenKeyError(Exception):
    """The key of tokens cannot be used. The text names the setting or the file, and nothing of the key."""


class Unauthenticated(Exception):
    """The credential is missing or not accepted; the text is one fixed reason and holds nothing of it."""


@final
@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated user or program.

    :ivar id: the ``sub`` of the token, or the principal of the API key; empty for every caller of a server
        without authentication.
    :ivar ends_at: the end of their authentication, in seconds since 1970; ``None``: it does not end.
    :ivar key_id: the id of the API key that was shown; ``None`` for a token.

    Example::

        Principal("user-7", 1_790_000_000.0)
    """

    id: str
    ends_at: float | None = None
    key_id: str | None = None


ANYONE: Final = Principal("")


@final
class Authenticator:
    """Return the principal of a request; without settings every caller is accepted, as :data:`ANYONE`.

    Example::

        authenticator = Authenticator.open(TokenSettings(key=Path("token.key")))
        principal = authenticator.of_headers(["Bearer eyJ…"])
        alarm = authenticator.at_end(principal, socket_must_close)
    """

    def __init__(
        self,
        rules: tuple[TokenSettings, KeyPair | OctKey | KeySet] | None = None,
        *,
        keys: ApiKeys | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Hold settings and the key that was read by them; :meth:`open` is the way in."""
        self._rules = rules
        self._keys = keys
        self._clock = clock or WallClock()
        # By digest: the tokens are not kept. It has only tokens that were signed with the key.
        self._verified: RecentlyUsed[bytes, tuple[Principal, float]] = RecentlyUsed(
            max_entries=_VERIFIED_KEPT, max_characters=_VERIFIED_KEPT * 64
        )

    @classmethod
    def open(
        cls, settings: TokenSettings | None, *, keys: ApiKeys | None = None, clock: Clock | None = None
    ) -> Self:
        """Read the key.

        :param keys: API keys that are accepted as well; ``None``: none are.

        :raises TokenKeyError: there is none, or it is not fit for the algorithm.
        """
        return cls(None if settings is None else (settings, _read(settings)), keys=keys, clock=clock)

    @property
    def is_open(self) -> bool:
        """Whether the server has no authentication and accepts every caller."""
        return self._rules is None and self._keys is None

    def of_headers(self, given: Sequence[str]) -> Principal:
        """Return the principal of these ``Authorization`` headers.

        :raises Unauthenticated: says why.
        """
        if self.is_open:
            return ANYONE
        if not given:
            raise Unauthenticated(MISSING)
        # A proxy before this server may read two of them differently.
        return self._verify(given[0] if len(given) == 1 else None)

    def of_socket(self, header: str | None, payload: Mapping[str, object] | None) -> Principal:
        """Tell whose socket it is: by the payload of ``connection_init``, else the header of the upgrade.

        :raises Unauthenticated: says why.
        """
        if self.is_open:
            return ANYONE
        named = [
            value for name, value in (payload or {}).items() if name.lower() == _HEADER and value is not None
        ]
        if not named:
            return self.of_headers([] if header is None else [header])
        return self._verify(named[0] if len(named) == 1 else None)

    def at_end(self, principal: Principal, callback: Callable[[], object]) -> Alarm | None:
        """Call once a principal's token has ended; ``None`` if it never does."""
        return None if principal.ends_at is None else self._clock.call_at(principal.ends_at, callback)

    def _verify(self, authorization: object) -> Principal:
        try:
            token = _token(authorization)
            if token.startswith(KEY_PREFIX):
                return self._of_key(token)
            return self._principal(token)
        except (TokenBroken, JoseError) as error:
            logger.debug("token_refused", why=error.code if isinstance(error, TokenBroken) else error.error)
            raise Unauthenticated(INVALID) from None

    def _of_key(self, text: str) -> Principal:
        if self._keys is None:
            raise TokenBroken("no_keys_taken")
        try:
            key = self._keys.verify(text)
        except ApiKeyRefused as refused:
            logger.debug("key_refused", why=str(refused))
            raise Unauthenticated(str(refused)) from None
        return Principal(key.principal, key.expires_at, key.id)

    def _principal(self, token: str) -> Principal:
        if self._rules is None:
            raise TokenBroken("no_tokens_taken")
        settings, key = self._rules
        # A client shows the same token with each request: its signature is looked at once.
        digest = sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is None:
            known = _read_token(decode(token, key, settings.algorithm), settings)
            self._verified.put(digest, known, characters=len(digest))
        principal, begins_at = known
        # The dates are compared here: a token is taken up to the very instant at which it ends.
        now = self._clock.now()
        if now < begins_at:
            raise TokenBroken("not_yet_valid")
        if principal.ends_at is not None and now >= principal.ends_at:
            raise Unauthenticated(EXPIRED)
        return principal


def _read_token(claims: Mapping[str, object], settings: TokenSettings) -> tuple[Principal, float]:
    """Return the principal of a token and the start of its validity; its signature is already verified."""
    must: dict[str, jwt.ClaimsOption] = {"sub": {"essential": True}}
    if settings.issuer is not None:
        must["iss"] = {"essential": True, "value": settings.issuer}
    if settings.audience is not None:
        must["aud"] = {"essential": True, "value": settings.audience}
    jwt.JWTClaimsRegistry(0, 0, **must).validate({name: claims[name] for name in must if name in claims})
    subject = _subject(claims["sub"])
    leeway = settings.leeway_seconds
    begins_at = _instant(claims, "nbf") - leeway if "nbf" in claims else -math.inf
    return Principal(subject, _instant(claims, "exp") + leeway), begins_at


def _token(authorization: object) -> str:
    if not isinstance(authorization, str):
        raise TokenBroken("not_one_text")
    scheme, _, token = authorization.strip(" \t").partition(" ")
    if scheme.lower() != "bearer":
        raise TokenBroken("not_bearer")
    token = token.strip(" ")
    if not token:
        raise Unauthenticated(MISSING)
    if not token.isascii():
        raise TokenBroken("not_ascii")
    return token


def _subject(value: object) -> str:
    # It becomes part of keys in the log, where half of a surrogate pair has no place.
    if (
        not isinstance(value, str)
        or len(value) > _MAX_SUBJECT
        or any("\ud800" <= c <= "\udfff" for c in value)
    ):
        raise TokenBroken("no_subject")
    return value


def _instant(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LATEST:
        raise TokenBroken(f"no_{name}")
    return float(value)


def _read(settings: TokenSettings) -> KeyPair | OctKey | KeySet:
    data, where = settings.key, "the key of tokens"
    if isinstance(data, Path):
        where = f"the key of tokens {data}"
        data = _file(data, where)
    try:
        keys = read_set(data, settings.algorithm)
        if keys is not None:
            return keys
        if settings.algorithm == "HS256":
            return read_secret(data)
        return read_public(data.decode(), settings.algorithm)
    except UnicodeDecodeError:
        raise TokenKeyError(f"{where}: is no PEM or JWK of a key for {settings.algorithm}") from None
    except KeyUnusable as error:
        raise TokenKeyError(f"{where}: {error}") from None


def _file(path: Path, where: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_BYTES + 1)
    except OSError as error:
        raise TokenKeyError(f"{where}: {error.strerror}; give a file this user may read") from None
    if len(data) > _MAX_KEY_BYTES:
        raise TokenKeyError(f"{where}: over {_MAX_KEY_BYTES} bytes: this is no key")
    text = data.rstrip(b"\r\n")
    # Editors and shells end a line; the bytes of a secret that is no text are all meant.
    return text if text.isascii() and text.decode().isprintable() else data
