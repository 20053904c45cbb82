"""``circuit-breaker audit``: a log is checked and exported, and what is wrong with it is told."""

from __future__ import annotations

import asyncio
import base64
import csv
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from circuit_breaker_sdk.cli.app import app
from circuit_breaker_server.security.audit import KEY_VARIABLE, AuditEvent, AuditLog, AuditPaths, Rotation
from tests.cli.process import complain, running
from tests.server.tokens import NOW, SetClock


def write(paths: AuditPaths, *principals: str, environment: dict[str, str] | None = None) -> list[str]:
    """Write a log: an event of each principal, a second after the one before; return its lines."""

    async def writing() -> None:
        clock = SetClock()
        log = await AuditLog.open(paths, environment or {}, clock=clock)
        for number, principal in enumerate(principals):
            clock.time = NOW + 1 + number
            log.append(
                AuditEvent(
                    action="query",
                    principal=principal,
                    address="::1",
                    what=f"resource {number}",
                    decision="allowed",
                )
            )
        await log.aclose()

    asyncio.run(writing())
    return paths.log.read_text().splitlines(keepends=True)


def run(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, list[str], list[str]]:
    """Run the command in this process; return its status and the lines of stdout and stderr."""
    ended = CliRunner().invoke(app, ["audit", *arguments], env=environment)
    out, err = (text.split("\n")[:-1] for text in (ended.stdout, ended.stderr))
    return ended.exit_code, out, err


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def paths(data: Path) -> AuditPaths:
    return AuditPaths.of(data)


def test_a_whole_log_is_one_line_and_status_0(paths: AuditPaths, data: Path) -> None:
    write(paths, "ann", "bob")
    with running("audit", "verify", "--data", str(data)) as command:
        assert command.end() == 0
        out = command.out
        assert command.err == []
    assert len(out) == 1
    assert out[0].startswith("4 records, chain whole, head 4 ")
    assert out[0].endswith(", 2027-01-15T08:00:00.000000Z to 2027-01-15T08:00:02.000000Z")


def test_each_finding_is_a_line_and_the_status_is_1(paths: AuditPaths, data: Path) -> None:
    lines = write(paths, "ann", "bob")
    paths.log.write_text("".join([lines[0], lines[1].replace("ann", "eve")]))
    status, out, err = run("verify", "--data", str(data))
    assert (status, err) == (1, [])
    assert [line.split(": ")[:2] for line in out] == [["line 2", "edited"], ["line 3", "truncated"]]


def test_key_and_anchor_are_where_the_options_say(tmp_path: Path, data: Path) -> None:
    paths = AuditPaths.of(data, key=tmp_path / "a" / "key", anchor=tmp_path / "b" / "anchor")
    write(paths, "ann")
    places = ["--audit-key-file", str(paths.key), "--anchor", str(paths.anchor)]
    assert run("verify", "--data", str(data), *places)[0] == 0
    status, out, _ = run("verify", "--data", str(data), *places[:2])
    assert status == 1
    assert len(out) == 1
    assert "there is no anchor" in out[0]


def test_the_key_may_stand_in_the_environment(paths: AuditPaths, data: Path) -> None:
    given = {KEY_VARIABLE: base64.b64encode(b"k" * 32).decode()}
    write(paths, "ann", environment=given)
    assert run("verify", "--data", str(data), environment=given)[0] == 0
    wrong = {KEY_VARIABLE: base64.b64encode(b"K" * 32).decode()}
    status, out, err = run("verify", "--data", str(data), environment=wrong)
    assert (status, len(out), err) == (1, 1, [])
    assert "another key" in out[0]


@pytest.mark.parametrize("command", ["verify", "export"])
def test_without_a_key_one_line_says_so_and_no_file_is_made(data: Path, command: str) -> None:
    status, said = complain("audit", command, "--data", str(data))
    assert status == 2
    assert f"{data / 'audit.key'}: the key of the audit log cannot be read" in said
    assert not data.exists()


def test_a_server_of_another_process_may_write_while_the_log_is_checked(
    paths: AuditPaths, data: Path
) -> None:
    write(paths, "ann")

    async def checking() -> list[tuple[int, list[str]]]:
        log = await AuditLog.open(paths, {})
        with paths.log.open("ab") as file:
            file.write(b'{"seq":5,"at"')  # what a group looks like while it is written
        with running("audit", "verify", "--data", str(data)) as command:
            while_open = (command.end(), command.out)
        await log.aclose()
        return [while_open, run("verify", "--data", str(data))[:2]]

    for (status, out), count in zip(asyncio.run(checking()), (4, 5), strict=True):
        assert status == 0
        assert out[0].startswith(f"{count} records, chain whole, head {count} ")


def test_a_reader_that_has_enough_ends_an_export_without_a_word(paths: AuditPaths, data: Path) -> None:
    write(paths, *(["ann"] * 2000))
    arguments = [sys.executable, "-m", "circuit_breaker_sdk.cli", "audit", "export", "--data", str(data)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"seq":1,')
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 0


def test_an_export_is_the_very_lines(paths: AuditPaths, data: Path) -> None:
    lines = write(paths, "ann", "käse")
    status, out, err = run("export", "--data", str(data))
    assert (status, err) == (0, [])
    assert out == [line.rstrip("\n") for line in lines]


def test_all_files_of_a_log_are_verified_and_exported_and_a_missing_one_is_named(
    paths: AuditPaths, data: Path
) -> None:
    async def writing() -> None:
        log = await AuditLog.open(paths, {}, flush_seconds=3600, rotation=Rotation(max_bytes=500))
        for number in range(8):
            log.append(
                AuditEvent(action="query", principal="ann", address="", what=str(number), decision="allowed")
            )
            assert log.flush()
        await log.aclose()

    asyncio.run(writing())
    assert run("verify", "--data", str(data))[0] == 0
    status, out, _ = run("export", "--data", str(data), "--principal", "ann")
    assert (status, len(out)) == (0, 8)
    (paths.log.parent / "audit.00000002.jsonl").unlink()
    status, out, _ = run("verify", "--data", str(data))
    assert status == 1
    assert out[0] == "audit.00000002.jsonl: this file of the log is missing"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--principal", "ann"], [1, 3]),
        (["--principal", "an"], []),
        (["--principal", ""], [0, 4]),
        (["--since", "2027-01-15T08:00:02Z"], [2, 3, 4]),
        (["--since", "2027-01-15T09:00:02+01:00", "--until", "2027-01-15T08:00:03"], [2]),
        (["--until", "2027-01-15"], []),
        (["--since", "2027-01-15", "--principal", "bob"], [2]),
    ],
)
def test_an_export_is_of_what_was_asked_for(
    paths: AuditPaths, data: Path, options: list[str], expected: list[int]
) -> None:
    lines = write(paths, "ann", "bob", "ann")
    status, out, err = run("export", "--data", str(data), *options)
    assert (status, err) == (0, [])
    assert out == [lines[at].rstrip("\n") for at in expected]


def test_an_export_leaves_out_what_is_broken_says_so_and_fails(paths: AuditPaths, data: Path) -> None:
    lines = write(paths, "ann", "bob", "ann")
    paths.log.write_text("".join([*lines[:2], lines[2].replace("bob", "eve"), lines[4], lines[1]]))
    status, out, err = run("export", "--data", str(data), "--principal", "ann")
    assert status == 1
    assert out == [lines[1].rstrip("\n")]
    assert [line.split(": ")[1:2] for line in err] == [["line 3"], ["line 4"], ["line 5"]]


def test_a_cell_of_a_table_is_no_formula_and_steers_no_terminal(paths: AuditPaths, data: Path) -> None:
    evil = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\uff1d1", 'a,"b"\nc', "\x1b[2J\u2028", "käse"]
    write(paths, *evil)
    status, out, err = run("export", "--data", str(data), "--format", "csv")
    assert (status, err) == (0, [])
    head, _, *rows, _ = csv.reader(out)
    assert head[:4] == ["seq", "at", "action", "principal"]
    assert [row[3] for row in rows] == [
        *("'=1+1", "'+1", "'-1", "'@SUM(A1)", "\\t=1", "' =1", "'\uff1d1"),
        *('a,"b"\\nc', "\\x1b[2J\\u2028", "käse"),
    ]
    assert rows[0][:3] == ["2", "2027-01-15T08:00:01.000000Z", "query"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "--since", "soon"], "soon is no time"),
        (["export", "--format", "xml"], "'--format'"),
        (["verify", "--nonsense"], "No such option"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_says_what_is_wrong_with_status_2(arguments: list[str], says: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, [])
    assert says in " ".join(err)


@pytest.mark.parametrize("arguments", [["--help"], ["verify", "--help"], ["export", "--help"]])
def test_help_explains_the_exit_status(arguments: list[str]) -> None:
    status, out, err = run(*arguments)
    assert (status, err) == (0, [])
    assert "the audit log is not as it was written" in " ".join(" ".join(out).split())
