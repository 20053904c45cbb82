"""OAuth 2.0: the authorization code with a proof key (RFC 7636), and the token endpoint over HTTP."""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Final, final
from urllib.parse import urlencode

import msgspec

from circuit_breaker_server.engine.checks import refuse
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.mcp.records import OAuth

__all__ = ["Tokens", "authorization_url", "check_params", "exchange_code", "new_verifier", "refresh_tokens"]

_OWN_PARAMS: Final = frozenset(
    {
        "response_type",
        "client_id",
        "client_secret",
        "redirect_uri",
        "scope",
        "state",
        "code_challenge",
        "code_challenge_method",
    }
)
_MAX_ANSWER: Final = 64 * 1024
_MAX_LIFETIME: Final = 10 * 365 * 86_400


@final
class Tokens(msgspec.Struct, frozen=True):
    """What a token endpoint answers; ``repr`` shows it all, so it is never logged.

    :ivar expires_in: seconds; ``None`` if the provider does not say.
    """

    access_token: str
    expires_in: float | None = None
    refresh_token: str | None = None
    scope: str | None = None


class _Problem(msgspec.Struct, frozen=True):
    error: str | None = None
    error_description: str | None = None


def new_verifier() -> str:
    """Make a proof key."""
    return secrets.token_urlsafe(48)


def check_params(params: Mapping[str, str], where: str) -> None:
    """Refuse parameters that are the protocol's own.

    :raises EngineError: ``INVALID_INPUT``.
    """
    for name in params:
        if name.lower() in _OWN_PARAMS:
            refuse(f"{where}: {name} is set by the server")


def authorization_url(
    config: OAuth, *, endpoint: str, redirect_uri: str, state: str, verifier: str, params: Mapping[str, str]
) -> str:
    """Return where to send the user."""
    digest = hashlib.sha256(verifier.encode()).digest()
    query = {
        **config.additional_params,
        **params,
        "response_type": "code",
        "client_id": config.client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(config.scopes),
        "state": state,
        "code_challenge": urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"


async def exchange_code(
    config: OAuth, *, endpoint: str, client_secret: str, code: str, redirect_uri: str, verifier: str
) -> Tokens:
    """Exchange a code for tokens.

    :raises EngineError: ``PROVIDER_FAILED``.
    """
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
        "client_id": config.client_id,
        "client_secret": client_secret,
    }
    return await _ask(endpoint, form)


async def refresh_tokens(config: OAuth, *, endpoint: str, client_secret: str, refresh_token: str) -> Tokens:
    """Renew tokens.

    :raises EngineError: ``PROVIDER_FAILED``.
    """
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": config.client_id,
        "client_secret": client_secret,
    }
    return await _ask(endpoint, form)


async def _ask(endpoint: str, form: Mapping[str, str], *, timeout_seconds: float = 15.0) -> Tokens:
    # Imported here: aiohttp costs 120 ms, which the start of a server must not.
    import aiohttp  # noqa: PLC0415 (as said above)

    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            # A redirect would hand the client's secret to someone else.
            session.post(
                endpoint, data=form, headers={"Accept": "application/json"}, allow_redirects=False
            ) as answer,
        ):
            body = b""
            while len(body) <= _MAX_ANSWER and (chunk := await answer.content.read(_MAX_ANSWER)):
                body += chunk
            status = answer.status
    except TimeoutError as error:
        raise _failed(f"did not answer within {timeout_seconds:g} s", "timeout") from error
    except (aiohttp.ClientError, OSError) as error:
        raise _failed(f"could not be reached: {type(error).__name__}", "connection") from error
    if len(body) > _MAX_ANSWER:
        raise _failed("answered with too much", "protocol")
    return _read(status, body)


def _read(status: int, body: bytes) -> Tokens:
    try:
        # GitHub answers errors with status 200.
        problem = msgspec.json.decode(body, type=_Problem)
        if status != 200 or problem.error is not None:
            text = ": ".join(filter(None, (problem.error, problem.error_description)))
            raise _failed(f"refused, HTTP status {status}: {_printable(text)}", "refused")
        tokens = msgspec.json.decode(body, type=Tokens)
    except msgspec.DecodeError as error:
        raise _failed(f"answered HTTP status {status} and no token", "protocol") from error
    if not tokens.access_token:
        raise _failed("answered with an empty token", "protocol")
    if tokens.expires_in is not None and not 0 <= tokens.expires_in <= _MAX_LIFETIME:
        raise _failed("answered with a token of an impossible lifetime", "protocol")
    return tokens


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:200]) or "no reason given"


def _failed(what: str, kind: str) -> EngineError:
    return EngineError(ErrorCode.PROVIDER_FAILED, f"the provider's token endpoint {what}", kind=kind)
