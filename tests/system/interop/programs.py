"""Programs by others: servers that say where they listen, and clients that say what they hear."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import AsyncIterator
from enum import Enum
from pathlib import Path
from typing import Any, final

from tests.system.interop.toolchains import binaries

__all__ = ["HERE", "Heard", "ProgramClient", "Runtime", "client", "node", "server"]

HERE = Path(__file__).parent


class Runtime(Enum):
    """The runtime of a program: of a script on Node, a module of Python, or a binary that was built."""

    NODE = "Node"
    PYTHON = "Python"
    GO = "Go"
    RUST = "Rust"


def node() -> str:
    """Return the path of node: the machine's, or the one of the wheel."""
    if found := shutil.which("node"):
        return found
    beside = Path(sys.executable).with_name("node")
    if beside.exists():
        return str(beside)
    raise SystemExit("there is no node: `make interop` installs one where the machine has none")


def _command(runtime: Runtime, program: str) -> list[str]:
    if runtime is Runtime.NODE:
        return [node(), program]
    if runtime is Runtime.PYTHON:
        return [sys.executable, "-m", f"tests.system.interop.{program}"]
    return [str(binaries(runtime.value) / program)]


def _directory(runtime: Runtime) -> Path:
    return HERE.parents[2] if runtime is Runtime.PYTHON else HERE


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


@contextlib.asynccontextmanager
async def server(runtime: Runtime, program: str, *arguments: str) -> AsyncIterator[int]:
    """Run a server; give its port."""
    process = await asyncio.create_subprocess_exec(
        *_command(runtime, program), *arguments, cwd=_directory(runtime), stdout=asyncio.subprocess.PIPE
    )
    if process.stdout is None:
        raise RuntimeError("a process with a pipe has none")
    try:
        line = (await process.stdout.readline()).decode()
        if not line.startswith("ready:"):
            raise SystemExit(f"{program} did not start: see above")
        yield int(line.removeprefix("ready:"))
    finally:
        await _end(process)


class Heard:
    """What a client has heard, by the names of its subscriptions.

    :ivar opened: how often a connection was opened, where the client tells it.
    :ivar methods: the method of each request, where the client tells it.
    """

    def __init__(self) -> None:
        self.opened = 0
        self.methods: list[str] = []
        self._payloads: dict[str, list[dict[str, Any]]] = {}
        self._ends: dict[str, str] = {}

    def take(self, message: dict[str, Any]) -> None:
        """Take one message of a client."""
        if "next" in message:
            self.payloads(message["name"]).append(message["next"])
        elif "end" in message:
            self._ends[message["name"]] = message["end"]
        elif "method" in message:
            self.methods.append(message["method"])
        else:
            self.opened += 1

    def payloads(self, name: str) -> list[dict[str, Any]]:
        """Return all results of a subscription, in their order."""
        return self._payloads.setdefault(name, [])

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of its events."""
        return [each["data"]["resourceUpdates"]["data"]["n"] for each in self.payloads(name)]

    def end(self, name: str) -> str | None:
        """Return how it has ended: ``complete`` or an error; ``None`` while it has not."""
        return self._ends.get(name)


@final
class ProgramClient(Heard):
    """A client in a process of its own that is told what to do."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self._process = process

    def subscribe(self, name: str, query: str, variables: dict[str, object] | None = None) -> None:
        """Begin a subscription."""
        self._tell({"name": name, "query": query, "variables": variables or {}})

    def execute(self, name: str, query: str, variables: dict[str, object] | None = None) -> None:
        """Execute a query or mutation."""
        self._tell({"name": name, "query": query, "variables": variables or {}, "execute": True})

    def unsubscribe(self, name: str) -> None:
        """End a subscription."""
        self._tell({"name": name})

    def _tell(self, order: dict[str, object]) -> None:
        if self._process.stdin is None:
            raise RuntimeError("a process with a pipe has none")
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def listen(self) -> None:
        """Take what it says, to its end."""
        if self._process.stdout is None:
            raise RuntimeError("a process with a pipe has none")
        while line := await self._process.stdout.readline():
            self.take(json.loads(line))


@contextlib.asynccontextmanager
async def client(runtime: Runtime, program: str, *arguments: str) -> AsyncIterator[ProgramClient]:
    """Run a client."""
    process = await asyncio.create_subprocess_exec(
        *_command(runtime, program),
        *arguments,
        cwd=_directory(runtime),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1024 * 1024,
    )
    heard = ProgramClient(process)
    listening = asyncio.create_task(heard.listen())
    try:
        yield heard
    finally:
        await _end(process)
        await listening
