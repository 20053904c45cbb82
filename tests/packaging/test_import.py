"""Importing the SDK is cheap: it loads neither the server nor what only a connection needs."""

from __future__ import annotations

import os
import subprocess
import sys

HEAVY = ("circuit_breaker_server", "picows", "aiohttp", "graphql", "typer", "rich", "uvicorn", "starlette")


def test_importing_the_sdk_loads_no_server_and_no_transport() -> None:
    code = f"import sys, circuit_breaker_sdk; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_a_client_loads_what_reads_a_proxy_only_where_the_environment_names_one() -> None:
    code = (
        "import sys; from circuit_breaker_sdk import Client; Client('ws://localhost');"
        "print('urllib.request' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    for more, loaded in (({}, "False"), ({"HTTP_PROXY": "http://proxy:1"}, "True")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env=environment | more,
        )
        assert done.stdout.strip() == loaded
