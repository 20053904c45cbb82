"""Whatever happens in whatever order, each operation receives exactly what matches after its start."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.gateway.gateway import Gateway
from tests.server.gateway.worlds import (
    ALL_NOTES,
    ALL_THINGS,
    ONE_THING,
    TAGGED,
    FakePeer,
    ScriptedLog,
    assert_chained,
    cursor_of,
    resume_of,
    running,
    thing_record,
    turns,
)

QUERIES: list[tuple[str, dict[str, object]]] = [
    (ALL_THINGS, {}),
    (ALL_NOTES, {}),
    (ONE_THING, {"id": "a"}),
    (ONE_THING, {"id": "b"}),
    (TAGGED, {"tag": "x"}),
]
PEERS = 3

Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["put"] * 5 + ["turn"] * 3 + ["fill", "drain", "subscribe", "resume", "stop", "advance"]
        ),
        st.integers(0, 11),
        st.integers(0, 11),
    ),
    min_size=5,
    max_size=60,
)


@dataclass
class Operation:
    """What one operation must receive: everything that matches after ``start``."""

    peer: FakePeer
    id: str
    query: int
    start: str
    stopped_at: list[str] | None = None


class Scenario:
    """Plays steps against one gateway."""

    def __init__(self, log: ScriptedLog, gateway: Gateway) -> None:
        self.log = log
        self.gateway = gateway
        self.peers = [FakePeer(gateway) for _ in range(PEERS)]
        self.operations: list[Operation] = []
        self.n = 0
        self.facts: dict[int, tuple[str, str | None]] = {}

    async def play(self, step: Step) -> None:
        kind, a, b = step
        peer = self.peers[a % PEERS]
        if kind == "put":
            self.put(a, count=b % 4 + 1)
        elif kind == "turn":
            await turns(b + 1)
        elif kind == "fill":
            peer.drain(room=b % 3 + 1)
        elif kind == "drain":
            peer.drain()
        elif kind == "advance":
            self.gateway.advance()
        elif kind == "stop":
            self.stop(a)
        else:
            self.subscribe(peer, b, resume=kind == "resume")

    def put(self, a: int, *, count: int) -> None:
        group = []
        for i in range(count):
            name, tag = "ab"[(a + i) % 2], "x" if (a + i) % 3 == 0 else None
            self.facts[self.log.last_offset + i + 1] = (name, tag)
            group.append(thing_record(name, self.n, tag))
            self.n += 1
        self.log.put(*group)

    def subscribe(self, peer: FakePeer, b: int, *, resume: bool) -> None:
        number = str(len(self.operations))
        query, variables = QUERIES[b % len(QUERIES)]
        after = None
        if resume and self.log.last_offset:
            offset = b * 7 % self.log.last_offset + 1
            after = cursor_of(self.log, offset, b % 3)
        start = after or str(self.gateway.end_cursor)
        peer.subscribe(number, query, variables, after=after)
        self.operations.append(Operation(peer, number, b % len(QUERIES), start))

    def stop(self, a: int) -> None:
        running_now = [o for o in self.operations if o.stopped_at is None]
        if running_now:
            operation = running_now[a % len(running_now)]
            operation.peer.feed.unsubscribe(operation.id)
            operation.stopped_at = [resume_of(e)[0] for e in operation.peer.events(operation.id)]

    def wanted(self, query: int, start: str) -> list[str]:
        """Return the cursors that match after a place, found the slow way."""
        at = Cursor.parse(start)
        found = []
        for offset, (name, tag) in sorted(self.facts.items()):
            indexes = {
                0: [0],
                1: [1, 2],
                2: [0] if name == "a" else [],
                3: [0] if name == "b" else [],
                4: [0] if tag == "x" else [],
            }[query]
            found += [cursor_of(self.log, offset, i) for i in indexes if (offset, i) > (at.offset, at.index)]
        return found

    async def finish(self) -> None:
        for peer in self.peers:
            peer.drain()
        await turns(400)
        for operation in self.operations:
            events = operation.peer.events(operation.id)
            received = [resume_of(event)[0] for event in events]
            expected = self.wanted(operation.query, operation.start)
            if operation.stopped_at is not None:
                assert received == operation.stopped_at, "nothing comes after the end"
                expected = expected[: len(received)]
            assert received == expected
            assert_chained(events, operation.start)
        assert not any(peer.failures for peer in self.peers)


async def scenario(script: list[Step], ring_size: int, page_records: int) -> None:
    log = ScriptedLog()
    async with running(log, ring_size=ring_size, page_records=page_records) as gateway:
        played = Scenario(log, gateway)
        for step in script:
            await played.play(step)
        await played.finish()


FULL_WHILE_READING: list[Step] = [
    ("put", 0, 0),
    ("put", 0, 0),
    ("fill", 0, 0),
    ("subscribe", 0, 0),
    ("resume", 0, 0),
    ("turn", 0, 3),
    ("put", 0, 0),
    ("turn", 0, 1),
]


@example(script=FULL_WHILE_READING, ring_size=1, page_records=1)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=steps, ring_size=st.sampled_from([1, 2, 4, 64]), page_records=st.sampled_from([1, 2, 5, 256]))
def test_every_operation_receives_what_matches_once_and_in_order(
    script: list[Step], ring_size: int, page_records: int
) -> None:
    asyncio.run(scenario(script, ring_size, page_records))
