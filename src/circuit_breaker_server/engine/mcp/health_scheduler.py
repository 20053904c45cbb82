"""The checks of all MCP servers: each again and again, by a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import final

import msgspec

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.command import ATTEMPTS, Appender, Value
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.fair_pool import FairPool
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.mcp.capabilities import Listing, Offer
from circuit_breaker_server.engine.mcp.health_finding import Finding
from circuit_breaker_server.engine.mcp.health_probe import Target
from circuit_breaker_server.engine.mcp.jwt import sign
from circuit_breaker_server.engine.mcp.records import (
    Body,
    Health,
    Jwt,
    ServerChecked,
    ServerDeleted,
    ServerImage,
    ServerPut,
    server_subject,
)
from circuit_breaker_server.engine.mcp.state import McpState, ServerEntry
from circuit_breaker_server.engine.mcp.status_transitions import way
from circuit_breaker_server.engine.mcp.tls import tls_context
from circuit_breaker_server.engine.nodes.ownership import Ownership
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.log.event_log import ExpectationFailed, Record
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.outbound import Outbound

__all__ = ["Checks", "changed_offer"]

_log = get_logger("mcp")


@final
class Checks:
    """Checks enabled MCP servers on an interval, and any when asked.

    A check that finds nothing new is no record: its time and duration are kept in memory, and after a
    restart the last one recorded counts until the next check, which comes at once.

    :param check: one check; ends in time whatever the peer does.
    :param limits: the share of each tenant in the checks that run at once, and the longest timeout.
    :param ownership: which MCP servers this node checks on the interval.

    Example::

        checks.start()
        checks.follow(body)
        await checks.aclose()
    """

    def __init__(
        self,
        state: McpState,
        appender: Appender,
        secrets: Secrets,
        check: Callable[[Target], Awaitable[Finding]],
        *,
        interval_seconds: float,
        outbound: Outbound,
        limits: CallerLimits,
        ownership: Ownership,
    ) -> None:
        self._ownership = ownership
        self._state = state
        self._appender = appender
        self._secrets = secrets
        self._check = check
        self._interval_seconds = interval_seconds
        self._outbound = outbound
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closing = False
        self._due: dict[str, asyncio.Event] = {}
        self._latest: dict[str, Health] = {}
        self._max_seconds = limits.check_seconds
        slots, share = limits.checks, limits.checks_per_tenant
        self._checks = FairPool("checks", slots=slots, share=share)
        # Apart, so that a caller does not wait for the checks of their tenant that hang.
        self._tests = FairPool(
            "tests of MCP servers",
            slots=slots,
            share=share,
            max_waiting=limits.checks,
            wait_seconds=limits.check_seconds,
        )

    def start(self) -> None:
        """Watch every enabled MCP server that belongs to this node."""
        self.take_over()

    def take_over(self) -> None:
        """Watch those that belong to this node now, and no longer those that do not."""
        for entry in [] if self._closing else self._state.servers.values():
            server_id = entry.server.id
            if not (entry.server.enabled and self._is_mine(server_id)):
                self.unwatch(server_id)
            elif server_id not in self._tasks:
                self.watch(server_id)

    def _is_mine(self, server_id: str) -> bool:
        return self._ownership.is_mine(f"check/{server_id}")

    async def aclose(self) -> None:
        """Stop all checks, and start none. Idempotent."""
        self._closing = True
        tasks, self._tasks = [*self._tasks.values(), *self._ending], {}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def watch(self, server_id: str) -> None:
        """Check an MCP server now, and on the interval from then on."""
        self._due.setdefault(server_id, asyncio.Event()).set()
        if server_id not in self._tasks:
            name = f"engine-mcp-{server_id}"
            self._tasks[server_id] = asyncio.get_running_loop().create_task(self._watch(server_id), name=name)

    def unwatch(self, server_id: str) -> None:
        """Check an MCP server no more; a check that runs is stopped."""
        self._due.pop(server_id, None)
        self._latest.pop(server_id, None)
        task = self._tasks.pop(server_id, None)
        if task is not None:
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def follow(self, body: Body) -> None:
        """Watch an MCP server from the record on that enables it, until the one that does not."""
        match body:
            case ServerPut(id=server_id, server=server):
                if server.enabled and not self._closing and self._is_mine(server_id):
                    self.watch(server_id)
                else:
                    self.unwatch(server_id)
            case ServerDeleted(id=server_id):
                self.unwatch(server_id)
            case _:
                pass

    def latest(self, entry: ServerEntry) -> Health | None:
        """Return what the last check found; of a disabled MCP server what is recorded of it."""
        recorded = entry.health
        latest = self._latest.get(entry.server.id) if entry.server.enabled else None
        if recorded is None or latest is None:
            return recorded or latest
        return max(recorded, latest, key=lambda health: health.at)

    async def test(self, server_id: str, tell: Callable[[Finding], Value]) -> tuple[Value, Record]:
        """Check an MCP server now and record the result, good or bad; return the answer and the record.

        The effect is the record: an attempt that dies before it leaves nothing, and is made anew.

        :raises EngineError: ``NOT_FOUND``: it was deleted meanwhile; ``CONFLICT``, ``RATE_LIMITED``,
            ``UNAVAILABLE``.
        """
        entry = self._state.servers.get(server_id)
        if entry is not None:
            async with self._tests.slot(entry.server.tenant_id):
                finding = await self._check(await self._target(entry.server))
            value = tell(finding)
            record = await self._record(server_id, finding, None, "test", Effect.of(value))
            if record is not None:
                return value, record
        raise EngineError(ErrorCode.NOT_FOUND, "the MCP server was deleted", serverId=server_id)

    # -------------------------------------------------------------------------------------------------------

    async def _watch(self, server_id: str) -> None:
        due, own = self._due[server_id], asyncio.current_task()
        # Not only until it is cancelled: no library under a check can be trusted to pass that on.
        while self._tasks.get(server_id) is own:
            due.clear()
            try:
                await self._look(server_id)
            except EngineError as error:
                _log.warning("check_not_recorded", server_id=server_id, reason=str(error))
            except Exception:  # noqa: BLE001 (an unforeseen error must not end the checks for good)
                _log.exception("check_failed", server_id=server_id)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_seconds):
                    await due.wait()

    async def _look(self, server_id: str) -> None:
        tenant = self._state.tenants.get(server_id)
        if tenant is None:
            return
        async with self._checks.slot(tenant.tenant_id):
            entry = self._state.servers.get(server_id)
            if entry is None or not entry.server.enabled:
                return
            finding = await self._check(await self._target(entry.server))
        await self._record(server_id, finding, entry.server.version, "check")

    async def _target(self, server: ServerImage) -> Target:
        config = server.config
        headers: dict[str, str] = {}
        if config.headers_id is not None:
            kept = await self._secrets.find(config.headers_id)
            headers = {} if kept is None else msgspec.json.decode(kept, type=dict[str, str])
        if isinstance(server.auth, Jwt) and server.auth.private_key_id is not None:
            key = await self._secrets.find(server.auth.private_key_id)
            if key is not None:
                token = sign(server.auth, key, now_seconds=int(self._appender.now().timestamp()))
                headers.setdefault("Authorization", f"Bearer {token}")
        tls, ssl = None, config.ssl
        if ssl is not None:
            key = None if ssl.client_key_id is None else await self._secrets.find(ssl.client_key_id)
            tls = await asyncio.to_thread(
                tls_context,
                verify=ssl.verify,
                ca_cert=ssl.ca_cert,
                client_cert=ssl.client_cert,
                client_key=key,
            )
        return Target(
            endpoint=config.endpoint,
            timeout_seconds=min(config.timeout_seconds, self._max_seconds),
            max_connections=config.max_connections,
            retry=config.retry,
            headers=headers,
            tls=tls,
            outbound=self._outbound,
        )

    async def _record(
        self,
        server_id: str,
        finding: Finding,
        version: int | None,
        cause: str,
        effect: Effect | None = None,
    ) -> Record | None:
        """Record what a check found; of a check on the interval only what is new.

        :param version: of the settings it was made with; if others count now, it is dropped.
        """
        for _ in range(ATTEMPTS):
            entry = self._state.servers.get(server_id)
            if entry is None or version not in (None, entry.server.version):
                return None
            if version is not None and not self._is_mine(server_id):
                return None
            at = self._appender.at()
            health = finding.health(at)
            old, new = entry.server.status, "ONLINE" if finding.succeeded else "ERROR"
            statuses = way(old, new) if entry.server.enabled else ()
            offer = changed_offer(entry.offer, at, listed=finding.listing)
            self._latest[server_id] = health
            if version is not None and not statuses and offer is None and _same(entry.health, health):
                return None
            is_own = version is not None
            fence = self._ownership.fence(decided_at=self._appender.decided_at()) if is_own else None
            body = ServerChecked(
                id=server_id, at=at, cause=cause, statuses=statuses, health=health, offer=offer
            )
            try:
                return await self._appender.append(
                    server_subject(server_id), body, expected=entry.last, effect=effect, guards=fence
                )
            except ExpectationFailed:
                continue
        raise EngineError(ErrorCode.CONFLICT, "the MCP server is being changed by others; try again")


def changed_offer(
    old: Offer | None, at: str, *, listed: Listing | None = None, registered: Listing | None = None
) -> Offer | None:
    """Return what is offered after one side has said something new; ``None`` where that changes nothing."""
    before = old or Offer(at=at)
    new = Offer(listed=listed or before.listed, registered=registered or before.registered, at=at)
    if new.listed is None and new.registered is None:
        return None
    return None if old is not None and old.merged() == new.merged() else new


def _same(old: Health | None, new: Health) -> bool:
    if old is None:
        return False
    return msgspec.structs.replace(old, at=new.at, response_time_ms=new.response_time_ms) == new
