"""Count each connection before a protocol is made for it, and refuse those above the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, final

from circuit_breaker_server.admission.connection_limits import Peers
from circuit_breaker_server.net.refusal_answer import refusal_bytes

__all__ = ["Upgraded", "connection_door"]


class Upgraded(Protocol):
    """The interface of the WebSocket protocol object that takes over an upgraded connection."""

    def when_lost(self, leave: Callable[[str], None], host: str, /) -> None:
        """Call ``leave`` with the peer's host when the connection is gone."""
        ...


class _Entering(Protocol):
    """The interface of a protocol for connections that are counted."""

    def enter(self, transport: asyncio.Transport, host: str, /) -> None:
        """Take over a connection."""
        ...


def connection_door(protocol: Callable[..., _Entering], peers: Peers) -> type[asyncio.Protocol]:
    """Return the class that uvicorn makes for each connection; it makes ``protocol`` of those it admits.

    Example::

        uvicorn.Config(app, http=connection_door(GuardedProtocol, peers))
    """

    @final
    class Door(asyncio.Protocol):
        """Count a connection before anything is made for it: a flood costs little."""

        __slots__ = ("_arguments",)

        def __init__(self, **arguments: Any) -> None:
            self._arguments = arguments

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
            peer = transport.get_extra_info("peername")
            host = peer[0] if isinstance(peer, tuple) else ""
            refusal = peers.enter(host)
            if refusal is None:
                protocol(**self._arguments).enter(transport, host)
            else:
                _refuse(transport, *refusal)

    return Door


def _refuse(transport: asyncio.Transport, status: int, text: str) -> None:
    transport.write(refusal_bytes(status, text))
    transport.close()
