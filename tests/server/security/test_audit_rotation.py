"""An audit log of several files is one chain, whatever is done to a file and wherever a crash comes."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from circuit_breaker_server.security.audit import (
    Anchor,
    AuditEvent,
    AuditLine,
    AuditLog,
    AuditPaths,
    AuditRecord,
    Rotation,
    read,
    read_key,
    verify,
)
from circuit_breaker_server.security.audit.records import Seal
from circuit_breaker_server.security.audit.rotation import rotated_files, rotated_path
from tests.server.tokens import SetClock

SMALL = Rotation(max_bytes=1000)
CALLS = ["open", "pwrite", "fsync", "ftruncate", "rename", "replace", "unlink"]


def event(number: int) -> AuditEvent:
    return AuditEvent(
        action="mutate",
        principal="ann",
        address="",
        what=str(number),
        decision="allowed",
        record=f"e.{number}",
    )


async def opening(paths: AuditPaths, rotation: Rotation = SMALL, clock: SetClock | None = None) -> AuditLog:
    return await AuditLog.open(paths, {}, clock=clock or SetClock(), flush_seconds=3600, rotation=rotation)


@contextlib.asynccontextmanager
async def opened(
    paths: AuditPaths, rotation: Rotation = SMALL, clock: SetClock | None = None
) -> AsyncIterator[AuditLog]:
    log = await opening(paths, rotation, clock)
    try:
        yield log
    finally:
        await log.aclose()


def kill(log: AuditLog) -> None:
    """Leave the files as they are, as a kill does."""
    log._closing.set()
    log._wanted.set()
    log._thread.join()
    log._writer.close()
    log._lock.release()


def findings(paths: AuditPaths) -> list[tuple[str, str | None]]:
    result = verify(paths.log, read_key(paths.key, {}), paths.anchor)
    return [(each.kind, each.file) for each in result.findings]


def records(paths: AuditPaths) -> list[AuditRecord]:
    found = read(paths.log, read_key(paths.key, {}), paths.anchor)
    return [each.record for each in found if isinstance(each, AuditLine)]


def numbers(paths: AuditPaths) -> list[int]:
    return [int(each.what) for each in records(paths) if each.action == "mutate"]


async def write(paths: AuditPaths, count: int = 20, rotation: Rotation = SMALL) -> None:
    async with opened(paths, rotation) as log:
        for number in range(count):
            log.append(event(number))
            assert log.flush()


@pytest.fixture
def paths(tmp_path: Path) -> AuditPaths:
    return AuditPaths.of(tmp_path / "data")


async def test_a_log_goes_on_in_the_next_file_and_is_read_as_one(paths: AuditPaths) -> None:
    await write(paths)
    files = rotated_files(paths.log)
    assert [*files] == [*range(1, len(files) + 1)]
    assert len(files) > 3
    assert all(1000 <= path.stat().st_size < 2000 for path in files.values())
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in [*files.values(), paths.log])
    assert findings(paths) == []
    assert numbers(paths) == [*range(20)]
    rotations = [each for each in records(paths) if each.action == "rotate"]
    assert [(each.file, each.what) for each in rotations] == [
        (number, f"follows audit.{number:08d}.jsonl") for number in files
    ]
    await write(paths)
    assert findings(paths) == []
    assert numbers(paths) == [*range(20)] * 2


async def test_lines_appended_while_a_file_ends_are_in_the_next_one(paths: AuditPaths) -> None:
    async with opened(paths) as log:
        for number in range(8):
            log.append(event(number))
        assert log.flush()
        log.append(event(8))
        assert log.flush()
        assert b'"what":"8"' in rotated_path(paths.log, 1).read_bytes()
        log.append(event(9))
    assert paths.log.read_bytes().splitlines()[0].count(b'"rotate"') == 1
    assert findings(paths) == []


async def test_a_file_that_is_old_ends_with_the_next_line(paths: AuditPaths) -> None:
    clock, rotation = SetClock(), Rotation(max_seconds=100)
    async with opened(paths, rotation, clock) as log:
        for seconds, files in ((0, 0), (99, 0), (2, 1), (98, 1), (2, 2)):
            clock.time += seconds
            log.append(event(seconds))
            assert log.flush()
            assert len(rotated_files(paths.log)) == files
    clock.time += 200
    async with opened(paths, rotation, clock):
        assert len(rotated_files(paths.log)) == 3  # the age is that of the file, not of the server
    assert findings(paths) == []


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_file_that_is_missing_or_cut_or_empty_is_found(paths: AuditPaths, number: int) -> None:
    await write(paths)
    path = rotated_path(paths.log, number)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.unlink()
    assert ("missing", path.name) in findings(paths)
    for content in (
        b"",
        b"".join(lines[:-1]),
        b"".join(lines[1:]),
        whole[:-1],
        whole[:-40],
        whole + lines[0],
    ):
        path.write_bytes(content)
        assert findings(paths) != []
    path.write_bytes(whole)
    assert findings(paths) == []


async def test_files_that_are_swapped_or_repeated_are_found(paths: AuditPaths) -> None:
    await write(paths)
    files = rotated_files(paths.log)
    last = max(files)
    for one, other in ((files[1], files[2]), (files[2], files[last]), (files[1], paths.log)):
        _swap(one, other)
        assert findings(paths) != []
        _swap(one, other)
    assert findings(paths) == []
    copy = rotated_path(paths.log, last + 1)
    shutil.copy(files[1], copy)
    assert findings(paths) == [("foreign", copy.name)]
    copy.unlink()
    shutil.copy(files[1], files[2])
    assert {kind for kind, _ in findings(paths)} >= {"reordered"}


async def test_the_file_that_is_written_cannot_be_dropped(paths: AuditPaths) -> None:
    await write(paths)
    paths.log.unlink()
    assert ("truncated", None) in findings(paths)
    paths.log.touch()
    assert ("truncated", None) in findings(paths)
    rotated_path(paths.log, max(rotated_files(paths.log))).rename(paths.log)
    assert ("truncated", None) in findings(paths)


async def test_files_beyond_those_to_keep_go_and_no_other_may(paths: AuditPaths) -> None:
    await write(paths, rotation=Rotation(max_bytes=1000, keep_files=2))
    files = rotated_files(paths.log)
    assert len(files) == 2
    assert min(files) > 2
    assert findings(paths) == []
    assert records(paths)[0].seq > 1
    for number in files:
        with _without(files[number]):
            assert ("missing", files[number].name) in findings(paths)
    with _without(paths.log):
        assert ("truncated", None) in findings(paths)
    await write(paths, rotation=Rotation(max_bytes=1000, keep_files=2))
    assert findings(paths) == []
    assert len(rotated_files(paths.log)) == 2


def _swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@contextlib.contextmanager
def _without(path: Path) -> Iterator[None]:
    aside = path.with_name("aside")
    path.rename(aside)
    yield
    aside.rename(path)


async def test_the_position_in_the_event_log_is_found_in_an_earlier_file(paths: AuditPaths) -> None:
    await write(paths)
    async with opened(paths) as log:
        assert log.position == "e.19"
    paths.log.write_bytes(b"")
    last = rotated_path(paths.log, max(rotated_files(paths.log)))
    end = last.read_bytes().splitlines()[-1].decode()
    seq, mac = int(end.split('"seq":')[1].split(",")[0]), end.split('"mac":"')[1][:64]
    Anchor(seq, mac).write(paths.anchor, Seal(read_key(paths.key, {})))
    async with opened(paths) as log:
        assert log.position is not None
        assert log.position.startswith("e.")
    assert findings(paths) == []


class Killed(BaseException):
    """The end of the process, at this call."""


def _at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> Callable[[], bool]:
    """Raise at the call to the disk with this number; return whether it was made."""
    made = 0

    def fail_in(call: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*arguments: Any, **named: Any) -> Any:
            nonlocal made
            made += 1
            if made == number:
                raise error
            return call(*arguments, **named)

        return failing

    for name in CALLS:
        monkeypatch.setattr(os, name, fail_in(getattr(os, name)))
    return lambda: made >= number


@pytest.mark.parametrize("torn", [False, True])
async def test_after_a_kill_at_any_call_of_a_rotation_the_chain_is_whole_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    number = 0
    while True:
        number += 1
        paths = AuditPaths.of(tmp_path / str(number))
        log = await opening(paths, Rotation(max_bytes=1000, keep_files=1))
        for each in range(12):
            log.append(event(each))
            if each in (3, 7, 10):
                assert log.flush()  # the next one ends the second file, and removes the first
        with monkeypatch.context() as patch:
            reached = _at(patch, number, Killed())
            with contextlib.suppress(Killed):
                log.flush()
        kill(log)
        if torn and paths.log.exists():
            with paths.log.open("ab") as file:
                file.write(b'{"seq":')
        assert [kind for kind, _ in findings(paths) if kind != "torn"] == []
        async with opened(paths, Rotation(max_bytes=1000, keep_files=1)) as again:
            assert again.position in ("e.10", "e.11")
            again.append(event(12))
        assert findings(paths) == [], number
        assert numbers(paths)[-1] == 12
        if not reached():
            break
    assert number > 20


async def test_a_rotation_that_fails_at_any_call_is_done_later_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 0
    while True:
        number += 1
        paths = AuditPaths.of(tmp_path / str(number))
        async with opened(paths) as log:
            for each in range(12):
                log.append(event(each))
                if each == 10:
                    assert log.flush()
            with monkeypatch.context() as patch:
                reached = _at(patch, number, OSError(errno.ENOSPC, "No space left on device"))
                assert log.flush() is not reached()
                log.append(event(12))
            assert log.flush()
        assert findings(paths) == [], number
        assert numbers(paths) == [*range(13)]
        assert len(rotated_files(paths.log)) == 1
        if not reached():
            break
    assert number > 5


async def test_a_reader_may_read_while_the_server_rotates(paths: AuditPaths) -> None:
    async with opened(paths, Rotation(max_bytes=1000, keep_files=2)) as log:
        for number in range(10):
            log.append(event(number))
            assert log.flush()
        reading = read(paths.log, read_key(paths.key, {}), paths.anchor)
        found = [next(reading)]
        for number in range(10, 20):
            log.append(event(number))
            assert log.flush()
        found += reading
    assert all(isinstance(each, AuditLine) for each in found)
