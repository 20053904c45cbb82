"""The audit log: what is appended is kept as it was, and whatever is done to it afterwards is found."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuit_breaker_server.security.audit import (
    KEY_VARIABLE,
    Anchor,
    AuditEvent,
    AuditLimits,
    AuditLine,
    AuditLog,
    AuditLogError,
    AuditPaths,
    AuditRecord,
    Finding,
    Verification,
    read,
    read_key,
    verify,
)
from circuit_breaker_server.security.audit.records import MAX_LINE_BYTES, Seal, event_members, instant
from tests.server.tokens import SetClock

NEVER = 3600.0  # a group that only `flush` and `aclose` end


def event(what: str = "costUpdates", **members: str) -> AuditEvent:
    return AuditEvent(
        action="subscribe",
        principal=members.get("principal", "user-1"),
        address="10.0.0.1:5000",
        what=what,
        decision="allowed",
    )


@contextlib.asynccontextmanager
async def opened(paths: AuditPaths, *, max_pending_bytes: int = 1 << 20) -> AsyncIterator[AuditLog]:
    log = await AuditLog.open(
        paths, {}, clock=SetClock(), flush_seconds=NEVER, max_pending_bytes=max_pending_bytes
    )
    try:
        yield log
    finally:
        await log.aclose()


async def written(paths: AuditPaths, count: int = 3) -> list[bytes]:
    """Write a log and close it; return its lines."""
    async with opened(paths) as log:
        for number in range(count):
            log.append(event(f"costUpdates {number}"))
    return paths.log.read_bytes().splitlines(keepends=True)


def check(paths: AuditPaths) -> Verification:
    return verify(paths.log, read_key(paths.key, {}), paths.anchor)


def records(paths: AuditPaths) -> list[AuditRecord]:
    lines = list(read(paths.log, read_key(paths.key, {}), paths.anchor))
    return [line.record for line in lines if isinstance(line, AuditLine)]


def kinds(paths: AuditPaths) -> list[str]:
    return [finding.kind for finding in check(paths).findings]


async def crash(paths: AuditPaths, *torn: bytes) -> None:
    """Leave what a killed process leaves: no `stop`, an anchor before it, and the begin of a line."""
    await written(paths)
    lines = paths.log.read_bytes().splitlines(keepends=True)
    paths.log.write_bytes(b"".join([*lines[:-1], *torn]))
    last = json.loads(lines[-2])
    Anchor(last["seq"], last["mac"]).write(paths.anchor, Seal(read_key(paths.key, {})))


@pytest.fixture
def paths(tmp_path: Path) -> AuditPaths:
    return AuditPaths.of(tmp_path / "data")


@contextlib.contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """Let the kernel refuse to make any file longer: a real write fails, half-way too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


async def test_a_log_says_what_was_appended_in_its_order_between_start_and_stop(paths: AuditPaths) -> None:
    full = AuditEvent(
        action="denied",
        principal="user-1",
        tenant="t-1",
        address="::1",
        what="costUpdates",
        decision="refused",
        reason="not yours",
        policy="7",
        first_cursor="a",
        last_cursor="b",
        count=3,
    )
    async with opened(paths) as log:
        log.append(event())
        log.append(full)
    result = check(paths)
    assert result.whole
    assert result.records == 4
    assert result.first_at == result.last_at == "2027-01-15T08:00:00.000000Z"
    start, first, second, stop = records(paths)
    assert (start.action, stop.action) == ("start", "stop")
    assert (first.seq, first.what, first.tenant, first.count) == (2, "costUpdates", None, None)
    assert {name: getattr(second, name) for name in full.__struct_fields__} == {
        name: getattr(full, name) for name in full.__struct_fields__
    }
    assert second.previous == first.mac
    assert result.head == Anchor(4, stop.mac)


async def test_a_log_opened_again_goes_on_with_its_chain(paths: AuditPaths) -> None:
    await written(paths)
    await written(paths)
    assert [r.action for r in records(paths)] == ["start", *["subscribe"] * 3, "stop"] * 2
    assert check(paths).whole


async def test_lines_reach_the_disk_without_being_asked_for(paths: AuditPaths) -> None:
    log = await AuditLog.open(paths, {}, flush_seconds=0.001)
    log.append(event())
    while log.pending_bytes:
        os.sched_yield()
    assert [r.action for r in records(paths)] == ["start", "subscribe"]
    await log.aclose()


async def test_a_log_that_is_closed_just_when_a_group_ends_does_close(paths: AuditPaths) -> None:
    class SetTooLate(threading.Event):
        """Is set just after the first wait for it has timed out."""

        waits = 0

        def wait(self, timeout: float | None = None) -> bool:
            self.waits += 1
            if self.is_set() or self.waits > 1:
                return super().wait(timeout)
            super().wait(10)
            return False

    log = await AuditLog.open(paths, {}, flush_seconds=NEVER)
    log._closing = SetTooLate()
    log.append(event())
    async with asyncio.timeout(10):
        await log.aclose()
    assert [r.action for r in records(paths)] == ["start", "subscribe", "stop"]


async def test_threads_append_to_one_chain_while_it_is_written(paths: AuditPaths) -> None:
    log = await AuditLog.open(paths, {}, flush_seconds=0.001, limits=AuditLimits(others=1200))

    def append() -> None:
        for number in range(300):
            log.append(event(str(number)))

    await asyncio.gather(*(asyncio.to_thread(append) for _ in range(4)))
    await log.aclose()
    result = check(paths)
    assert result.whole
    assert result.records == 1202


async def test_what_is_durable_is_whole_while_the_log_is_written(paths: AuditPaths) -> None:
    async with opened(paths) as log:
        log.append(event())
        assert log.flush()
        anchor = paths.anchor.read_bytes()
        log.append(event())
        assert log.flush()
        paths.anchor.write_bytes(anchor)  # the lines are there before the anchor is
        assert check(paths).whole
        with paths.log.open("ab") as file:
            file.write(b'{"seq":4,"at"')  # and a part of a line before the rest
        assert check(paths).whole


@pytest.mark.parametrize("action", ["start", "stop", "restart", "lost", "counted"])
async def test_no_event_speaks_for_the_log_itself(paths: AuditPaths, action: str) -> None:
    async with opened(paths) as log:
        with pytest.raises(ValueError, match="says of itself"):
            log.append(AuditEvent(action=action, principal="", address="", what="", decision="allowed"))


async def test_a_closed_log_takes_nothing_and_closes_again(paths: AuditPaths) -> None:
    async with opened(paths) as log:
        await log.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            log.append(event())


async def test_only_one_process_writes(paths: AuditPaths) -> None:
    async with opened(paths):
        with pytest.raises(AuditLogError, match="in use by another process"):
            await AuditLog.open(paths, {})
    async with opened(paths):
        pass


# What others do to it


async def test_every_flipped_bit_is_found(paths: AuditPaths) -> None:
    whole = b"".join(await written(paths, 1))
    for at in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[at] ^= 1 << bit
            paths.log.write_bytes(changed)
            assert not check(paths).whole, (at, bit)
    paths.log.write_bytes(whole)
    assert check(paths).whole


async def test_every_flipped_bit_of_the_anchor_is_found(paths: AuditPaths) -> None:
    await written(paths, 1)
    whole = paths.anchor.read_bytes()
    for at in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[at] ^= 1 << bit
            paths.anchor.write_bytes(changed)
            assert kinds(paths) == ["anchor"], (at, bit)


async def test_an_edited_line_is_named_and_the_others_are_good(paths: AuditPaths) -> None:
    lines = await written(paths)
    lines[2] = lines[2].replace(b"user-1", b"user-2")
    paths.log.write_bytes(b"".join(lines))
    result = check(paths)
    assert [(f.kind, f.line) for f in result.findings] == [("edited", 3)]
    assert result.records == len(lines) - 1
    assert str(result.findings[0]).startswith("line 3: edited")


async def test_every_dropped_line_is_found_where_it_was(paths: AuditPaths) -> None:
    lines = await written(paths)
    for at in range(len(lines)):
        paths.log.write_bytes(b"".join(lines[:at] + lines[at + 1 :]))
        expected = "truncated" if at == len(lines) - 1 else "deleted"
        assert [(f.kind, f.line) for f in check(paths).findings] == [(expected, at + 1)]


async def test_every_repeated_line_is_found(paths: AuditPaths) -> None:
    lines = await written(paths)
    for at in range(len(lines)):
        for to in range(at + 1, len(lines) + 1):
            paths.log.write_bytes(b"".join([*lines[:to], lines[at], *lines[to:]]))
            assert [(f.kind, f.line) for f in check(paths).findings] == [("reordered", to + 1)]


async def test_every_swapped_pair_is_found(paths: AuditPaths) -> None:
    lines = await written(paths)
    for at in range(len(lines) - 1):
        swapped = [*lines]
        swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
        paths.log.write_bytes(b"".join(swapped))
        assert kinds(paths)[:2] == ["deleted", "reordered"]


async def test_every_cut_of_the_end_is_found(paths: AuditPaths) -> None:
    whole = b"".join(await written(paths, 1))
    for length in range(len(whole)):
        paths.log.write_bytes(whole[:length])
        found = kinds(paths)
        assert found[-1] == "truncated"
        at_a_line = length == 0 or whole[length - 1 : length] == b"\n"
        assert found[:-1] == ([] if at_a_line else ["torn"])


async def test_a_cut_end_is_not_covered_up_by_a_server_that_starts_again(paths: AuditPaths) -> None:
    lines = await written(paths)
    for kept in range(len(lines)):
        paths.log.write_bytes(b"".join(lines[:kept]))
        with pytest.raises(AuditLogError, match="its anchor has seen 5"):
            await AuditLog.open(paths, {})
        assert paths.log.read_bytes() == b"".join(lines[:kept])
    paths.log.unlink()
    assert kinds(paths) == ["missing"]
    with pytest.raises(AuditLogError, match="its anchor has seen 5"):
        await AuditLog.open(paths, {})


async def test_a_log_that_was_replaced_by_another_of_the_same_key_is_found(
    paths: AuditPaths, tmp_path: Path
) -> None:
    other = AuditPaths.of(tmp_path / "other", key=paths.key)
    await written(paths, 3)
    for count in (4, 9):
        async with opened(other) as log:
            for number in range(count):
                log.append(event(f"llmStream {number}"))
        paths.log.write_bytes(other.log.read_bytes())
        assert kinds(paths)[0] == "replaced"
        with pytest.raises(AuditLogError, match="another line than"):
            await AuditLog.open(paths, {})


async def test_a_line_of_another_log_of_the_same_key_is_found(paths: AuditPaths, tmp_path: Path) -> None:
    other = AuditPaths.of(tmp_path / "other", key=paths.key)
    ours = await written(paths)
    async with opened(other) as log:
        for number in range(3):
            log.append(event(f"llmStream {number}"))
    foreign = other.log.read_bytes().splitlines(keepends=True)
    ours[2] = foreign[2]
    paths.log.write_bytes(b"".join(ours))
    assert [(f.kind, f.line) for f in check(paths).findings] == [("foreign", 3), ("foreign", 4)]


async def test_a_missing_anchor_is_found_and_not_made_anew(paths: AuditPaths) -> None:
    await written(paths)
    paths.anchor.unlink()
    assert kinds(paths) == ["anchor"]
    with pytest.raises(AuditLogError, match="there is no anchor"):
        await AuditLog.open(paths, {})


async def test_an_anchor_put_back_to_an_older_one_is_found(paths: AuditPaths) -> None:
    async with opened(paths) as log:
        log.append(event())
        assert log.flush()
        older = paths.anchor.read_bytes()
    paths.anchor.write_bytes(older)
    assert [(f.kind, "behind" in f.text) for f in check(paths).findings] == [("anchor", True)]


async def test_without_an_anchor_everything_but_a_cut_end_is_found(paths: AuditPaths) -> None:
    lines = await written(paths)
    key = read_key(paths.key, {})
    paths.log.write_bytes(b"".join(lines[:-1]))
    assert verify(paths.log, key).whole
    paths.log.write_bytes(b"".join(lines[1:]))
    assert [f.kind for f in verify(paths.log, key).findings] == ["deleted"]


async def test_another_key_is_one_finding(paths: AuditPaths) -> None:
    await written(paths, 200)
    for anchor in (None, paths.anchor):
        assert [f.kind for f in verify(paths.log, b"k" * 32, anchor).findings] == ["key"]
    paths.key.unlink()
    with pytest.raises(AuditLogError, match="sealed with another key"):
        await AuditLog.open(paths, {})


async def test_findings_without_number_are_counted(paths: AuditPaths) -> None:
    lines = await written(paths, 300)
    paths.log.write_bytes(b"".join([lines[0], *(line.replace(b"action", b"ACTION") for line in lines[1:])]))
    findings = check(paths).findings
    assert [f.kind for f in findings] == ["edited"] * 100 + ["truncated", "more"]
    assert str(findings[-1]) == "201 more findings"


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_a_line_without_bounds_is_not_read_into_memory(paths: AuditPaths, end: bytes) -> None:
    lines = await written(paths)
    paths.log.write_bytes(b"".join([*lines, b"x" * MAX_LINE_BYTES * 3, end]))
    assert [(f.kind, f.line) for f in check(paths).findings] == [("edited", len(lines) + 1)]
    with pytest.raises(AuditLogError, match="last line was edited"):
        await AuditLog.open(paths, {})


# What may stand in a line

TEXTS = [
    'user\n{"seq":2,"action":"stop"}',
    "\x1b[2J\x1b]0;owned\x07",
    "a\u2028b\u2029c\x85d\x9b31m\x7f\u202e",
    'quote " and \\ and \x00',
    "half \ud800 of a pair",
    "käse 🧀",
    "🧀" * 600,
]


@pytest.mark.parametrize("text", TEXTS)
async def test_no_text_ends_a_line_or_steers_a_terminal(paths: AuditPaths, text: str) -> None:
    async with opened(paths) as log:
        log.append(event(text, principal=text))
    lines = paths.log.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    assert all(line[:-1].decode("ascii").isprintable() for line in lines)
    assert check(paths).whole
    record = records(paths)[1]
    expected = text.replace("\ud800", "\ufffd")
    assert record.principal == record.what == (expected if len(text) < 512 else expected[:511] + "…")


@given(st.text(st.characters(codec=None), max_size=600), st.text(max_size=600))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_text_holds_a_line_is_short_and_printable(principal: str, what: str) -> None:
    members = event_members(event(what, principal=principal))
    assert members.decode("ascii").isprintable()
    assert len(members) < MAX_LINE_BYTES
    said = json.loads(b"{%b}" % members)
    for text, kept in ((principal, said["principal"]), (what, said["what"])):
        cut = text if len(text) <= 512 else text[:511] + "…"
        assert kept == "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in cut)


def test_times_are_of_one_length_and_sort_as_text() -> None:
    from circuit_breaker_server.security.audit.records import Timestamps

    times = Timestamps()
    written = [times.write(t).decode() for t in (0.0, 1.5, 1.500001, 1_800_000_000.0)]
    assert written == sorted(written)
    assert {len(t) for t in written} == {27}
    from datetime import UTC, datetime

    assert written[-1] == instant(datetime.fromtimestamp(1_800_000_000, UTC))


# Crashes


@pytest.mark.parametrize("torn", [b'{"seq":5,"at":"20', b"\0" * 300, b"{"])
async def test_a_line_cut_short_by_a_crash_is_dropped_and_said_so(paths: AuditPaths, torn: bytes) -> None:
    await crash(paths, torn)
    assert kinds(paths) == ["torn"]
    async with opened(paths):
        pass
    assert check(paths).whole
    assert [r.action for r in records(paths)] == ["start", *["subscribe"] * 3, "restart", "start", "stop"]
    assert records(paths)[4].count == len(torn)


async def test_a_long_torn_line_leaves_nothing_behind_the_line_that_replaces_it(paths: AuditPaths) -> None:
    await crash(paths, b'{"seq":5,"what":"' + b"y" * 5000)
    async with opened(paths):
        pass
    assert check(paths).whole


async def test_a_crash_before_the_first_anchor_of_a_line_is_no_tampering(paths: AuditPaths) -> None:
    async with opened(paths):
        pass
    first = paths.log.read_bytes().splitlines(keepends=True)[0]
    Anchor().write(paths.anchor, Seal(read_key(paths.key, {})))
    for left in (b"", first[:50], first):
        paths.log.write_bytes(left)
        before = paths.anchor.read_bytes()
        async with opened(paths):
            pass
        assert check(paths).whole
        paths.anchor.write_bytes(before)


async def test_a_broken_line_after_the_anchor_is_not_covered_up(paths: AuditPaths) -> None:
    async with opened(paths) as log:
        log.append(event("before"))
        assert log.flush()
        anchor = paths.anchor.read_bytes()
        for _ in range(3):
            log.append(event("after"))
    lines = paths.log.read_bytes().splitlines(keepends=True)
    paths.anchor.write_bytes(anchor)
    paths.log.write_bytes(b"".join(lines[:3] + lines[4:]))
    with pytest.raises(AuditLogError, match="line 4: 1 lines deleted"):
        await AuditLog.open(paths, {})


def test_what_was_flushed_survives_a_kill(paths: AuditPaths, tmp_path: Path) -> None:
    script = (
        "import asyncio, os, pathlib, signal, sys\n"
        "from circuit_breaker_server.security.audit import AuditEvent, AuditLog, AuditPaths\n"
        "async def main():\n"
        "    log = await AuditLog.open(AuditPaths.of(pathlib.Path(sys.argv[1])), {})\n"
        "    for n in range(60):\n"
        "        who = {'principal': '', 'address': '', 'decision': 'allowed'}\n"
        "        log.append(AuditEvent(action='query', what=str(n), **who))\n"
        "        if n == 49: log.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path / "data")], check=False, timeout=30)
    assert ended.returncode == -signal.SIGKILL
    assert check(paths).whole
    assert [r.what for r in records(paths)[1:51]] == [str(n) for n in range(50)]


# A disk that fails


async def test_a_full_disk_loses_nothing_while_memory_lasts(
    paths: AuditPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(paths) as log:
        size = paths.log.stat().st_size
        with disk_full_at(size + 700):  # in the middle of a line
            for number in range(5):
                log.append(event(str(number)))
            for _ in range(3):
                assert not log.flush()
                assert log.failing
            assert paths.log.stat().st_size == size + 700
            assert check(paths).whole  # as far as it is written
            log.append(event("5"))
        assert log.flush()
        assert not log.failing
        assert log.pending_bytes == 0
    assert check(paths).whole
    assert [r.what for r in records(paths)[1:-1]] == [str(number) for number in range(6)]
    said = capsys.readouterr().err
    assert said.count("audit_write_failed") == 1
    assert said.count("audit_written_again") == 1


async def test_events_above_the_bound_are_counted_in_a_line_at_their_place(
    paths: AuditPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(paths, max_pending_bytes=2000) as log:
        with disk_full_at(paths.log.stat().st_size):
            log.append(event("first"))
            assert not log.flush()
            for number in range(100):
                log.append(event(f"then {number}"))
            assert log.pending_bytes < 2000 + 500
            assert log.lost > 0
        assert log.flush()
        log.append(event("afterwards"))
        lost = log.lost
    said = records(paths)
    assert check(paths).whole
    at = next(i for i, r in enumerate(said) if r.action == "lost")
    assert said[at].count == lost
    assert [r.what for r in said[2:at]] == [f"then {number}" for number in range(100 - lost)]
    assert said[at + 1].what == "afterwards"
    assert capsys.readouterr().err.count("audit_events_lost") == 1


async def test_a_disk_that_fails_to_the_end_leaves_a_log_without_a_stop(
    paths: AuditPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    log = await AuditLog.open(paths, {}, clock=SetClock(), flush_seconds=NEVER)
    log.append(event("kept"))
    assert log.flush()
    with disk_full_at(paths.log.stat().st_size + 10):
        log.append(event("not kept"))
        await log.aclose()
    assert not log.flush()  # touches no file of others
    assert "audit_not_closed" in capsys.readouterr().err
    assert kinds(paths) == ["torn"]
    async with opened(paths):
        pass
    assert check(paths).whole
    assert [r.action for r in records(paths)] == ["start", "subscribe", "restart", "start", "stop"]


@pytest.mark.parametrize("failing", ["fsync", "ftruncate", "pwrite"])
async def test_a_failed_call_to_the_disk_is_tried_again_with_the_same_bytes(
    paths: AuditPaths, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    async with opened(paths) as log:
        log.append(event("once"))
        with monkeypatch.context() as patch:
            patch.setattr(os, failing, fail)
            assert not log.flush()
        assert log.flush()
    assert check(paths).whole
    assert [r.what for r in records(paths)].count("once") == 1


async def test_an_anchor_that_cannot_be_written_is_written_later(paths: AuditPaths) -> None:
    async with opened(paths) as log:
        log.append(event())
        in_the_way = paths.anchor.with_name(f"{paths.anchor.name}.new")
        in_the_way.mkdir()
        assert not log.flush()
        assert log.pending_bytes == 0
        assert check(paths).whole
        in_the_way.rmdir()
        assert log.flush()
        assert json.loads(paths.anchor.read_bytes())["seq"] == 2


# Keys and places


async def test_key_log_and_anchor_are_for_their_owner_only(paths: AuditPaths) -> None:
    await written(paths)
    for path in (paths.key, paths.log, paths.anchor):
        assert path.stat().st_mode & 0o777 == 0o600
    assert paths.log.parent.stat().st_mode & 0o777 == 0o700
    assert len(paths.key.read_bytes()) == 32
    assert sorted(p.name for p in paths.key.parent.iterdir()) == ["audit", "audit.key"]


async def test_a_key_of_the_environment_goes_before_the_file(paths: AuditPaths) -> None:
    key = bytes(range(200, 232))
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        environment = {KEY_VARIABLE: encode(key).decode()}
        assert read_key(paths.key, environment) == key
        log = await AuditLog.open(paths, environment)
        await log.aclose()
    assert not paths.key.exists()
    assert verify(paths.log, key, paths.anchor).whole


@pytest.mark.parametrize("text", ["swordfish", "c3dvcmRmaXNo", "!" * 44, "ü"])
def test_what_is_no_key_is_refused_and_not_repeated(paths: AuditPaths, text: str) -> None:
    with pytest.raises(AuditLogError, match=KEY_VARIABLE) as caught:
        read_key(paths.key, {KEY_VARIABLE: text})
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, 0o600, "No such file"),
        (b"swordfish", 0o600, "has to be 32 bytes"),
        (b"k" * 33, 0o600, "has to be 32 bytes"),
        (b"k" * 32, 0o640, "chmod 600"),
        (b"k" * 32, 0o604, "chmod 600"),
    ],
)
def test_a_key_file_that_is_not_fit_is_refused(
    tmp_path: Path, content: bytes | None, mode: int, says: str
) -> None:
    path = tmp_path / "audit.key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(AuditLogError, match=says) as caught:
        read_key(path, {})
    assert str(path) in str(caught.value)


async def test_a_log_that_is_a_link_is_not_opened(paths: AuditPaths, tmp_path: Path) -> None:
    paths.log.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").touch()
    paths.log.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditLogError, match=r"audit\.jsonl"):
        await AuditLog.open(paths, {})
    paths.log.unlink()
    async with opened(paths):
        pass


async def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for paths in (
        AuditPaths.of(tmp_path / "file", key=tmp_path / "key"),
        AuditPaths.of(tmp_path / "data", key=tmp_path / "file" / "key"),
        AuditPaths.of(tmp_path / "data", anchor=tmp_path / "file" / "anchor"),
    ):
        with pytest.raises(AuditLogError, match=str(tmp_path / "file")):
            await AuditLog.open(paths, {})


def test_the_anchor_stands_beside_the_data_directory() -> None:
    assert AuditPaths.of(Path("/srv/data")).anchor == Path("/srv/data.audit-anchor")
    assert AuditPaths.of(Path("data")).anchor == Path.cwd() / "data.audit-anchor"
    assert AuditPaths.of(Path()).anchor == Path.cwd().with_name(f"{Path.cwd().name}.audit-anchor")


async def test_a_finding_without_a_line_is_its_text(paths: AuditPaths) -> None:
    assert str(Finding("missing", None, "there is no log")) == "there is no log"


async def test_of_many_equal_events_eight_have_a_line_and_one_says_how_many_followed(
    paths: AuditPaths,
) -> None:
    async with opened(paths) as log:
        for number in range(100):
            log.append(event("again"))
            if number == 50:
                log.append(event("another"))
        assert log.flush()
        log.append(event("again"))
    said = records(paths)[1:-1]
    assert check(paths).whole
    assert [(r.what, r.times) for r in said] == [
        *[("again", None)] * 8,
        ("another", None),
        ("again", 92),
        ("again", None),
    ]


async def test_lines_are_written_before_they_are_synced_and_the_anchor_moves_with_the_sync(
    paths: AuditPaths,
) -> None:
    async with opened(paths) as log:
        anchored = paths.anchor.read_bytes()
        log.append(event("one"))
        assert log.flush(sync=False)
        assert [r.what for r in records(paths)[1:]] == ["one"]
        assert paths.anchor.read_bytes() == anchored
        assert log.pending_bytes > 0
        log.append(event("two"))
        assert log.flush()
        assert paths.anchor.read_bytes() != anchored
        assert log.pending_bytes == 0
    assert check(paths).whole
    assert [r.what for r in records(paths)[1:-1]] == ["one", "two"]


async def test_after_a_sync_that_failed_everything_since_the_last_one_is_written_again(
    paths: AuditPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(paths) as log:
        size = paths.log.stat().st_size
        log.append(event("one"))
        assert log.flush(sync=False)

        def fail(_fd: int) -> None:
            raise OSError(errno.EIO, "the disk has lost it")

        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", fail)
            assert not log.flush()
        # What the system dropped, and said so once.
        with paths.log.open("r+b") as file:
            file.truncate(size)
        log.append(event("two"))
        assert log.flush()
    assert check(paths).whole
    assert [r.what for r in records(paths)[1:-1]] == ["one", "two"]
