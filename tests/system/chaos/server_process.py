"""The real server in a process of its own, with the settings and the faults that an experiment asks for."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from benchmarks.loop_holds import Holds, histogram_in
from circuit_breaker_sdk.cli.runtime import settle_memory
from circuit_breaker_server import (
    ClusterSettings,
    Server,
    ServerSettings,
    ServerStartError,
    TokenSettings,
)
from tests.system.chaos.crash_points import install

__all__ = ["Orders", "main"]


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told, as JSON in its first argument.

    :ivar settings: of the server, beyond port and directory; ``token_key`` asks for tokens without leeway.
    :ivar urls: the brokers that hold the event log; none: it is in the directory.
    :ivar cluster: settings of the group ``cluster``, beyond the brokers.
    :ivar core: the core to run on.
    :ivar max_file_bytes: no file may grow beyond it, as on a disk that is full.
    :ivar holds_file: where to count how long the loop is held while it serves; ``None`` runs uvloop.
    :ivar drains: on SIGTERM it drains before it stops, as ``serve`` does.
    :ivar crash: a point in the code and how often it is passed before the process kills itself there.
    """

    port: int
    data_dir: str
    settings: dict[str, float | int | str] = {}
    urls: tuple[str, ...] = ()
    cluster: dict[str, float | int | str] = {}
    core: int | None = None
    max_file_bytes: int | None = None
    holds_file: str | None = None
    crash: tuple[str, int] | None = None
    drains: bool = False


async def _serve(orders: Orders, holds: Holds) -> None:
    given: dict[str, Any] = dict(orders.settings)  # numbers, by their names
    if (key := given.pop("token_key", None)) is not None:
        given["token_keys"] = TokenSettings(key=key.encode(), leeway_seconds=0)
    if orders.urls:
        more: dict[str, Any] = dict(orders.cluster)
        if (file := more.pop("key_file", None)) is not None:
            more["key_file"] = Path(file)
        given["cluster"] = ClusterSettings(urls=orders.urls, **more)
    settings = ServerSettings(port=orders.port, data_dir=Path(orders.data_dir), **given)
    server = Server(settings)
    try:
        await server.start()
    except ServerStartError as error:
        sys.stdout.write(f"refused: {error}\n")
        return
    if orders.crash is not None:
        install("jetstream" if orders.urls else "sqlite", *orders.crash)
    sys.stdout.write(f"ready: {server.port}\n")
    sys.stdout.flush()
    if orders.holds_file is not None:
        settle_memory()
        holds.counts = histogram_in(Path(orders.holds_file))
    serving = asyncio.create_task(server.wait())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    await asyncio.wait((serving,))
    holds.counts = None
    if orders.drains:
        await server.drain()
    await server.aclose()


def main() -> None:
    """Serve until killed."""
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    if orders.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {orders.core})
    if orders.max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (orders.max_file_bytes, resource.RLIM_INFINITY))
    holds = Holds()

    def new_loop() -> asyncio.AbstractEventLoop:
        return uvloop.new_event_loop() if orders.holds_file is None else asyncio.SelectorEventLoop(holds)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(orders, holds))


if __name__ == "__main__":
    main()
