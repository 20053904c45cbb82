"""The commands on MCP servers: made, changed, switched, tested, deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import final
from urllib.parse import urlsplit

import msgspec

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.command import Appender, Committed, Value
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.log_guards import ending
from circuit_breaker_server.engine.mcp.capabilities import Listing, Offer
from circuit_breaker_server.engine.mcp.health_finding import Finding
from circuit_breaker_server.engine.mcp.health_scheduler import Checks, changed_offer
from circuit_breaker_server.engine.mcp.inputs import (
    ConfigInput,
    ConfigureJwt,
    ConfigureOAuth,
    CreateServer,
    RegisterCapabilities,
    UpdateServer,
)
from circuit_breaker_server.engine.mcp.records import (
    CapabilitiesRegistered,
    Config,
    Jwt,
    OAuth,
    Provider,
    ServerDeleted,
    ServerImage,
    server_subject,
)
from circuit_breaker_server.engine.mcp.serializers import auth_value
from circuit_breaker_server.engine.mcp.server_changes import ServerChanges
from circuit_breaker_server.engine.mcp.server_queries import ServerQueries
from circuit_breaker_server.engine.mcp.state import McpState, ServerEntry
from circuit_breaker_server.engine.mcp.status_transitions import way
from circuit_breaker_server.engine.mcp.validation import (
    NewSecrets,
    check_listing,
    checked_auth,
    checked_config,
    checked_jwt,
    checked_metadata,
    checked_oauth,
    checked_tags,
)
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.engine.tenant_quota import TenantQuota
from circuit_breaker_server.engine.validation import check_description, check_name
from circuit_breaker_server.outbound import Outbound

__all__ = ["Servers"]


@final
class Servers:
    """MCP servers.

    :param providers: where users may sign in, by id.
    :param outbound: what is observed towards MCP servers.
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
        checks: Checks,
        providers: Mapping[str, Provider],
        *,
        outbound: Outbound,
        redirects: Collection[str] | None,
        limits: CallerLimits,
    ) -> None:
        self.queries = ServerQueries(state, appender, checks)
        """The read side of MCP servers."""
        self._changes = ServerChanges(appender, secrets, self.queries)
        self._appender = appender
        self._secrets = secrets
        self._checks = checks
        self._providers = providers
        self._outbound = outbound
        self._redirects = redirects
        self._max_seconds = limits.check_seconds
        self._quota = TenantQuota(
            "MCP servers",
            per_tenant=limits.mcp_servers_per_tenant,
            total=limits.mcp_servers,
            count=lambda tenant: state.servers_of.count(tenant or ""),
            count_all=lambda: len(state.servers),
        )

    async def create(self, given: CreateServer) -> Committed[Value]:
        """Add an MCP server; answers ``McpServer``.

        :raises EngineError: ``INVALID_INPUT``, ``RATE_LIMITED``, ``UNAVAILABLE``.
        """
        self._appender.count_creation()
        check_name(given.name, "name")
        check_name(given.tenant_id, "tenantId")
        check_description(given.description, "description")
        with self._quota.place(given.tenant_id):
            return await self._create(given)

    async def _create(self, given: CreateServer) -> Committed[Value]:
        enabled, at = given.enabled is not False, self._appender.at()
        secrets = NewSecrets(self._appender.new_id)
        server = ServerImage(
            id=self._appender.new_id(),
            name=given.name,
            description=given.description,
            type=given.type,
            tenant_id=given.tenant_id,
            config=self._config(given.config, given.type, secrets),
            auth=None
            if given.auth is None
            else checked_auth(given.auth, self._providers, secrets, self._redirects),
            metadata=checked_metadata(given.metadata),
            tags=checked_tags(given.tags or ()),
            enabled=enabled,
            status="STARTING" if enabled else "UNKNOWN",
            created_at=at,
            updated_at=at,
        )
        made = ServerEntry(created=0, last=0, server=server)
        record = await self._changes.put(
            None, server, secrets, "created", Effect(lambda _: self.queries.value(made))
        )
        return self._appender.committed(self.queries.value(self.queries.entry(server.id)), record)

    async def update(self, server_id: str, given: UpdateServer) -> Committed[Value]:
        """Change what is given; answers ``McpServer``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``CONFLICT``, ``UNAVAILABLE``.
        """
        return await self._changes.decided(server_id, lambda old: self._update(old, given))

    async def _update(self, old: ServerEntry, given: UpdateServer) -> Committed[Value]:
        server, secrets = old.server, NewSecrets(self._appender.new_id)
        if given.name is not None:
            check_name(given.name, "name")
            server = msgspec.structs.replace(server, name=given.name)
        if given.description is not None:
            check_description(given.description, "description")
            server = msgspec.structs.replace(server, description=given.description)
        if given.config is not None:
            config = self._config(given.config, server.type, secrets)
            auth = server.auth
            if isinstance(auth, Jwt) and not _is_same_place(server.config.endpoint, config.endpoint):
                # What is signed with it was meant for the old address: to sign for the new one, give it anew.
                auth = msgspec.structs.replace(auth, private_key_id=None)
            server = msgspec.structs.replace(server, config=config, auth=auth)
        if given.auth is not None:
            auth = checked_auth(given.auth, self._providers, secrets, self._redirects)
            server = msgspec.structs.replace(server, auth=auth)
        if given.metadata is not None:
            server = msgspec.structs.replace(server, metadata=checked_metadata(given.metadata))
        if given.tags is not None:
            server = msgspec.structs.replace(server, tags=checked_tags(given.tags))
        if given.enabled is not None:
            server = _switched(server, given.enabled)
        return await self._changes.change(old, server, secrets, "updated")

    async def toggle(self, server_id: str, *, enabled: bool) -> Committed[Value]:
        """Enable or disable an MCP server; answers ``McpServer``.

        :raises EngineError: ``NOT_FOUND``, ``CONFLICT``, ``UNAVAILABLE``.
        """
        secrets = NewSecrets(self._appender.new_id)
        cause = "enabled" if enabled else "disabled"
        return await self._changes.decided(
            server_id, lambda old: self._changes.change(old, _switched(old.server, enabled), secrets, cause)
        )

    async def configure_oauth(self, given: ConfigureOAuth) -> Committed[Value]:
        """Let users sign in at a provider; answers ``McpOAuthConfig``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``CONFLICT``, ``UNAVAILABLE``.
        """
        secrets = NewSecrets(self._appender.new_id)
        auth = checked_oauth(given.config, self._providers, secrets, "config", self._redirects)
        return await self._changes.decided(given.server_id, lambda old: self._configure(old, auth, secrets))

    async def configure_jwt(self, given: ConfigureJwt) -> Committed[Value]:
        """Let users sign in with a signed token; answers ``McpJwtConfig``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``CONFLICT``, ``UNAVAILABLE``.
        """
        secrets = NewSecrets(self._appender.new_id)
        auth = checked_jwt(given.config, secrets, "config")
        return await self._changes.decided(given.server_id, lambda old: self._configure(old, auth, secrets))

    async def _configure(self, old: ServerEntry, auth: OAuth | Jwt, secrets: NewSecrets) -> Committed[Value]:
        changed = msgspec.structs.replace(old.server, auth=auth)
        value = auth_value(auth)
        done = await self._changes.change(old, changed, secrets, "configured", effect=Effect.of(value))
        return Committed(value, done.record, done.cursor)

    async def register(self, given: RegisterCapabilities) -> Committed[Value]:
        """State what an MCP server offers; answers ``McpServerCapabilities``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``CONFLICT``, ``UNAVAILABLE``.
        """
        self.queries.entry(given.server_id)
        check_listing(given)
        return await self._changes.decided(given.server_id, lambda entry: self._register(entry, given))

    async def _register(self, entry: ServerEntry, given: RegisterCapabilities) -> Committed[Value]:
        registered = Listing(
            tools=given.tools,
            resources=given.resources,
            prompts=given.prompts,
            features=given.features,
            protocol_version=given.protocol_version,
        )
        at, old = self._appender.at(), entry.offer
        changed = changed_offer(old, at, registered=registered)
        unchanged_at = at if old is None else old.at
        listed = None if old is None else old.listed
        offer = changed or Offer(listed=listed, registered=registered, at=unchanged_at)
        body = CapabilitiesRegistered(
            id=given.server_id, at=at, cause="registered", offer=offer, changes=changed is not None
        )
        value = offer.value(given.server_id)
        record = await self._appender.append(
            server_subject(given.server_id), body, expected=entry.last, effect=Effect.of(value)
        )
        return self._appender.committed(value, record)

    async def test(self, server_id: str) -> Committed[Value]:
        """Check an MCP server now; answers ``McpConnectionTest``.

        :raises EngineError: ``NOT_FOUND``, ``CONFLICT``, ``RATE_LIMITED``, ``UNAVAILABLE``.
        """
        self.queries.entry(server_id)

        def tell(finding: Finding) -> Value:
            return {
                "success": finding.succeeded,
                "responseTimeMs": finding.response_time_ms,
                "error": finding.error,
                "details": {
                    "dnsResolution": finding.dns,
                    "tcpConnection": finding.tcp,
                    "sslHandshake": finding.handshake,
                    "httpStatus": finding.http_status,
                    "authentication": finding.authenticated,
                    "capabilities": finding.succeeded if finding.initialized else None,
                },
                "testedAt": self._appender.at(),
            }

        value, record = await self._checks.test(server_id, tell)
        return self._appender.committed(value, record)

    async def delete(
        self, server_id: str, revoke_sessions: Callable[[str], Awaitable[None]]
    ) -> Committed[Value]:
        """Remove an MCP server, once it has no sessions any more; answers ``ApiResponse``.

        :raises EngineError: ``NOT_FOUND``, ``CONFLICT``, ``UNAVAILABLE``.
        """

        async def decide(_entry: ServerEntry) -> Committed[Value]:
            await revoke_sessions(server_id)
            # No await in between: it has no sessions in the state that this is decided on.
            return await self._delete(self.queries.entry(server_id))

        return await self._changes.decided(server_id, decide)

    async def _delete(self, entry: ServerEntry) -> Committed[Value]:
        server_id = entry.server.id
        body = ServerDeleted(
            id=server_id,
            at=self._appender.at(),
            cause="deleted",
            statuses=way(entry.server.status, "OFFLINE"),
        )
        value: Value = {
            "success": True,
            "message": f"the MCP server {entry.server.name} is deleted",
            "errorCode": None,
            "data": {"serverId": server_id},
        }
        record = await self._appender.append(
            server_subject(server_id),
            body,
            expected=entry.last,
            effect=Effect.of(value),
            guards=ending("mcp-server", server_id, decided_at=self._appender.decided_at()),
        )
        for id_ in entry.server.secret_ids:
            await self._secrets.remove(id_)
        return self._appender.committed(value, record)

    # -------------------------------------------------------------------------------------------------------

    def _config(self, given: ConfigInput, type_: str, secrets: NewSecrets) -> Config:
        return checked_config(given, type_, secrets, self._outbound.rules, max_seconds=self._max_seconds)


def _is_same_place(one: str, other: str) -> bool:
    return urlsplit(one)[:2] == urlsplit(other)[:2]  # scheme, host and port


def _switched(server: ServerImage, enabled: bool) -> ServerImage:
    if enabled == server.enabled:
        return server
    return msgspec.structs.replace(server, enabled=enabled, status="STARTING" if enabled else "OFFLINE")
