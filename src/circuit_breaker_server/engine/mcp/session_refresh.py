"""Refresh sessions: at the caller's request, and by the clock before the provider's token expires."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Final, final

import msgspec

from circuit_breaker_server.engine.command import Appender, Committed, Value
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.mcp.oauth import TokenEndpoints, Tokens
from circuit_breaker_server.engine.mcp.records import OAuth, Provider, ServerImage, SessionImage
from circuit_breaker_server.engine.mcp.session_changes import SessionChanges
from circuit_breaker_server.engine.mcp.session_deadlines import Due, after, prolonged
from circuit_breaker_server.engine.mcp.session_tokens import SessionTokens, client_secret_of
from circuit_breaker_server.engine.mcp.state import McpState, SessionEntry
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.engine.timestamps import parse_timestamp
from circuit_breaker_server.engine.validation import refuse
from circuit_breaker_server.log.event_log import ExpectationFailed
from circuit_breaker_server.logs import get_logger

__all__ = ["SessionRefresh"]

_PAUSE_SECONDS: Final = 1.0
"""Before a refresh is tried again that could not be recorded: the log was away."""
_log = get_logger("mcp")


@final
class SessionRefresh:
    """Makes active sessions last longer.

    :param session_seconds: how long a session lasts at most without being refreshed.
    :param endpoints: where providers renew tokens.
    """

    def __init__(
        self,
        state: McpState,
        appender: Appender,
        secrets: Secrets,
        providers: Mapping[str, Provider],
        *,
        changes: SessionChanges,
        tokens: SessionTokens,
        endpoints: TokenEndpoints,
        session_seconds: float,
    ) -> None:
        self._state = state
        self._appender = appender
        self._secrets = secrets
        self._providers = providers
        self._changes = changes
        self._tokens = tokens
        self._endpoints = endpoints
        self._session_seconds = session_seconds
        self._renewals = Due()
        self._refreshing: set[str] = set()
        self._watching: asyncio.Task[None] | None = None
        self._renewing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Watch the clock from now on."""
        self._watching = asyncio.get_running_loop().create_task(
            self._renew_in_time(), name="engine-mcp-renewals"
        )

    async def aclose(self) -> None:
        """Stop watching the clock, and the refreshes that the clock began. Idempotent."""
        tasks = [*(() if self._watching is None else (self._watching,)), *self._renewing]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def watch(self, entry: SessionEntry) -> None:
        """Refresh a session when its moment comes, if its MCP server is configured so."""
        session, auth = entry.session, self._changes.server_of(entry).auth
        if session.renewable and session.token_expires_at is not None and isinstance(auth, OAuth):
            refreshing = auth.refreshing
            before = timedelta(seconds=refreshing.refresh_threshold_seconds)
            if refreshing.auto_refresh:
                self._renewals.add(parse_timestamp(session.token_expires_at) - before, session.id)

    def forget(self, session_id: str) -> None:
        """Refresh a session no more."""
        self._renewals.forget(session_id)

    async def refresh(self, entry: SessionEntry) -> Committed[Value]:
        """Refresh an active session; answers ``McpSession``.

        A failure of the provider is an event of the session.

        :raises EngineError: ``INVALID_INPUT``, ``CONFLICT``, ``PROVIDER_FAILED``, ``UNAVAILABLE``.
        """
        try:
            return await self._refresh(entry)
        except EngineError as error:
            if error.code is ErrorCode.PROVIDER_FAILED:
                await self._note_failure(entry.session.id, str(error))
            raise

    async def _refresh(self, entry: SessionEntry) -> Committed[Value]:
        session = entry.session
        if session.id in self._refreshing:
            raise EngineError(ErrorCode.CONFLICT, "the session is being refreshed already")
        self._refreshing.add(session.id)
        try:
            server = self._changes.server_of(entry)
            tokens = await self._renewed(session, server) if session.method == "OAUTH" else None
            at = self._appender.at()
            changed = msgspec.structs.replace(session, last_activity_at=at, refreshes=session.refreshes + 1)
            if tokens is not None:
                until = None if tokens.expires_in is None else after(at, tokens.expires_in)
                changed = msgspec.structs.replace(changed, token_expires_at=until)
                # Kept before it is known whether the session is still there: the old ones no longer count.
                await self._tokens.keep(session.id, tokens)
            changed = prolonged(changed, server, at, session_seconds=self._session_seconds)
            try:
                record = await self._changes.append(entry, changed, server, "REFRESHED", at, is_effect=True)
            except ExpectationFailed as error:
                now = self._state.sessions.get(session.id)
                if now is None or now.session.status != "ACTIVE":
                    await self._tokens.forget(session.id)
                raise EngineError(ErrorCode.CONFLICT, "the session was changed meanwhile") from error
        finally:
            self._refreshing.discard(session.id)
        return self._changes.committed(session.id, record)

    async def _renewed(self, session: SessionImage, server: ServerImage) -> Tokens:
        auth = server.auth
        if not isinstance(auth, OAuth):
            refuse("sessionId: users of this MCP server no longer sign in at a provider; sign in again")
        provider = self._providers.get(auth.provider.id)
        if provider is None:
            refuse(f"sessionId: the provider {shown(auth.provider.id)} is no longer configured")
        if session.provider not in (None, provider.id):
            refuse("sessionId: users of this MCP server sign in at another provider now; sign in again")
        token = await self._tokens.refresh_token(session.id)
        if token is None:
            refuse("sessionId: the provider gave no refresh token; sign in again")
        return await self._endpoints.refresh(
            auth,
            endpoint=provider.token_endpoint,
            client_secret=await client_secret_of(auth, self._secrets),
            refresh_token=token,
        )

    async def _note_failure(self, session_id: str, error: str) -> None:
        entry = self._state.sessions.get(session_id)
        if entry is None or entry.session.status != "ACTIVE":
            return
        server = self._changes.server_of(entry)
        try:
            await self._changes.append(
                entry, entry.session, server, "ERROR", self._appender.at(), error=error
            )
        except ExpectationFailed:
            return  # something newer has happened to it
        except EngineError as failure:
            # What is told to the caller is why the refresh failed, not that this could not be noted.
            _log.warning("failure_not_recorded", session_id=session_id, reason=str(failure))

    async def _renew_in_time(self) -> None:
        while True:
            await self._renewals.wait(self._appender.now())
            for session_id in self._renewals.take(self._appender.now()):
                task = asyncio.get_running_loop().create_task(self._renew(session_id))
                self._renewing.add(task)
                task.add_done_callback(self._renewing.discard)

    async def _renew(self, session_id: str) -> None:
        """Refresh a session without being asked; what fails in the end is an event."""
        attempts, last = 0, None
        while True:
            entry = self._state.sessions.get(session_id)
            if last is not None and entry is not None and entry.last != last:
                return  # whoever has changed it meanwhile watches its moment
            auth = None if entry is None else self._changes.server_of(entry).auth
            if (
                entry is None
                or entry.session.status != "ACTIVE"
                or not isinstance(auth, OAuth)
                or not auth.refreshing.auto_refresh
            ):
                return
            attempts += 1
            try:
                await self._refresh(entry)
            except EngineError as error:
                if error.code is ErrorCode.UNAVAILABLE:
                    attempts -= 1  # it says nothing of the provider
                    last = entry.last
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                if error.code is not ErrorCode.PROVIDER_FAILED:
                    _log.warning("session_not_refreshed", session_id=session_id, reason=str(error))
                    return
                if attempts >= auth.refreshing.max_refresh_attempts:
                    await self._note_failure(session_id, str(error))
                    return
            else:
                return
            await asyncio.sleep(auth.refreshing.refresh_retry_delay_seconds)
