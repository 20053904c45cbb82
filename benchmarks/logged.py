"""The event log: appends side by side, a million events read again, and a start with a million in it."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import uvloop

from benchmarks import our_server
from benchmarks.event import DOCUMENT, resource
from benchmarks.machine import LOAD_CORE, MEASURED_CORE, on_core
from benchmarks.processes import running
from benchmarks.row import Row, Scale, at_least, at_most
from benchmarks.sending import our_server_process
from circuit_breaker_sdk import Client
from circuit_breaker_sdk.types import Resource
from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.engine.workflows.inputs import CreateResource
from circuit_breaker_server.engine.workflows.records import ResourceChanged, decode_body
from circuit_breaker_server.engine.workflows.subjects import resource_subject
from circuit_breaker_server.log.event_log import NewRecord
from circuit_breaker_server.log.sqlite import SqliteEventLog

__all__ = ["appends", "big_log"]

_RESOURCES = 1_000
_AT_ONCE = 1_000


def appends(scale: Scale) -> Iterator[Row]:
    """Yield the row of 64 mutations side by side."""
    alone, together = [], []
    with on_core(LOAD_CORE), our_server_process() as server:
        server.call("make", workflows=1)
        for _ in range(scale.runs + 1):
            alone.append(server.call("appends", count=scale.pick(1_500, 100), lanes=1))
            together.append(server.call("appends", count=scale.pick(12_800, 640), lanes=64))
    one, many = statistics.median(alone[1:]), statistics.median(together[1:])
    row = Row(
        benchmark="durable appends, SQLite, 64 mutations side by side",
        unit="mutations/s",
        ours=round(many),
        detail={"one at a time": round(one), "times one at a time": round(many / one, 1)},
        settings={"mutations": "createResource, as commands of the engine; every answer after its sync"},
    )
    yield row.aim({"times one at a time": at_least(5, round(many / one, 2))})


def big_log(scale: Scale) -> Iterator[Row]:
    """Yield the rows of a log with a million events: replay, and cold start."""
    events = scale.pick(1_000_000, 20_000)
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-bench-") as directory, on_core(LOAD_CORE):
        with running(_fill, directory, events, core=MEASURED_CORE) as filler:
            cursor = filler.receive()
        yield _cold_start(directory, events, scale)
        yield _replay(directory, events, cursor, scale)


def _fill(pipe: Connection, directory: str, events: int) -> None:
    pipe.send(("answer", uvloop.run(_write(Path(directory), events))))


async def _write(directory: Path, events: int) -> str:
    """Make a log of so many updates of a thousand resources; return the cursor before the first of them."""
    settings = ServerSettings(data_dir=directory, port=0)
    async with Server(settings) as server:
        workflows = server.engine.workflows
        workflow = await our_server.make_workflow(server.engine)
        resources = [
            await workflows.create_resource(
                CreateResource(workflow_id=workflow, data=resource(number)["data"], metadata={})
            )
            for number in range(_RESOURCES)
        ]
        cursor = str(resources[-1].cursor)
    log = await SqliteEventLog.open(directory)
    images = [decode_body(each.record).resource for each in resources]  # type: ignore[union-attr]  # created
    subjects = [resource_subject(workflow, image.id) for image in images]
    last = [each.record.offset for each in resources]
    written = 0
    while written < events:
        group = []
        for k in range(_AT_ONCE):
            data = msgspec.Raw(msgspec.json.encode({"title": "Quarterly plan", "revision": written + k}))
            body = ResourceChanged(resource=msgspec.structs.replace(images[k], data=data))
            id_ = f"{(1_700_000_000_000 + written + k):012x}{written + k:020x}"
            new = NewRecord(subject=subjects[k], id=id_, data=msgspec.json.encode(body), expected=last[k])
            group.append(log.append(new))
        for k, record in enumerate(await asyncio.gather(*group)):
            last[k] = record.offset
        written += _AT_ONCE
    await log.aclose()
    # A server follows the records, and leaves the state that a stopped server leaves.
    async with Server(settings):
        pass
    return cursor


def _cold_start(directory: str, events: int, scale: Scale) -> Row:
    taken = []
    for _ in range(scale.runs):
        began = time.perf_counter()
        with running(our_server.serve, directory, {}, core=MEASURED_CORE) as server:
            server.receive()
            taken.append(time.perf_counter() - began)
            server.stop()
    seconds = round(statistics.median(taken), 2)
    row = Row(
        benchmark=f"cold start with {events:,} events in the log",
        unit="s to ready",
        ours=seconds,
        detail={"of which": "a new interpreter and the imports are a part"},
        settings={"state": "saved at the end, as a server leaves it that was stopped"},
    )
    return row.aim({"seconds": at_most(3, seconds)})


def _replay(directory: str, events: int, cursor: str, scale: Scale) -> Row:
    rates = []
    for _ in range(scale.long_runs):
        with running(our_server.serve, directory, {"ping_seconds": 3600.0}, core=MEASURED_CORE) as server:
            server.receive()
            url = f"ws://127.0.0.1:{server.call('port')}/graphql"
            rates.append(events / uvloop.run(_read_again(url, cursor, events)))
            server.stop()
    rate = round(statistics.median(rates))
    row = Row(
        benchmark=f"replay of {events:,} logged events to a resuming client",
        unit="events/s",
        ours=rate,
        settings={"client": "ours, plain handler, on the other core"},
    )
    return row.aim({"events/s": at_least(200_000, rate)})


async def _read_again(url: str, cursor: str, events: int) -> float:
    whole = asyncio.Event()
    seen = 0

    def on_resource(_: Resource) -> None:
        nonlocal seen
        seen += 1
        if seen == events:
            whole.set()

    async with Client(url) as client:
        began = time.perf_counter()
        subscription = await client.subscribe(DOCUMENT, type=Resource, after=cursor)
        subscription.on_data(on_resource)
        async with asyncio.timeout(300):
            await whole.wait()
        return time.perf_counter() - began
