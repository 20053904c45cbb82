"""A writer that remembers where subjects end judges as one that looks it up, and writes in one statement."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from circuit_breaker_server.log import last_offsets as last_offsets_module
from circuit_breaker_server.log import writer as writer_module
from circuit_breaker_server.log.event_log import ExpectationFailed, LogWriteError, NewRecord, Record
from circuit_breaker_server.log.last_offsets import LastOffsets
from circuit_breaker_server.log.sqlite import SqliteEventLog


def new(name: str = "s", data: bytes = b"{}", *, expected: int | None = None) -> NewRecord:
    return NewRecord(subject=name, id=uuid.uuid4().hex, data=data, expected=expected)


def record(name: str, offset: int) -> Record:
    return Record(offset=offset, subject=name, id="0" * 32, time_ms=0, data=b"")


def repeated(one: Record, *, expected: int | None = None) -> NewRecord:
    return NewRecord(subject=one.subject, id=one.id, data=b"again", expected=expected)


@contextlib.asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[SqliteEventLog]:
    log = await SqliteEventLog.open(directory)
    try:
        yield log
    finally:
        await log.aclose()


async def test_subjects_that_are_too_long_to_remember_are_judged_alike(tmp_path: Path) -> None:
    name = "x" * 300
    async with opened(tmp_path) as log:
        first = await log.append(new(name, expected=0))
        group = [new(name, expected=first.offset), new(name, expected=first.offset), new("s", expected=0)]
        second, lost, third = await append_all(log, group)
        assert isinstance(lost, ExpectationFailed)
        assert await log.read(after=1) == [second, third]


async def append_all(log: SqliteEventLog, group: Sequence[NewRecord]) -> list[Record | BaseException]:
    return await asyncio.gather(*map(log.append, group), return_exceptions=True)


class CountingConnection:
    """Runs the statements and keeps their first words."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.ran: list[str] = []

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> sqlite3.Cursor:
        self.ran.append(statement.split(maxsplit=1)[0])
        return self._connection.execute(statement, parameters)

    def close(self) -> None:
        self._connection.close()


def counting(log: SqliteEventLog, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    connection = CountingConnection(log._writer._connection)
    monkeypatch.setattr(log._writer, "_connection", connection)
    return connection.ran


def test_of_many_subjects_those_used_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_offsets_module, "_GENERATION", 4)
    offsets = LastOffsets()
    for offset in range(1, 11):
        offsets.put([record(f"s{offset}", offset)])
    assert [offsets.get(f"s{offset}") for offset in range(1, 11)] == [None] * 4 + [5, 6, 7, 8, 9, 10]
    offsets.put([record("s6", 11), record("x" * 257, 12), record("y" * 256, 13)])
    assert (offsets.get("x" * 257), offsets.get("y" * 256)) == (None, 13)
    assert offsets.get("s6") == 11
    offsets.clear()
    assert offsets.get("s6") is offsets.get("s10") is None


async def test_a_group_of_remembered_subjects_takes_one_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as log:
        last = {f"s{i}": (await log.append(new(f"s{i}"))).offset for i in range(10)}
        ran = counting(log, monkeypatch)
        await asyncio.gather(*(log.append(new(name, expected=offset)) for name, offset in last.items()))
        assert ran == ["INSERT"]


async def test_what_was_refused_is_not_remembered(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        first = await log.append(new("a"))
        log._writer._connection.execute("PRAGMA max_page_count = 1").fetchone()
        group = [new("a", b"x" * 9000, expected=first.offset), new("b", b"x" * 9000, expected=0)]
        assert all(isinstance(outcome, LogWriteError) for outcome in await append_all(log, group))
        log._writer._connection.execute("PRAGMA max_page_count = 100000").fetchone()
        for name, expected in (("a", first.offset + 1), ("b", first.offset + 2)):
            with pytest.raises(ExpectationFailed):
                await log.append(new(name, expected=expected))
        second, third = await append_all(log, group)
        assert isinstance(second, Record)
        assert isinstance(third, Record)
        assert (second.offset, third.offset) == (first.offset + 1, first.offset + 2)
        with pytest.raises(ExpectationFailed):
            await log.append(new("a", expected=first.offset))


async def test_in_one_group_the_first_wins_and_the_next_may_follow_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        first = await log.append(new("a"))
        group = [
            new("a", expected=first.offset),
            new("a", expected=first.offset),
            new("a", expected=first.offset + 1),
            new("b", expected=0),
            new("b", expected=0),
        ]
        won, lost, followed, other, late = await append_all(log, group)
        assert isinstance(lost, ExpectationFailed)
        assert isinstance(late, ExpectationFailed)
        assert [r.offset for r in (won, followed, other) if isinstance(r, Record)] == [2, 3, 4]
        assert (lost.actual, late.actual) == (2, 4)
        assert await log.read(after=1) == [won, followed, other]


@pytest.mark.parametrize("expected", [None, 0, 1, 99])
async def test_an_id_again_among_new_ones_costs_the_others_nothing(
    tmp_path: Path, expected: int | None
) -> None:
    async with opened(tmp_path) as log:
        first = await log.append(new("a"))
        other = await log.append(new("b"))
        told: list[Record] = []
        log.tail(told.extend)
        group = [new("b", expected=other.offset), repeated(first, expected=expected), new("a", expected=1)]
        one, again, two = await append_all(log, group)
        assert again == first
        assert await log.read(after=0) == [first, other, one, two]
        assert told == [one, two]
        assert log.last_offset == 4


async def test_an_id_again_that_would_fit_keeps_the_statement_from_inserting_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as log:
        first = await log.append(new("a"))
        other = await log.append(new("b"))
        ran = counting(log, monkeypatch)
        group = [new("b", expected=other.offset), repeated(first), new("c")]
        one, again, two = await append_all(log, group)
        assert ran == ["INSERT", "SELECT", "INSERT"]
        assert again == first
        assert await log.read(after=0) == [first, other, one, two]
        assert log.last_offset == 4
        assert await append_all(log, [repeated(first), repeated(other)]) == [first, other]
        assert ran[3:] == ["INSERT", "SELECT"]


async def test_the_same_id_twice_in_a_group_is_appended_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        first = await log.append(new("a"))
        wanted = new("a", expected=first.offset)
        one, again, other = await append_all(log, [wanted, wanted, new("c")])
        assert one == again
        assert await log.read(after=1) == [one, other]


async def test_a_remembered_subject_that_was_trimmed_away_is_as_one_that_never_was(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        a, b = await log.append(new("a")), await log.append(new("b"))
        await log.save_snapshot(b.offset, [])
        await log.trim(b.offset)
        with pytest.raises(ExpectationFailed) as failed:
            await log.append(new("a", expected=b.offset))
        assert failed.value.actual == 0
        again = await log.append(new("a", expected=a.offset))
        with pytest.raises(ExpectationFailed):
            await log.append(new("a", expected=a.offset))
        await log.append(new("a", expected=again.offset))


@pytest.mark.parametrize("bound", ["rows", "bytes", "parameters"])
async def test_groups_of_every_size_are_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    if bound == "bytes":
        monkeypatch.setattr(writer_module, "_VALUES_BYTES", 1000)
    async with opened(tmp_path) as log:
        if bound == "parameters":
            log._writer._max_rows = 4
        written: list[Record] = []
        for size in (*range(1, 10), 100, 1024):
            outcomes = await append_all(log, [new(f"s{i}", b"x" * i) for i in range(size)])
            records = [outcome for outcome in outcomes if isinstance(outcome, Record)]
            assert len(records) == size
            written += records
        assert [each async for each in log.scan(after=0)] == written
        (count,) = log._writer._connection.execute("SELECT count(*) FROM records").fetchone()
        assert count == len(written)
