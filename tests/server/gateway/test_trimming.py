"""Whatever is appended, trimmed and resumed, on a real log: every event after a cursor, or a gap."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.gateway.subscription_plan import Refused
from circuit_breaker_server.log.event_log import NewRecord
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.server.gateway.finite_stream import LAST, follow, telling
from tests.server.gateway.worlds import (
    ALL_NOTES,
    FakePeer,
    Payload,
    assert_chained,
    derive,
    resume_of,
    select,
    turns,
)
from tests.waiting import until

Step = tuple[str, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["put"] * 4 + ["trim"] * 2 + ["resume"] * 3 + ["reopen", "subscribe", "fill", "drain"]
        ),
        st.integers(0, 1000),
    ),
    min_size=4,
    max_size=30,
)


@dataclass
class Operation:
    """A subscription to all notes, and where it began."""

    peer: FakePeer
    start: Cursor
    events: list[Payload] = field(default_factory=list)


class Story:
    """Appends records with none to three notes each, trims, resumes from any place there ever was."""

    def __init__(self, directory: Path, ring_size: int, page_records: int) -> None:
        self.directory = directory
        self.ring_size, self.page_records = ring_size, page_records
        self.notes: list[Cursor] = []
        self.places: list[Cursor] = []
        self.operations: list[Operation] = []

    async def open(self) -> None:
        self.log = await SqliteEventLog.open(self.directory)
        self.gateway = Gateway(
            self.log,
            derive=derive,
            select=select,
            ring_size=self.ring_size,
            page_records=self.page_records,
        )
        await self.gateway.start()

    async def close(self) -> None:
        await self.gateway.aclose()
        await self.log.aclose()

    async def play(self, step: Step) -> None:
        kind, n = step
        match kind:
            case "put":
                await self.put(n % 4)
            case "trim":
                await self.trim(n)
            case "resume" if self.places:
                self.subscribe(after=self.places[n % len(self.places)])
            case "subscribe":
                self.subscribe()
            case "fill" if self.operations:
                self.operations[n % len(self.operations)].peer.drain(room=1)
            case "drain" if self.operations:
                self.operations[n % len(self.operations)].peer.drain()
            case "reopen":
                await self.finish()
                end = self.gateway.end_cursor
                await self.close()
                await self.open()
                assert self.gateway.end_cursor == end, "the end is known after a restart, trimmed or not"
            case _:
                pass
        await turns(n % 7)

    async def put(self, notes: int) -> None:
        events = [("notes", {"id": "a", "text": str(i)}) for i in range(notes)]
        new = NewRecord(subject="thing.a", id=uuid.uuid4().hex, data=msgspec.json.encode(events))
        record = await self.log.append(new)
        cursors = [Cursor(self.log.epoch, record.offset, i, record.check) for i in range(max(notes, 1))]
        self.places += cursors
        self.notes += cursors[:notes]

    async def trim(self, n: int) -> None:
        if self.log.last_offset:
            await self.log.save_snapshot(self.log.last_offset, [])
            await self.log.trim(n % (self.log.last_offset + 1) + 1)

    def subscribe(self, after: Cursor | None = None) -> None:
        peer = FakePeer(self.gateway)
        start = after or self.gateway.end_cursor
        peer.subscribe("1", ALL_NOTES, after=None if after is None else str(after))
        self.operations.append(Operation(peer, start))

    async def finish(self) -> None:
        operations, self.operations = self.operations, []
        for operation in operations:
            operation.peer.drain()
        removed = await self.log.last_removed()
        gone = Cursor("", 0, 0, "")
        if removed is not None:
            gone = Cursor("", removed.offset, max(len(derive(removed)) - 1, 0), "")
        for operation in operations:
            peer, start = operation.peer, operation.start
            wanted = [str(note) for note in self.notes if place(note) > place(start)]
            await settled(peer, len(wanted))
            await turns()
            received = [resume_of(event)[0] for event in peer.events("1")]
            assert_chained(peer.events("1"), str(start))
            if not peer.failures:
                assert received == wanted
                continue
            assert received == wanted[: len(received)], "a gap comes after nothing but the next events"
            error = await peer.failed("1")
            assert error.extensions == {"code": "RESUME_GAP", "reason": "trimmed"}
            assert place(start) < place(gone), "who stands behind all that is gone gets no gap"


async def settled(peer: FakePeer, count: int) -> None:
    await until(lambda: peer.failures or len(peer.payloads("1")) >= count)


def place(cursor: Cursor) -> tuple[int, int]:
    return (cursor.offset, cursor.index)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=steps, ring_size=st.sampled_from([1, 3, 64]), page_records=st.sampled_from([1, 3, 256]))
def test_a_subscriber_gets_every_event_after_its_cursor_or_a_gap(
    script: list[Step], ring_size: int, page_records: int
) -> None:
    async def run(directory: Path) -> None:
        story = Story(directory, ring_size, page_records)
        await story.open()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(story.close)
            for step in script:
                await story.play(step)
            await story.finish()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))


# --- streams that begin and end --------------------------------------------------------------------


async def test_a_stream_whose_beginning_is_trimmed_is_not_found_and_not_told_in_part() -> None:
    async with telling() as (log, gateway):
        log.begin()
        start = log.start()
        log.start = lambda: start  # type: ignore[method-assign]  # the state knows it, whatever is trimmed
        log.tell(*range(LAST + 1))
        log.trim_now(3)
        first = follow(gateway)
        assert await first.completed("1") == LAST + 1, "behind the record that began it nothing is gone"
        log.trim_now(4)
        with pytest.raises(Refused) as refused:
            follow(gateway)
        (error,) = refused.value.errors
        assert error.extensions == {"code": "NOT_FOUND"}
        assert "no longer kept" in error.message
        again = follow(gateway, after=resume_of(first.events("1")[0])[0])
        assert await again.completed("1") == LAST, "its first event was received, the others are kept"
        assert gateway.channels == 0


async def test_a_trim_during_the_reading_of_its_beginning_is_a_gap() -> None:
    async with telling(ring_size=1) as (log, gateway):
        log.begin()
        start = log.start()
        log.start = lambda: start  # type: ignore[method-assign]  # as above
        log.tell(*range(LAST + 1))
        await turns()
        log.before_read = lambda: log.trim_now(6)
        peer = follow(gateway)
        error = await peer.failed("1")
        assert error.extensions == {"code": "RESUME_GAP", "reason": "trimmed"}
        assert not peer.writes


async def test_one_who_waits_is_moved_on_before_a_trim_and_resumes_after_it() -> None:
    with tempfile.TemporaryDirectory() as directory:
        story = Story(Path(directory), 2, 256)
        await story.open()
        story.subscribe()
        idle = story.operations[0].peer
        for _ in range(5):
            new = NewRecord(subject="other.x", id=uuid.uuid4().hex, data=b"[]")
            await story.log.append(new)
        await story.log.save_snapshot(5, [])
        story.gateway.advance()
        await story.log.trim(6)
        resumed = Cursor.parse(idle.signals[-1][1])
        assert resumed.offset == 5
        story.subscribe(after=resumed)
        for _ in range(4):
            await story.put(3)
        await until(lambda: all(len(o.peer.payloads("1")) == 12 for o in story.operations))
        assert not any(o.peer.failures for o in story.operations)
        await story.close()
