"""Tokens as an issuer signs them, and as nobody should; and a clock that a test sets."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import final

import msgspec
from joserfc import jws
from joserfc.jwk import OctKey

from circuit_breaker_server import TokenSettings
from circuit_breaker_server.security.authentication import Authenticator

SECRET = b"the issuer and the server know it"
NOW = 1_800_000_000.0
LEEWAY = 30.0


def token(secret: bytes = SECRET, *, algorithm: str = "HS256", **claims: object) -> str:
    """Sign a token of user-1 for an hour from NOW; a claim of ``None`` is left out."""
    return token_of(claims, secret, algorithm)


def token_of(claims: Mapping[str, object], secret: bytes = SECRET, algorithm: str = "HS256") -> str:
    said = {"sub": "user-1", "exp": NOW + 3600, **claims}
    payload = json.dumps({name: value for name, value in said.items() if value is not None}).encode()
    key = OctKey.import_key(secret)
    return jws.serialize_compact({"alg": algorithm}, payload, key, algorithms=[algorithm])


def unsigned() -> str:
    parts = ({"alg": "none"}, {"sub": "user-1", "exp": NOW + 3600})
    return ".".join(urlsafe_b64encode(msgspec.json.encode(p)).rstrip(b"=").decode() for p in parts) + "."


def forged() -> str:
    """Take the signature of one token for the claims of another."""
    head, _, signature = token().split(".")
    return ".".join((head, token(sub="admin").split(".")[1], signature))


@final
class SetClock:
    """Stands until it is set; what is due is called then.

    :ivar alarms: what is still to be called.
    """

    def __init__(self, now: float = NOW) -> None:
        self.time = now
        self.alarms: list[_Alarm] = []

    def now(self) -> float:
        return self.time

    def call_at(self, when: float, callback: Callable[[], object]) -> _Alarm:
        alarm = _Alarm(self, when, callback)
        self.alarms.append(alarm)
        return alarm

    def set(self, now: float) -> None:
        self.time = now
        for alarm in [each for each in self.alarms if each.when <= now]:
            alarm.cancel()
            alarm.callback()


@final
class _Alarm:
    def __init__(self, clock: SetClock, when: float, callback: Callable[[], object]) -> None:
        self.clock = clock
        self.when = when
        self.callback = callback

    def cancel(self) -> None:
        if self in self.clock.alarms:
            self.clock.alarms.remove(self)


def authenticator(
    clock: SetClock | None = None, *, issuer: str | None = None, audience: str | None = None
) -> Authenticator:
    settings = TokenSettings(key=SECRET, issuer=issuer, audience=audience, leeway_seconds=LEEWAY)
    return Authenticator.open(settings, clock=clock or SetClock())
