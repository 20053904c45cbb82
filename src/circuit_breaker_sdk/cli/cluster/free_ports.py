"""Ports for servers that are started a moment later."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Final

__all__ = ["free_ports"]

_PORTS: Final = range(20_000, 32_000)
"""Below those that systems give to outgoing connections, which take a port that was free just now."""


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Find ports of this address on which nothing listens now, by chance: others look for some too."""
    chance = random.SystemRandom()
    with contextlib.ExitStack() as opened:
        found: list[int] = []
        while len(found) < count:
            tried = opened.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                tried.bind((host, chance.choice(_PORTS)))
                found.append(tried.getsockname()[1])
        return found
