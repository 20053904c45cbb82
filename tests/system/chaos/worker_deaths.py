"""Workers on one SQLite log that are killed, one after the other, while the others go on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from circuit_breaker_sdk import Client, TransportError
from tests.ports import free_port
from tests.system.chaos.keyed_stage import keyed_stage
from tests.system.chaos.result import Result
from tests.system.chaos.world import made_workflow, until

__all__ = ["worker_killed"]

_WORKERS: Final = 3
_CALM_SECONDS: Final = 1.0
_START_SECONDS: Final = 60.0
_PER_SECOND: Final = 150.0


@final
class _Workers:
    """``circuit-breaker serve --workers``: one port, whoever answers.

    :ivar up: always set: there is always a worker that answers, or one that is about to.
    :ivar ready: how often a worker has become ready.
    """

    def __init__(self, data_dir: Path) -> None:
        self.port = free_port()
        self.up = asyncio.Event()
        self.up.set()
        self.ready = 0
        self._data_dir = data_dir
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/graphql"

    def failed(self, url: str) -> None:
        """Do nothing: the next connection is another worker's."""

    async def start(self) -> None:
        """Start them, and wait until all are ready."""
        options = ("--workers", str(_WORKERS), "--port", str(self.port), "--data", str(self._data_dir))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "circuit_breaker_sdk.cli", "serve", *options, "--log-level", "critical"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._count(self._process.stdout))
        await self.all_ready(kills=0)

    async def all_ready(self, *, kills: int) -> None:
        """Wait until all are ready after so many were killed."""
        if not await until(lambda: self.ready == _WORKERS + kills, _START_SECONDS):
            raise RuntimeError(f"workers are missing: {self.ready} of {_WORKERS + kills} have become ready")

    async def _count(self, lines: asyncio.StreamReader | None) -> None:
        if lines is None:
            raise RuntimeError("a process with a pipe has none")
        async for line in lines:
            self.ready += line.startswith(b"worker") and line.endswith(b": ready\n")

    def pids(self) -> list[int]:
        """Return the processes of the workers that live."""
        if self._process is None:
            return []
        pid = self._process.pid
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    async def stop(self) -> int:
        """Drain and end all; return the exit status."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        return await self._process.wait()


@final
class _WorkersWorld:
    """Workers with one workflow, as publishers and subscribers meet them."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 (chance, not secrets)
        self.server = _Workers(directory / "data")
        self.direct = Client(self.server.url)
        self.workflow = ""
        self.urls = (self.server.url,)

    async def __aenter__(self) -> Self:
        await self.server.start()
        self.workflow = await made_workflow(self.direct)
        return self

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
            await self.server.stop()


async def worker_killed(directory: Path, seed: int, *, long: bool) -> Result:
    """Kill a worker (SIGKILL), 5 (60) times, some before the one before is back; then drain all."""
    result = Result(experiment="worker killed", seed=seed)
    kills = 60 if long else 5
    async with _WorkersWorld(directory, seed) as world:
        async with keyed_stage(world, result, is_unbroken=False, per_second=_PER_SECOND) as stage:
            for number in range(kills):
                await asyncio.sleep(0.1)
                if number % 3:
                    await world.server.all_ready(kills=number)
                    await asyncio.sleep(_CALM_SECONDS)
                os.kill(world.random.choice(world.server.pids()), signal.SIGKILL)
                stage.fault()  # to all: which of them it served only the system knows
                if not await stage.goes_on("a worker was killed"):
                    break
        status = await world.server.stop()
        result.require(status == 0, f"the workers ended with status {status}")
    result.detail["kills"] = kills
    return result
