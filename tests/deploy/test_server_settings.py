"""The example of settings is read, starts a server, and that server passes the checks of the image."""

from __future__ import annotations

import ctypes
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from circuit_breaker_server import ServerSettings
from circuit_breaker_server.settings.sources import configure, from_file
from tests.deploy import dockerfile
from tests.deploy.command_lines import DEPLOY, ROOT, clean_environment

FILE: Final = DEPLOY / "server.toml"
_PR_SET_MDWE: Final = 65
_REFUSE_EXEC_GAIN: Final = 1


def test_the_example_is_read_and_is_closed_to_strangers() -> None:
    settings = configure(from_file(FILE)).settings
    assert isinstance(settings, ServerSettings)
    assert settings.api_keys
    assert not settings.insecure
    assert not settings.is_open
    assert settings.exposure() is None
    assert settings.policy_file == DEPLOY / "policy.toml"
    assert settings.metrics_port is not None


def test_what_it_shows_in_comments_is_read_as_well(tmp_path: Path) -> None:
    text = FILE.read_text(encoding="utf-8")
    shown = re.sub(r"^# (\[|\w+ = )", r"\1", text, flags=re.MULTILINE)
    assert shown.count("\n[") == text.count("\n[") + 1
    (tmp_path / "server.toml").write_text(shown, encoding="utf-8")
    settings = configure(from_file(tmp_path / "server.toml")).settings
    assert settings.token_keys is not None
    unit = (DEPLOY / "circuit-breaker.service").read_text(encoding="utf-8")
    assert f"/{FILE.parent.joinpath('circuit-breaker.service').name}/token.key" in text
    assert "#LoadCredential=token.key:" in unit


@contextmanager
def served(directory: Path, *before: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server with the example and the example of a policy; yield it with its URL."""
    for source in (FILE, ROOT / "examples" / "policy.toml"):
        shutil.copy(source, directory)
    arguments = ["--config", str(directory / FILE.name), "--port", "0", "--metrics-port", "0"]
    arguments += ["--data", str(directory / "data")]
    server = subprocess.Popen(
        [*(before or (sys.executable,)), "-m", "circuit_breaker_sdk.cli", "serve", *arguments],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        ready = server.stdout.readline()
        assert ready.startswith("ready: "), ready
        yield server, ready.split()[1]
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate(timeout=20)


def test_a_server_starts_with_it_is_healthy_and_stops_on_sigterm(tmp_path: Path) -> None:
    with served(tmp_path) as (server, url):
        port = url.split(":")[2].partition("/")[0]
        assert check_health(port) == 0
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
    assert check_health(port) != 0


def check_health(port: str) -> int:
    """Run the health check of the image and return its status."""
    _, *arguments = dockerfile.health_check()
    done = subprocess.run(
        [sys.executable, *arguments],
        env=clean_environment({"CIRCUIT_BREAKER_NETWORK_PORT": port, "http_proxy": "http://127.0.0.1:9"}),
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.returncode


def test_a_server_starts_where_no_memory_is_writable_and_executable(tmp_path: Path) -> None:
    """The kernel's own form of MemoryDenyWriteExecute, which the unit asks systemd for."""
    if sys.platform != "linux" or ctypes.CDLL(None).prctl(_PR_SET_MDWE + 1, 0, 0, 0, 0) < 0:
        pytest.skip("this system has no PR_SET_MDWE (Linux 6.3 and later)")
    script = (
        "import ctypes, os, sys; "
        f"assert ctypes.CDLL(None).prctl({_PR_SET_MDWE}, ctypes.c_ulong({_REFUSE_EXEC_GAIN}), 0, 0, 0) == 0; "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    with served(tmp_path, sys.executable, "-c", script) as (server, _):
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
