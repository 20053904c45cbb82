"""A server with very many resources: its memory, and how long it takes to start."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import our_server
from benchmarks.machine import LOAD_CORE, MEASURED_CORE, on_core, resident_bytes
from benchmarks.processes import running
from benchmarks.row import Row, Scale, at_most
from benchmarks.sending import PATIENT

__all__ = ["many_resources"]

_LANES = 800


def many_resources(scale: Scale) -> Iterator[Row]:
    """Yield the row of a million resources."""
    resources = scale.pick(1_000_000, 4_000)
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-bench-") as directory, on_core(LOAD_CORE):
        with running(our_server.serve, directory, dict(PATIENT), core=MEASURED_CORE) as server:
            server.receive()
            server.call("make", workflows=1)
            server.call("appends", count=resources, lanes=_LANES)
            full = resident_bytes(server.pid)
            server.stop()
        size = sum(path.stat().st_size for path in Path(directory).glob("events.db*"))
        taken, weights = [], []
        for _ in range(scale.long_runs):
            began = time.perf_counter()
            with running(our_server.serve, directory, dict(PATIENT), core=MEASURED_CORE) as server:
                server.receive()
                taken.append(time.perf_counter() - began)
                weights.append(resident_bytes(server.pid))
                server.stop()
    seconds = round(statistics.median(taken), 2)
    gib = round(statistics.median(weights) / 2**30, 2)
    row = Row(
        benchmark=f"{resources:,} resources",
        unit="GiB of memory after a start",
        ours=gib,
        detail={
            "s to ready": seconds,
            "GiB when all were made": round(full / 2**30, 2),
            "bytes of memory each": round(statistics.median(weights) / resources),
            "bytes on the disk each": round(size / resources),
        },
        settings={"state": "saved at the end, as a server leaves it that was stopped"},
    )
    yield row.aim({"GiB": at_most(1, gib), "seconds": at_most(5, seconds)})
