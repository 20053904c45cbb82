"""A real server process, started, killed and started again by tests."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

READY = re.compile(r"(http://[\w.:\[\]-]+)/graphql")


class ServeProcess:
    """``circuit-breaker serve`` on a free port, with a data directory of the test."""

    def __init__(self, data: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "circuit_breaker_sdk.cli", "serve", "--port", "0", "--data", str(data)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        output = []
        for line in self._process.stdout:
            output.append(line)
            if ready := READY.search(line):
                self.url = ready.group(1) + "/graphql"
                return
        raise AssertionError(f"the server did not become ready: {''.join(output)}")

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL."""
        self._process.kill()
        self._process.wait(timeout=10)
        self._close_output()

    def stop(self) -> int:
        """End it as an operator would: SIGTERM. Return the exit code."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(timeout=10)
        self._close_output()
        return code

    def _close_output(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self._process.poll() is None:
            self.kill()


@contextlib.contextmanager
def serving(data: Path) -> Iterator[ServeProcess]:
    """Run a server for the block."""
    process = ServeProcess(data)
    try:
        yield process
    finally:
        process.end()
