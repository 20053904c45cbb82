"""Processes that run on a core of their own and are told what to do through a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, final

import uvloop

from benchmarks.machine import node, on_core, pin

__all__ = [
    "Commands",
    "NodeProcess",
    "Remote",
    "answer_commands",
    "node_process",
    "prepare_node",
    "run_commands",
    "running",
]

Commands = Mapping[str, Callable[..., Awaitable[Any]]]
_PEERS = Path(__file__).parent / "peers"


@final
class Remote:
    """The other end of a process's pipe."""

    def __init__(self, pipe: Connection, process: BaseProcess) -> None:
        self.pid = process.pid or 0
        self._pipe = pipe
        self._process = process

    def receive(self) -> Any:
        """Wait for what the process sends by itself.

        :raises RuntimeError: it says that something failed, or it has ended.
        """
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            raise RuntimeError("the other process has ended: see above") from None
        if kind == "error":
            raise RuntimeError(value)
        return value

    def call(self, command: str, **arguments: Any) -> Any:
        """Have a command done, and wait for its answer.

        :raises RuntimeError: it failed there.
        """
        self.tell(command, **arguments)
        return self.receive()

    def tell(self, command: str, **arguments: Any) -> None:
        """Have a command done; its answer is to be received."""
        self._pipe.send((command, arguments))

    def stop(self) -> None:
        """Close the pipe, on which it ends in order, and wait for that."""
        self._pipe.close()
        self._process.join(60)


@contextlib.contextmanager
def running(target: Callable[..., None], *arguments: Any, core: int | None, **named: Any) -> Iterator[Remote]:
    """Run ``target(pipe, *arguments)`` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(core, target, theirs, arguments, named), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Remote(ours, process)
    finally:
        process.terminate()
        process.join()
        ours.close()


def _run(
    core: int | None,
    target: Callable[..., None],
    pipe: Connection,
    arguments: tuple[Any, ...],
    named: dict[str, Any],
) -> None:
    pin(core)
    target(pipe, *arguments, **named)


async def answer_commands(pipe: Connection, commands: Commands) -> None:
    """Do what comes through the pipe, one after another, until its other end is closed."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    loop.add_reader(pipe.fileno(), arrived.set)
    # The loop makes it non-blocking, and an answer may be more than the pipe takes at once.
    os.set_blocking(pipe.fileno(), True)
    with contextlib.suppress(EOFError):
        while True:
            await arrived.wait()
            arrived.clear()
            while pipe.poll():
                name, arguments = pipe.recv()
                try:
                    pipe.send(("answer", await commands[name](**arguments)))
                except Exception as error:  # noqa: BLE001 (told to who asked)
                    pipe.send(("error", f"{name}: {type(error).__name__}: {error}"))
    loop.remove_reader(pipe.fileno())


def run_commands(
    pipe: Connection, make: Callable[[], contextlib.AbstractAsyncContextManager[Commands]]
) -> None:
    """Run an event loop that makes the commands and answers them; it says what it made first of all."""

    async def serve() -> None:
        async with make() as commands:
            pipe.send(("answer", None))
            await answer_commands(pipe, commands)

    uvloop.run(serve())


@final
class NodeProcess:
    """A script of Node: commands go in as lines of JSON, answers come out the same way."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process

    def receive(self) -> Any:
        """Wait for a line.

        :raises RuntimeError: it has ended.
        """
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError("the Node process has ended: see above")
        return json.loads(line)

    def tell(self, command: str, **arguments: Any) -> None:
        """Have a command done."""
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self._process.stdin.flush()


def prepare_node() -> bool:
    """Fetch what the Node peers are made of, once for each list of it; ``False`` where there is no Node.

    What is optional in the list and cannot be installed here is left out, and is not tried again.
    """
    if node() is None:
        return False
    wanted, installed = (_PEERS / "package.json").read_text(), _PEERS / "node_modules" / ".installed"
    if not installed.exists() or installed.read_text() != wanted:
        subprocess.run(["npm", "install", "--no-package-lock", "--silent"], cwd=_PEERS, check=True)  # noqa: S607 (found by PATH, as npm is everywhere)
        installed.write_text(wanted)
    return True


@contextlib.contextmanager
def node_process(script: str, *arguments: str, core: int | None) -> Iterator[NodeProcess]:
    """Run a script of ``peers/`` with Node."""
    path = node()
    if path is None:
        raise RuntimeError("there is no node here")
    # A process inherits the core. One that is pinned when it runs keeps its other threads where they are.
    with on_core(core):
        process = subprocess.Popen(
            [path, script, *arguments],
            cwd=_PEERS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_ENV": "production"},
        )
    try:
        yield NodeProcess(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
