"""Nodes in one process: engines on one log in memory, heartbeats by hand, tails that deliver when told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import final

from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.nodes.membership import Membership, NodeReplaced
from circuit_breaker_server.engine.record_versions import VERSION
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.memory_secrets import MemorySecrets
from tests.server.engine.shared.shared_log import View


@final
class Bus:
    """Carries heartbeats at once to all nodes, or to nobody while it is down."""

    def __init__(self) -> None:
        self.is_up = True
        self.cut_off: set[Callable[[bytes], None]] = set()
        self._listeners: list[Callable[[bytes], None]] = []

    async def send(self, beat: bytes) -> None:
        for listener in self._listeners if self.is_up else ():
            if listener not in self.cut_off:
                listener(beat)

    async def listen(self, callback: Callable[[bytes], None]) -> None:
        self._listeners.append(callback)


async def _pause() -> None:
    await asyncio.sleep(0)


@final
class Node:
    """A node.

    :ivar is_paused: its tail delivers nothing but what its own appends need, and it sends no heartbeats.
    :ivar replaced: set where another server has taken its name.
    """

    def __init__(self, name: str, cluster: Cluster, *, reads: int = VERSION) -> None:
        self.name = name
        self.view = View(cluster.log, _pause)
        self.engine = Engine(
            self.view,
            now=lambda: cluster.now,
            secrets=cluster.secrets,
            node=name,
            address=f"http://{name}",
            reads=reads,
            provider_seconds=5.0,
        )
        self.is_paused = False
        self.replaced: list[NodeReplaced] = []
        self.membership = Membership(
            self.engine.nodes,
            cluster.bus,
            applied=lambda: self.view.last_offset,
            on_replaced=self.replaced.append,
        )

    async def start(self) -> None:
        self.view.deliver()
        await self.engine.start()
        # Not its task: tests send the heartbeats.
        await self.membership._heartbeats.listen(self.membership._heard)


@final
class Cluster:
    """The nodes and what they share."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.bus = Bus()
        self.secrets = MemorySecrets()
        self.now = datetime.fromtimestamp(0, UTC)
        self.nodes: dict[str, Node] = {}

    async def start(self, name: str, *, reads: int = VERSION) -> Node:
        """Start a node; one whose program is older reads an older version of records."""
        node = self.nodes[name] = Node(name, self, reads=reads)
        await node.start()
        self.deliver()
        return node

    def deliver(self) -> None:
        """Let all tails deliver what they have not yet, but those of nodes that are paused."""
        while any(each.view.last_offset < self.log.last_offset for each in self._awake()):
            for each in self._awake():
                each.view.deliver()

    async def until(self, condition: Callable[[], object]) -> None:
        """Deliver records until something is so."""
        async with asyncio.timeout(10):
            while not condition():
                self.deliver()
                await asyncio.sleep(0.001)

    async def beat(self, times: int = 1) -> None:
        """Let each node that is not paused send heartbeats, and deliver what follows from them."""
        for _ in range(times):
            for each in self._awake():
                await each.membership.beat()
                self.deliver()

    def _awake(self) -> list[Node]:
        return [each for each in self.nodes.values() if not each.is_paused]


@contextlib.asynccontextmanager
async def cluster(*names: str) -> AsyncIterator[Cluster]:
    """Run nodes, and stop them at the end."""
    made = Cluster()
    try:
        for name in names:
            await made.start(name)
        yield made
    finally:
        for node in made.nodes.values():
            node.is_paused = False
        made.deliver()
        for node in list(made.nodes.values()):
            await node.engine.aclose()
            made.deliver()
