"""Events a second of a whole replay: one subscriber resumes at the beginning of a log, in one process."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, final

import msgspec
import uvloop

from benchmarks.event import DOCUMENT, resource
from benchmarks.machine import MEASURED_CORE, on_core
from benchmarks.row import Row, Scale
from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.endpoints.websocket.frame_headers import text_frames
from circuit_breaker_server.engine.event_derivation import EVENT_BODIES, derive
from circuit_breaker_server.engine.events import Selection
from circuit_breaker_server.engine.workflows.records import ResourceChanged, ResourceImage
from circuit_breaker_server.engine.workflows.subjects import resource_subject
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.gateway.subscription_plan import make_plan
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.schema import load_schema
from circuit_breaker_server.log.event_log import NewRecord
from circuit_breaker_server.log.sqlite import SqliteEventLog

__all__ = ["fill", "replay", "replay_once"]

_AT_ONCE: Final = 1_000


def replay(scale: Scale) -> Iterator[Row]:
    """Yield the row of a replay without a socket and a client: the server reads and encodes."""
    events = scale.pick(200_000, 5_000)
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-bench-") as directory, on_core(MEASURED_CORE):
        path = Path(directory)
        uvloop.run(fill(path, events))
        taken = [uvloop.run(replay_once(path, events)) for _ in range(scale.runs + 1)]
    measured = taken[1:]
    yield Row(
        benchmark=f"replay of {events:,} logged events, in one process",
        unit="events per second of processor time",
        ours=round(statistics.median(events / processor for processor, _ in measured)),
        detail={"events/s": round(statistics.median(events / elapsed for _, elapsed in measured))},
        settings={"subscription": "resumes at the start of an SQLite log; frames are built and not sent"},
    )


async def fill(directory: Path, events: int) -> None:
    """Append so many updates of a thousand resources."""
    log = await SqliteEventLog.open(directory)
    try:
        for start in range(0, events, _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, events))
            await asyncio.gather(*(log.append(_record(number)) for number in numbers))
    finally:
        await log.aclose()


def _record(number: int) -> NewRecord:
    value = resource(number % _AT_ONCE)
    state = {"id": "in_review", "name": "In review", "stateType": "REVIEW", "isTerminal": False}
    body = ResourceChanged(
        resource=ResourceImage(
            id=str(value["id"]),
            workflow_id=str(value["workflowId"]),
            state=str(value["state"]),
            state_definition=msgspec.Raw(msgspec.json.encode(state)),
            data=msgspec.Raw(msgspec.json.encode({"title": "Quarterly plan", "revision": number})),
            metadata=msgspec.Raw(b"{}"),
            created_at=str(value["createdAt"]),
            updated_at=str(value["updatedAt"]),
            history=(),
        )
    )
    return NewRecord(
        subject=resource_subject(body.resource.workflow_id, body.resource.id),
        id=f"{(1_700_000_000_000 + number):012x}{number:020x}",
        data=msgspec.json.encode(body),
    )


async def replay_once(directory: Path, events: int) -> tuple[float, float]:
    """Resume one subscriber at the start; return the seconds of processor time and of the clock it took."""
    log = await SqliteEventLog.open(directory)
    gateway = Gateway(
        log,
        derive=derive,
        select=lambda _field, _arguments: Selection(("resource.*.*",)),
        bodies=EVENT_BODIES,
    )
    await gateway.start()
    try:
        peer = _Peer(events)
        plan = make_plan(load_schema(), Documents(load_schema()).get(DOCUMENT))
        feed = gateway.attach(peer, frame=text_frames, resume=True)
        peer.count_of = feed
        began, began_processor = time.perf_counter(), time.process_time()
        gateway.subscribe(
            feed,
            "replay",
            plan,
            prefix=b'{"type":"next","id":"replay","payload":',
            extensions={"resume": {"after": f"{log.epoch}.0.0.00000000"}},
        )
        async with asyncio.timeout(300):
            await peer.whole.wait()
        return time.process_time() - began_processor, time.perf_counter() - began
    finally:
        await gateway.aclose()
        await log.aclose()


@final
class _Peer:
    """A peer that takes everything and keeps nothing."""

    def __init__(self, events: int) -> None:
        self.whole = asyncio.Event()
        self.count_of: Feed | None = None
        self._events = events

    def write(self, _frames: bytes) -> None:
        pass

    def signal(self, _cursors: Sequence[tuple[str, str]]) -> None:
        pass

    def caught_up(self, _operation_id: str) -> None:
        if self.count_of is None or self.count_of.delivered_events < self._events:
            raise RuntimeError("the replay ended before its last event")
        self.whole.set()

    def fail(self, operation_id: str, errors: Sequence[GraphQLError]) -> None:
        raise RuntimeError(f"{operation_id}: {errors}")

    def complete(self, operation_id: str) -> None:
        raise RuntimeError(f"{operation_id} has no end")

    def drop(self) -> None:
        raise RuntimeError("the gateway dropped the peer")
