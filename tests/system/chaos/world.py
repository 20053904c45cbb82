"""The stage of an experiment: a server process that can be killed, publishers, subscribers."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self, final

import msgspec

from circuit_breaker_sdk import Client, TransportError
from circuit_breaker_sdk.events import ActivityInput, StateInput
from tests.ports import free_port
from tests.system.chaos.brokers import Brokers
from tests.system.chaos.cores import SERVER_CORE
from tests.system.chaos.event_logs import JetStreamLog, SqliteLog, log_of_this_run
from tests.system.chaos.server_process import Orders

__all__ = ["HOLDS", "RING", "Place", "Refused", "ServerProcess", "Serving", "World", "made_workflow", "until"]

RING: dict[str, float | int | str] = {"ring_size": 64}
"""Rings so small that the log's path is taken too."""

HOLDS: Final = "event-loop.holds"
"""The file in a data directory in which its servers count how long they hold their event loop."""

_ROOT = Path(__file__).parents[3]
_START_SECONDS = 120.0
"""A node with the state of half a million events reads it from brokers that have other work."""


class Serving(Protocol):
    """A server, or several that share a log, as publishers and subscribers meet them."""

    @property
    def url(self) -> str:
        """Where to send what is sent next."""
        ...

    @property
    def port(self) -> int:
        """Where a proxy before it connects to."""
        ...

    @property
    def up(self) -> asyncio.Event:
        """Set while it is worth sending anything."""
        ...

    def failed(self, url: str) -> None:
        """Note that nothing came back from there."""
        ...


class Place(Protocol):
    """What publishers and subscribers need of a world."""

    @property
    def server(self) -> Serving:
        """Who serves."""
        ...

    @property
    def direct(self) -> Client:
        """A client beside all proxies."""
        ...

    @property
    def workflow(self) -> str:
        """The workflow that everything is published in."""
        ...

    @property
    def urls(self) -> tuple[str, ...]:
        """Where subscribers connect; empty: to a proxy of their own, before the server."""
        ...


class Refused(Exception):
    """The server refused to start; the text is its own."""


async def until(condition: Callable[[], object], seconds: float) -> bool:
    """Wait for a condition; ``False`` if it does not come to hold in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        await asyncio.sleep(0.005)
    return bool(condition())


@final
class ServerProcess:
    """The server, in a process that is started, killed and started again on the same port and directory.

    :ivar up: set while it serves.
    :ivar starts: when it was ready, each time, by ``time.monotonic``.
    :ivar urls: the brokers that hold its event log; none: it is in the directory.
    :ivar cluster: settings of the group ``cluster``, beyond the brokers.
    :ivar drains: whether it drains when it is stopped.
    :ivar clock_ahead: by how many seconds its clock is ahead of the machine's.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, float | int | str] = RING,
        core: int | None = None,
        measures_holds: bool = True,
    ) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.settings = dict(settings)
        self.up = asyncio.Event()
        self.starts: list[float] = []
        self.urls: tuple[str, ...] = ()
        self.cluster: dict[str, float | int | str] = {}
        self.drains = False
        self.clock_ahead = 0
        self.max_file_bytes: int | None = None
        self.crash: tuple[str, int] | None = None
        self._core = core
        self._holds = str(data_dir / HOLDS) if measures_holds else None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/graphql"

    async def start(self) -> None:
        """Start it and wait until it serves.

        :raises Refused: it says why it does not.
        """
        orders = Orders(
            port=self.port,
            data_dir=str(self.data_dir),
            settings=self.settings,
            urls=self.urls,
            cluster=self.cluster,
            core=self._core,
            max_file_bytes=self.max_file_bytes,
            holds_file=self._holds,
            crash=self.crash,
            drains=self.drains,
        )
        program = ("server_process",) if not self.clock_ahead else ("shifted_clock", str(self.clock_ahead))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"tests.system.chaos.{program[0]}",
            *program[1:],
            msgspec.json.encode(orders).decode(),
            cwd=_ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if os.environ.get("CHAOS_STDERR") else asyncio.subprocess.DEVNULL,
        )
        if self._process.stdout is None:
            raise RuntimeError("a process with a pipe has none")
        async with asyncio.timeout(_START_SECONDS):
            line = (await self._process.stdout.readline()).decode()
        if not line.startswith("ready:"):
            await self._process.wait()
            raise Refused(line.removeprefix("refused:").strip() or "it ended without a word")
        self.starts.append(time.monotonic())
        self.up.set()

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Send SIGTERM, on which it closes its log in order, and wait for the end."""
        await self._end(signal.SIGTERM)

    async def wait_dead(self) -> None:
        """Wait until it has ended by itself."""
        if self._process is not None:
            await self._process.wait()
        self.up.clear()

    async def _end(self, number: signal.Signals) -> None:
        self.up.clear()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()

    def pause(self) -> None:
        """Send SIGSTOP: it stands still, and its connections stay open."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Send SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def failed(self, url: str) -> None:
        """Do nothing: there is no other."""

    def lift_limit(self) -> bool:
        """Let the files of the running process grow again; ``False`` where the system cannot do that."""
        if self._process is None or not hasattr(resource, "prlimit"):
            return False
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, unlimited)
        return True

    @property
    def returncode(self) -> int | None:
        """How the process ended: minus the signal's number, if one ended it; ``None`` while it lives."""
        return None if self._process is None else self._process.returncode

    @property
    def pid(self) -> int:
        """The id of the process."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """Resident memory, as the system counts it."""
        if self._process is None:
            return 0
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def made_workflow(client: Client) -> str:
    """Make the workflow that everything is published in."""
    made = await client.workflows.create_workflow(
        name="chaos",
        initial_state="new",
        states=[StateInput(id="new", name="New"), StateInput(id="old", name="Old")],
        activities=[ActivityInput(id="age", from_states=["new"], to_state="old")],
    )
    return made.id


@final
class World:
    """A server with one workflow, and what an experiment needs around it.

    :ivar log: where its events are: in the data directory, or on brokers that are this world's own.
    """

    def __init__(
        self,
        directory: Path,
        *,
        seed: int,
        settings: Mapping[str, float | int | str] = RING,
        token: str | None = None,
        measures_holds: bool = True,
        brokers: int = 3,
        is_proxied: bool = False,
        cluster: Mapping[str, float | int] | None = None,
    ) -> None:
        """``measures_holds``: on asyncio's own loop, which can be measured, rather than on uvloop.

        The rest is for a log on JetStream: how many ``brokers`` there are, whether the server reaches them
        by way of proxies, and settings of its group ``cluster``.
        """
        self.random = random.Random(seed)  # noqa: S311 (chance, not secrets)
        self.log: SqliteLog | JetStreamLog
        if log_of_this_run() == "jetstream":
            self.log = JetStreamLog(directory, brokers=brokers, is_proxied=is_proxied)
        else:
            self.log = SqliteLog(directory)
        self.server = ServerProcess(
            self.log.data_dir, settings=settings, core=SERVER_CORE, measures_holds=measures_holds
        )
        self.server.cluster = {"replicas": brokers, **(cluster or {})}
        self.direct = Client(self.server.url, token=token)
        self.workflow = ""
        self.urls: tuple[str, ...] = ()

    async def __aenter__(self) -> Self:
        try:
            await self.log.start()
            self.server.urls = self.log.urls
            await self.server.start()
            await self.make_workflow()
        except BaseException:
            await self.server.kill()
            await self.log.aclose()
            raise
        return self

    @property
    def brokers(self) -> Brokers:
        """The brokers of a log on JetStream."""
        if isinstance(self.log, SqliteLog):
            raise TypeError("an event log on SQLite has no brokers")
        return self.log.brokers

    async def make_workflow(self) -> None:
        """Make the workflow that everything is published in."""
        self.workflow = await made_workflow(self.direct)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.direct.aclose()
        except TransportError:
            pass
        finally:
            await self.server.kill()
            await self.log.aclose()
