"""Runs the Python servers by others: uvicorn on uvloop, in a process of its own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from typing import Any

import uvicorn

from benchmarks.peers.broadcast import Broadcast
from benchmarks.processes import Commands, run_commands

__all__ = ["serve"]


def serve(pipe: Connection, make: Callable[[Broadcast], Any]) -> None:
    """Serve the ASGI application that ``make`` makes, until the pipe is closed."""
    logging.disable(logging.CRITICAL)
    run_commands(pipe, lambda: _commands(make))


@contextlib.asynccontextmanager
async def _commands(make: Callable[[Broadcast], Any]) -> AsyncIterator[Commands]:
    broadcast = Broadcast()
    config = uvicorn.Config(
        make(broadcast),
        host="127.0.0.1",
        port=0,
        log_config=None,
        lifespan="off",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_ping_interval=None,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()

    async def port() -> int:
        found: int = server.servers[0].sockets[0].getsockname()[1]
        return found

    yield {"port": port, "publish": broadcast.publish}
