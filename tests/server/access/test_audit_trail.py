"""The audit line of a mutation follows from its record: no cancellation and no crash comes between them."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.access.mutation_audit import AuditTrail, position_of
from circuit_breaker_server.engine.command_origin import ORIGIN, Origin, origin_of
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.workflows.state import FoldedState
from circuit_breaker_server.log.event_log import LogError, NewRecord, Record
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.security.audit import (
    Anchor,
    AuditEvent,
    AuditLimits,
    AuditLine,
    AuditLog,
    AuditLogError,
    AuditPaths,
    AuditRecord,
    read,
    read_key,
    verify,
)
from circuit_breaker_server.security.audit.records import Seal
from tests.server.access.office import open_office
from tests.server.engine.worlds import clock, create_workflow
from tests.server.operations import CREATE_RESOURCE, CREATE_WORKFLOW, WORKFLOW
from tests.server.site import site

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


async def test_a_record_without_a_line_is_not_looked_at_again(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path)
    audit = await AuditLog.open(AuditPaths.of(tmp_path), first_position=position_of(log, 0))
    engine = Engine(log, now=clock(), audit=AuditTrail(audit, log).follow)
    await engine.start()
    ORIGIN.set(Origin())
    await create_workflow(engine.workflows)
    assert audit.position == position_of(log, 1)
    await engine.aclose()
    await audit.aclose()
    again = await AuditLog.open(AuditPaths.of(tmp_path))
    assert again.position == position_of(log, 1)
    await again.aclose()
    await log.aclose()


async def test_others_are_told_of_records_only_when_their_lines_are_on_the_disk(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path)
    audit = await AuditLog.open(AuditPaths.of(tmp_path), first_position=position_of(log, 0), flush_seconds=60)
    trail = AuditTrail(audit, log)
    engine = Engine(log, now=clock(), audit=trail.follow)
    await engine.start()
    ORIGIN.set(Origin())
    await create_workflow(engine.workflows)
    assert trail.durable_offset == 1, "it has no line"
    ORIGIN.set(ADA)
    await create_workflow(engine.workflows)
    ORIGIN.set(Origin())
    await create_workflow(engine.workflows)
    assert trail.durable_offset == 1
    assert audit.flush(sync=False)
    assert trail.durable_offset == 1
    await trail.make_durable()
    assert trail.durable_offset == 3
    await engine.aclose()
    await audit.aclose()
    await log.aclose()


async def test_another_log_is_caught_up_from_its_beginning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    said = capsys.readouterr().err
    assert "event=audit_of_another_log" in said
    assert "audited=0123456789abcdef" in said
    await log.aclose()


async def test_the_place_is_found_behind_many_lines_that_name_no_record(tmp_path: Path) -> None:
    paths = AuditPaths.of(tmp_path)
    audit = await AuditLog.open(
        paths, first_position="0123456789abcdef.7", limits=AuditLimits(refusals=4_000)
    )
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


def stranger(number: int) -> AuditEvent:
    return AuditEvent(action="query", principal="eve", address="::1", what=f"q{number}", decision="refused")


async def test_lines_about_records_are_kept_where_refusals_have_filled_the_memory(tmp_path: Path) -> None:
    paths = AuditPaths.of(tmp_path)
    log = await SqliteEventLog.open(tmp_path)
    audit = await AuditLog.open(
        paths, {}, flush_seconds=3600, max_pending_bytes=2000, first_position=position_of(log, 0)
    )
    engine = Engine(log, now=clock(), audit=AuditTrail(audit, log).follow)
    await engine.start()
    ORIGIN.set(ADA)
    for number in range(20):
        audit.append(stranger(number))
        await create_workflow(engine.workflows)
    assert audit.lost > 0
    await engine.aclose()
    await audit.aclose()
    assert [line.record for line in lines(paths) if line.principal == "ada"] == [
        position_of(log, n) for n in range(1, 21)
    ]
    await log.aclose()


def filled(principal: str) -> AuditEvent:
    return AuditEvent(
        action="mutate", principal=principal, address="", what="x", decision="allowed", record="e.1"
    )


async def test_a_mutation_waits_for_room_in_the_share_of_lines_about_records(tmp_path: Path) -> None:
    audit = await AuditLog.open(AuditPaths.of(tmp_path), flush_seconds=3600, max_effect_bytes=1000)
    log = await SqliteEventLog.open(tmp_path)
    trail = AuditTrail(audit, log)
    trail.check()
    for _ in range(4):
        audit.append(filled("ada"))
    with pytest.raises(EngineError, match="nothing was changed") as refused:
        trail.check()
    assert refused.value.code is ErrorCode.UNAVAILABLE
    assert audit.lost == 0
    await trail.make_durable()
    trail.check()
    await audit.aclose()
    await log.aclose()


async def test_lines_that_are_missing_are_caught_up_in_bounded_memory(tmp_path: Path) -> None:
    paths = AuditPaths.of(tmp_path)
    log = await SqliteEventLog.open(tmp_path)
    engine = Engine(log, now=clock())
    await engine.start()
    ORIGIN.set(ADA)
    for _ in range(20):
        await create_workflow(engine.workflows)
    await engine.aclose()
    audit = await AuditLog.open(
        paths, flush_seconds=3600, max_effect_bytes=1000, first_position=position_of(log, 0)
    )
    await AuditTrail(audit, log).catch_up()
    assert audit.pending_bytes < 2000
    await audit.aclose()
    assert [line.record for line in lines(paths)] == [position_of(log, n) for n in range(1, 21)]
    await log.aclose()


async def test_a_disk_that_is_full_stops_the_start_only_if_missing_lines_exceed_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await SqliteEventLog.open(tmp_path)
    engine = Engine(log, now=clock())
    await engine.start()
    ORIGIN.set(ADA)
    for _ in range(20):
        await create_workflow(engine.workflows)
    await engine.aclose()
    for max_effect_bytes in (1 << 20, 1000):
        audit = await AuditLog.open(
            AuditPaths.of(tmp_path / str(max_effect_bytes)),
            flush_seconds=3600,
            max_effect_bytes=max_effect_bytes,
            first_position=position_of(log, 0),
        )
        trail = AuditTrail(audit, log)
        with monkeypatch.context() as broken:
            broken.setattr(os, "pwrite", no_space)
            if max_effect_bytes == 1000:
                with pytest.raises(AuditLogError, match="make room"):
                    await trail.catch_up()
            else:
                await trail.catch_up()
                with pytest.raises(LogError, match="not on the disk"):
                    await trail.make_durable()
        await audit.aclose()
    await log.aclose()


def no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_mutations_are_refused_while_the_audit_log_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_office(tmp_path) as office, office.client("boss") as boss:
        workflow = await office.workflow()
        updates = await boss.workflows.subscribe_resource_updates().subscribe()
        given = {"workflowId": workflow, "data": {}, "metadata": {}}
        made = [await office.resource(workflow)]

        async def tried() -> str | None:
            answer = await office.ask("boss", CREATE_RESOURCE, input=given)
            if answer.get("errors"):
                return str(answer["errors"][0]["extensions"]["code"])
            made.append(answer["data"]["createResource"]["id"])
            return None

        with monkeypatch.context() as broken:
            broken.setattr(os, "pwrite", no_space)
            while (code := await tried()) is None:  # until the log's thread has met the full disk
                pass
            assert code == "UNAVAILABLE"
            assert await tried() == "UNAVAILABLE"
            found = await office.ask("boss", "query($id: String!) { resource(id: $id) { id } }", id=made[0])
            assert found["data"]["resource"]["id"] == made[0]
        while await tried() is not None:  # the log's thread tries again by itself
            pass
        assert [(await anext(updates)).id for _ in made] == made
    paths = AuditPaths.of(tmp_path / "data")
    allowed = [each.what for each in lines(paths) if each.decision == "allowed"]
    assert allowed == ["createWorkflow()", *[f"createResource(workflow {workflow})"] * len(made)]


async def test_a_server_that_starts_on_a_full_disk_takes_mutations_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = AuditPaths.of(tmp_path)
    await (await AuditLog.open(paths)).aclose()
    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", no_space)
        audit = await AuditLog.open(paths, flush_seconds=0.001)
        assert audit.failing
        assert not audit.takes_effects
    while audit.pending_bytes:  # the log's thread tries again by itself
        os.sched_yield()
    await audit.aclose()


async def test_retention_trims_no_record_whose_line_is_not_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: asyncio.Queue[None] = asyncio.Queue()
    trimmed: list[int] = []

    async def refuse(_trail: AuditTrail) -> None:
        asked.put_nowait(None)
        raise LogError("the audit log cannot be written")

    async def trim(_log: SqliteEventLog, before: int) -> int:
        trimmed.append(before)
        asked.put_nowait(None)
        return 0

    monkeypatch.setattr(AuditTrail, "make_durable", refuse)
    monkeypatch.setattr(SqliteEventLog, "trim", trim)
    async with open_office(tmp_path, {"keep_records": 1, "trim_every_seconds": 0.01}) as office:
        for _ in range(3):
            await office.workflow()
        async with asyncio.timeout(10):
            await asked.get()
            await asked.get()
    assert trimmed == []


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
