"""How the nodes of a cluster tell each other that they live; not by the log, which would be full of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Heartbeats"]


class Heartbeats(Protocol):
    """Messages to all nodes, this one too. They may be lost, and come late."""

    async def send(self, beat: bytes) -> None:
        """Send to all nodes; where that cannot be done now, nothing happens."""
        ...

    async def listen(self, callback: Callable[[bytes], None]) -> None:
        """Call back with each message, also one's own."""
        ...
