"""What is SQLite's own: files, refusals, groups, threads and errors. The port's rules: tests/conformance."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import sqlite3
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from circuit_breaker_server.log import append_queue
from circuit_breaker_server.log import file_log as file_log_module
from circuit_breaker_server.log import sqlite as sqlite_module
from circuit_breaker_server.log.database import open_database, subject_key
from circuit_breaker_server.log.event_log import (
    ExpectationFailed,
    LogCorruptError,
    LogError,
    LogWriteError,
    NewRecord,
    Record,
    SnapshotEntry,
)
from circuit_breaker_server.log.packing import Damaged, decode_records, encode_record
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.log.writer import Writer


def new(name: str = "s", data: bytes = b"{}", *, expected: int | None = None) -> NewRecord:
    return NewRecord(subject=name, id=uuid.uuid4().hex, data=data, expected=expected)


@contextlib.asynccontextmanager
async def opened(directory: Path, *, busy_timeout_seconds: float = 5.0) -> AsyncIterator[SqliteEventLog]:
    log = await SqliteEventLog.open(directory, busy_timeout_seconds=busy_timeout_seconds)
    try:
        yield log
    finally:
        await log.aclose()


def log_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("event-log")]


# --- opening -------------------------------------------------------------------------------------------


async def test_the_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    async with opened(tmp_path / "a" / "b") as log:
        await log.append(new())
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {"events.db", "events.lock"}


def a_file_for_a_directory(path: Path) -> None:
    path.write_text("I am a file")


def a_lock_that_cannot_be_made(path: Path) -> None:
    path.joinpath("events.lock").mkdir(parents=True)


def a_database_that_is_a_directory(path: Path) -> None:
    path.joinpath("events.db").mkdir(parents=True)


def a_text_file(path: Path) -> None:
    path.mkdir()
    path.joinpath("events.db").write_text("this is no database, " * 100)


def write_database(path: Path, *statements: str) -> None:
    path.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path / "events.db", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def a_database_without_a_name(path: Path) -> None:
    write_database(path, "CREATE TABLE records (offset INTEGER)")


def a_database_of_another_program(path: Path) -> None:
    write_database(path, "PRAGMA application_id = 1", "CREATE TABLE t (a)")


def a_newer_format(path: Path) -> None:
    asyncio.run(make_log(path))
    write_database(path, "PRAGMA user_version = 99")


def a_log_without_its_tables(path: Path) -> None:
    asyncio.run(make_log(path))
    write_database(path, "DROP TABLE records")


def a_log_without_its_description(path: Path) -> None:
    asyncio.run(make_log(path))
    write_database(path, "DELETE FROM log")


def half_a_log(path: Path) -> None:
    asyncio.run(make_log(path))
    file = path / "events.db"
    file.write_bytes(file.read_bytes()[:5000])


async def make_log(path: Path) -> None:
    async with opened(path) as log:
        await asyncio.gather(*(log.append(new(data=b"x" * 1000)) for _ in range(50)))


@pytest.mark.parametrize(
    ("prepare", "kind", "text"),
    [
        (a_file_for_a_directory, LogError, "log: cannot be made a data directory .*; choose another one"),
        (a_lock_that_cannot_be_made, LogError, "events.lock: cannot be written .*; make the data directory"),
        (a_database_that_is_a_directory, LogError, "events.db: cannot be opened: .*; make it .* writable"),
        (a_text_file, LogCorruptError, "events.db: .*not a database; .*choose another data directory"),
        (a_database_without_a_name, LogCorruptError, "events.db: is another program's database; move it"),
        (a_database_of_another_program, LogCorruptError, "events.db: is another program's database; move it"),
        (a_newer_format, LogCorruptError, "events.db: has format 99, .* format 3; start the version"),
        (a_log_without_its_tables, LogCorruptError, "events.db: .*no such table: records; restore it"),
        (a_log_without_its_description, LogCorruptError, "events.db: has no description .* restore it"),
        (half_a_log, LogCorruptError, "events.db: .*malformed; restore it from a backup"),
    ],
)
def test_what_cannot_be_opened_is_named_with_what_to_do(
    tmp_path: Path, prepare: Callable[[Path], None], kind: type[LogError], text: str
) -> None:
    directory = tmp_path / "log"
    prepare(directory)
    for _ in range(2):  # Nothing is held after a refusal: the second is no other than the first.
        with pytest.raises(LogError, match=text) as refused:
            asyncio.run(SqliteEventLog.open(directory))
        assert type(refused.value) is kind
        assert str(refused.value).startswith(str(tmp_path))


async def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    a_file_for_a_directory(tmp_path / "file")
    with pytest.raises(LogError, match="file/log: cannot be made a data directory"):
        await SqliteEventLog.open(tmp_path / "file" / "log")


FORMAT_2 = (
    "DROP INDEX records_by_subject_key",
    "ALTER TABLE records DROP COLUMN subject_key",
    "CREATE INDEX records_by_subject ON records (subject, offset)",
    "PRAGMA user_version = 2",
)
FORMAT_1 = (*FORMAT_2, "DROP TABLE removed", "PRAGMA user_version = 1")


@pytest.mark.parametrize("back_to", [FORMAT_1, FORMAT_2])
async def test_a_file_of_an_older_format_is_opened_and_can_be_trimmed(
    tmp_path: Path, back_to: Sequence[str]
) -> None:
    path = tmp_path / "log"
    await make_log(path)
    async with opened(path) as log:
        other = await log.append(new("another"))
    write_database(path, *back_to)
    async with opened(path) as log:
        assert len(await log.read(after=0)) == log.last_offset
        assert await log.read(after=0, subjects=("another",)) == [other]
        with pytest.raises(ExpectationFailed):
            await log.append(new("another", expected=0))
        assert (await log.append(new("another", expected=other.offset))).offset == other.offset + 1
        await log.save_snapshot(log.last_offset, [])
        await log.trim(11)
    async with opened(path) as log:
        removed = await log.last_removed()
        assert removed is not None
        assert (removed.offset, log.first_offset) == (10, 11)


async def test_subjects_with_the_same_key_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    one, other = "resource.w.r4420602", "resource.w.r3985819"
    assert subject_key(one) == subject_key(other)
    async with opened(tmp_path) as log:
        first = await log.append(new(one, expected=0))
        second = await log.append(new(other, expected=0))
        third = await log.append(new(one, expected=first.offset))
        assert await log.read(after=0, subjects=(one,)) == [first, third]
        assert await log.read(after=0, subjects=(other,)) == [second]
        with pytest.raises(ExpectationFailed, match=str(third.offset)):
            await log.append(new(one, expected=first.offset))


async def test_a_trim_that_cannot_be_written_moves_nothing(tmp_path: Path) -> None:
    await make_log(tmp_path)
    async with opened(tmp_path) as log:
        await log.save_snapshot(log.last_offset, [])
        with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
            other.execute(
                "CREATE TRIGGER full BEFORE DELETE ON records BEGIN SELECT RAISE(FAIL, 'full'); END"
            )
            with pytest.raises(LogWriteError, match="cannot trim: full"):
                await log.trim(11)
            assert (log.first_offset, await log.last_removed()) == (1, None)
            assert len(await log.read(after=0)) == log.last_offset
            other.execute("DROP TRIGGER full")
        assert await log.trim(11) == 10
        assert log.first_offset == 11


async def test_a_log_is_open_once(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(LogError, match=r"in use by another process .*; stop it or choose another"):
            await SqliteEventLog.open(tmp_path)
    async with opened(tmp_path) as log:
        await log.append(new())


async def test_a_file_whose_making_was_interrupted_is_a_new_log(tmp_path: Path) -> None:
    write_database(tmp_path, "PRAGMA journal_mode = WAL")
    async with opened(tmp_path) as log:
        assert (await log.append(new())).offset == 1


async def test_an_opening_that_is_cancelled_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, go_on = threading.Event(), threading.Event()

    def slow(path: Path, *, busy_timeout_seconds: float) -> sqlite3.Connection:
        under_way.set()
        go_on.wait()
        return open_database(path, busy_timeout_seconds=busy_timeout_seconds)

    monkeypatch.setattr(sqlite_module, "open_database", slow)
    opening = asyncio.create_task(SqliteEventLog.open(tmp_path))
    await asyncio.to_thread(under_way.wait)
    (writer,) = [t for t in threading.enumerate() if t.name.startswith("event-log")]
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go_on.set()
    await asyncio.to_thread(writer.join)
    async with opened(tmp_path) as log:
        await log.append(new())


async def test_closing_ends_the_threads(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await log.append(new())
        await log.read(after=0)
        assert len(log_threads()) == 2
    assert log_threads() == []


# --- groups --------------------------------------------------------------------------------------------


async def test_appends_of_one_turn_of_the_loop_are_one_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    append = Writer.append

    def counted(self: Writer, group: Sequence[NewRecord]) -> list[Record | ExpectationFailed]:
        groups.append(len(group))
        return append(self, group)

    monkeypatch.setattr(Writer, "append", counted)
    async with opened(tmp_path) as log:
        told: list[int] = []
        log.tail(lambda records: told.append(len(records)))
        records = await asyncio.gather(*(log.append(new(f"s{i}")) for i in range(64)))
        assert [record.offset for record in records] == list(range(1, 65))
    assert groups == told == [64]


async def test_a_group_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_queue, "_MAX_GROUP_BYTES", 1000)
    async with opened(tmp_path) as log:
        told: list[int] = []
        log.tail(lambda records: told.append(len(records)))
        await asyncio.gather(*(log.append(new(data=b"x" * 400)) for _ in range(10)))
    assert told == [3, 3, 3, 1]


async def test_an_append_cancelled_before_its_turn_takes_no_place(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        appends = [asyncio.create_task(log.append(new())) for _ in range(2000)]
        await asyncio.sleep(0)
        for append in appends[::3]:
            append.cancel()
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        assert sum(isinstance(outcome, Record) for outcome in outcomes) == 2000 - len(appends[::3])
        await asyncio.gather(*(log.append(new()) for _ in range(1500)))


async def test_reading_in_small_steps_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as log:
        names = [f"resource.w{i % 3}.r{i % 7}" for i in range(100)]
        records = [await log.append(new(name)) for name in names]
        for window in (1, 3, 1000):
            monkeypatch.setattr(file_log_module, "_WINDOW_OFFSETS", window)
            monkeypatch.setattr(file_log_module, "_SCAN_MIN", window)
            monkeypatch.setattr(file_log_module, "_SCAN_MAX", 2 * window)
            wanted = [record for record in records if record.subject.startswith("resource.w1.")]
            assert await log.read(after=0, subjects=("resource.w1.*",)) == wanted
            assert (
                await log.read(after=50, subjects=("resource.w1.*",), limit=4)
                == [record for record in wanted if record.offset > 50][:4]
            )
            assert [record async for record in log.scan(after=0)] == records


async def test_a_scan_takes_fewer_records_at_a_time_when_they_are_big(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_log_module, "_SCAN_BYTES", 10_000)
    async with opened(tmp_path) as log:
        await asyncio.gather(*(log.append(new(data=b"x" * 100)) for _ in range(1000)))
        await asyncio.gather(*(log.append(new(data=b"x" * 5000)) for _ in range(500)))
        assert [record.offset async for record in log.scan(after=0)] == list(range(1, 1501))


# --- a disk that refuses -------------------------------------------------------------------------------


def limit_pages(log: SqliteEventLog, pages: int) -> None:
    log._writer._connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()


async def test_a_full_database_refuses_the_whole_group_and_takes_the_next_when_it_can(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        first = await log.append(new("a"))
        told: list[Record] = []
        log.tail(told.extend)
        limit_pages(log, 1)
        group = [new("b", b"x" * 3000) for _ in range(10)]
        outcomes = await asyncio.gather(*map(log.append, group), return_exceptions=True)
        assert all(isinstance(outcome, LogWriteError) for outcome in outcomes)
        assert len({id(outcome) for outcome in outcomes}) == 10
        assert str(outcomes[0]) == (
            f"{tmp_path}/events.db: cannot append: database or disk is full; free some space"
        )
        assert (log.last_offset, told) == (1, [])
        with pytest.raises(LogWriteError, match=r"cannot save a snapshot: .*full"):
            await log.save_snapshot(1, [SnapshotEntry(key="k", data=b"x" * 100_000)])
        assert (await log.load_snapshot()).offset == 0
        assert await log.read(after=0) == [first]
        limit_pages(log, 1_000_000)
        records = await asyncio.gather(*map(log.append, group))
        assert [record.offset for record in records] == list(range(2, 12))
        assert told == records


async def test_a_program_that_holds_the_database_is_waited_for_and_then_named(tmp_path: Path) -> None:
    async with opened(tmp_path, busy_timeout_seconds=0.05) as log:
        await log.append(new())
        with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LogWriteError, match="locked; another program holds the file, end it"):
                await log.append(new())
            assert len(await log.read(after=0)) == 1
            other.execute("ROLLBACK")
        assert (await log.append(new())).offset == 2


class FailingConnection:
    """Runs the statement, then says that the disk failed: what a failed sync looks like to the caller."""

    def __init__(self, connection: sqlite3.Connection, *, fail_on: str) -> None:
        self._connection = connection
        self._fail_on = fail_on
        self.ran: list[str] = []

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> sqlite3.Cursor:
        self.ran.append(statement.split(maxsplit=1)[0])
        if self._fail_on in statement:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return self._connection.execute(statement, parameters)

    def close(self) -> None:
        self._connection.close()


async def test_after_a_failed_sync_something_else_is_written_over_what_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as log:
        await log.append(new())
        connection = log._writer._connection
        failing = FailingConnection(connection, fail_on="INSERT INTO records")
        monkeypatch.setattr(log._writer, "_connection", failing)
        with pytest.raises(LogWriteError, match=r"events\.db: cannot append: disk I/O error"):
            await log.append(new())
        assert failing.ran[-2:] == ["INSERT", "UPDATE"]
        failing = FailingConnection(connection, fail_on="COMMIT")
        monkeypatch.setattr(log._writer, "_connection", failing)
        with pytest.raises(LogWriteError, match="cannot save a snapshot: disk I/O error"):
            await log.save_snapshot(1, [SnapshotEntry(key="k", data=b"")])
        assert failing.ran[-3:] == ["COMMIT", "ROLLBACK", "UPDATE"]
        monkeypatch.setattr(log._writer, "_connection", connection)
        assert connection.execute("SELECT write_failures FROM log").fetchone() == (2,)
        assert (await log.load_snapshot()).offset == 0
        assert (await log.append(new())).offset == 2


async def test_a_failed_append_is_remembered_until_something_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as log:
        await log.append(new())
        assert not log.append_failed
        connection = log._writer._connection
        for fail_on, is_written in (("INSERT INTO records", True), ("", False)):
            failing = FailingConnection(connection, fail_on=fail_on)
            monkeypatch.setattr(log._writer, "_connection", failing)
            with pytest.raises(LogWriteError):
                await log.append(new())
            told = (log.append_failed, await log.try_write(), log.append_failed)
            assert told == (True, is_written, not is_written)
        monkeypatch.setattr(log._writer, "_connection", connection)
        assert (await log.append(new())).offset == 2
        assert not log.append_failed


async def test_a_bug_in_the_writer_fails_its_group_and_hangs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Writer, group: Sequence[NewRecord]) -> list[Record | ExpectationFailed]:
        raise RuntimeError("a bug")

    async with opened(tmp_path) as log:
        with monkeypatch.context() as patch:
            patch.setattr(Writer, "append", broken)
            outcomes = await asyncio.gather(*(log.append(new()) for _ in range(3)), return_exceptions=True)
            assert [str(outcome) for outcome in outcomes] == ["a bug"] * 3
            assert all(isinstance(outcome, LogWriteError) for outcome in outcomes)
        assert (await log.append(new())).offset == 1


async def test_a_record_that_no_log_has_written_is_corruption(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        record = await log.append(new())
        log._writer._connection.execute("UPDATE records SET body = x'c1'")
        with pytest.raises(LogCorruptError, match=r"events\.db: holds what no log has written"):
            await log.read(after=0)
        with pytest.raises(LogCorruptError, match=r"events\.db: holds what no log has written"):
            await log.append(NewRecord(subject="s", id=record.id, data=b""))


async def test_a_flipped_bit_anywhere_in_a_record_is_noticed_and_named(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        for _ in range(3):
            await log.append(new("resource.w.r", b'{"text":"harmless"}'))
        connection = log._writer._connection
        (body,) = connection.execute("SELECT body FROM records WHERE offset = 2").fetchone()
        for bit in range(len(body) * 8):
            flipped = bytearray(body)
            flipped[bit // 8] ^= 1 << bit % 8
            connection.execute("UPDATE records SET body = ? WHERE offset = 2", (bytes(flipped),))
            with pytest.raises(LogCorruptError, match=r"events\.db: .*record 2 is damaged.*; restore it"):
                await log.read(after=0)
        assert [record.offset for record in await log.read(after=2)] == [3]


def test_a_body_that_reaches_into_its_checksum_is_not_taken_for_a_record_without_one() -> None:
    # A flipped bit in the length adds four bytes to the body; what is left of the checksum reads as null.
    for number in range(10_000):
        record = Record(offset=2, subject="s", id=f"{number:032x}", time_ms=1, data=b"0123456789012345678")
        stored = encode_record(record)
        if stored[-5] == 0xCE and stored[-1] == 0xC0:
            break
    length = stored.index(b"\xc4\x13") + 1
    longer = stored[:length] + b"\x17" + stored[length + 1 :]
    assert decode_records(1, stored) == [record]
    with pytest.raises(Damaged):
        decode_records(1, longer)


async def test_records_from_before_there_were_checksums_are_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        record = await log.append(new("s", b"{}"))
        old = msgspec.msgpack.encode(record)  # five fields, as they are
        log._writer._connection.execute("UPDATE records SET body = ?", (old,))
        assert await log.read(after=0) == [record]


async def test_repeated_ids_and_conflicts_are_answered_while_the_disk_is_full(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        wanted = new("a", expected=0)
        record = await log.append(wanted)
        limit_pages(log, 1)
        assert await log.append(wanted) == record
        with pytest.raises(ExpectationFailed):
            await log.append(new("a", expected=0))


async def test_a_disk_that_cannot_be_read_fails_the_read_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as log:
        record = await log.append(new())
        with monkeypatch.context() as patch:
            failing = FailingConnection(log._reader._connection, fail_on="FROM records")
            patch.setattr(log._reader, "_connection", failing)
            with pytest.raises(LogError, match=r"events\.db: cannot be read: disk I/O error"):
                await log.read(after=0)
        assert await log.read(after=0) == [record]


async def test_a_directory_that_cannot_be_locked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(LogError, match=r"events\.lock: cannot be locked \(No locks .*a local disk"):
        await SqliteEventLog.open(tmp_path)


async def test_every_commit_is_synced_to_the_write_ahead_file(tmp_path: Path) -> None:
    # A process that is killed cannot show the difference, only a power cut could.
    async with opened(tmp_path) as log:
        connection = log._writer._connection
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
