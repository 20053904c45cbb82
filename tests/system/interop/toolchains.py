"""Toolchains of compiled peers: each builds its programs into the user's cache directory, where it can.

A toolchain that is missing, too old or without its packages is left out; a build that fails, fails the run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["TOOLCHAINS", "binaries", "build"]

_HERE: Final = Path(__file__).parent
_SOURCES: Final = {"Go": "go", "Rust": "rust"}
TOOLCHAINS: Final = tuple(_SOURCES)


class _LeftOut(Exception):
    """The programs of a toolchain cannot be built here; the text says why."""


def _workshop(toolchain: str) -> Path:
    """Return the directory of a toolchain's copied sources and its results."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "circuit-breaker-interop" / _SOURCES[toolchain]


def binaries(toolchain: str) -> Path:
    """Return the directory of a toolchain's binaries."""
    return _workshop(toolchain) / {"Go": "bin", "Rust": "target/debug"}[toolchain]


def build(without: Sequence[str]) -> list[str]:
    """Build what can be built, with a line of JSON for each toolchain; return the toolchains that did.

    :param without: toolchains to leave out, in lower case.
    :raises SystemExit: a build fails although the toolchain and its packages are there.
    """
    built: list[str] = []
    for toolchain, steps in {"Go": _build_go, "Rust": _build_rust}.items():
        began = time.monotonic()
        line: dict[str, object]
        try:
            _require_wanted(toolchain, without)
            sys.stderr.write(f"building the peers in {toolchain}: minutes for the first time …\n")
            steps()
        except _LeftOut as error:
            line = {"toolchain": toolchain, "outcome": f"left out ({error})"}
        else:
            built.append(toolchain)
            seconds = round(time.monotonic() - began, 1)
            line = {"toolchain": toolchain, "outcome": "built", "seconds": seconds}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    return built


def _require_wanted(toolchain: str, without: Sequence[str]) -> None:
    if toolchain.lower() in without:
        raise _LeftOut(f"asked for by --without {toolchain.lower()}")


def _build_go() -> None:
    go, workshop = _found("go"), _copied("Go")
    _fetch([go, "mod", "download"], workshop, "its modules cannot be had")
    _run([go, "tool", "gqlgen", "generate"], workshop)
    _run([go, "build", "-p", "1", "-trimpath", "-o", "bin/", "./server", "./client"], workshop)


def _build_rust() -> None:
    cargo, workshop = _found("cargo"), _copied("Rust")
    needed = tomllib.loads((workshop / "Cargo.toml").read_text())["package"]["rust-version"]
    printed = subprocess.run([cargo, "--version"], check=False, capture_output=True, text=True).stdout
    found = re.search(r"\d+\.\d+", printed)
    if found is None or _numbers(found[0]) < _numbers(needed):
        raise _LeftOut(f"it needs {needed}, and this is {printed.strip() or 'not to be run'}")
    _fetch([cargo, "fetch", "--locked"], workshop, "its crates cannot be had")
    _run([cargo, "build", "--locked", "--offline", "--jobs", "1", "--target-dir", "target"], workshop)


def _numbers(version: str) -> list[int]:
    return [int(each) for each in version.split(".")]


def _found(command: str) -> str:
    path = shutil.which(command)
    if path is None:
        raise _LeftOut(f"there is no {command} on the PATH")
    return path


def _copied(toolchain: str) -> Path:
    """Copy the sources into the cache, next to what was built from them before."""
    workshop = _workshop(toolchain)
    shutil.copytree(
        _HERE / _SOURCES[toolchain], workshop, dirs_exist_ok=True, copy_function=_copy_if_different
    )
    return workshop


def _copy_if_different(source: str, target: str) -> None:
    """Copy a file with the time of now: cargo builds again what is younger than its last build."""
    content = Path(source).read_bytes()
    if not Path(target).exists() or Path(target).read_bytes() != content:
        Path(target).write_bytes(content)


def _fetch(command: Sequence[str], directory: Path, otherwise: str) -> None:
    done = subprocess.run(command, cwd=directory, check=False, capture_output=True, text=True)
    if done.returncode:
        raise _LeftOut(f"{otherwise}: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}")


def _run(command: Sequence[str], directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
