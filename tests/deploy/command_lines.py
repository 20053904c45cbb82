"""Run command lines that the files of deploy/ name, without the variables of this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from circuit_breaker_server.settings.sources import configure, from_environment, from_file

__all__ = ["DEPLOY", "ROOT", "clean_environment", "print_config", "seconds_to_stop", "uncommented"]

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"


def clean_environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with other settings: those given, and none besides."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith("CIRCUIT_BREAKER_")
    } | dict(given or {})


def print_config(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run ``circuit-breaker ARGUMENTS --print-config`` and return the settings that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "circuit_breaker_sdk.cli", *arguments, "--print-config"],
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return tomllib.loads(done.stdout)


def seconds_to_stop(config: Path | None = None, environment: Mapping[str, str] | None = None) -> float:
    """Return how long a server with these settings may take to stop after SIGTERM."""
    layers = [{} if config is None else from_file(config), from_environment(environment or {})]
    settings = configure(*layers).settings
    return settings.drain_seconds + settings.shutdown_seconds


def uncommented(path: Path) -> str:
    """Return the lines of a file that are no comments."""
    return "".join(re.sub(r"^\s*#.*", "", line) for line in path.read_text(encoding="utf-8").splitlines(True))
