"""The event log on NATS JetStream: appends beside SQLite, replay, and latency, from one run."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import uvloop

from benchmarks.latency import measure, percentile
from benchmarks.machine import LOAD_CORE, MEASURED_CORE, on_core
from benchmarks.processes import Remote, running
from benchmarks.row import Rounds, Row, Scale, at_least, at_most
from benchmarks.sending import our_server_process
from circuit_breaker_server import ClusterSettings
from circuit_breaker_server.log.event_log import NewRecord
from circuit_breaker_server.log.jetstream import JetStreamEventLog
from tests.conformance.nats_server import NatsCluster, NatsServer

__all__ = ["brokers"]

_LANES: Final = 64
_RECORD_BYTES: Final = 400
_PLACES: Final = ("SQLite", "one broker", "three brokers")


def brokers(scale: Scale) -> Iterator[Row]:
    """Yield the rows; the brokers run on the core of the load."""
    with (
        tempfile.TemporaryDirectory(prefix="circuit-breaker-bench-") as directory,
        on_core(LOAD_CORE),
        NatsServer(Path(directory) / "one").running() as one,
        NatsCluster(Path(directory) / "three").running() as three,
    ):
        urls = {"one broker": (one.url, 1), "three brokers": (three.url, 3)}
        yield _appends(scale, urls)
        for place, (url, replicas) in urls.items():
            yield _replay(scale, place, url, replicas)
        yield _latency(scale, three.url)


def _cluster(url: str, replicas: int, stream: str) -> ClusterSettings:
    return ClusterSettings(urls=tuple(url.split(",")), replicas=replicas, stream=stream)


def _appends(scale: Scale, urls: Mapping[str, tuple[str, int]]) -> Row:
    with contextlib.ExitStack() as opened:
        servers: dict[str, Remote] = {"SQLite": opened.enter_context(our_server_process())}
        for place, (url, replicas) in urls.items():
            cluster = _cluster(url, replicas, "appends")
            servers[place] = opened.enter_context(our_server_process(cluster=cluster))
        for server in servers.values():
            server.call("make", workflows=1)
        count = scale.pick(12_800, 640)

        def appended(place: str, lanes: int, count: int) -> float:
            return float(servers[place].call("appends", count=count, lanes=lanes))

        def rounds(lanes: int, count: int) -> Rounds:
            return Rounds(
                {place: functools.partial(appended, place, lanes, count) for place in _PLACES}, scale.runs
            )

        many, alone = rounds(_LANES, count), rounds(1, scale.pick(1_500, 50))
    return Row(
        benchmark=f"durable appends on NATS JetStream, three brokers, {_LANES} mutations side by side",
        unit="mutations/s",
        ours=round(many.median("three brokers")),
        detail={
            "one broker": round(many.median("one broker")),
            "SQLite, same run": round(many.median("SQLite")),
            "three brokers, times SQLite": round(many.ratio("three brokers", "SQLite"), 2),
            "one broker, times SQLite": round(many.ratio("one broker", "SQLite"), 2),
            "one at a time": {each: round(alone.median(each)) for each in _PLACES},
        },
        settings={
            "mutations": "createResource, as commands of the engine",
            "brokers": "on the core of the load, each with sync_interval: always, beside each other",
        },
    )


def _replay(scale: Scale, place: str, url: str, replicas: int) -> Row:
    records = scale.pick(200_000, 4_000)
    with running(_fill_and_scan, url, replicas, records, scale.long_runs, core=MEASURED_CORE) as remote:
        rates: list[float] = remote.receive()
    rate = round(statistics.median(rates))
    row = Row(
        benchmark=f"replay of {records:,} records from {place}",
        unit="records/s",
        ours=rate,
        settings={"records": f"{_RECORD_BYTES} bytes", "read": "batched direct gets, bound by nats-py"},
    )
    return row.aim({"records/s": at_least(15_000, rate)})


def _fill_and_scan(pipe: Connection, url: str, replicas: int, records: int, runs: int) -> None:
    pipe.send(("answer", uvloop.run(_filled_and_scanned(url, replicas, records, runs))))


async def _filled_and_scanned(url: str, replicas: int, records: int, runs: int) -> list[float]:
    log = await JetStreamEventLog.open(url, name="replay", replicas=replicas)
    for begin in range(0, records, 1_000):
        group = [
            NewRecord(
                subject=f"resource.w.r{number}",
                id=f"{number:032x}",
                data=b"x" * _RECORD_BYTES,
                expected=0,
            )
            for number in range(begin, min(records, begin + 1_000))
        ]
        await asyncio.gather(*(log.append(record) for record in group))
    rates = []
    for _ in range(runs):
        began, count = time.perf_counter(), 0
        async for _record in log.scan(after=0):
            count += 1
        if count != records:
            raise RuntimeError(f"{count} of {records} records were read")
        rates.append(count / (time.perf_counter() - began))
    await log.aclose()
    return rates


def _latency(scale: Scale, url: str) -> Row:
    per_second, seconds = 500, float(scale.pick(8, 2))
    p50s, p99s = [], []
    for run in range(scale.long_runs):
        cluster = _cluster(url, 3, f"latency-{run}")
        with our_server_process(cluster=cluster) as server:
            workflows = server.call("make", workflows=scale.pick(250, 20))
            place = f"http://127.0.0.1:{server.call('port')}/graphql"
            taken = uvloop.run(measure(place, workflows, per_second=per_second, seconds=seconds))
        p50s.append(percentile(taken, 0.5) * 1000)
        p99s.append(percentile(taken, 0.99) * 1000)
    p50, p99 = round(statistics.median(p50s), 2), round(statistics.median(p99s), 2)
    row = Row(
        benchmark=f"latency on three brokers, mutation to handler, {per_second} events/s",
        unit="ms, p50",
        ours=p50,
        detail={"p99 ms": p99},
        settings={"brokers": "on the core of the load and of the client"},
    )
    return row.aim({"p50 ms": at_most(5, p50), "p99 ms": at_most(25, p99)})
