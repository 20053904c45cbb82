"""Our server in a process of its own, with the commands of the benchmarks: publish, append, weigh."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
from opentelemetry.sdk.trace import TracerProvider

from benchmarks.event import resource
from benchmarks.machine import resident_bytes
from benchmarks.memory_log import MemoryEventLog
from benchmarks.processes import Commands, run_commands
from circuit_breaker_sdk.cli.runtime import settle_memory
from circuit_breaker_server import Server, ServerSettings, TokenSettings
from circuit_breaker_server.endpoints.websocket.session import Session
from circuit_breaker_server.engine.command_origin import Origin, with_origin
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.workflows.definitions import StateType
from circuit_breaker_server.engine.workflows.inputs import (
    ActivityInput,
    CreateResource,
    CreateWorkflow,
    StateInput,
)
from circuit_breaker_server.engine.workflows.records import (
    ResourceChanged,
    ResourceCreated,
    ResourceImage,
    decode_body,
)
from circuit_breaker_server.engine.workflows.subjects import resource_subject
from circuit_breaker_server.log.event_log import EventLog, NewRecord, Record
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.otel_tracing import OpenTelemetryTracer

__all__ = ["SECRET", "make_workflow", "serve"]

SECRET = b"the benchmark and its server know it"
_TRACED_ONE_IN = 100
_SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
# Not everything: each event has to be looked at.
POLICY = """
[principals.bench]
tenant = "bench"
scopes = ["workflow:admin:*-*", "nats:read:*-*", "cost:read:self"]
"""


def serve(pipe: Connection, data_dir: str, settings: dict[str, Any]) -> None:
    """Serve until the pipe is closed."""
    run_commands(pipe, lambda: _commands(Path(data_dir), settings))


@contextlib.asynccontextmanager
async def _commands(data_dir: Path, settings: dict[str, Any]) -> AsyncIterator[Commands]:
    if settings.pop("secured", False):
        settings |= _everything_on(data_dir)
    # The product has no such setting.
    log = MemoryEventLog if settings.pop("log_in_memory", False) else SqliteEventLog
    traced = settings.pop("traced", False)
    with patch("circuit_breaker_server.log_parts.SqliteEventLog", log):
        tracer = OpenTelemetryTracer(TracerProvider()) if traced else None
        server = Server(ServerSettings(data_dir=data_dir, port=0, **settings), tracer=tracer)
        await server.start()
    async with contextlib.aclosing(server):
        settle_memory()  # as `circuit-breaker serve` does
        publisher = _Publisher(server.engine, traced=traced)

        async def port() -> int:
            return server.port

        async def metrics_url() -> str | None:
            return server.metrics_url

        async def weigh() -> int:
            gc.collect()
            return resident_bytes()

        yield {
            "port": port,
            "metrics_url": metrics_url,
            "weigh": weigh,
            "make": publisher.make,
            "publish": publisher.publish,
            "appends": publisher.appends,
            "writes": publisher.writes,
            "groups": publisher.groups,
            "log": publisher.log,
            "cpu": _cpu,
        }


def _everything_on(data_dir: Path) -> dict[str, Any]:
    policy = data_dir / "policy.toml"
    data_dir.mkdir(parents=True, exist_ok=True)
    policy.write_text(POLICY)
    return {
        "token_keys": TokenSettings(key=SECRET),
        "policy_file": policy,
        "max_connections_per_principal": 10_000,
    }


async def make_workflow(engine: Engine) -> str:
    """Make a workflow with one state; return its id."""
    state = StateInput(id="in_review", name="In review", workflow_id="", state_type=StateType.INITIAL)
    stay = ActivityInput(id="stay", from_states=(state.id,), to_state=state.id, conditions=())
    given = CreateWorkflow(name="bench", initial_state=state.id, states=(state,), activities=(stay,))
    return str((await engine.workflows.create_workflow(given)).value["id"])


async def _cpu() -> float:
    return time.process_time()


class _Publisher:
    """Records straight into the server's log: what commands, HTTP and GraphQL cost is measured elsewhere."""

    def __init__(self, engine: Engine, *, traced: bool = False) -> None:
        """``traced``: one change in a hundred is of a mutation that is traced."""
        self._traced = traced
        self._engine = engine
        self._log: EventLog = engine.workflows._appender._log  # noqa: SLF001 (nobody else has to get at it)
        self._resources: list[tuple[str, ResourceImage]] = []
        self._workflows: list[str] = []
        self._number = 0

    async def make(self, workflows: int) -> list[str]:
        """Make so many workflows with a resource each; return the ids of the workflows."""
        self._workflows = await asyncio.gather(*(make_workflow(self._engine) for _ in range(workflows)))
        made = await asyncio.gather(
            *(
                self._engine.workflows.create_resource(
                    CreateResource(workflow_id=id_, data=resource(0)["data"], metadata={})
                )
                for id_ in self._workflows
            )
        )
        bodies = [decode_body(each.record) for each in made]
        self._resources = [
            (resource_subject(body.resource.workflow_id, body.resource.id), body.resource)
            for body in bodies
            if isinstance(body, ResourceCreated)
        ]
        return self._workflows

    async def _change(self) -> None:
        """Append a change of a resource to the log: what a command ends with, without the command."""
        number = self._number
        self._number += 1
        subject, resource = self._resources[number % len(self._resources)]
        data = msgspec.Raw(msgspec.json.encode({"title": "Quarterly plan", "revision": number}))
        body = msgspec.json.encode(ResourceChanged(resource=msgspec.structs.replace(resource, data=data)))
        if self._traced and number % _TRACED_ONE_IN == 0:
            trace = f"00-{number + 1:032x}-{number + 1:016x}-01"
            body = with_origin(body, Origin(traceparent=trace), node="", term=0)
        await self._log.append(
            NewRecord(
                subject=subject,
                id=f"{(1_700_000_000_000 + number):012x}{number:020x}",
                data=body,
            )
        )

    async def _create(self) -> None:
        number = self._number
        self._number += 1
        await self._engine.workflows.create_resource(
            CreateResource(
                workflow_id=self._workflows[number % len(self._workflows)],
                data=resource(number)["data"],
                metadata={},
            )
        )

    async def publish(self, events: int, together: int, lanes: int = 2) -> None:
        """Append changes of resources, so many together; each lane waits until they are committed."""

        async def lane() -> None:
            for _ in range(events // together // lanes):
                await asyncio.gather(*(self._change() for _ in range(together)))

        await asyncio.gather(*(lane() for _ in range(lanes)))

    async def appends(self, count: int, lanes: int) -> float:
        """Create resources in so many lanes; return how many a second."""

        async def lane(events: int) -> None:
            for _ in range(events):
                await self._create()

        began = time.perf_counter()
        await asyncio.gather(*(lane(count // lanes) for _ in range(lanes)))
        return count // lanes * lanes / (time.perf_counter() - began)

    async def log(self) -> dict[str, str]:
        """Return what the log's connection is set to, as the database tells."""
        if not isinstance(self._log, SqliteEventLog):
            return {"kept": "in memory"}
        connection = self._log._files.writer._connection  # noqa: SLF001 (nobody else has to get at it)
        (journal_mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
        return {
            "journal_mode": journal_mode,
            "synchronous": _SYNCHRONOUS[synchronous],
            "SQLite": sqlite3.sqlite_version,
        }

    async def groups(self, events: int, together: int, lanes: int) -> int:
        """Publish, and count the groups in which the log commits it."""
        count = 0

        def counting(_: Sequence[Record]) -> None:
            nonlocal count
            count += 1

        end = self._log.tail(counting)
        try:
            await self.publish(events, together, lanes)
        finally:
            end()
        return count

    async def writes(self, events: int, together: int) -> int:
        """Publish, and count the writes that it takes."""
        write, count = Session.write, 0

        def counting(session: Session, frames: bytes) -> None:
            nonlocal count
            count += 1
            write(session, frames)

        Session.write = counting  # type: ignore[method-assign, assignment]  # for this check alone
        try:
            await self.publish(events, together)
            await asyncio.sleep(0.2)
        finally:
            Session.write = write  # type: ignore[method-assign]  # as above
        return count
