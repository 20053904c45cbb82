"""Programs by others: servers that say where they listen, and clients on Node that say what they hear."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, final

__all__ = ["HERE", "Heard", "NodeClient", "node", "node_client", "node_server", "python_server"]

HERE = Path(__file__).parent


def node() -> str:
    """Return the path of node: the machine's, or the one of the wheel."""
    if found := shutil.which("node"):
        return found
    beside = Path(sys.executable).with_name("node")
    if beside.exists():
        return str(beside)
    raise SystemExit("there is no node: `make interop` installs one where the machine has none")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


@contextlib.asynccontextmanager
async def node_server(script: str, *arguments: str) -> AsyncIterator[int]:
    """Run a server on Node; give its port."""
    async with _server(HERE, node(), script, *arguments) as port:
        yield port


@contextlib.asynccontextmanager
async def python_server(module: str, *arguments: str) -> AsyncIterator[int]:
    """Run a server in a process of Python; give its port."""
    async with _server(HERE.parents[2], sys.executable, "-m", module, *arguments) as port:
        yield port


@contextlib.asynccontextmanager
async def _server(directory: Path, *command: str) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(*command, cwd=directory, stdout=asyncio.subprocess.PIPE)
    if process.stdout is None:
        raise RuntimeError("a process with a pipe has none")
    try:
        line = (await process.stdout.readline()).decode()
        if not line.startswith("ready:"):
            raise SystemExit(f"{command} did not start: see above")
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
class NodeClient(Heard):
    """A client on Node that is told what to do."""

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
async def node_client(script: str, *arguments: str) -> AsyncIterator[NodeClient]:
    """Run a client on Node."""
    process = await asyncio.create_subprocess_exec(
        node(),
        script,
        *arguments,
        cwd=HERE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1024 * 1024,
    )
    client = NodeClient(process)
    listening = asyncio.create_task(client.listen())
    try:
        yield client
    finally:
        await _end(process)
        await listening
