"""Several server processes on one log: each with a port and a data directory of its own."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from circuit_breaker_sdk import Client, TransportError
from circuit_breaker_sdk.testing import FaultProxy
from tests.system.chaos.brokers import Brokers
from tests.system.chaos.cores import on_all_cores
from tests.system.chaos.world import RING, ServerProcess, made_workflow

__all__ = ["NodeWorld", "Nodes", "choose_nodes"]

_AVOID_SECONDS: Final = 2.0
"""How long a sender stays away from a node that has not answered."""

_SESSION_SECONDS: Final = 5.0
"""How long a session lasts before the timer of one node ends it."""

_CHOSEN: ContextVar[int] = ContextVar("number of nodes of the chaos experiments", default=3)


def choose_nodes(count: int) -> None:
    """Let the worlds that are made from now on have so many nodes."""
    _CHOSEN.set(count)


@final
class Nodes:
    """All nodes, as those meet them who send to any of them.

    :ivar up: always set: a node that does not answer is avoided for a while.
    """

    def __init__(self, members: list[ServerProcess]) -> None:
        self.members = members
        self.up = asyncio.Event()
        self.up.set()
        self._turn = 0
        self._avoided: dict[str, float] = {}

    @property
    def url(self) -> str:
        """The next node in turn, but for those that have not answered lately."""
        now = time.monotonic()
        for _ in self.members:
            self._turn += 1
            url = self.members[self._turn % len(self.members)].url
            if self._avoided.get(url, 0.0) <= now:
                return url
        return self.members[self._turn % len(self.members)].url

    @property
    def port(self) -> int:
        """The port of the first."""
        return self.members[0].port

    def failed(self, url: str) -> None:
        """Stay away from a node for a while."""
        self._avoided[url] = time.monotonic() + _AVOID_SECONDS


@final
class NodeWorld:
    """Three brokers, and nodes on them that share a cluster key.

    :ivar nodes: their processes, in the order of their making.
    :ivar proxies: those between the last node and the brokers, where it is to be cut off; else none.
    """

    def __init__(
        self, directory: Path, *, seed: int, cuts_off: bool = False, clocks_ahead: tuple[int, ...] = ()
    ) -> None:
        """``cuts_off``: with proxies between the last node and the brokers.

        ``clocks_ahead``: by how many seconds the clock of each node is ahead.
        """
        self.random = random.Random(seed)  # noqa: S311 (chance, not secrets)
        self.directory = directory
        self.brokers = Brokers(directory / "brokers", is_proxied=cuts_off)
        self._key_file = directory / "cluster.key"
        self.nodes: list[ServerProcess] = []
        count = _CHOSEN.get()
        for number in range(count):
            node = self._made(number)
            node.clock_ahead = clocks_ahead[number % len(clocks_ahead)] if clocks_ahead else 0
        self.server = Nodes(self.nodes)
        self.direct = Client([node.url for node in self.nodes])
        self.workflow = ""

    @property
    def urls(self) -> tuple[str, ...]:
        """Of all nodes, for subscribers."""
        return tuple(node.url for node in self.nodes)

    @property
    def proxies(self) -> list[FaultProxy]:
        return self.brokers.proxies

    @property
    def names(self) -> dict[str, ServerProcess]:
        """The nodes by their names in the log."""
        return {str(node.cluster["node"]): node for node in self.nodes}

    def _made(self, number: int) -> ServerProcess:
        settings = {**RING, "mcp_session_seconds": _SESSION_SECONDS}
        node = ServerProcess(self.directory / f"node-{number}", settings=settings, measures_holds=False)
        node.drains = True
        node.cluster = {"replicas": 3, "node": f"n{number}", "key_file": str(self._key_file)}
        self.nodes.append(node)
        return node

    async def start(self, node: ServerProcess) -> None:
        """Start a node, or start it again."""
        is_last = bool(self.brokers.proxies) and node is self.nodes[-1]
        node.urls = self.brokers.urls if is_last else self.brokers.own_urls
        with on_all_cores():
            await node.start()

    async def add(self) -> ServerProcess:
        """Start one more node."""
        node = self._made(len(self.nodes))
        await self.start(node)
        return node

    def at(self, url: str) -> ServerProcess | None:
        """Find the node of a URL, whatever its scheme and path."""
        return next((node for node in self.nodes if f":{node.port}/" in url), None)

    async def __aenter__(self) -> Self:
        try:
            self._key_file.write_text(secrets.token_hex(32))
            self._key_file.chmod(0o600)
            await self.brokers.start()
            await self.start(self.nodes[0])  # it makes the streams
            await asyncio.gather(*map(self.start, self.nodes[1:]))
            self.workflow = await made_workflow(self.direct)
        except BaseException:
            await self._end()
            raise
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
            await self._end()

    async def _end(self) -> None:
        for node in self.nodes:
            await node.kill()
        await self.brokers.aclose()
