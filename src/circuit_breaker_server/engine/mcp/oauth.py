"""OAuth 2.0: the authorization code with a proof key (RFC 7636), and the token endpoint over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import importlib
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Final, final
from urllib.parse import urlencode

import msgspec

from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.mcp.records import OAuth
from circuit_breaker_server.engine.validation import refuse
from circuit_breaker_server.outbound import AddressRefused, Outbound
from circuit_breaker_server.outbound.tls import default_tls

__all__ = ["TokenEndpoints", "Tokens", "authorization_url", "check_params", "new_verifier"]

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
_NAMED_PARAMS: Final = frozenset(
    {
        "access_type",
        "acr_values",
        "allow_signup",
        "audience",
        "connection",
        "display",
        "domain_hint",
        "hd",
        "include_granted_scopes",
        "login",
        "login_hint",
        "max_age",
        "nonce",
        "organization",
        "prompt",
        "resource",
        "ui_locales",
    }
)
"""The parameters that callers may add to an authorization request: none that changes where its answer goes,
or replaces the whole request, as ``response_mode`` and ``request_uri`` do."""
_MAX_ANSWER: Final = 64 * 1024
_MAX_LIFETIME: Final = 10 * 365 * 86_400


@final
class Tokens(msgspec.Struct, frozen=True):
    """The answer of a token endpoint; ``repr`` shows the tokens, so it is never logged.

    :ivar expires_in: seconds; ``None`` if the provider sends none.
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
    """Refuse parameters that are the protocol's own, and any that callers are not known to need.

    :raises EngineError: ``INVALID_INPUT``.
    """
    for name in params:
        if name.lower() in _OWN_PARAMS:
            refuse(f"{where}: {name} is set by the server")
        if name not in _NAMED_PARAMS:
            refuse(f"{where}: {shown(name)} is none of {', '.join(sorted(_NAMED_PARAMS))}")


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


@final
class TokenEndpoints:
    """Asks the token endpoints of providers.

    :param outbound: where they may be, and how much they may answer.

    Example::

        tokens = await endpoints.refresh(auth, endpoint="https://…", client_secret="…", refresh_token="…")
    """

    def __init__(self, outbound: Outbound) -> None:
        self._rules = outbound.rules
        self._limits = dataclasses.replace(outbound.limits, max_answer_bytes=_MAX_ANSWER)

    async def exchange(
        self, config: OAuth, *, endpoint: str, client_secret: str, code: str, redirect_uri: str, verifier: str
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
        return await self._ask(endpoint, form)

    async def refresh(
        self, config: OAuth, *, endpoint: str, client_secret: str, refresh_token: str
    ) -> Tokens:
        """Renew tokens.

        :raises EngineError: ``PROVIDER_FAILED``.
        """
        form = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
            "client_id": config.client_id,
            "client_secret": client_secret,
        }
        return await self._ask(endpoint, form)

    async def _ask(self, endpoint: str, form: Mapping[str, str], *, timeout_seconds: float = 15.0) -> Tokens:
        # Imported here, in a thread: httpx2 costs 100 ms, which streams must not.
        await asyncio.to_thread(importlib.import_module, "circuit_breaker_server.outbound.client")
        import httpx2  # noqa: PLC0415 (as said above)

        from circuit_breaker_server.outbound.client import (  # noqa: PLC0415 (as above)
            Transport,
            open_client,
            refusal_in,
        )

        tls = await asyncio.to_thread(default_tls) if endpoint.startswith("https:") else None
        transport = Transport(self._rules, self._limits, streams=False, tls=tls)
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                # It follows no redirect, which would hand the client's secret to someone else.
                open_client(transport, timeout_seconds=timeout_seconds) as client,
            ):
                answer = await client.post(endpoint, data=form, headers={"Accept": "application/json"})
        except TimeoutError as error:
            raise _failed(f"did not answer within {timeout_seconds:g} s", "timeout") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            refusal = refusal_in(error)
            if isinstance(refusal, AddressRefused):
                raise _failed(f"is out of reach: {refusal}", "address") from error
            if refusal is not None:
                raise _failed(str(refusal), "protocol") from error
            raise _failed(f"could not be reached: {type(error).__name__}", "connection") from error
        return _read(answer.status_code, answer.content)


def _read(status: int, body: bytes) -> Tokens:
    try:
        # GitHub answers errors with status 200.
        problem = msgspec.json.decode(body, type=_Problem)
        if status != 200 or problem.error is not None:
            text = ": ".join(filter(None, (problem.error, problem.error_description)))
            raise _failed(f"refused, HTTP status {status}: {_printable(text)}", "refused")
        tokens = msgspec.json.decode(body, type=Tokens)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
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
