"""Experiment 11: what an application may do, in any order."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.system.chaos.result import Result

_ROOT = Path(__file__).parents[3]
_TEST = "tests/integration/test_lifecycle_fuzz.py"
_FOUND = re.compile(r"(\d+) sequences, (\d+) steps, (\d+) subscriptions, (\d+) events")


async def lifecycle(directory: Path, seed: int, *, long: bool) -> Result:
    """Run the test of the life of a client over thousands of sequences, in processes of their own.

    Each checks what it is given, what is left behind, and the sums of the figures.
    """
    result = Result(experiment="lifecycle", seed=seed)
    sequences, each = (10_000, 250) if long else (300, 150)
    figures = [0, 0, 0, 0]
    for first in range(seed, seed + sequences, each):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", _TEST, "-q", "-s", "-p", "no:cacheprovider"),
            f"--basetemp={directory / str(first)}",
            cwd=_ROOT,
            env={**os.environ, "LIFECYCLE_SEED": str(first), "LIFECYCLE_SEQUENCES": str(each)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        said = output.decode(errors="replace")
        found = _FOUND.search(said)
        result.require(process.returncode == 0 and found, said[-2_000:])
        if found is not None:
            figures = [total + int(figure) for total, figure in zip(figures, found.groups(), strict=True)]
    result.events = figures[3]
    result.detail = dict(zip(("sequences", "steps", "subscriptions"), figures, strict=False))
    return result
