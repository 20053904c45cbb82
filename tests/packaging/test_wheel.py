"""The wheel, installed alone in a clean environment, does what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: object, cwd: Path) -> str:
    """Run a command to its end; its output, or a failure that shows it."""
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(400)
def test_the_wheel_works_alone_then_with_server_and_cli(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("circuit_breaker_sdk-*.whl")
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    pip = [
        python,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "install",
        "-c",
        ROOT / "constraints.txt",
    ]

    run(*pip, wheel, cwd=tmp_path)
    run(
        python,
        "-W",
        "error",
        "-c",
        "import sys, circuit_breaker_sdk as c; c.Client('ws://localhost:4000/graphql');"
        "import importlib.util as u; assert not any(map(u.find_spec, ('uvloop', 'openai', 'mcp', 'rich')))",
        cwd=tmp_path,
    )
    hint = subprocess.run(
        [str(tmp_path / "clean" / "bin" / "circuit-breaker"), "serve"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert hint.returncode != 0
    assert "circuit-breaker-sdk[all]" in hint.stderr
    assert "Traceback" not in hint.stderr

    run(*pip, f"{wheel}[server,cli]", cwd=tmp_path)
    server = subprocess.Popen(
        [
            str(tmp_path / "clean" / "bin" / "circuit-breaker"),
            "serve",
            "--port",
            "0",
            "--data",
            str(tmp_path / "data"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert server.stdout is not None
        ready = next(m for line in server.stdout if (m := re.search(r"http://\S+/graphql", line)))
        output = run(
            python, ROOT / "examples" / "first.py", ready.group(0).replace("http:", "ws:"), cwd=tmp_path
        )
        assert "approved" in output
    finally:
        server.kill()
        server.wait(timeout=10)
        if server.stdout is not None:
            server.stdout.close()
