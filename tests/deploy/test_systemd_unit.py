"""The unit file is one that systemd takes, and its commands and statuses are those of the command line."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from circuit_breaker_sdk.cli.exit_codes import ExitCode
from tests.deploy.command_lines import DEPLOY, print_config, seconds_to_stop, uncommented

UNIT: Final = DEPLOY / "circuit-breaker.service"
MOST_EXPOSURE: Final = 20
"""Of 100, as `systemd-analyze security` counts."""


class _Parser(configparser.ConfigParser):
    """Keeps the case of keys, and all values of one that stands several times."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def service() -> dict[str, str]:
    """Return the directives of the service; of one that stands several times, the last."""
    parser = _Parser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#", ";"))
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    assert parser.sections() == ["Unit", "Service", "Install"]
    return dict(parser["Service"])


def command() -> list[str]:
    """Return the command line of the server."""
    return shlex.split(service()["ExecStart"])


def test_every_line_is_a_directive_a_section_or_a_comment() -> None:
    for line in uncommented(UNIT).splitlines():
        assert re.fullmatch(r"|\[\w+\]|[A-Z]\w+=.*", line), line


def test_the_command_line_is_accepted_and_reads_the_example() -> None:
    program, *arguments = command()
    assert Path(program).name == "circuit-breaker"
    assert arguments[arguments.index("--config") + 1] == "/etc/circuit-breaker/server.toml"
    arguments[arguments.index("--config") + 1] = str(DEPLOY / "server.toml")
    settings = print_config(arguments)
    assert Path(settings["storage"]["data_dir"]).parent == Path("/var/lib") / service()["StateDirectory"]


def test_statuses_that_no_later_try_betters_are_not_tried_again() -> None:
    unit = service()
    assert unit["Restart"] == "on-failure"
    assert {int(status) for status in unit["RestartPreventExitStatus"].split()} == {
        ExitCode.USAGE,
        ExitCode.FAIL_STOP,
    }
    assert int(unit["SuccessExitStatus"]) == ExitCode.INTERRUPTED


def test_it_waits_longer_than_the_server_takes_to_stop() -> None:
    unit = service()
    assert unit["KillSignal"] == "SIGTERM"
    assert int(unit["TimeoutStopSec"]) > seconds_to_stop(DEPLOY / "server.toml")
    assert unit["ExecReload"].endswith("kill -HUP $MAINPID")


def test_it_is_hardened() -> None:
    unit = service()
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == ""
    assert unit["ProtectSystem"] == "strict"
    assert unit["User"] != "root"
    for directive in ("NoNewPrivileges", "PrivateTmp", "MemoryDenyWriteExecute", "RestrictNamespaces"):
        assert unit[directive] == "yes", directive
    assert set(unit["RestrictAddressFamilies"].split()) == {"AF_INET", "AF_INET6", "AF_UNIX"}
    assert "SystemCallFilter=@system-service\n" in UNIT.read_text(encoding="utf-8")


def test_no_secret_is_in_it() -> None:
    assert not re.search(r"(?i)(secret|password|token)\w*=", uncommented(UNIT))


@pytest.fixture
def with_a_program_of_this_machine(tmp_path: Path) -> Path:
    """The unit with a program that exists, as `verify` looks for it."""
    path = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8")
    path.write_text(
        text.replace(f"ExecStart={command()[0]}", f"ExecStart={sys.executable}"), encoding="utf-8"
    )
    return path


def analyze(*arguments: str) -> str:
    """Run systemd-analyze; skip the test where it is missing or needs a running systemd."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not on this machine; the other tests read the file themselves")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=50, check=False)
    output = done.stdout + done.stderr
    if "Unrecognized option" in output or "Failed to initialize manager" in output:
        pytest.skip(f"systemd-analyze cannot do this here: {output.strip()}")
    assert done.returncode == 0, output
    return output


def test_systemd_knows_every_directive(with_a_program_of_this_machine: Path) -> None:
    output = analyze("verify", "--man=no", str(with_a_program_of_this_machine))
    # An unknown directive is a warning with the name of the file, and does not change the status.
    assert UNIT.name not in output, output


def test_systemd_counts_little_exposure(with_a_program_of_this_machine: Path) -> None:
    analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE}", str(with_a_program_of_this_machine))
