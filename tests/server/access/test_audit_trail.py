"""The audit line of a mutation follows from its record: no cancellation and no crash comes between them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.access.audit_trail import AuditTrail, position_of
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.origin import ORIGIN, Origin, origin_of
from circuit_breaker_server.engine.workflows.state import FoldedState
from circuit_breaker_server.log.event_log import NewRecord, Record
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.security.audit import (
    Anchor,
    AuditEvent,
    AuditLine,
    AuditLog,
    AuditPaths,
    AuditRecord,
    read,
    read_key,
    verify,
)
from circuit_breaker_server.security.audit.records import Seal
from tests.server.engine.worlds import clock, create_workflow
from tests.server.test_app import CREATE_WORKFLOW, WORKFLOW, site

ADA = Origin(principal="ada", tenant="acme", address="192.0.2.7", policy="7", action="createWorkflow()")


def lines(paths: AuditPaths) -> list[AuditRecord]:
    key = read_key(paths.key, {})
    assert verify(paths.log, key, paths.anchor).whole
    found = read(paths.log, key, paths.anchor)
    return [each.record for each in found if isinstance(each, AuditLine) and each.record.action == "mutate"]


def crash(paths: AuditPaths) -> None:
    """Leave the audit log as a server that was killed leaves it: without its `stop`."""
    whole = paths.log.read_bytes().splitlines(keepends=True)
    assert b'"stop"' in whole[-1]
    paths.log.write_bytes(b"".join(whole[:-1]))


async def test_each_record_of_a_mutation_has_one_line_that_names_it(tmp_path: Path) -> None:
    paths = AuditPaths.of(tmp_path)
    log = await SqliteEventLog.open(tmp_path)
    audit = await AuditLog.open(paths)
    engine = Engine(log, now=clock(), audit=AuditTrail(audit, log).follow)
    await engine.start()
    ORIGIN.set(ADA)
    await create_workflow(engine.workflows)
    ORIGIN.set(ADA.follow_up())
    await create_workflow(engine.workflows)
    await engine.aclose()
    await audit.aclose()
    (line,) = lines(paths)
    assert (line.principal, line.tenant, line.address, line.policy) == ("ada", "acme", "192.0.2.7", "7")
    assert (line.what, line.decision, line.record) == ("createWorkflow()", "allowed", position_of(log, 1))
    await log.aclose()


@pytest.mark.parametrize("kept_lines", [0, 1, 2, 3])
async def test_lines_that_a_crash_kept_from_being_written_come_with_the_next_start(
    tmp_path: Path, kept_lines: int
) -> None:
    paths = AuditPaths.of(tmp_path)
    log = await SqliteEventLog.open(tmp_path)
    engine = Engine(log, now=clock())
    await engine.start()
    audit = await AuditLog.open(paths, first_position=position_of(log, 0))
    ORIGIN.set(ADA)
    for _ in range(3):
        await create_workflow(engine.workflows)
    await engine.aclose()
    trail = AuditTrail(audit, log)
    records = [record async for record in log.scan(after=0)]
    for record in records[:kept_lines]:
        trail.follow(record)
    await audit.aclose()
    crash(paths)
    paths.anchor.unlink()  # the anchor of before the crash has seen no line yet
    audit_without = await _reopened(paths)
    await AuditTrail(audit_without, log).catch_up()
    await audit_without.aclose()
    assert [line.record for line in lines(paths)] == [position_of(log, n) for n in (1, 2, 3)]
    await log.aclose()


async def _reopened(paths: AuditPaths) -> AuditLog:
    Anchor().write(paths.anchor, Seal(read_key(paths.key, {})))
    return await AuditLog.open(paths)


async def test_a_restart_in_peace_writes_no_line_again(tmp_path: Path) -> None:
    paths = AuditPaths.of(tmp_path)
    log = await SqliteEventLog.open(tmp_path)
    audit = await AuditLog.open(paths, first_position=position_of(log, 0))
    engine = Engine(log, now=clock(), audit=AuditTrail(audit, log).follow)
    await engine.start()
    ORIGIN.set(ADA)
    for _ in range(3):
        await create_workflow(engine.workflows)
    await engine.aclose()
    await audit.aclose()
    again = await AuditLog.open(paths)
    await AuditTrail(again, log).catch_up()
    await again.aclose()
    assert [line.record for line in lines(paths)] == [position_of(log, n) for n in (1, 2, 3)]
    await log.aclose()


async def test_another_log_is_caught_up_from_its_beginning(tmp_path: Path) -> None:
    paths = AuditPaths.of(tmp_path)
    audit = await AuditLog.open(paths, first_position="0123456789abcdef.99")
    log = await SqliteEventLog.open(tmp_path / "new")
    engine = Engine(log, now=clock())
    await engine.start()
    ORIGIN.set(ADA)
    await create_workflow(engine.workflows)
    await engine.aclose()
    await AuditTrail(audit, log).catch_up()
    await audit.aclose()
    assert [line.record for line in lines(paths)] == [position_of(log, 1)]
    await log.aclose()


async def test_the_place_is_found_behind_many_lines_that_name_no_record(tmp_path: Path) -> None:
    paths = AuditPaths.of(tmp_path)
    audit = await AuditLog.open(paths, first_position="0123456789abcdef.7")
    for number in range(4_000):
        audit.append(
            AuditEvent(
                action="query",
                principal="eve",
                address="::1",
                what=f"q{number} {'x' * 200}",
                decision="refused",
            )
        )
    await audit.aclose()
    crash(paths)
    again = await _reopened(paths)
    assert again.position == "0123456789abcdef.7"
    await again.aclose()


async def test_a_record_without_an_origin_is_read_as_one_of_an_older_program() -> None:
    old = Record(offset=1, subject="workflow.w", id="0" * 32, time_ms=0, data=b'{"type":"x","v":1}')
    assert origin_of(old) == Origin()


async def test_a_whole_server_stops_for_good_at_a_record_it_cannot_apply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_state: FoldedState, _record: Record) -> None:
        raise MemoryError

    async with site(tmp_path) as running:
        await running.made(CREATE_WORKFLOW, WORKFLOW)
        with monkeypatch.context() as patch:
            patch.setattr(FoldedState, "apply", fail)
            answer = await running.post(CREATE_WORKFLOW, {"input": WORKFLOW})
            assert "UNAVAILABLE" in str(answer)
            async with asyncio.timeout(10):
                await running.server.wait()
        assert running.server.failure is not None
        assert "record 2 (workflow." in running.server.failure
    async with site(tmp_path) as again:
        assert len([*again.server.engine.workflows.workflows()]) == 2


async def test_a_server_with_authentication_keeps_principal_and_address_in_each_record(
    tmp_path: Path,
) -> None:
    async with Server(ServerSettings(data_dir=tmp_path, port=0, log_level="critical")) as server:
        ORIGIN.set(ADA)
        await create_workflow(server.engine.workflows)
    log = await SqliteEventLog.open(tmp_path)
    (record,) = [each async for each in log.scan(after=0)]
    assert origin_of(record).principal == "ada"
    assert origin_of(record).release
    again = await log.append(NewRecord(subject=record.subject, id=record.id, data=record.data, expected=0))
    assert again == record
    await log.aclose()
