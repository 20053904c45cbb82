"""Importing the SDK is cheap: it loads neither the server nor what only a connection needs."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("circuit_breaker_server", "picows", "aiohttp", "graphql", "typer", "rich", "uvicorn", "starlette")


def test_importing_the_sdk_loads_no_server_and_no_transport() -> None:
    code = f"import sys, circuit_breaker_sdk; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
