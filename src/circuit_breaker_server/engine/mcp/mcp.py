"""The domain of MCP: its servers, its sessions, where its users sign in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from typing import final

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.command import Appender, Committed, Value
from circuit_breaker_server.engine.mcp.health_probe import check
from circuit_breaker_server.engine.mcp.health_scheduler import Checks
from circuit_breaker_server.engine.mcp.oauth import TokenEndpoints
from circuit_breaker_server.engine.mcp.providers import BUILT_IN
from circuit_breaker_server.engine.mcp.records import Provider, decode_body
from circuit_breaker_server.engine.mcp.serializers import provider_value, server_value, session_value
from circuit_breaker_server.engine.mcp.servers import Servers
from circuit_breaker_server.engine.mcp.sessions import Sessions
from circuit_breaker_server.engine.mcp.sign_in import SignIn
from circuit_breaker_server.engine.mcp.state import McpState, SessionEntry
from circuit_breaker_server.engine.nodes.ownership import Ownership
from circuit_breaker_server.engine.paging import Pagination, page_of
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.log.event_log import Record
from circuit_breaker_server.outbound import Outbound
from circuit_breaker_server.outbound.addresses import host_of

__all__ = ["Mcp"]


def _all(_of: str, _tenant_id: str) -> bool:
    return True


@final
class Mcp:
    """MCP servers and the sessions of their users.

    :param check_seconds: between two checks of an enabled MCP server.
    :param session_seconds: how long a session lasts at most without being refreshed.
    :param providers: where users may sign in, besides the built-in ones.
    :param outbound: what is observed towards MCP servers and token endpoints.
    :param redirects: where providers may send users back to, besides loopback; ``None``: as is configured.
    :param limits: the shares of tenants and principals.

    Example::

        made = await engine.mcp.servers.create(CreateServer(name="tools", ...))
    """

    def __init__(
        self,
        state: McpState,
        appender: Appender,
        secrets: Secrets,
        *,
        check_seconds: float,
        session_seconds: float,
        providers: Sequence[Provider],
        outbound: Outbound,
        redirects: Collection[str] | None = None,
        limits: CallerLimits,
        ownership: Ownership,
    ) -> None:
        self._state = state
        self._providers = {each.id: each for each in (*BUILT_IN, *providers)}
        self._checks = Checks(
            state,
            appender,
            secrets,
            check,
            interval_seconds=check_seconds,
            outbound=outbound,
            limits=limits,
            ownership=ownership,
        )
        self.servers = Servers(
            state,
            appender,
            secrets,
            self._checks,
            self._providers,
            outbound=outbound,
            redirects=redirects,
            limits=limits,
        )
        """MCP servers."""
        # Whom the settings name is the operator's choice, wherever it is.
        own = outbound.rules.allowing(host_of(each.token_endpoint) for each in providers)
        tokens = TokenEndpoints(Outbound(rules=own, limits=outbound.limits))
        self.sessions = Sessions(
            state,
            appender,
            secrets,
            self._providers,
            session_seconds=session_seconds,
            tokens=tokens,
            limits=limits,
            ownership=ownership,
        )
        """Sessions of their users."""
        self.sign_in = SignIn(
            state,
            appender,
            secrets,
            self.sessions,
            self._providers,
            tokens=tokens,
            redirects=redirects or (),
            server=lambda server_id: self.servers.queries.entry(server_id).server,
            limits=limits,
        )
        """The sign-ins, from which sessions begin."""

    async def start(self) -> None:
        """Expire the sessions whose time is over, and begin to check the MCP servers."""
        await self.sessions.start()
        self._checks.start()

    async def aclose(self) -> None:
        """Stop the checks, and the expiry and renewal of sessions. Idempotent."""
        await self._checks.aclose()
        await self.sessions.aclose()

    def follow(self, record: Record) -> None:
        """Start the follow-ups of a record: checks of an MCP server, the timer of a session."""
        if record.subject.startswith("mcp."):
            body = decode_body(record)
            self._checks.follow(body)
            self.sessions.follow(body)

    def take_over(self) -> None:
        """Check and watch what belongs to this node now, and no longer what does not."""
        self._checks.take_over()
        self.sessions.take_over()

    def secret_ids(self) -> set[str]:
        """Return the ids of the secrets that MCP servers, sessions and sign-ins need."""
        servers = (entry.server.secret_ids for entry in self._state.servers.values())
        return {
            *itertools.chain.from_iterable(servers),
            *self.sessions.secret_ids(),
            *self.sign_in.secret_ids(),
        }

    # --- queries ---

    def providers(self) -> list[Value]:
        """Return all as ``McpOAuthProvider``."""
        return [provider_value(each) for each in self._providers.values()]

    def server(self, server_id: str) -> Value | None:
        """Return ``McpServer``, ``None`` if there is none."""
        entry = self._state.servers.get(server_id)
        return None if entry is None else self.servers.queries.value(entry)

    def tenant_of(self, server_id: str) -> str | None:
        """Return whose an MCP server is, or was; ``None``: there never was one of that id."""
        entry = self._state.tenants.get(server_id)
        return None if entry is None else entry.tenant_id

    def owner_of_session(self, session_id: str) -> tuple[str, str] | None:
        """Return the user of a session and the tenant of its MCP server; ``None``: there is none."""
        entry = self._state.sessions.get(session_id)
        return None if entry is None else (entry.session.user_id, entry.server.tenant_id)

    def server_page(
        self,
        given: Pagination | None,
        *,
        is_seen: Callable[[str, str], bool] = _all,
        type: str | None = None,  # noqa: A002 (the schema's own)
        status: str | None = None,
        tenant_id: str | None = None,
    ) -> Value:
        """Return ``McpServerConnection``.

        :param is_seen: tells by id and tenant which MCP servers there are, for the caller.
        :raises EngineError: ``INVALID_INPUT``.
        """
        found = [
            entry
            for entry in self._state.servers.values()
            if is_seen(entry.server.id, entry.server.tenant_id)
            and type in (None, entry.server.type)
            and status in (None, entry.server.status)
            and tenant_id in (None, entry.server.tenant_id)
        ]
        return page_of(found, given, place=lambda entry: entry.created, node=self.servers.queries.value)

    def session_page(
        self,
        given: Pagination | None,
        *,
        is_seen: Callable[[str, str], bool] = _all,
        user_id: str | None = None,
        server_id: str | None = None,
    ) -> Value:
        """Return ``McpSessionConnection``.

        :param is_seen: tells by user and tenant which sessions there are, for the caller.
        :raises EngineError: ``INVALID_INPUT``.
        """
        found = [
            entry
            for entry in self._state.sessions.values()
            if is_seen(entry.session.user_id, entry.server.tenant_id)
            and user_id in (None, entry.session.user_id)
            and server_id in (None, entry.session.server_id)
        ]
        return page_of(found, given, place=lambda entry: entry.created, node=self._session_value)

    def _session_value(self, entry: SessionEntry) -> Value:
        server = self._state.servers.get(entry.session.server_id)
        if server is None:  # deleted since: what it was then
            return session_value(entry.session, server_value(entry.server, active=0))
        return session_value(entry.session, lambda: self.servers.queries.value(server))

    # --- commands ---

    async def delete_server(self, server_id: str) -> Committed[Value]:
        """Remove an MCP server; its sessions are revoked first. Answers ``ApiResponse``.

        :raises EngineError: ``NOT_FOUND``, ``CONFLICT``, ``UNAVAILABLE``.
        """
        return await self.servers.delete(server_id, self.sessions.revoke_all)
