"""Engines with MCP servers in them, for tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import final

import msgspec

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.engine.mcp.inputs import CreateServer
from circuit_breaker_server.engine.mcp.records import Provider
from circuit_breaker_server.log.event_log import EventLog
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.memory_secrets import MemorySecrets

QUICK = {"maxAttempts": 1, "initialDelayMs": 0, "maxDelayMs": 0}
NEVER = 3600.0


@final
class Clock:
    """Goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def go_on(self, **by: float) -> None:
        self.now += timedelta(**by)


def server_input(endpoint: str | None, **more: object) -> CreateServer:
    """Return the input of ``createMcpServer``."""
    config = more.pop("config", {})
    assert isinstance(config, Mapping)
    given = {
        "name": "tools",
        "type": "REMOTE",
        "tenantId": "acme",
        "config": {"endpoint": endpoint, "timeoutSeconds": 5, "retry": QUICK, **config},
        **more,
    }
    return msgspec.convert(given, CreateServer)


@contextlib.asynccontextmanager
async def running(
    log: EventLog,
    *,
    secrets: MemorySecrets | None = None,
    now: Callable[[], datetime] | None = None,
    check_seconds: float = NEVER,
    session_seconds: float = 86_400.0,
    providers: Sequence[Provider] = (),
    limits: CallerLimits = CallerLimits(),  # noqa: B008 (a frozen value)
) -> AsyncIterator[Engine]:
    """Run an engine."""
    engine = Engine(
        log,
        now=(lambda: datetime.now(UTC)) if now is None else now,
        secrets=MemorySecrets() if secrets is None else secrets,
        mcp_check_seconds=check_seconds,
        mcp_session_seconds=session_seconds,
        oauth_providers=providers,
        limits=limits,
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


@contextlib.asynccontextmanager
async def running_in(
    directory: Path,
    *,
    secrets: MemorySecrets | None = None,
    session_seconds: float = 86_400.0,
    now: Callable[[], datetime] | None = None,
) -> AsyncIterator[Engine]:
    """Run an engine on the real log in a directory."""
    log = await SqliteEventLog.open(directory)
    try:
        async with running(log, secrets=secrets, session_seconds=session_seconds, now=now) as engine:
            yield engine
    finally:
        await log.aclose()


async def create_server(engine: Engine, endpoint: str, **more: object) -> str:
    """Create an MCP server; return its id."""
    return str((await engine.mcp.servers.create(server_input(endpoint, **more))).value["id"])


def events(log: MemoryLog, stream: str) -> list[dict[str, object]]:
    """Return the events of a stream so far."""
    return [event.value for record in log.records for event in derive(record) if event.stream == stream]


def statuses(log: MemoryLog) -> list[str]:
    """Return the changes of status so far, as ``OLD>NEW``."""
    return [f"{each['oldStatus']}>{each['newStatus']}" for each in events(log, "mcpServerStatusUpdates")]


def tool_names(log: MemoryLog) -> list[list[object]]:
    """Return the names of the tools of each change of what is offered."""
    found = []
    for value in events(log, "mcpCapabilityUpdates"):
        tools = value["tools"]
        assert isinstance(tools, list)
        found.append([tool["name"] for tool in tools])
    return found
