"""Find the nodes that serve a log, from outside of them: by the heartbeats that they send."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import msgspec

from circuit_breaker_server.engine.nodes.membership import BEAT_SECONDS, Beat
from circuit_breaker_server.log.heartbeats import Heartbeats

__all__ = ["serving_nodes"]

_LISTEN_SECONDS: Final = 2.5 * BEAT_SECONDS
"""One heartbeat of each node may be lost."""

_decode: Final = msgspec.json.Decoder(Beat).decode


async def serving_nodes(heartbeats: Heartbeats) -> list[str]:
    """Listen for a bit over two intervals; return the names of the nodes that were heard, sorted."""
    found: set[str] = set()

    def heard(data: bytes) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            found.add(_decode(data).name)

    await heartbeats.listen(heard)
    await asyncio.sleep(_LISTEN_SECONDS)
    return sorted(found)
