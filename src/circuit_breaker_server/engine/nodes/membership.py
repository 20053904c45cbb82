"""The membership of nodes: heartbeats each second, and a record once a node has missed ten of them.

A node is declared gone when an observer has seen eleven of its own heartbeats come back, and none of that
node's in between: ten seconds at least. No clock is looked at. Where the observer's own heartbeats do not
come back, the fault is between it and the others, or everywhere: then its count of all others begins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, final

import msgspec

from circuit_breaker_server.engine.errors import EngineError
from circuit_breaker_server.engine.nodes.nodes import Nodes
from circuit_breaker_server.log.heartbeats import Heartbeats
from circuit_breaker_server.logs import get_logger

__all__ = ["BEAT_SECONDS", "GONE_AFTER", "Beat", "Membership", "NodeReplaced"]

BEAT_SECONDS: Final = 1.0
"""The interval between two heartbeats of a node."""
GONE_AFTER: Final = 10
"""The intervals between heartbeats for which a node is silent before it is declared gone."""
_LOST: Final = 3
"""Heartbeats of its own that an observer misses before it stops counting those of others."""

_log = get_logger("nodes")


class NodeReplaced(Exception):
    """Another server has joined under the name of this node."""


@final
class Beat(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A heartbeat.

    :ivar number: counts the heartbeats of the node's process.
    :ivar applied: the offset up to which the node needs the log no more.
    """

    name: str
    term: int
    number: int
    applied: int


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Beat).decode


@final
class Membership:
    """Sends heartbeats, listens to those of others, and declares gone who is silent.

    :param applied: the offset up to which this node has applied the log, and written its audit lines.
    :param on_replaced: called once where another server has taken the name: this one has to stop.

    Example::

        membership = Membership(nodes, heartbeats, applied=lambda: log.last_offset, …)
        await membership.start()
        await membership.aclose()
    """

    def __init__(
        self,
        nodes: Nodes,
        heartbeats: Heartbeats,
        *,
        applied: Callable[[], int],
        on_replaced: Callable[[NodeReplaced], object],
        every_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._nodes = nodes
        self._heartbeats = heartbeats
        self._applied = applied
        self._on_replaced = on_replaced
        self._every_seconds = every_seconds
        self._number = 0
        self._came_back = 0
        self._silent: dict[tuple[str, int], int] = {}
        self._latest: dict[str, Beat] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def is_cut_off(self) -> bool:
        """Whether this node's own heartbeats do not come back: it cannot tell who lives."""
        return self._number - self._came_back > _LOST

    def latest(self, name: str) -> Beat | None:
        """Return the last heartbeat of a node, ``None`` if it was never heard."""
        return self._latest.get(name)

    def slowest(self) -> int:
        """Return the lowest offset that a node that lives has told of; 0 where one has not been heard yet."""
        beats = [self._latest.get(name) for name in self._nodes.others()]
        return min([self._applied(), *(0 if beat is None else beat.applied for beat in beats)])

    @property
    def problem(self) -> str | None:
        """Why this node is not fit to serve, in words; ``None`` where it is."""
        if not self._nodes.lives:
            return f"node {self._nodes.me.name} was declared gone, and joins again"
        if self.is_cut_off:
            return f"node {self._nodes.me.name} does not hear its own heartbeats: the broker is away"
        return None

    @property
    def log_format(self) -> int:
        """The version in which the nodes write records."""
        return self._nodes.format

    def describe(self) -> list[dict[str, object]]:
        """Return what is known of each node: name, term, address, release, status, what it reads."""
        applied = self._applied()
        return [
            {
                "name": each.name,
                "term": each.term,
                "status": each.status,
                "address": each.address,
                "release": each.release,
                "reads": each.reads,
                "joinedAt": each.joined_at,
                "recordsBehind": self._behind(each.name, applied) if each.status == "live" else None,
            }
            for each in self._nodes.all()
        ]

    def _behind(self, name: str, applied: int) -> int | None:
        if name == self._nodes.me.name:
            return 0
        beat = self._latest.get(name)
        return None if beat is None else max(0, applied - beat.applied)

    async def start(self) -> None:
        """Begin to send and to listen."""
        await self._heartbeats.listen(self._heard)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="node-membership")

    async def aclose(self) -> None:
        """Stop. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        while True:
            try:
                await self.beat()
            except EngineError as error:
                _log.warning("membership_not_recorded", reason=str(error))
            except NodeReplaced as replaced:
                self._on_replaced(replaced)
                return
            await asyncio.sleep(self._every_seconds)

    async def beat(self) -> None:
        """Send one heartbeat, and draw the conclusions of those that were heard.

        :raises NodeReplaced: another server has joined under this node's name.
        :raises EngineError: ``UNAVAILABLE``: the log cannot be written.
        """
        await self._return_if_gone()
        self._number += 1
        if self.is_cut_off:
            self._silent.clear()
        me = self._nodes.me
        beat = Beat(name=me.name, term=me.term, number=self._number, applied=self._applied())
        await self._heartbeats.send(_encode(beat))
        for name, term in self._nodes.others().items():
            if self._silent.get((name, term), 0) > GONE_AFTER:
                heard = self._latest.get(name)
                applied = 0 if heard is None or heard.term != term else heard.applied
                await self._nodes.declare_gone(name, term=term, applied=applied)

    async def _return_if_gone(self) -> None:
        if self._nodes.lives:
            return
        if self._nodes.is_replaced:
            raise NodeReplaced(
                f"another server has joined as node {self._nodes.me.name}: give each server a name of its own"
            )
        _log.warning("rejoining", node=self._nodes.me.name, term=self._nodes.me.term)
        await self._nodes.join()

    def _heard(self, data: bytes) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            beat = _decode(data)
            self._latest[beat.name] = beat
            if beat.name != self._nodes.me.name:
                self._silent.pop((beat.name, beat.term), None)
            elif beat.term == self._nodes.me.term:
                self._count(beat.number)

    def _count(self, number: int) -> None:
        """Count one heartbeat of its own that came back against all others that live."""
        self._came_back = max(self._came_back, number)
        self._silent = {each: self._silent.get(each, 0) + 1 for each in self._nodes.others().items()}
