"""The audit lines of a node that is gone are written by the node that declares it gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from circuit_breaker_server.access import mutation_audit
from circuit_breaker_server.access.audit_comparison import AuditComparison
from circuit_breaker_server.access.mutation_audit import AuditTrail, position_of
from circuit_breaker_server.engine.errors import EngineError
from circuit_breaker_server.engine.nodes.records import NodeGone, node_subject
from circuit_breaker_server.log.event_log import LogError, NewRecord, Record
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.security.audit import (
    AuditLine,
    AuditLog,
    AuditPaths,
    AuditRecord,
    read,
    read_key,
)


class Stage:
    """An event log that nodes share, and the audit log of node ``a``."""

    def __init__(self, log: SqliteEventLog, directory: Path) -> None:
        self.log = log
        self.paths = AuditPaths.of(directory / "a")

    async def mutate(self, node: str) -> Record:
        origin = {"action": "createWorkflow()", "node": node, "principal": "ada"}
        data = json.dumps({"type": "x", "origin": origin}, separators=(",", ":")).encode()
        return await self.log.append(
            NewRecord(subject=f"w.{uuid.uuid4().hex}", id=uuid.uuid4().hex, data=data)
        )

    async def declare_gone(self, node: str, *, by: str, audited: int | None) -> Record:
        body = NodeGone(name=node, term=1, at="2026-07-01T00:00:00Z", by=by, audited=audited)
        record = NewRecord(subject=node_subject(node), id=uuid.uuid4().hex, data=msgspec.json.encode(body))
        return await self.log.append(record)

    async def open(self) -> tuple[AuditLog, AuditTrail]:
        audit = await AuditLog.open(self.paths, first_position=position_of(self.log, 0))
        return audit, AuditTrail(audit, self.log, node="a")

    def lines(self) -> list[AuditRecord]:
        found = read(self.paths.log, read_key(self.paths.key, {}), self.paths.anchor)
        return [
            each.record for each in found if isinstance(each, AuditLine) and each.record.action == "mutate"
        ]

    def written(self) -> list[tuple[int, str | None]]:
        """Return the offset of each line's record, and of which node it was taken over."""
        lines = [(line.record or line.taken_over or "", line.taken_from) for line in self.lines()]
        return [(int(position.rpartition(".")[2]), node) for position, node in lines]


@contextlib.asynccontextmanager
async def staged(directory: Path) -> AsyncIterator[Stage]:
    log = await SqliteEventLog.open(directory)
    try:
        yield Stage(log, directory)
    finally:
        await log.aclose()


async def until_settled(trail: AuditTrail) -> None:
    async with asyncio.timeout(10):
        while (task := trail._taking_over) is not None:
            await task


async def test_who_declares_a_node_gone_writes_its_lines_before_its_own_later_ones(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        audit, trail = await stage.open()
        records = [
            await stage.mutate("b"),  # its line is known to be written
            await stage.mutate("b"),
            await stage.mutate("c"),
            await stage.mutate("a"),
            await stage.declare_gone("b", by="a", audited=1),
            await stage.mutate("a"),
            await stage.mutate("c"),
        ]
        for record in records:
            trail.follow(record)
        assert audit.position == position_of(stage.log, 4), (
            "a crash now would begin again with the lines of b"
        )
        await until_settled(trail)
        assert audit.position == position_of(stage.log, 7)
        await audit.aclose()
        assert stage.written() == [(4, None), (2, "b"), (6, None)]


async def test_another_node_does_not_write_them_too(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        audit, trail = await stage.open()
        await stage.mutate("b")
        await stage.declare_gone("b", by="c", audited=0)
        await stage.declare_gone("b", by="a", audited=None)  # of an older program
        async for record in stage.log.scan(after=0):
            trail.follow(record)
        assert audit.position == position_of(stage.log, 3)
        await audit.aclose()
        assert stage.written() == []


async def test_after_a_crash_the_next_start_takes_the_lines_over(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.mutate("b")
        await stage.mutate("a")
        await stage.declare_gone("b", by="a", audited=0)
        await stage.mutate("a")
        audit, trail = await stage.open()
        await trail.catch_up()
        await audit.aclose()
        assert stage.written() == [(2, None), (1, "b"), (4, None)]
        again, trail = await stage.open()
        await trail.catch_up()
        await again.aclose()
        assert len(stage.written()) == 3


async def test_who_was_declared_gone_leaves_out_what_others_have_written(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.mutate("a")
        await stage.mutate("a")
        await stage.declare_gone("a", by="b", audited=1)
        await stage.mutate("a")
        audit, trail = await stage.open()
        await trail.catch_up()
        await audit.aclose()
        assert stage.written() == [(1, None), (4, None)]


async def test_the_lines_that_a_node_that_is_gone_had_to_take_over_are_taken_over(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        audit, trail = await stage.open()
        await stage.mutate("c")
        await stage.mutate("a")
        await stage.declare_gone("c", by="b", audited=0)
        await stage.declare_gone("a", by="b", audited=1)  # and it never wrote the line
        await stage.mutate("b")
        await stage.declare_gone("b", by="a", audited=2)
        await trail.catch_up()
        await audit.aclose()
        assert stage.written() == [(1, "c"), (2, "a"), (5, "b")]


async def test_a_log_that_cannot_be_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged(tmp_path) as stage:
        monkeypatch.setattr(mutation_audit, "_RETRY_SECONDS", 0.0)
        audit, trail = await stage.open()
        await stage.mutate("b")
        gone = await stage.declare_gone("b", by="a", audited=0)
        scan, failures = SqliteEventLog.scan, [LogError("away"), LogError("away")]

        def failing(log: SqliteEventLog, *, after: int, upto: int | None = None) -> AsyncIterator[Record]:
            if failures:
                raise failures.pop()
            return scan(log, after=after, upto=upto)

        monkeypatch.setattr(SqliteEventLog, "scan", failing)
        trail.follow(gone)
        await until_settled(trail)
        await audit.aclose()
        assert stage.written() == [(1, "b")]


async def test_mutations_are_refused_while_too_many_lines_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged(tmp_path) as stage:
        monkeypatch.setattr(mutation_audit, "MAX_WAITING_LINES", 1)
        audit, trail = await stage.open()
        gone = await stage.declare_gone("b", by="a", audited=0)
        first, second = await stage.mutate("a"), await stage.mutate("a")
        trail.follow(gone)
        trail.follow(first)
        trail.check()
        trail.follow(second)
        with pytest.raises(EngineError, match="nothing was changed"):
            trail.check()
        await until_settled(trail)
        trail.check()
        await audit.aclose()
        assert stage.written() == [(2, None), (3, None)]


async def test_a_close_ends_a_takeover_and_the_next_start_begins_it_anew(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        audit, trail = await stage.open()
        await stage.mutate("b")
        trail.follow(await stage.declare_gone("b", by="a", audited=0))
        await trail.aclose()
        await audit.aclose()
        assert stage.written() == []
        audit, trail = await stage.open()
        await trail.catch_up()
        await audit.aclose()
        assert stage.written() == [(1, "b")]


async def test_a_comparison_takes_the_line_of_another_node_for_one_that_is_missing(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.mutate("b")
        await stage.mutate("b")
        await stage.declare_gone("b", by="a", audited=0)
        await stage.mutate("a")
        audit, trail = await stage.open()
        await trail.catch_up()
        await audit.aclose()

        def own(offset: int) -> AuditRecord:
            record = position_of(stage.log, offset)
            return AuditRecord(seq=offset, at="", action="mutate", record=record, previous="", mac="")

        comparison = AuditComparison(stage.log.epoch)
        for line in stage.lines():
            comparison.add("a", line)
        comparison.add("b", own(1))  # it was on the disk when the machine was gone
        await comparison.run(stage.log.scan(after=0), first_offset=1, now_ms=1 << 60)
        assert list(comparison.findings()) == []
        assert (comparison.records, comparison.taken_over) == (3, 1)


async def test_a_line_that_was_taken_over_from_the_wrong_node_is_told(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.mutate("b")
        wrong = AuditRecord(
            seq=1,
            at="",
            action="mutate",
            taken_over=position_of(stage.log, 1),
            taken_from="c",
            previous="",
            mac="",
        )
        comparison = AuditComparison(stage.log.epoch)
        comparison.add("a", wrong)
        await comparison.run(stage.log.scan(after=0), first_offset=1, now_ms=1 << 60)
        assert list(comparison.findings()) == [
            "1 record (1) of node b without a line, and no audit log that was given is its own",
            "1 record (1) with lines, which are not in the event log or are no caller's",
        ]


async def test_a_takeover_that_fails_for_good_ends_the_engine_at_the_next_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged(tmp_path) as stage:
        audit, trail = await stage.open()
        await stage.mutate("b")
        gone, later = await stage.declare_gone("b", by="a", audited=0), await stage.mutate("a")

        def fail(_log: SqliteEventLog, *, after: int, upto: int | None = None) -> AsyncIterator[Record]:
            raise RuntimeError(f"a defect, {after} to {upto}")

        monkeypatch.setattr(SqliteEventLog, "scan", fail)
        trail.follow(gone)
        assert trail._taking_over is not None
        await trail._taking_over
        with pytest.raises(RuntimeError, match="a defect"):
            trail.follow(later)
        await audit.aclose()
