"""What a server spends on those who do nothing: idle connections, and records that other nodes appended."""

from __future__ import annotations

import secrets
import selectors
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.machine import LOAD_CORE, on_core
from benchmarks.processes import Remote
from benchmarks.row import Row, Scale
from benchmarks.sending import our_server_process
from benchmarks.sockets import Sockets, frame
from circuit_breaker_server import ClusterSettings
from tests.conformance.nats_server import NatsServer

__all__ = ["standing"]

_PING: Final = b'"ping"'
_PONG: Final = frame('{"type":"pong"}')
_PING_SECONDS: Final = 12.0
"""The default of the server."""
_QUIET_SECONDS: Final = 1.0


def standing(scale: Scale) -> Iterator[Row]:
    """Yield a row of idle connections, and one of records of others."""
    with on_core(LOAD_CORE):
        yield _idle(scale)
        yield _others_records(scale)


def _idle(scale: Scale) -> Row:
    connections, ping_seconds = scale.pick(5_000, 50), scale.pick(3, 1)
    with (
        our_server_process(ping_seconds=float(ping_seconds)) as server,
        Sockets(server.call("port"), connections, resume=True) as sockets,
    ):
        figures = [_per_ping(server, sockets.opened, 4.0 * ping_seconds) for _ in range(scale.long_runs)]
    figure = statistics.median(figures)
    return Row(
        benchmark=f"{connections:,} idle connections",
        unit="µs of processor time for a ping and its pong",
        ours=round(figure, 1),
        detail={
            f"cores for 1,000 connections, a ping every {_PING_SECONDS:g} s": round(
                figure / 1e6 * 1000 / _PING_SECONDS, 4
            )
        },
        settings={"ping_seconds": ping_seconds},
    )


def _per_ping(server: Remote, sockets: list[socket.socket], seconds: float) -> float:
    """Answer all pings for a while; return the server's microseconds for each."""
    pings = 0
    with selectors.DefaultSelector() as selector:
        for opened in sockets:
            selector.register(opened, selectors.EVENT_READ, opened)
        used, until = server.call("cpu"), time.monotonic() + seconds
        while time.monotonic() < until:
            for key, _events in selector.select(0.1):
                peer: socket.socket = key.data
                came = peer.recv(4096).count(_PING)
                peer.sendall(_PONG * came)
                pings += came
        return float(server.call("cpu") - used) / max(1, pings) * 1e6


def _others_records(scale: Scale) -> Row:
    records = scale.pick(20_000, 300)
    figures, asked = [], []
    with (
        tempfile.TemporaryDirectory(prefix="circuit-breaker-bench-") as directory,
        NatsServer(Path(directory) / "broker").running() as broker,
    ):
        key = Path(directory) / "cluster.key"
        key.write_text(secrets.token_hex(32))
        key.chmod(0o600)
        one, other = (
            ClusterSettings(urls=(broker.url,), node=name, key_file=key) for name in ("one", "other")
        )
        with our_server_process(cluster=one) as busy, our_server_process(cluster=other) as idle:
            busy.call("make", workflows=1)
            for run in range(scale.long_runs + 1):
                before = busy.call("cpu"), idle.call("cpu")
                busy.call("appends", count=records, lanes=64)
                time.sleep(_QUIET_SECONDS)  # what was appended last reaches the other one
                if run:
                    asked.append((busy.call("cpu") - before[0]) / records * 1e6)
                    figures.append((idle.call("cpu") - before[1]) / records * 1e6)
    return Row(
        benchmark="a record on NATS JetStream that another node appended",
        unit="µs of processor time",
        ours=round(statistics.median(figures), 1),
        detail={"at the node that appended it, without HTTP, µs": round(statistics.median(asked), 1)},
        settings={"brokers": "one, on the core of the load"},
    )
