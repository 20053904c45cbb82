"""The client of NATS is loaded by the log on NATS alone: it is an optional dependency."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_server_does_not_load_nats() -> None:
    code = (
        "import sys, circuit_breaker_server, circuit_breaker_server.app, circuit_breaker_server.log.sqlite;"
        "print('nats' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
