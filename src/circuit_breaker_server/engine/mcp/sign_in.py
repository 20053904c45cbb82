"""Sign-ins of users: with a signed token, or at a provider in two steps."""

from __future__ import annotations

import hashlib
import hmac
import secrets as random
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, final

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.command import Appender, Committed, Value
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.mcp import jwt
from circuit_breaker_server.engine.mcp.inputs import AuthenticateJwt, CompleteOAuth, InitiateOAuth
from circuit_breaker_server.engine.mcp.oauth import (
    TokenEndpoints,
    Tokens,
    authorization_url,
    check_params,
    new_verifier,
)
from circuit_breaker_server.engine.mcp.records import (
    Jwt,
    OAuth,
    Provider,
    ServerImage,
    SignInBegun,
    SignInUsed,
    sign_in_subject,
)
from circuit_breaker_server.engine.mcp.serializers import provider_value
from circuit_breaker_server.engine.mcp.session_tokens import client_secret_of
from circuit_breaker_server.engine.mcp.sessions import Sessions
from circuit_breaker_server.engine.mcp.state import McpState
from circuit_breaker_server.engine.mcp.validation import check_redirect, checked_metadata, text_object
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.engine.tenant_quota import TenantQuota
from circuit_breaker_server.engine.timestamps import timestamp
from circuit_breaker_server.engine.validation import check_name, refuse

__all__ = ["SignIn"]

STATE_LIFETIME: Final = timedelta(minutes=10)
_RETRY_SECONDS: Final = 60.0
_MAX_CODE = 4096


@final
class SignIn:
    """Makes sessions.

    Example::

        begun = await engine.mcp.sign_in.initiate_oauth(InitiateOAuth(server_id="…", user_id="ada"))
    """

    def __init__(
        self,
        state: McpState,
        appender: Appender,
        secrets: Secrets,
        sessions: Sessions,
        providers: Mapping[str, Provider],
        *,
        tokens: TokenEndpoints,
        redirects: Collection[str],
        server: Callable[[str], ServerImage],
        limits: CallerLimits,
    ) -> None:
        self._state = state
        self._appender = appender
        self._secrets = secrets
        self._sessions = sessions
        self._providers = providers
        self._tokens = tokens
        self._redirects = redirects
        self._server = server
        self._quota = TenantQuota(
            "sign-ins that have begun and not ended",
            per_tenant=limits.sign_ins_per_tenant,
            total=limits.sign_ins,
            count=lambda tenant: state.pending_sign_ins(tenant or "", appender.at()),
            count_all=lambda: state.pending_sign_ins(None, appender.at()),
            advice="try again later",
            code=ErrorCode.RATE_LIMITED,
            retry_after=_RETRY_SECONDS,
        )

    def secret_ids(self) -> set[str]:
        """Return the ids of the secrets that sign-ins need that have begun."""
        return {_verifier_id(key) for key in self._state.sign_ins}

    async def authenticate_jwt(self, given: AuthenticateJwt) -> Committed[Value]:
        """Sign a user in with a token; answers ``McpSession``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``AUTHENTICATION_FAILED``, ``RATE_LIMITED``,
            ``UNAVAILABLE``.
        """
        server = self._enabled(given.server_id)
        self._appender.count_creation()
        check_name(given.user_id, "userId")
        metadata = checked_metadata(given.metadata)
        if not isinstance(server.auth, Jwt):
            refuse("serverId: users of this MCP server do not sign in with tokens; see configureMcpJwt")
        now = self._appender.now()
        claims = jwt.verify(given.token, server.auth, given.user_id, now_seconds=int(now.timestamp()))
        expires = claims.get("exp")
        tokens = Tokens(access_token=given.token)
        return await self._sessions.create(
            server.id,
            given.user_id,
            "JWT",
            tokens,
            metadata,
            token_expires_at=_moment(expires),
        )

    async def initiate_oauth(self, given: InitiateOAuth) -> Committed[Value]:
        """Begin a sign-in at a provider; answers ``McpOAuthInitiation``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``RATE_LIMITED``, ``UNAVAILABLE``.
        """
        server, auth, provider = self._oauth(given.server_id)
        self._appender.count_creation()
        check_name(given.user_id, "userId")
        params = text_object(given.additional_params, "additionalParams")
        check_params(params, "additionalParams")
        redirect_uri = auth.redirect_uri if given.redirect_uri is None else given.redirect_uri
        if redirect_uri != auth.redirect_uri:
            check_redirect(redirect_uri, "redirectUri", self._redirects)
        await self._forget_expired()
        state, verifier = random.token_urlsafe(32), new_verifier()
        now = self._appender.now()
        body = SignInBegun(
            key=_key(state),
            at=timestamp(now),
            server_id=server.id,
            user_id=given.user_id,
            redirect_uri=redirect_uri,
            expires_at=timestamp(now + STATE_LIFETIME),
            provider=provider.id,
        )
        value: Value = {
            "authorizationUrl": authorization_url(
                auth,
                endpoint=provider.authorization_endpoint,
                redirect_uri=redirect_uri,
                state=state,
                verifier=verifier,
                params=params,
            ),
            "state": state,
            "codeVerifier": None,
            "provider": provider_value(provider),
            "expiresAt": body.expires_at,
        }
        with self._quota.place(server.tenant_id):
            await self._secrets.put(_verifier_id(body.key), verifier)
            # The state in the URL lets its holder complete the sign-in: it is never at rest.
            record = await self._appender.append(
                sign_in_subject(body.key), body, expected=0, effect=Effect(lambda _: value, secret=True)
            )
        return self._appender.committed(value, record)

    async def complete_oauth(self, given: CompleteOAuth) -> Committed[Value]:
        """End a sign-in at a provider; answers ``McpSession``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``AUTHENTICATION_FAILED``,
            ``PROVIDER_FAILED``, ``RATE_LIMITED``, ``UNAVAILABLE``.
        """
        server, auth, provider = self._oauth(given.server_id)
        self._appender.count_creation()
        if not given.code or len(given.code) > _MAX_CODE:
            refuse(f"code: must not be empty, and has at most {_MAX_CODE} characters")
        key = _key(given.state)
        entry = self._state.sign_ins.get(key)
        verifier = await self._secrets.find(_verifier_id(key))
        at = self._appender.at()
        if (
            entry is None
            or verifier is None
            or entry.begun.expires_at <= at
            or (entry.begun.server_id, entry.begun.user_id) != (given.server_id, given.user_id)
            or entry.begun.provider not in (None, provider.id)
        ):
            raise EngineError(
                ErrorCode.AUTHENTICATION_FAILED,
                "state: no sign-in of this user to this MCP server waits for it; begin again",
            )
        proof = given.code_verifier
        if proof is not None and not hmac.compare_digest(proof.encode(), verifier.encode()):
            raise EngineError(ErrorCode.AUTHENTICATION_FAILED, "codeVerifier: is not this sign-in's")
        client_secret = await client_secret_of(auth, self._secrets)
        self._sessions.require_room(server.tenant_id)
        await self._appender.append_own(
            sign_in_subject(key),
            SignInUsed(key=key, at=at),
            expected=entry.last,
            conflict="state: was used by another operation first; begin again",
        )
        await self._secrets.remove(_verifier_id(key))
        tokens = await self._tokens.exchange(
            auth,
            endpoint=provider.token_endpoint,
            client_secret=client_secret,
            code=given.code,
            redirect_uri=entry.begun.redirect_uri,
            verifier=verifier,
        )
        metadata: dict[str, object] | None = None if tokens.scope is None else {"scope": tokens.scope}
        return await self._sessions.create(
            server.id, given.user_id, "OAUTH", tokens, metadata, provider=provider.id
        )

    # -------------------------------------------------------------------------------------------------------

    def _enabled(self, server_id: str) -> ServerImage:
        server = self._server(server_id)
        if not server.enabled:
            refuse("serverId: this MCP server is disabled; see toggleMcpServer")
        return server

    def _oauth(self, server_id: str) -> tuple[ServerImage, OAuth, Provider]:
        server = self._enabled(server_id)
        if not isinstance(server.auth, OAuth):
            refuse("serverId: users of this MCP server do not sign in at a provider; see configureMcpOAuth")
        # By the settings of now: the operator may have moved a provider's endpoints.
        provider = self._providers.get(server.auth.provider.id)
        if provider is None:
            refuse(f"serverId: the provider {shown(server.auth.provider.id)} is no longer configured")
        return server, server.auth, provider

    async def _forget_expired(self) -> None:
        for key in self._state.expired_sign_ins(self._appender.at()):
            await self._secrets.remove(_verifier_id(key))


def _key(state: str) -> str:
    return hashlib.sha256(state.encode("utf-8", "replace")).hexdigest()[:32]


def _verifier_id(key: str) -> str:
    return f"mcp-sign-in-{key}"


def _moment(seconds: object) -> str | None:
    if not isinstance(seconds, (int, float)):
        return None
    try:
        return timestamp(datetime.fromtimestamp(seconds, UTC))
    except (OverflowError, ValueError, OSError):
        return None
