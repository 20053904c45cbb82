"""The brokers of an experiment on JetStream: killed one by one or together, started again, cut off."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final, final

import nats
import nats.errors
from nats.aio.client import Client as NatsClient

from circuit_breaker_sdk.testing import FaultProxy
from tests.conformance.nats_server import NatsCluster, NatsServer
from tests.server.log.jetstream.log_stage import NAME, api
from tests.system.chaos.cores import on_all_cores

__all__ = ["Brokers"]

_LEADER_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.1
_ANSWER_SECONDS: Final = 0.3
_CLUSTER: Final = 3


@final
class Brokers:
    """One broker or three, in processes of their own; the stream is the server's.

    Three have the broker's own ``sync_interval``, as docs/cluster.md has it for three; one syncs always.

    :ivar proxies: one before each broker, where the server is to be cut off from them; else none.
    """

    def __init__(self, directory: Path, *, count: int = _CLUSTER, is_proxied: bool = False) -> None:
        """Write their configurations; :meth:`start` starts them."""
        self._directory = directory
        if count == _CLUSTER:
            # Where they told of each other's addresses, the server would go round the proxies.
            self._servers = NatsCluster(directory, syncs=False, advertises=not is_proxied).servers
        else:
            self._servers = [NatsServer(directory / "n0")]
        self.proxies = [FaultProxy("127.0.0.1", each.port) for each in self._servers] if is_proxied else []

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [each.name for each in self._servers]

    @property
    def own_urls(self) -> tuple[str, ...]:
        """Where the brokers are, whether or not there are proxies."""
        return tuple(each.url for each in self._servers)

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the server connects: to the brokers, or to the proxies before them."""
        if self.proxies:
            return tuple(f"nats://127.0.0.1:{each.port}" for each in self.proxies)
        return self.own_urls

    async def start(self, names: Iterable[str] | None = None) -> None:
        """Start some, or all, and wait until they and their streams are ready."""
        started = self._of(names)
        with on_all_cores():
            for each in started:
                each.start()
        for each in started:
            await asyncio.to_thread(each.wait_until_healthy)
        for proxy in self.proxies:
            await proxy.start()

    def kill(self, names: Iterable[str] | None = None) -> None:
        """Send SIGKILL to some, or to all."""
        for each in self._of(names):
            each.kill()

    async def stop(self, names: Iterable[str] | None = None) -> None:
        """End some, or all, in order."""
        for each in self._of(names):
            await asyncio.to_thread(each.stop)

    async def aclose(self) -> None:
        """End all, and their proxies."""
        for proxy in self.proxies:
            await proxy.aclose()
        self.kill()

    async def leader(self, *, but: str = "") -> str:
        """Name the leader of the raft group of the stream with the records, once it is another one."""
        async with asyncio.timeout(_LEADER_SECONDS):
            while True:
                leader = (await self._info())["cluster"].get("leader")
                if leader and leader != but:
                    return str(leader)
                await asyncio.sleep(_LOOK_SECONDS)

    async def set_duplicate_window(self, seconds: float) -> None:
        """Let the stream forget the ids of its messages after so long."""
        config = {**(await self._info())["config"], "duplicate_window": int(seconds * 1e9)}
        async with self._connected() as client:
            await api(client, f"STREAM.UPDATE.{NAME}", config)

    async def first_offset(self) -> int:
        """Tell where the stream begins."""
        return int((await self._info())["state"]["first_seq"])

    async def records_by_subject(self, subjects: str) -> dict[str, int]:
        """Count the records in the stream, by their subjects in the log."""
        found: dict[str, int] = {}
        while True:
            query = {"subjects_filter": f"{NAME}.{subjects}", "offset": len(found)}
            info = await self._info(query)
            page = info["state"].get("subjects") or {}
            found |= {name.removeprefix(f"{NAME}."): int(count) for name, count in page.items()}
            if not page or len(found) >= int(info.get("total", 0)):
                return found

    async def _info(self, query: dict[str, object] | None = None) -> dict[str, Any]:
        async with asyncio.timeout(_LEADER_SECONDS), self._connected() as client:
            while True:
                try:
                    # Without a leader nobody answers; the time to its election is measured by this, too.
                    async with asyncio.timeout(_ANSWER_SECONDS):
                        return await api(client, f"STREAM.INFO.{NAME}", query)
                except (nats.errors.Error, AssertionError, TimeoutError):
                    await asyncio.sleep(_LOOK_SECONDS)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[NatsClient]:
        """Connect to one that is there, beside the server and its proxies."""
        urls = [each.url for each in self._servers]
        client = await nats.connect(urls, error_cb=_ignore, reconnect_time_wait=_LOOK_SECONDS)
        try:
            yield client
        finally:
            await client.close()

    def _of(self, names: Iterable[str] | None) -> list[NatsServer]:
        chosen = set(self.names if names is None else names)
        return [each for each in self._servers if each.name in chosen]

    # --- what the brokers keep -------------------------------------------------------------------------

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that run."""
        running = [each._process for each in self._servers]
        return [each.pid for each in running if each is not None]

    def _stores(self) -> list[Path]:
        return [self._directory / name / "store" for name in self.names]

    async def wipe(self) -> None:
        """Take away everything that they keep."""
        await self.stop()
        for store in self._stores():
            shutil.rmtree(store)
        await self.start()

    async def copy(self, place: Path) -> None:
        """Put a copy of everything that they keep into a directory."""
        await self.stop()
        for name, store in zip(self.names, self._stores(), strict=True):
            shutil.copytree(store, place / name)
        await self.start()

    async def put_back(self, place: Path) -> None:
        """Replace everything that they keep by the copy, which is used up."""
        await self.stop()
        for name, store in zip(self.names, self._stores(), strict=True):
            shutil.rmtree(store)
            (place / name).rename(store)
        await self.start()


async def _ignore(_error: Exception) -> None:
    """Say nothing of a broker that is away: it was killed."""
