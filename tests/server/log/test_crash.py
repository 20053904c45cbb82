"""What is acknowledged survives: kill -9 on a real process, a torn write-ahead file, a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from circuit_breaker_server.log.event_log import LogCorruptError, LogError, NewRecord, Record
from circuit_breaker_server.log.sqlite import SqliteEventLog

_APPENDER = Path(__file__).with_name("appender.py")


async def _all_records(directory: Path) -> list[Record]:
    log = await SqliteEventLog.open(directory)
    try:
        return [record async for record in log.scan(after=0)]
    finally:
        await log.aclose()


@contextlib.contextmanager
def _appender(directory: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Run the appender; yields the process and what it says."""
    with subprocess.Popen(
        [sys.executable, _APPENDER, directory], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout
        process.kill()
        process.stdout.read()


def _append_until_killed(directory: Path, *, after_lines: int) -> dict[int, str]:
    """Kill the appender in the middle; return what it had acknowledged as {offset: id}."""
    with _appender(directory) as (process, output):
        lines = [output.readline() for _ in range(after_lines)]
        process.kill()
        lines += output.readlines()
    # The kill may cut the last line; what it said is then not acknowledged to anybody.
    return {int(o): i for o, i in (line.split() for line in lines if line.endswith("\n"))}


def _run(program: str, *arguments: str | Path) -> str:
    """Run a program in a process of its own; it must end well and complain about nothing.

    Nothing but what some of them are for: Python 3.13 says that a database was left open.
    """
    ignored = "ignore:unclosed database:ResourceWarning"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-W", ignored, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def _copy_files(directory: Path, copy: Path) -> None:
    copy.mkdir()
    for name in ("events.db", "events.db-wal"):
        shutil.copy(directory / name, copy / name)


async def test_after_kill_9_every_acknowledged_record_is_there_and_no_offset_is_used_twice(
    tmp_path: Path,
) -> None:
    acknowledged: dict[int, str] = {}
    for round_number in range(3):
        said = _append_until_killed(tmp_path, after_lines=100 + 150 * round_number)
        assert not acknowledged.keys() & said.keys()
        acknowledged |= said
        records = await _all_records(tmp_path)
        assert [record.offset for record in records] == list(range(1, len(records) + 1))
        assert len({record.id for record in records}) == len(records)
        by_offset = {record.offset: record.id for record in records}
        assert acknowledged.items() <= by_offset.items()
        assert all(record.data == record.id.encode() * 20 for record in records), "whole or not at all"
        # A record that was in the log but not acknowledged when the process died keeps its offset.
        acknowledged = by_offset


async def test_a_process_that_holds_the_log_is_named_and_its_hold_ends_with_it(tmp_path: Path) -> None:
    with _appender(tmp_path) as (process, output):
        output.readline()
        with pytest.raises(LogError, match=rf"in use by another process \(pid {process.pid}\)"):
            await SqliteEventLog.open(tmp_path)
    assert await _all_records(tmp_path) != []


async def _log_left_in_its_write_ahead_file(directory: Path, copy: Path, count: int) -> list[Record]:
    """Append one by one; leave a copy of the files as a power cut would."""
    log = await SqliteEventLog.open(directory)
    records = [
        await log.append(NewRecord(subject=f"s{i % 5}", id=uuid.uuid4().hex, data=b"x" * 700))
        for i in range(count)
    ]
    _copy_files(directory, copy)
    await log.aclose()
    return records


async def test_a_torn_write_ahead_file_costs_its_torn_end_only(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    records = await _log_left_in_its_write_ahead_file(tmp_path / "log", whole, 40)
    size = (whole / "events.db-wal").stat().st_size
    kept = []
    for cut in range(1, size // 2, size // 41):
        torn = tmp_path / f"torn-{cut}"
        _copy_files(whole, torn)
        os.truncate(torn / "events.db-wal", size - cut)
        found = await _all_records(torn)
        assert found == records[: len(found)]
        kept.append(len(found))
        log = await SqliteEventLog.open(torn)
        again = await log.append(NewRecord(subject="s", id=uuid.uuid4().hex, data=b"after"))
        assert again.offset == len(found) + 1
        await log.aclose()
    assert len(records) > kept[0] > kept[-1] > 0


async def test_garbage_in_the_last_frame_costs_that_frame_only(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    records = await _log_left_in_its_write_ahead_file(tmp_path / "log", copy, 10)
    with (copy / "events.db-wal").open("r+b") as file:
        file.seek(-2000, os.SEEK_END)
        file.write(b"\xa5" * 1000)
    assert await _all_records(copy) == records[:-1]


async def test_a_damaged_file_is_reported_with_its_name_and_what_to_do(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path)
    await asyncio.gather(
        *(log.append(NewRecord(subject="s", id=uuid.uuid4().hex, data=b"x" * 3000)) for _ in range(200))
    )
    await log.aclose()
    with (tmp_path / "events.db").open("r+b") as file:
        file.seek(4096 * 5)
        file.write(b"\xa5" * 4096 * 150)
    with pytest.raises(LogCorruptError, match=r"events\.db: .*restore it from a backup"):
        await _all_records(tmp_path)


_FILL_THE_DISK = """
import asyncio, resource, sys, uuid
from pathlib import Path
from circuit_breaker_server.log.event_log import LogWriteError, NewRecord, SnapshotEntry
from circuit_breaker_server.log.sqlite import SqliteEventLog

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def new(size):
    return NewRecord(subject="s", id=uuid.uuid4().hex, data=b"x" * size)

async def main():
    log = await SqliteEventLog.open(Path(sys.argv[1]))
    acknowledged = [await log.append(new(1000)) for _ in range(20)]
    limit(300_000)
    refused = []
    while not refused:
        group = [new(5000) for _ in range(10)]
        outcomes = await asyncio.gather(*map(log.append, group), return_exceptions=True)
        if isinstance(outcomes[0], LogWriteError):
            assert all(isinstance(outcome, LogWriteError) for outcome in outcomes), outcomes
            refused = group
        else:
            acknowledged += outcomes
    assert str(outcomes[0]).startswith(f"{sys.argv[1]}/events.db: cannot append: "), outcomes[0]
    assert log.last_offset == len(acknowledged)
    assert len(await log.read(after=0)) == len(acknowledged)
    try:
        await log.save_snapshot(1, [SnapshotEntry(key="k", data=b"x" * 400_000)])
    except LogWriteError:
        assert (await log.load_snapshot()).offset == 0
    else:
        raise AssertionError("a snapshot fits where there is no space")
    limit(resource.RLIM_INFINITY)
    acknowledged.append(await log.append(new(5000)))
    acknowledged.append(await log.append(refused[0]))
    assert [record.offset for record in acknowledged] == list(range(1, len(acknowledged) + 1))
    if sys.argv[2] == "close":
        await log.aclose()
    for record in acknowledged:
        print(record.offset, record.id)
    sys.stdout.flush()

asyncio.run(main())
"""


@pytest.mark.parametrize("end", ["close", "leave"])
async def test_a_full_disk_refuses_the_group_and_the_log_works_again_when_there_is_space(
    tmp_path: Path, end: str
) -> None:
    output = _run(_FILL_THE_DISK, tmp_path, end)
    acknowledged = [(int(o), i) for o, i in (line.split() for line in output.splitlines())]
    assert [(record.offset, record.id) for record in await _all_records(tmp_path)] == acknowledged


_LEAVE_THE_LOOP = """
import asyncio, sys, uuid
from pathlib import Path
from circuit_breaker_server.log.event_log import NewRecord
from circuit_breaker_server.log.sqlite import SqliteEventLog

async def main():
    log = await SqliteEventLog.open(Path(sys.argv[1]))
    await log.append(NewRecord(subject="s", id=uuid.uuid4().hex, data=b"first"))
    second = [NewRecord(subject="s", id=uuid.uuid4().hex, data=b"second") for _ in range(9)]
    under_way = [asyncio.create_task(log.append(record)) for record in second]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

asyncio.run(main())
"""


async def test_a_loop_that_ends_without_closing_the_log_leaves_it_whole(tmp_path: Path) -> None:
    _run(_LEAVE_THE_LOOP, tmp_path)
    records = await _all_records(tmp_path)
    assert [record.data for record in records] in ([b"first"], [b"first"] + [b"second"] * 9)
