"""The machine that is measured: its cores, and what a reader of the figures has to know of it."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

__all__ = ["LOAD_CORE", "MEASURED_CORE", "describe", "on_core", "pin", "resident_bytes"]

_CORES: Final = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

MEASURED_CORE: Final = _CORES[0] if len(_CORES) > 1 else None
"""What is measured runs here alone; ``None`` where the system pins nothing."""
LOAD_CORE: Final = _CORES[1] if len(_CORES) > 1 else None
"""The load runs here."""

_PACKAGES = ("picows", "msgspec", "uvloop", "gql", "websockets", "aiohttp", "strawberry-graphql", "ariadne")


def pin(core: int | None) -> None:
    """Keep this process on one core, where the system can."""
    if core is not None:
        os.sched_setaffinity(0, {core})


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Keep this process on one core for a while."""
    before = os.sched_getaffinity(0) if core is not None else None
    pin(core)
    try:
        yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


def resident_bytes(pid: int | str = "self") -> int:
    """Return a process's resident memory.

    :raises FileNotFoundError: this system has no ``/proc``: there is nothing to measure it by.
    """
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def node() -> str | None:
    """Return the path of node, if there is one with npm."""
    return shutil.which("node") if shutil.which("npm") else None


def describe() -> dict[str, str]:
    """Return what the figures depend on: processor, cores, versions."""
    found = {
        "processor": _processor(),
        "cores": str(len(_CORES) or os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    if (path := node()) is not None:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        found["node"] = answer.stdout.strip()
    return found


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
