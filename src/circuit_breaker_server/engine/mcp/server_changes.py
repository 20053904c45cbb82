"""Record the changes of MCP servers in the log, and keep the secrets that they name."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import final

import msgspec

from circuit_breaker_server.engine.command import ATTEMPTS, Appender, Committed, Value
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.mcp.records import ServerImage, ServerPut, server_subject
from circuit_breaker_server.engine.mcp.server_queries import ServerQueries
from circuit_breaker_server.engine.mcp.state import ServerEntry
from circuit_breaker_server.engine.mcp.status_transitions import way
from circuit_breaker_server.engine.mcp.validation import NewSecrets
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.log.event_log import ExpectationFailed, Record

__all__ = ["ServerChanges"]

_CONFLICT = "the MCP server was changed by another operation first; read it and try again"


@final
class ServerChanges:
    """Appends new and changed MCP servers."""

    def __init__(self, appender: Appender, secrets: Secrets, queries: ServerQueries) -> None:
        self._appender = appender
        self._secrets = secrets
        self._queries = queries

    async def decided(
        self, server_id: str, decide: Callable[[ServerEntry], Awaitable[Committed[Value]]]
    ) -> Committed[Value]:
        """Decide on a change, again if only a check came first: the caller could not know of that.

        :raises EngineError: ``NOT_FOUND``, ``CONFLICT``, and what deciding raises.
        """
        version = self._queries.entry(server_id).server.version
        for _ in range(ATTEMPTS):
            entry = self._queries.entry(server_id)
            if entry.server.version != version:
                break
            try:
                return await decide(entry)
            except ExpectationFailed:
                continue
        raise EngineError(ErrorCode.CONFLICT, _CONFLICT)

    async def change(
        self,
        old: ServerEntry,
        server: ServerImage,
        secrets: NewSecrets,
        cause: str,
        *,
        effect: Effect | None = None,
    ) -> Committed[Value]:
        """Record a changed MCP server; answers ``McpServer``.

        :param effect: the answer under an idempotency key, where it is another.
        :raises ExpectationFailed: another record of it came first.
        :raises EngineError: ``UNAVAILABLE``.
        """
        server = msgspec.structs.replace(
            server, updated_at=self._appender.at(), version=old.server.version + 1
        )
        changed = old.with_server(server, server.updated_at)
        record = await self.put(
            old, server, secrets, cause, effect or Effect(lambda _: self._queries.value(changed))
        )
        return self._appender.committed(self._queries.value(self._queries.entry(server.id)), record)

    async def put(
        self,
        old: ServerEntry | None,
        server: ServerImage,
        secrets: NewSecrets,
        cause: str,
        effect: Effect,
    ) -> Record:
        """Record a new or changed MCP server, and forget the secrets that it no longer names.

        :param old: as it was; ``None`` for a new one.
        :raises ExpectationFailed: another record of it came first.
        :raises EngineError: ``UNAVAILABLE``.
        """
        status = "UNKNOWN" if old is None else old.server.status
        body = ServerPut(
            id=server.id,
            at=server.updated_at,
            cause=cause,
            statuses=way(status, server.status),
            server=server,
        )
        async with self._kept(secrets):
            record = await self._appender.append(
                server_subject(server.id), body, expected=0 if old is None else old.last, effect=effect
            )
        for id_ in frozenset() if old is None else old.server.secret_ids - server.secret_ids:
            await self._secrets.remove(id_)
        return record

    @contextlib.asynccontextmanager
    async def _kept(self, secrets: NewSecrets) -> AsyncIterator[None]:
        """Keep secrets before the record that names them; forget them if there comes to be none."""
        try:
            for id_, value in secrets.values.items():
                await self._secrets.put(id_, value)
            yield
        except (EngineError, ExpectationFailed) as error:
            if isinstance(error, EngineError) and error.may_have_happened:
                raise  # the record may name them; what no record names goes with the next start
            for id_ in secrets.values:
                await self._secrets.remove(id_)
            raise
