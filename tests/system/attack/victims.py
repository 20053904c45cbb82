"""Others who use the server while it is attacked, in a process of their own, and measure it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from multiprocessing.connection import Connection
from typing import Any, Final, final

import aiohttp

from benchmarks.machine import LOAD_CORE
from benchmarks.processes import Commands, Remote, run_commands, running
from circuit_breaker_sdk import Client
from tests.system.attack.attacks import workflow_of
from tests.system.attack.world import World, token

__all__ = ["VICTIMS", "Victims", "victims_of"]

VICTIMS: Final = 20
_EVERY_SECONDS: Final = 0.02
_PROBE_SECONDS: Final = 0.05


@final
class Victims:
    """The process of the victims."""

    def __init__(self, process: Remote) -> None:
        self._process = process

    def take(self) -> list[float]:
        """Return the seconds that events took since this was last asked."""
        taken: list[float] = self._process.call("take")
        return taken

    def take_health(self) -> float:
        """Return the longest seconds in which ``/health`` was answered since this was last asked."""
        return float(self._process.call("take_health"))

    def errors(self) -> list[str]:
        """Return what went wrong for them."""
        errors: list[str] = self._process.call("errors")
        return errors


@contextlib.contextmanager
def victims_of(world: World) -> Iterator[Victims]:
    """Have a stream of events go to all of them."""
    with running(_suffer, world.url, core=LOAD_CORE) as process:
        process.receive()
        yield Victims(process)
        process.stop()


@final
class _Probe:
    """Asks for ``/health`` again and again."""

    def __init__(self, url: str, errors: list[str]) -> None:
        self._url = url
        self._errors = errors
        self._slowest = 0.0
        self._asked_at: float | None = None

    async def run(self) -> None:
        """Ask until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as http:
            while True:
                began = self._asked_at = time.perf_counter()
                try:
                    async with http.get(self._url) as answer:
                        await answer.read()
                except (aiohttp.ClientError, TimeoutError) as error:
                    self._errors.append(f"/health: {type(error).__name__}: {error}")
                self._slowest, self._asked_at = max(self._slowest, time.perf_counter() - began), None
                await asyncio.sleep(_PROBE_SECONDS)

    async def take(self) -> float:
        """Return the longest seconds since this was last asked, of the question that is open as well."""
        waiting = 0.0 if self._asked_at is None else time.perf_counter() - self._asked_at
        found, self._slowest = max(self._slowest, waiting), 0.0
        return found


def _suffer(pipe: Connection, url: str) -> None:
    run_commands(pipe, lambda: _at_work(url))


@contextlib.asynccontextmanager
async def _at_work(url: str) -> AsyncIterator[Commands]:
    sent: dict[int, float] = {}
    taken: list[float] = []
    errors: list[str] = []
    probe = _Probe(url.rpartition("/")[0] + "/health", errors)

    def client(who: str) -> Client:
        return Client(url, token=lambda: token(who))

    def arrived(resource: Any) -> None:
        taken.append(time.perf_counter() - sent[int(resource.data["n"])])

    async def publish(boss: Client, own: str) -> None:
        number = 0
        while True:
            sent[number] = time.perf_counter()
            await boss.workflows.create_resource(workflow_id=own, data={"n": number})
            number += 1
            await asyncio.sleep(_EVERY_SECONDS)

    async def take() -> list[float]:
        found = list(taken)
        taken.clear()
        return found

    async def told() -> list[str]:
        if publishing.done():
            errors.append(f"the publisher has ended: {publishing.exception()!r}")
        return errors

    async with contextlib.AsyncExitStack() as stack:
        boss = await stack.enter_async_context(client("boss"))
        own = await workflow_of(boss)
        for _ in range(VICTIMS):
            victim = await stack.enter_async_context(client("victim"))
            updates = await victim.workflows.subscribe_resource_updates(workflow_id=own).subscribe()
            updates.on_data(arrived)
            updates.on_error(lambda error: errors.append(f"{type(error).__name__}: {error}"))
        publishing = asyncio.create_task(publish(boss, own))
        probing = asyncio.create_task(probe.run())
        try:
            yield {"take": take, "take_health": probe.take, "errors": told}
        finally:
            publishing.cancel()
            probing.cancel()
            await asyncio.wait((publishing, probing))
