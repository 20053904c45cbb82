"""An engine that starts while others write: it misses no record, and applies none twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_breaker_server.access.mutation_audit import AuditTrail, position_of
from circuit_breaker_server.engine.command_origin import ORIGIN, Origin
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.log.event_log import Snapshot
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.security.audit import AuditLine, AuditLog, AuditPaths, read, read_key
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.shared.shared_log import View
from tests.server.engine.worlds import clock, create_resource, create_workflow, everything, execute

ADA = Origin(principal="ada", address="192.0.2.7", action="createWorkflow()")


async def pause() -> None:
    """Let nobody in between."""


async def test_a_state_that_was_saved_ahead_of_the_own_tail_is_followed_from_where_it_ends() -> None:
    log = MemoryLog()
    first = Engine(log, now=clock())
    await first.start()
    workflow = await create_workflow(first.workflows)
    resource = await create_resource(first.workflows, workflow, data={})
    for number in range(3):
        await execute(first.workflows, resource, "edit", {"i": number})
    before = everything(first.workflows)
    await first.aclose()
    assert log.snapshot.offset == log.last_offset
    view = View(log, pause)
    view.deliver(2)
    second = Engine(view, now=clock())
    await second.start()
    view.deliver()
    assert everything(second.workflows) == before
    await create_workflow(second.workflows)
    await second.aclose()


async def test_a_record_that_is_stored_while_an_engine_starts_has_its_audit_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = AuditPaths.of(tmp_path)
    log = await SqliteEventLog.open(tmp_path)
    other = Engine(log, now=clock())
    await other.start()
    audit = await AuditLog.open(paths, first_position=position_of(log, 0))
    trail = AuditTrail(audit, log)
    load = SqliteEventLog.load_snapshot

    async def load_late(self: SqliteEventLog) -> Snapshot:
        ORIGIN.set(ADA)
        await create_workflow(other.workflows)
        return await load(self)

    monkeypatch.setattr(SqliteEventLog, "load_snapshot", load_late)
    engine = Engine(log, now=clock(), audit=trail.follow, catch_up=trail.catch_up)
    await engine.start()
    await create_workflow(other.workflows)
    await engine.aclose()
    await other.aclose()
    await audit.aclose()
    found = read(paths.log, read_key(paths.key, {}), paths.anchor)
    lines = [each.record for each in found if isinstance(each, AuditLine)]
    assert [line.record for line in lines if line.action == "mutate"] == [
        position_of(log, 1),
        position_of(log, 2),
    ]
    await log.aclose()
