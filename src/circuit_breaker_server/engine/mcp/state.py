"""The state of MCP servers, of sessions, of sign-ins that have begun."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Final, final

import msgspec

from circuit_breaker_server.engine.expiry_table import EndedKeys
from circuit_breaker_server.engine.mcp.capabilities import Offer
from circuit_breaker_server.engine.mcp.records import (
    CapabilitiesRegistered,
    Health,
    ServerChecked,
    ServerDeleted,
    ServerImage,
    ServerPut,
    SessionChanged,
    SessionImage,
    SignInBegun,
    SignInUsed,
    decode_body,
)
from circuit_breaker_server.engine.state_tables import Entry, Table, TablePart
from circuit_breaker_server.engine.tenant_quota import KeysByTenant
from circuit_breaker_server.log.event_log import LogCorruptError, Record, Snapshot

__all__ = ["McpState", "ServerEntry", "SessionEntry", "SignInEntry"]

MAX_DELETED_TENANTS: Final = 100_000
"""Deleted MCP servers whose tenant is remembered. The tenant with the most of them loses its oldest first;
the events of those are for unlimited principals."""


@final
class ServerEntry(Entry, frozen=True, kw_only=True):
    """An MCP server.

    :ivar last: the offset of the last record of its subject.
    :ivar online_since: when it came to be ONLINE; ``None`` while it is not.
    """

    last: int
    server: ServerImage
    health: Health | None = None
    offer: Offer | None = None
    online_since: str | None = None

    def with_server(self, server: ServerImage, at: str) -> ServerEntry:
        """Return it after a change of the MCP server."""
        since = (self.online_since or at) if server.status == "ONLINE" else None
        return msgspec.structs.replace(self, server=server, online_since=since)


@final
class SessionEntry(Entry, frozen=True, kw_only=True):
    """A session; ``server`` is its MCP server as it last saw it.

    :ivar last: the offset of the last record of its subject.
    :ivar ended_at: when it ended; ``None`` while it is active.
    """

    last: int
    session: SessionImage
    server: ServerImage
    ended_at: str | None = None


@final
class SignInEntry(Entry, frozen=True, kw_only=True):
    """A sign-in that can be completed."""

    last: int
    begun: SignInBegun


@final
class TenantEntry(Entry, frozen=True, kw_only=True):
    """Owner of an MCP server: kept when the server is deleted, for its events can still be read."""

    tenant_id: str


@final
class McpState(TablePart):
    """MCP servers, sessions, sign-ins.

    :ivar servers_of: the MCP servers by tenant.
    :ivar sessions_of: the active sessions by tenant.
    """

    tokens = frozenset({"mcp"})

    def __init__(self) -> None:
        self.servers: Table[ServerEntry] = Table("mcp-server", ServerEntry)
        self.sessions: Table[SessionEntry] = Table("mcp-session", SessionEntry)
        self.sign_ins: Table[SignInEntry] = Table("mcp-sign-in", SignInEntry)
        self.tenants: Table[TenantEntry] = Table("mcp-tenant", TenantEntry)
        self._active: Counter[str] = Counter()
        # By tenant: the deleted MCP servers, the one that was made first on top.
        self._deleted: dict[str, list[tuple[int, str]]] = {}
        self.servers_of = KeysByTenant()
        self.sessions_of = KeysByTenant()
        self._sign_ins_of = KeysByTenant()
        self._ended = EndedKeys()
        super().__init__(self.servers, self.sessions, self.sign_ins, self.tenants)

    def restore(self, snapshot: Snapshot) -> None:
        """See :class:`Part`."""
        super().restore(snapshot)
        for server_id, each in self.servers.items():  # a state that was saved before tenants were kept
            self.servers_of.put(server_id, each.server.tenant_id)
            if server_id not in self.tenants:
                self._keep_tenant(each.server, each.created)
        for server_id, kept in self.tenants.items():
            if server_id not in self.servers:
                self._add_deleted(server_id, kept)
        for key, sign_in in self.sign_ins.items():
            self._sign_ins_of.put(key, self._tenant_of(sign_in.begun.server_id))
        for entry in self.sessions.values():
            if entry.ended_at is None:
                self._active[entry.session.server_id] += 1
                self.sessions_of.put(entry.session.id, entry.server.tenant_id)
        self._ended.restore((session_id, entry.ended_at) for session_id, entry in self.sessions.items())

    def active_sessions(self, server_id: str) -> int:
        """Count the active sessions of an MCP server."""
        return self._active[server_id]

    def pending_sign_ins(self, tenant: str | None, at: str) -> int:
        """Count the sign-ins that can be completed at a moment: of a tenant, or of all (``None``)."""
        tenants = [self._sign_ins_of.tenant_of(key) for key in self.expired_sign_ins(at)]
        if tenant is None:
            return len(self._sign_ins_of) - len(tenants)
        return self._sign_ins_of.count(tenant) - tenants.count(tenant)

    def expired_sign_ins(self, at: str) -> list[str]:
        """Return the keys of the sign-ins that have expired at a moment: the oldest, as all last as long."""
        expired = []
        for key in self.sign_ins:
            entry = self.sign_ins.get(key)
            if entry is None or entry.begun.expires_at > at:
                break
            expired.append(key)
        return expired

    def apply(self, record: Record) -> None:
        """Apply a record of this domain."""
        body = decode_body(record)
        match body:
            case ServerPut(server=server):
                old = self.servers.get(body.id)
                entry = ServerEntry(created=record.offset, last=record.offset, server=server)
                if old is not None:
                    entry = msgspec.structs.replace(old, last=record.offset, server=server)
                else:
                    self._keep_tenant(server, record.offset)
                self._put(entry, body.at)
            case ServerChecked(health=health, offer=offer):
                old = self._server(body.id, record)
                self._put(
                    msgspec.structs.replace(
                        old,
                        last=record.offset,
                        server=_with_status(old.server, body.statuses),
                        health=health,
                        offer=offer or old.offer,
                    ),
                    body.at,
                )
            case CapabilitiesRegistered(offer=offer):
                old = self._server(body.id, record)
                self._put(msgspec.structs.replace(old, last=record.offset, offer=offer), body.at)
            case ServerDeleted():
                self._server(body.id, record)
                self.servers.remove(body.id)
                self.servers_of.remove(body.id)
                kept = self.tenants.get(body.id)
                if kept is not None:
                    self._add_deleted(body.id, kept)
                self._forget_tenants()
            case SessionChanged():
                self._change_session(body, record)
            case SignInBegun(key=key):
                body = msgspec.structs.replace(body, idempotency=msgspec.UNSET)  # kept elsewhere
                for other in self.expired_sign_ins(body.at):
                    self._forget_sign_in(other)
                self.sign_ins.put(key, SignInEntry(created=record.offset, last=record.offset, begun=body))
                self._sign_ins_of.put(key, self._tenant_of(body.server_id))
            case SignInUsed(key=key):
                self._forget_sign_in(key)

    def _tenant_of(self, server_id: str) -> str:
        entry = self.tenants.get(server_id)
        return "" if entry is None else entry.tenant_id

    def _forget_sign_in(self, key: str) -> None:
        self.sign_ins.remove(key)
        self._sign_ins_of.remove(key)

    def _keep_tenant(self, server: ServerImage, created: int) -> None:
        self.tenants.put(server.id, TenantEntry(created=created, tenant_id=server.tenant_id))

    def _add_deleted(self, server_id: str, kept: TenantEntry) -> None:
        heapq.heappush(self._deleted.setdefault(kept.tenant_id, []), (kept.created, server_id))

    def _forget_tenants(self) -> None:
        """Forget the tenants of deleted MCP servers: of the tenant with the most, those made first."""
        while len(self.tenants) - len(self.servers) > MAX_DELETED_TENANTS:
            most = max(self._deleted, key=lambda tenant: len(self._deleted[tenant]))
            _, server_id = heapq.heappop(self._deleted[most])
            if not self._deleted[most]:
                del self._deleted[most]
            self.tenants.remove(server_id)

    def _server(self, server_id: str, record: Record) -> ServerEntry:
        entry = self.servers.get(server_id)
        if entry is None:
            raise LogCorruptError(f"record {record.offset} changes an MCP server that no record made")
        return entry

    def _put(self, entry: ServerEntry, at: str) -> None:
        self.servers.put(entry.server.id, entry.with_server(entry.server, at))
        self.servers_of.put(entry.server.id, entry.server.tenant_id)

    def _change_session(self, body: SessionChanged, record: Record) -> None:
        if body.change == "CREATED":
            for old_id in self._ended.take_old(body.at):
                self.sessions.remove(old_id)
        session = body.session
        old = self.sessions.get(session.id)
        active = session.status == "ACTIVE"
        self._active[session.server_id] += active - (old is not None and old.ended_at is None)
        if active:
            self.sessions_of.put(session.id, body.server.tenant_id)
        else:
            self.sessions_of.remove(session.id)
            self._ended.put(session.id, body.at)
        if not self._active[session.server_id]:
            del self._active[session.server_id]
        entry = SessionEntry(
            created=record.offset if old is None else old.created,
            last=record.offset,
            session=session,
            server=body.server,
            ended_at=None if active else body.at,
        )
        self.sessions.put(session.id, entry)


def _with_status(server: ServerImage, statuses: tuple[str, ...]) -> ServerImage:
    return msgspec.structs.replace(server, status=statuses[-1]) if statuses else server
