"""Sessions: made by a sign-in, refreshed, revoked, expired by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import final
from weakref import WeakValueDictionary

import msgspec

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.command import ATTEMPTS, Appender, Committed, Value
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.mcp.oauth import TokenEndpoints, Tokens
from circuit_breaker_server.engine.mcp.records import (
    Body,
    Jwt,
    OAuth,
    Provider,
    ServerImage,
    SessionChanged,
    SessionImage,
    session_subject,
)
from circuit_breaker_server.engine.mcp.serializers import server_value, session_value
from circuit_breaker_server.engine.mcp.session_deadlines import Due
from circuit_breaker_server.engine.mcp.state import McpState, SessionEntry
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.engine.tenant_quota import TenantQuota
from circuit_breaker_server.engine.timestamps import parse_timestamp, timestamp
from circuit_breaker_server.engine.validation import refuse
from circuit_breaker_server.log.event_log import ExpectationFailed, Record
from circuit_breaker_server.logs import get_logger

__all__ = ["Sessions", "client_secret_of"]

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
    ) -> None:
        self._state = state
        self._appender = appender
        self._secrets = secrets
        self._providers = providers
        self._session_seconds = session_seconds
        self._tokens = tokens
        self._quota = TenantQuota(
            "active sessions",
            per_tenant=limits.sessions_per_tenant,
            total=limits.sessions,
            count=lambda tenant: state.sessions_of.count(tenant or ""),
            count_all=lambda: len(state.sessions_of),
            advice="revoke one first",
        )
        self._expiries = Due()
        self._renewals = Due()
        self._refreshing: set[str] = set()
        self._watching: list[asyncio.Task[None]] = []
        self._renewing: set[asyncio.Task[None]] = set()
        # A lock is there as long as a command holds it or waits for it.
        self._signing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(self) -> None:
        """Expire what expired while the server was down, and watch the clock from now on."""
        for entry in self._state.sessions.values():
            if entry.session.status == "ACTIVE":
                self._watch(entry)
            else:
                await self._forget_tokens(entry.session.id)
        await self.expire()
        loop = asyncio.get_running_loop()
        self._watching = [
            loop.create_task(self._expire_in_time(), name="engine-mcp-expiries"),
            loop.create_task(self._renew_in_time(), name="engine-mcp-renewals"),
        ]

    async def aclose(self) -> None:
        """Stop watching the clock. Idempotent."""
        tasks = [*self._watching, *self._renewing]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def follow(self, body: Body) -> None:
        """Watch the clock for a session from the record on that makes or prolongs it."""
        if isinstance(body, SessionChanged):
            entry = self._state.sessions.get(body.session.id)
            if entry is not None and entry.session.status == "ACTIVE":
                self._watch(entry)
            else:
                self._expiries.forget(body.session.id)
                self._renewals.forget(body.session.id)

    def secret_ids(self) -> set[str]:
        """Return the ids of the secrets that active sessions need."""
        active = [
            entry.session.id for entry in self._state.sessions.values() if entry.session.status == "ACTIVE"
        ]
        return {make(id_) for id_ in active for make in (_access_id, _refresh_id)}

    def lock(self, server_id: str) -> asyncio.Lock:
        """Return what is held while a session of an MCP server is made, and while it is deleted."""
        lock = self._signing.get(server_id)
        if lock is None:
            lock = self._signing[server_id] = asyncio.Lock()
        return lock

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
        async with self.lock(server_id):
            found = self._state.servers.get(server_id)
            if found is None:
                raise EngineError(ErrorCode.NOT_FOUND, "the MCP server was deleted", serverId=server_id)
            server, at = found.server, self._appender.at()
            if tokens.expires_in is not None:
                token_expires_at = _after(at, tokens.expires_in)
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
            session = self._prolonged(session, server, at)
            with self._quota.place(server.tenant_id):
                try:
                    await self._keep_tokens(session.id, tokens)
                    record = await self._append(None, session, server, "CREATED", at, is_effect=True)
                except EngineError:
                    await self._forget_tokens(session.id)
                    raise
        return self._committed(session.id, record)

    async def refresh(self, session_id: str) -> Committed[Value]:
        """Make an active session last longer; answers ``McpSession``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``CONFLICT``, ``PROVIDER_FAILED``,
            ``UNAVAILABLE``.
        """
        entry = await self._active(session_id)
        try:
            return await self._refresh(entry)
        except EngineError as error:
            if error.code is ErrorCode.PROVIDER_FAILED:
                await self._note_failure(session_id, str(error))
            raise

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
            if entry is None or entry.session.status != "ACTIVE":
                continue
            expires_at = parse_timestamp(entry.session.expires_at)
            if expires_at > now:
                continue  # it was refreshed: its later moment is noted too
            try:
                await self._end(entry, "EXPIRED")
            except EngineError:
                self._expiries.add(expires_at, session_id)
                raise

    # -------------------------------------------------------------------------------------------------------

    async def _active(self, session_id: str) -> SessionEntry:
        entry = self._state.sessions.get(session_id)
        if entry is not None and entry.session.expires_at <= self._appender.at():
            await self.expire()
            entry = self._state.sessions.get(session_id)
        if entry is None:
            raise EngineError(
                ErrorCode.NOT_FOUND, f"there is no session {shown(session_id)}", sessionId=session_id
            )
        if entry.session.status != "ACTIVE":
            refuse(f"sessionId: the session is {entry.session.status}; sign in again")
        return entry

    async def _refresh(self, entry: SessionEntry) -> Committed[Value]:
        session = entry.session
        if session.id in self._refreshing:
            raise EngineError(ErrorCode.CONFLICT, "the session is being refreshed already")
        self._refreshing.add(session.id)
        try:
            server = self._server_of(entry)
            tokens = await self._renewed(session, server) if session.method == "OAUTH" else None
            at = self._appender.at()
            changed = msgspec.structs.replace(session, last_activity_at=at, refreshes=session.refreshes + 1)
            if tokens is not None:
                until = None if tokens.expires_in is None else _after(at, tokens.expires_in)
                changed = msgspec.structs.replace(changed, token_expires_at=until)
                # Kept before it is known whether the session is still there: the old ones no longer count.
                await self._keep_tokens(session.id, tokens)
            changed = self._prolonged(changed, server, at)
            try:
                record = await self._append(entry, changed, server, "REFRESHED", at, is_effect=True)
            except ExpectationFailed as error:
                now = self._state.sessions.get(session.id)
                if now is None or now.session.status != "ACTIVE":
                    await self._forget_tokens(session.id)
                raise EngineError(ErrorCode.CONFLICT, "the session was changed meanwhile") from error
        finally:
            self._refreshing.discard(session.id)
        return self._committed(session.id, record)

    async def _renewed(self, session: SessionImage, server: ServerImage) -> Tokens:
        auth = server.auth
        if not isinstance(auth, OAuth):
            refuse("sessionId: users of this MCP server no longer sign in at a provider; sign in again")
        provider = self._providers.get(auth.provider.id)
        if provider is None:
            refuse(f"sessionId: the provider {shown(auth.provider.id)} is no longer configured")
        if session.provider not in (None, provider.id):
            refuse("sessionId: users of this MCP server sign in at another provider now; sign in again")
        token = self._secrets.get(_refresh_id(session.id))
        if token is None:
            refuse("sessionId: the provider gave no refresh token; sign in again")
        return await self._tokens.refresh(
            auth,
            endpoint=provider.token_endpoint,
            client_secret=client_secret_of(auth, self._secrets),
            refresh_token=token,
        )

    def _server_of(self, entry: SessionEntry) -> ServerImage:
        found = self._state.servers.get(entry.session.server_id)
        return entry.server if found is None else found.server

    def _prolonged(self, session: SessionImage, server: ServerImage, at: str) -> SessionImage:
        seconds = self._session_seconds
        if session.method == "JWT" and isinstance(server.auth, Jwt):
            seconds = min(seconds, server.auth.expiration_seconds)
        expires_at = _after(at, seconds)
        if session.method == "OAUTH" and not session.renewable and session.token_expires_at is not None:
            expires_at = min(expires_at, session.token_expires_at)
        return msgspec.structs.replace(session, expires_at=expires_at)

    async def _append(
        self,
        old: SessionEntry | None,
        session: SessionImage,
        server: ServerImage,
        change: str,
        at: str,
        *,
        error: str | None = None,
        record_id: str | None = None,
        is_effect: bool = False,
        effect: Effect | None = None,
    ) -> Record:
        """Append a change; ``is_effect`` where it is what the caller asked for, answered by the session."""
        active = self._state.active_sessions(server.id)
        before = old is not None and old.session.status == "ACTIVE"
        body = SessionChanged(
            at=at,
            change=change,
            session=session,
            server=server,
            active=active + (session.status == "ACTIVE") - before,
            error=error,
        )
        if is_effect:
            effect = Effect(lambda _: session_value(session, server_value(server, active=body.active)))
        return await self._appender.append(
            session_subject(session.server_id, session.user_id, session.id),
            body,
            expected=0 if old is None else old.last,
            record_id=record_id,
            effect=effect,
        )

    async def _end(self, entry: SessionEntry, status: str, *, effect: Effect | None = None) -> Record | None:
        """End a session; ``None`` if someone else has changed it first."""
        session = msgspec.structs.replace(entry.session, status=status, renewable=False)
        record_id = None
        if status == "EXPIRED":
            record_id = self._appender.follow_up_id("expired", session.id, session.expires_at)
        try:
            record = await self._append(
                entry,
                session,
                self._server_of(entry),
                status,
                self._appender.at(),
                record_id=record_id,
                effect=effect,
            )
        except ExpectationFailed:
            return None
        await self._forget_tokens(session.id)
        return record

    async def _note_failure(self, session_id: str, error: str) -> None:
        entry = self._state.sessions.get(session_id)
        if entry is None or entry.session.status != "ACTIVE":
            return
        server = self._server_of(entry)
        try:
            await self._append(entry, entry.session, server, "ERROR", self._appender.at(), error=error)
        except ExpectationFailed:
            return  # something newer has happened to it
        except EngineError as failure:
            # What is told to the caller is why the refresh failed, not that this could not be noted.
            _log.warning("failure_not_recorded", session_id=session_id, reason=str(failure))

    def _committed(self, session_id: str, record: Record) -> Committed[Value]:
        entry = self._state.sessions.get(session_id)
        if entry is None:
            raise RuntimeError("a record that was appended is not in the state")
        server = server_value(self._server_of(entry), active=self._state.active_sessions(entry.server.id))
        return self._appender.committed(session_value(entry.session, server), record)

    # --- the clock ---

    def _watch(self, entry: SessionEntry) -> None:
        session, auth = entry.session, self._server_of(entry).auth
        self._expiries.add(parse_timestamp(session.expires_at), session.id)
        if session.renewable and session.token_expires_at is not None and isinstance(auth, OAuth):
            refreshing = auth.refreshing
            before = timedelta(seconds=refreshing.refresh_threshold_seconds)
            if refreshing.auto_refresh:
                self._renewals.add(parse_timestamp(session.token_expires_at) - before, session.id)

    async def _expire_in_time(self) -> None:
        while True:
            await self._expiries.wait(self._appender.now())
            try:
                await self.expire()
            except EngineError as error:
                _log.warning("sessions_not_expired", reason=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _renew_in_time(self) -> None:
        while True:
            await self._renewals.wait(self._appender.now())
            for session_id in self._renewals.take(self._appender.now()):
                task = asyncio.get_running_loop().create_task(self._renew(session_id))
                self._renewing.add(task)
                task.add_done_callback(self._renewing.discard)

    async def _renew(self, session_id: str) -> None:
        """Refresh a session without being asked; what fails in the end is an event."""
        attempts = 0
        while True:
            entry = self._state.sessions.get(session_id)
            auth = None if entry is None else self._server_of(entry).auth
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
                if error.code is not ErrorCode.PROVIDER_FAILED:
                    _log.warning("session_not_refreshed", session_id=session_id, reason=str(error))
                    return
                if attempts >= auth.refreshing.max_refresh_attempts:
                    await self._note_failure(session_id, str(error))
                    return
            else:
                return
            await asyncio.sleep(auth.refreshing.refresh_retry_delay_seconds)

    # --- tokens ---

    async def _keep_tokens(self, session_id: str, tokens: Tokens) -> None:
        await self._secrets.put(_access_id(session_id), tokens.access_token)
        if tokens.refresh_token is not None:
            await self._secrets.put(_refresh_id(session_id), tokens.refresh_token)

    async def _forget_tokens(self, session_id: str) -> None:
        await self._secrets.remove(_access_id(session_id))
        await self._secrets.remove(_refresh_id(session_id))


def client_secret_of(auth: OAuth, secrets: Secrets) -> str:
    """Return the client's secret.

    :raises EngineError: ``UNAVAILABLE``: the store has lost it.
    """
    found = secrets.get(auth.client_secret_id)
    if found is None:
        raise EngineError(
            ErrorCode.UNAVAILABLE, "the client's secret is not in the store of secrets; configure it again"
        )
    return found


def _access_id(session_id: str) -> str:
    return f"mcp-access-{session_id}"


def _refresh_id(session_id: str) -> str:
    return f"mcp-refresh-{session_id}"


def _after(at: str, seconds: float) -> str:
    return timestamp(parse_timestamp(at) + timedelta(seconds=seconds))
