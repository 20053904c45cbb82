"""Several processes on one port against one: what the second process brings on this machine, load included.

Nothing is kept on a core: the servers and the load share all of them, as they do for a user. How many cores a
server had is printed beside; the load had the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, final

import uvloop

from benchmarks.mutating import mutate
from benchmarks.processes import Commands, run_commands, running
from benchmarks.row import Rounds, Row, Scale, at_least
from benchmarks.sockets import Sockets
from circuit_breaker_sdk import Client
from circuit_breaker_sdk.events import ActivityInput, StateInput

__all__ = ["workers"]

_ONE, _TWO = "one process", "two workers"
_COUNTS: Final = {_ONE: 1, _TWO: 2}
_SOCKETS: Final = 300
_READ_EVERY_SECONDS: Final = 0.02
"""Subscribers have machines of their own: the load is to take little of the cores that it shares."""
_PATIENT: Final = [
    word
    for setting in (
        "rates.operations_per_second=none",
        "rates.connects_per_second=none",
        "limits.max_connections_per_address=100000",
        "timeouts.ping_seconds=3600",
    )
    for word in ("--set", setting)
]
_UPDATES: Final = "subscription { resourceUpdates { id state } }"


@final
class _Server:
    """The command line's server, with so many workers, over an empty SQLite log.

    :ivar port: where it listens.
    :ivar workflow: the id of its only workflow.
    """

    def __init__(self, directory: str, count: int) -> None:
        options = ("--workers", str(count), "--port", "0", "--data", directory, "--log-level", "error")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "circuit_breaker_sdk.cli", "serve", *options, *_PATIENT],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.port = 0
        self.workflow = ""

    def wait(self) -> None:
        """Wait until it is ready, and make its workflow."""
        lines = self._process.stdout or ()
        url = next(line.split()[1] for line in lines if line.startswith("ready: http"))
        self.port = int(url.rpartition(":")[2].partition("/")[0])
        self.workflow = asyncio.run(_made_workflow(url))

    def processor_seconds(self) -> float:
        """Return the processor time that it and its workers have had."""
        pid = self._process.pid
        pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        ticks = 0
        for each in pids:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Stop it."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(20)


async def _made_workflow(url: str) -> str:
    async with Client(url) as client:
        made = await client.workflows.create_workflow(
            name="w",
            initial_state="a",
            states=[StateInput(id="a", name="A")],
            activities=[ActivityInput(id="go", from_states=["a"], to_state="a")],
        )
        return made.id


@contextlib.contextmanager
def _served(count: int) -> Iterator[_Server]:
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-bench-") as directory:
        server = _Server(directory, count)
        try:
            server.wait()
            yield server
        finally:
            server.close()


def _mutate(pipe: Connection, port: int, workflow: str) -> None:
    """In a process of its own: mutate as often as the pipe says."""

    @contextlib.asynccontextmanager
    async def commands() -> AsyncIterator[Commands]:
        yield {"mutate": partial(mutate, port, workflow)}

    run_commands(pipe, commands)


def workers(scale: Scale) -> Iterator[Row]:
    """Yield the rows of mutations, and of their deliveries."""
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(_served(count)) for name, count in _COUNTS.items()}
        shares: dict[str, float] = {}

        def mutated(name: str) -> float:
            server, count = servers[name], scale.pick(10_000, 200)
            before = server.processor_seconds()
            rate = uvloop.run(mutate(server.port, server.workflow, count))
            shares[name] = (server.processor_seconds() - before) * rate / count
            return rate

        rounds = Rounds({name: partial(mutated, name) for name in servers}, scale.runs)
        row = _row("HTTP mutations, durable, 64 lanes", "mutations/s", rounds, shares)
        yield row.aim({f"times {_ONE}": at_least(1.0, row.times[_ONE])})

        loads = {
            name: stack.enter_context(running(_mutate, server.port, server.workflow, core=None))
            for name, server in servers.items()
        }
        for load in loads.values():
            load.receive()
        heard = {
            name: stack.enter_context(Sockets(server.port, _SOCKETS, resume=True))
            for name, server in servers.items()
        }
        for sockets in heard.values():
            sockets.subscribe(_UPDATES)

        def delivered(name: str) -> float:
            server, count = servers[name], scale.pick(4_000, 100)
            before = server.processor_seconds()
            loads[name].tell("mutate", count=count)
            seconds = heard[name].count_alike(count, every=_READ_EVERY_SECONDS)
            loads[name].receive()
            shares[name] = (server.processor_seconds() - before) / seconds
            return count * _SOCKETS / seconds

        rounds = Rounds({name: partial(delivered, name) for name in servers}, scale.runs)
        row = _row(f"the same, each delivered to {_SOCKETS} subscribers", "deliveries/s", rounds, shares)
        yield row.aim({f"times {_ONE}": at_least(1.5, row.times[_ONE])})


def _row(benchmark: str, unit: str, rounds: Rounds, shares: dict[str, float]) -> Row:
    return Row(
        benchmark=f"two workers on one port, {benchmark}",
        unit=unit,
        ours=round(rounds.median(_TWO)),
        peers={_ONE: round(rounds.median(_ONE))},
        times={_ONE: round(rounds.ratio(_TWO, _ONE), 2)},
        settings={"cores": os.cpu_count(), "load": "on the same cores"},
        detail={f"cores that {name} had": round(share, 2) for name, share in shares.items()},
    )
