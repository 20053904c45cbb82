"""A server that meets a record it cannot apply ends with a status of its own, and can be repaired."""

from __future__ import annotations

import asyncio
import getpass
import signal
from pathlib import Path

import pytest

from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.security.audit import AuditLine, AuditPaths, read, read_key
from tests.cli.process import READY, complain, running
from tests.server.engine.ghost_record import ghost
from tests.server.tokens import SECRET


async def _write_ghost(data: Path) -> None:
    log = await SqliteEventLog.open(data)
    await log.append(ghost())
    await log.aclose()


@pytest.fixture(name="data")
def _data(tmp_path: Path) -> Path:
    """Make a data directory whose only record changes a resource that was never made."""
    data = tmp_path / "data"
    asyncio.run(_write_ghost(data))
    return data


def test_a_start_that_cannot_apply_a_record_ends_with_8_and_says_how_to_repair(data: Path) -> None:
    status, line = complain("serve", "--port", "0", "--data", str(data))
    assert status == 8
    for said in ("record 1 (resource.w.r)", "release 9.9.9", "circuit-breaker log skip 1"):
        assert said in line


def serve_and_stop(data: Path, key: Path) -> None:
    options = ("serve", "--port", "0", "--data", str(data), "--token-key-file", str(key))
    with running(*options) as server:
        server.wait_for(READY.pattern)
        server.signal(signal.SIGINT)
        assert server.end() == 0


def test_a_skipped_record_lets_the_server_start_and_is_in_the_audit_log(tmp_path: Path) -> None:
    key, data = tmp_path / "token.key", tmp_path / "data"
    key.write_bytes(SECRET)
    serve_and_stop(data, key)
    asyncio.run(_write_ghost(data))
    with running("log", "skip", "1", "--reason", "a defect of 9.9.9", "--data", str(data)) as command:
        assert command.end() == 0
        assert command.out == ["record 1 is skipped by record 2: a defect of 9.9.9; start the server again"]
    serve_and_stop(data, key)
    serve_and_stop(data, key)
    paths = AuditPaths.of(data)
    found = read(paths.log, read_key(paths.key, {}), paths.anchor)
    lines = [each.record for each in found if isinstance(each, AuditLine)]
    (line,) = (each for each in lines if each.action == "mutate")
    assert (line.what, line.principal, line.decision) == ("log skip 1", getpass.getuser(), "allowed")
    assert line.record is not None
    assert line.record.endswith(".2")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("7", "--reason", "r"), "no record 7: it holds 1 to 1"),
        (("1", "--reason", " "), "--reason must not be empty"),
        (("1", "--reason", "r" * 501), "has at most 500 characters"),
    ],
)
def test_what_cannot_be_skipped_is_one_line(data: Path, arguments: tuple[str, ...], says: str) -> None:
    status, line = complain("log", "skip", *arguments, "--data", str(data))
    assert status == ExitCode.USAGE
    assert says in line


def test_a_directory_without_a_log_is_not_made_one(tmp_path: Path) -> None:
    status, line = complain("log", "skip", "1", "--reason", "r", "--data", str(tmp_path / "other"))
    assert status == ExitCode.USAGE
    assert "has no event log" in line
    assert not (tmp_path / "other").exists()


def test_a_log_that_a_server_uses_is_not_repaired(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running("serve", "--port", "0", "--data", str(data)) as server:
        server.wait_for(READY.pattern)
        status, line = complain("log", "skip", "1", "--reason", "r", "--data", str(data))
        assert status == ExitCode.UNREACHABLE
        assert "another process" in line or "is in use" in line
