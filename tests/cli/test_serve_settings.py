"""Settings of ``serve`` from a file, the environment and options; printed, and read again on SIGHUP."""

from __future__ import annotations

import json
import signal
import tomllib
from pathlib import Path

from circuit_breaker_sdk.cli.exit_codes import ExitCode
from tests.cli.process import READY, complain, running


def test_every_value_is_printed_with_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("[rates]\npolls_per_second = 7\n", encoding="utf-8")
    with running(
        "serve",
        "--print-config",
        f"--config={file}",
        "--port=5000",
        "--keep-hours=2",
        "--set=limits.max_operations=9",
        environment={"CIRCUIT_BREAKER_LOG_LEVEL": "info"},
    ) as command:
        assert command.end() == ExitCode.OK
    for line in (
        "port = 5000  # --port",
        "keep_seconds = 7200.0  # --keep-hours",
        "max_operations = 9  # --set",
        'level = "info"  # environment',
        f"polls_per_second = 7  # {file}",
        'host = "127.0.0.1"  # default',
    ):
        assert line in command.out
    assert tomllib.loads("\n".join(command.out))["network"]["port"] == 5000


def test_what_is_wrong_is_one_line_and_wrong_usage(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("[rates]\npols_per_second = 7\n", encoding="utf-8")
    for options in ((f"--config={file}",), (f"--config={file}", "--print-config")):
        status, line = complain("serve", *options)
        assert status == ExitCode.USAGE
        assert line == (
            f"error: {file}: rates.pols_per_second is no setting; the nearest one is rates.polls_per_second"
        )


def test_settings_are_read_again_on_sighup(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f'[network]\nport = 0\n[storage]\ndata_dir = "{tmp_path}/data"\n', encoding="utf-8")
    with running("serve", f"--config={file}", "--log-format=json", "--log-level=info") as server:
        server.wait_for(READY.pattern)
        file.write_text(
            f'[network]\nport = 1\n[storage]\ndata_dir = "{tmp_path}/data"\n[rates]\npolls_per_second = 7\n',
            encoding="utf-8",
        )
        server.signal(signal.SIGHUP)
        server.wait_for(r"reloaded: rates\.polls_per_second 2000 -> 7")
        server.wait_for(r"needs a restart: network\.port 0 -> 1")
        file.write_text("[", encoding="utf-8")
        server.signal(signal.SIGHUP)
        server.wait_for(r"error: not reloaded: .* is not TOML: .*; the server goes on as before")
        server.signal(signal.SIGINT)
        assert server.end() == ExitCode.OK
    facts = [json.loads(line) for line in server.err if line.startswith("{")]
    assert [fact["event"] for fact in facts] == ["started", "reloaded", "stopped"]
    assert {fact["level"] for fact in facts} == {"info"}
