"""Which node events come from, and the longest time without one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import final
from urllib.parse import urlsplit

from circuit_breaker_sdk import ConnectionState
from circuit_breaker_sdk.cli.cluster.member import Member
from circuit_breaker_sdk.connections import ConnectionStateChange

__all__ = ["Deliveries"]


@final
class Deliveries:
    """Count the events of each node, by where the client's connection stands.

    :ivar node: the node that the client is connected to, or was last; empty before that.
    :ivar by_node: events of each node, by its name.
    :ivar last_node: by operation, the node that its last event came from.
    :ivar longest_pause_seconds: the longest time between two events.
    """

    def __init__(
        self,
        nodes: Sequence[Member],
        urls: Sequence[str],
        *,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.node: str = ""
        self.by_node: Counter[str] = Counter()
        self.last_node: dict[str, str] = {}
        self.longest_pause_seconds: float = 0.0
        self._names = {_port(url): node.name for node, url in zip(nodes, urls, strict=True)}
        self._now = now
        self._last_at: float | None = None

    def on_state(self, change: ConnectionStateChange) -> None:
        """Note where the client's connection stands."""
        if change.now is ConnectionState.CONNECTED:
            self.node = self._names.get(_port(change.url), "")

    def on_event(self, operation: str) -> None:
        """Count an event."""
        self.by_node[self.node] += 1
        self.last_node[operation] = self.node
        now = self._now()
        if self._last_at is not None:
            self.longest_pause_seconds = max(self.longest_pause_seconds, now - self._last_at)
        self._last_at = now


def _port(url: str) -> int | None:
    return urlsplit(url).port
