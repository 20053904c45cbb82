"""Record the changes of sessions in the log."""

from __future__ import annotations

from typing import final

from circuit_breaker_server.engine.command import Appender, Committed, Value
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.mcp.records import (
    ServerImage,
    SessionChanged,
    SessionImage,
    session_subject,
)
from circuit_breaker_server.engine.mcp.serializers import server_value, session_value
from circuit_breaker_server.engine.mcp.state import McpState, SessionEntry
from circuit_breaker_server.log.event_log import Guards, Record

__all__ = ["SessionChanges"]


@final
class SessionChanges:
    """Appends the changes of sessions, each with its MCP server as it is then."""

    def __init__(self, state: McpState, appender: Appender) -> None:
        self._state = state
        self._appender = appender

    def server_of(self, entry: SessionEntry) -> ServerImage:
        """Return the MCP server of a session as it is now; as it last was, if it was deleted."""
        found = self._state.servers.get(entry.session.server_id)
        return entry.server if found is None else found.server

    async def append(
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
        guards: Guards | None = None,
    ) -> Record:
        """Append a change; ``is_effect`` where it is what the caller asked for, answered by the session.

        :raises ExpectationFailed: another change came first, or a guard does not hold.
        :raises EngineError: ``UNAVAILABLE``.
        """
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
            guards=guards,
        )

    def committed(self, session_id: str, record: Record) -> Committed[Value]:
        """Return the answer to a command that changed a session: ``McpSession`` as it is now."""
        entry = self._state.sessions.get(session_id)
        if entry is None:
            raise RuntimeError("a record that was appended is not in the state")
        server = server_value(self.server_of(entry), active=self._state.active_sessions(entry.server.id))
        return self._appender.committed(session_value(entry.session, server), record)
