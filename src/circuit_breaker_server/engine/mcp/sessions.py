"""Sessions: made by a sign-in, refreshed, revoked, expired by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import final

import msgspec

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.command import ATTEMPTS, Appender, Committed, Value
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.log_guards import naming
from circuit_breaker_server.engine.mcp.oauth import TokenEndpoints, Tokens
from circuit_breaker_server.engine.mcp.records import (
    Body,
    Provider,
    SessionChanged,
    SessionImage,
)
from circuit_breaker_server.engine.mcp.session_changes import SessionChanges
from circuit_breaker_server.engine.mcp.session_deadlines import Due, after, prolonged
from circuit_breaker_server.engine.mcp.session_refresh import SessionRefresh
from circuit_breaker_server.engine.mcp.session_tokens import SessionTokens
from circuit_breaker_server.engine.mcp.state import McpState, SessionEntry
from circuit_breaker_server.engine.nodes.ownership import Ownership
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.engine.tenant_quota import TenantQuota
from circuit_breaker_server.engine.timestamps import parse_timestamp
from circuit_breaker_server.engine.validation import refuse
from circuit_breaker_server.log.event_log import ExpectationFailed, Guards, Record
from circuit_breaker_server.logs import get_logger

__all__ = ["Sessions"]

_PAUSE_SECONDS = 1.0  # after a failure of the log, before the clock is looked at again

_log = get_logger("mcp")


@final
class Sessions:
    """Sessions of users to MCP servers.

    :param session_seconds: how long one lasts at most without being refreshed.

    Example::

        await engine.mcp.sessions.revoke(session_id)
    """

    def __init__(
        self,
        state: McpState,
        appender: Appender,
        secrets: Secrets,
        providers: Mapping[str, Provider],
        *,
        session_seconds: float,
        tokens: TokenEndpoints,
        limits: CallerLimits,
        ownership: Ownership,
    ) -> None:
        self._ownership = ownership
        self._state = state
        self._appender = appender
        self._session_seconds = session_seconds
        self._changes = SessionChanges(state, appender)
        self._tokens = SessionTokens(secrets)
        self._refresh = SessionRefresh(
            state,
            appender,
            secrets,
            providers,
            changes=self._changes,
            tokens=self._tokens,
            endpoints=tokens,
            session_seconds=session_seconds,
        )
        self._quota = TenantQuota(
            "active sessions",
            per_tenant=limits.sessions_per_tenant,
            total=limits.sessions,
            count=lambda tenant: state.sessions_of.count(tenant or ""),
            count_all=lambda: len(state.sessions_of),
            advice="revoke one first",
        )
        self._expiries = Due()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Expire what expired while the server was down, and watch the clock from now on."""
        self.take_over()
        for entry in self._state.sessions.values():
            if entry.session.status != "ACTIVE":
                await self._tokens.forget(entry.session.id)
        await self.expire()
        loop = asyncio.get_running_loop()
        self._watching = loop.create_task(self._expire_in_time(), name="engine-mcp-expiries")
        self._refresh.start()

    async def aclose(self) -> None:
        """Stop watching the clock. Idempotent."""
        if self._watching is not None:
            self._watching.cancel()
        await self._refresh.aclose()
        if self._watching is not None:
            await asyncio.wait((self._watching,))

    def follow(self, body: Body) -> None:
        """Watch the clock for a session from the record on that makes or prolongs it."""
        if isinstance(body, SessionChanged):
            entry = self._state.sessions.get(body.session.id)
            if entry is not None and self._is_to_watch(entry):
                self._watch(entry)
            else:
                self._unwatch(body.session.id)

    def take_over(self) -> None:
        """Watch the clock for the sessions that belong to this node now, and no longer for the others."""
        for entry in self._state.sessions.values():
            if self._is_to_watch(entry):
                self._watch(entry)
            else:
                self._unwatch(entry.session.id)

    def _is_to_watch(self, entry: SessionEntry) -> bool:
        session = entry.session
        return session.status == "ACTIVE" and self._ownership.is_mine(f"session/{session.id}")

    def secret_ids(self) -> set[str]:
        """Return the ids of the secrets that active sessions need."""
        active = [
            entry.session.id for entry in self._state.sessions.values() if entry.session.status == "ACTIVE"
        ]
        return self._tokens.secret_ids(active)

    def require_room(self, tenant: str) -> None:
        """Refuse a session that has no place, before a sign-in is used up for it.

        :raises EngineError: ``INVALID_INPUT``: the tenant has as many as it may; ``UNAVAILABLE``.
        """
        self._quota.require(tenant)

    # --- commands ---

    async def create(
        self,
        server_id: str,
        user_id: str,
        method: str,
        tokens: Tokens,
        metadata: dict[str, object] | None,
        *,
        token_expires_at: str | None = None,
        provider: str | None = None,
    ) -> Committed[Value]:
        """Make a session of a sign-in that has succeeded; answers ``McpSession``.

        :raises EngineError: ``NOT_FOUND``: the MCP server was deleted meanwhile; ``INVALID_INPUT``: the
            tenant has as many sessions as it may; ``UNAVAILABLE``.
        """
        found = self._state.servers.get(server_id)
        if found is None:
            raise _deleted(server_id)
        guards = naming("mcp-server", [server_id], decided_at=self._appender.decided_at())
        server, at = found.server, self._appender.at()
        if tokens.expires_in is not None:
            token_expires_at = after(at, tokens.expires_in)
        session = SessionImage(
            id=self._appender.new_id(),
            server_id=server_id,
            user_id=user_id,
            status="ACTIVE",
            method=method,
            token_expires_at=token_expires_at,
            metadata=metadata,
            created_at=at,
            last_activity_at=at,
            expires_at=at,
            renewable=tokens.refresh_token is not None,
            provider=provider,
        )
        session = prolonged(session, server, at, session_seconds=self._session_seconds)
        with self._quota.place(server.tenant_id):
            try:
                await self._tokens.keep(session.id, tokens)
                record = await self._changes.append(
                    None, session, server, "CREATED", at, is_effect=True, guards=guards
                )
            except EngineError:
                await self._tokens.forget(session.id)
                raise
            except ExpectationFailed as error:
                await self._tokens.forget(session.id)
                raise _deleted(server_id) from error
        return self._changes.committed(session.id, record)

    async def refresh(self, session_id: str) -> Committed[Value]:
        """Make an active session last longer; answers ``McpSession``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``CONFLICT``, ``PROVIDER_FAILED``,
            ``UNAVAILABLE``.
        """
        return await self._refresh.refresh(await self._active(session_id))

    async def revoke(self, session_id: str) -> Committed[Value]:
        """End an active session; answers ``ApiResponse``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``CONFLICT``, ``UNAVAILABLE``.
        """
        entry = await self._active(session_id)
        value: Value = {
            "success": True,
            "message": "the session is revoked",
            "errorCode": None,
            "data": {"sessionId": session_id},
        }
        record = await self._end(entry, "REVOKED", effect=Effect.of(value))
        if record is None:
            raise EngineError(ErrorCode.CONFLICT, "the session was changed by another operation; try again")
        return self._appender.committed(value, record)

    async def revoke_all(self, server_id: str) -> None:
        """End all active sessions of an MCP server, which is about to be deleted.

        :raises EngineError: ``CONFLICT``, ``UNAVAILABLE``: some may be left.
        """
        for _ in range(ATTEMPTS):
            active = [
                entry
                for entry in self._state.sessions.values()
                if entry.session.server_id == server_id and entry.session.status == "ACTIVE"
            ]
            if not active:
                return
            for entry in active:
                await self._end(entry, "REVOKED")
        raise EngineError(ErrorCode.CONFLICT, "the MCP server's sessions are being changed; try again")

    async def expire(self) -> None:
        """End the sessions whose time is over.

        :raises EngineError: ``UNAVAILABLE``: what is left is tried again.
        """
        now = self._appender.now()
        for session_id in self._expiries.take(now):
            entry = self._state.sessions.get(session_id)
            if entry is None or not self._is_to_watch(entry):
                continue
            expires_at = parse_timestamp(entry.session.expires_at)
            if expires_at > now:
                continue  # it was refreshed: its later moment is noted too
            try:
                await self._end(entry, "EXPIRED", guards=self._fence())
            except EngineError:
                self._expiries.add(expires_at, session_id)
                raise

    def _fence(self) -> Guards | None:
        return self._ownership.fence(decided_at=self._appender.decided_at())

    # -------------------------------------------------------------------------------------------------------

    async def _active(self, session_id: str) -> SessionEntry:
        entry = self._state.sessions.get(session_id)
        if entry is not None and entry.session.expires_at <= self._appender.at():
            await self._end(entry, "EXPIRED")  # whoever's timer it is
            entry = self._state.sessions.get(session_id)
        if entry is None:
            raise EngineError(
                ErrorCode.NOT_FOUND, f"there is no session {shown(session_id)}", sessionId=session_id
            )
        if entry.session.status != "ACTIVE":
            refuse(f"sessionId: the session is {entry.session.status}; sign in again")
        return entry

    async def _end(
        self,
        entry: SessionEntry,
        status: str,
        *,
        effect: Effect | None = None,
        guards: Guards | None = None,
    ) -> Record | None:
        """End a session; ``None`` if someone else has changed it first."""
        session = msgspec.structs.replace(entry.session, status=status, renewable=False)
        record_id = None
        if status == "EXPIRED":
            record_id = self._appender.follow_up_id("expired", session.id, session.expires_at)
        try:
            record = await self._changes.append(
                entry,
                session,
                self._changes.server_of(entry),
                status,
                self._appender.at(),
                record_id=record_id,
                effect=effect,
                guards=guards,
            )
        except ExpectationFailed:
            return None
        await self._tokens.forget(session.id)
        return record

    # --- the clock ---

    def _watch(self, entry: SessionEntry) -> None:
        self._expiries.add(parse_timestamp(entry.session.expires_at), entry.session.id)
        self._refresh.watch(entry)

    def _unwatch(self, session_id: str) -> None:
        self._expiries.forget(session_id)
        self._refresh.forget(session_id)

    async def _expire_in_time(self) -> None:
        while True:
            await self._expiries.wait(self._appender.now())
            try:
                await self.expire()
            except EngineError as error:
                _log.warning("sessions_not_expired", reason=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)


def _deleted(server_id: str) -> EngineError:
    return EngineError(ErrorCode.NOT_FOUND, "the MCP server was deleted", serverId=server_id)
