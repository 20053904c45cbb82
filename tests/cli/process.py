"""The command line as a real process."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

PROGRAM = "circuit_breaker_sdk.cli"
READY = re.compile(r"ready: (https?://\S+/graphql)")
TIMEOUT_SECONDS = 30


class Command:
    """``circuit-breaker …`` running; its output is collected line by line while it runs."""

    def __init__(
        self,
        *arguments: str,
        program: str = PROGRAM,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ):
        """``program`` is the module that is run."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out: list[str] = []
        self.err: list[str] = []
        self._new: queue.Queue[tuple[list[str], str | None]] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines))
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        self._open = len(self._readers)
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Iterator[str], lines: list[str]) -> None:
        for line in stream:
            self._new.put((lines, line.rstrip("\n")))
        self._new.put((lines, None))

    def wait_for(self, pattern: str) -> str:
        """Wait until a line of stdout or stderr matches; return the first group, or the whole match."""
        matching = re.compile(pattern)
        group = 1 if matching.groups else 0
        for line in [*self.out, *self.err]:
            if found := matching.search(line):
                return found[group]
        while self._open:
            taken = self._take()
            if taken is not None and (found := matching.search(taken)):
                return found[group]
        raise AssertionError(f"{pattern!r} never came: {self.out} {self.err}")

    def end(self) -> int:
        """Wait for the end of the process and of its output; return its status."""
        while self._open:
            self._take()
        return self.process.wait(timeout=TIMEOUT_SECONDS)

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def close(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=TIMEOUT_SECONDS)
        for reader in self._readers:
            reader.join(timeout=TIMEOUT_SECONDS)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _take(self) -> str | None:
        lines, line = self._new.get(timeout=TIMEOUT_SECONDS)
        if line is None:
            self._open -= 1
        else:
            lines.append(line)
        return line

    @property
    def events(self) -> list[dict[str, object]]:
        """The JSON objects on stdout."""
        return [json.loads(line) for line in self.out]


@contextlib.contextmanager
def running(
    *arguments: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Command]:
    """Run the command for the block."""
    command = Command(*arguments, cwd=cwd, environment=environment)
    try:
        yield command
    finally:
        command.close()


@contextlib.contextmanager
def serving(data: Path) -> Iterator[str]:
    """Run a server for the block; give its URL."""
    with running("serve", "--port", "0", "--data", str(data)) as server:
        yield server.wait_for(READY.pattern)


def complain(*arguments: str, cwd: Path | None = None) -> tuple[int, str]:
    """Run a command that must fail: nothing on stdout, one line on stderr, no traceback; return both."""
    with running(*arguments, cwd=cwd) as command:
        status = command.end()
        assert command.out == []
        assert len(command.err) == 1, command.err
        return status, command.err[0]
