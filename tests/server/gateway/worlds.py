"""A gateway over a log in memory, with peers that take as much as a test lets them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec
from graphql import GraphQLSchema, build_schema

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.streams import EVERYTHING_SEEN
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.events import Selection, StreamEvent
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.gateway.pacing import Pacing
from circuit_breaker_server.gateway.permission_review import Look
from circuit_breaker_server.gateway.subscription_plan import Plan, make_plan
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.log.event_log import (
    LogError,
    LogPage,
    NewRecord,
    Record,
    Snapshot,
    SnapshotEntry,
    matches,
)
from tests.server.engine.memory_log import page_of

SCHEMA: Final[GraphQLSchema] = build_schema(
    """
    type Thing { id: ID! n: Int! tag: String }
    type Note { id: ID! text: String! }
    type Query { nothing: String }
    type Subscription { things(id: String, tag: String = "any"): Thing! notes(id: String): Note! }
    """
)
ALL_THINGS: Final = "subscription { things { id n } }"
ONE_THING: Final = "subscription($id: String!) { things(id: $id) { id n } }"
TAGGED: Final = "subscription($tag: String!) { things(tag: $tag) { id n } }"
ALL_NOTES: Final = "subscription { notes { id text } }"

Payload = dict[str, dict[str, dict[str, object]]]


class ScriptedLog:
    """Holds records by offset; leaves holes, trims, and lets a test decide when a reading is answered.

    :ivar reads: how many readings were asked for.
    :ivar bytes_read: how many bytes of bodies they returned.
    :ivar before_read: awaited before a reading looks at the records.
    :ivar salt: goes into the ids of records: another one for a log whose offsets are used again.
    """

    def __init__(self) -> None:
        self.epoch = "00000000deadbeef"
        self.records: dict[int, Record] = {}
        self.last_offset = 0
        self.append_failed = False
        self.outage: str | None = None
        self.salt = 0
        self.reads = 0
        self.bytes_read = 0
        self.broken = False
        self.time_ms = 0
        self.before_read: Callable[[], object] | None = None
        self.after_read: Callable[[], object] | None = None
        self._removed: Record | None = None
        self._tails: list[Callable[[Sequence[Record]], None]] = []

    @property
    def first_offset(self) -> int:
        return min(self.records, default=self.last_offset + 1)

    async def try_write(self) -> bool:
        return True

    def put(self, *groups: tuple[str, Sequence[tuple[str, dict[str, object]]]]) -> list[Record]:
        """Commit one group: for each record its subject and its events."""
        committed = []
        for subject, events in groups:
            self.last_offset += 1
            record = Record(
                offset=self.last_offset,
                subject=subject,
                id=f"{self.last_offset * 7919 + self.salt:032x}",
                time_ms=self.time_ms,
                data=msgspec.json.encode(events),
            )
            self.records[record.offset] = record
            committed.append(record)
        for callback in list(self._tails):
            callback(committed)
        return committed

    def thing(self, name: str, n: int, tag: str | None = None) -> Record:
        """Commit one record: a thing, and two notes about it."""
        return self.put(thing_record(name, n, tag))[0]

    def hole(self) -> None:
        self.last_offset += 1

    async def read(
        self,
        *,
        after: int,
        subjects: Sequence[str] = (">",),
        limit: int = 1000,
    ) -> list[Record]:
        return list((await self.read_page(after=after, subjects=subjects, limit=limit)).records)

    async def read_page(
        self, *, after: int, subjects: Sequence[str] = (">",), limit: int, max_bytes: int = 1 << 40
    ) -> LogPage:
        self.reads += 1
        if self.before_read is not None:
            self.before_read()
        await asyncio.sleep(0)
        if self.broken:
            raise LogError("events.db: I/O error")
        last = self.last_offset
        found = [
            record
            for offset, record in sorted(self.records.items())
            if offset > after and any(matches(pattern, record.subject) for pattern in subjects)
        ]
        await asyncio.sleep(0)
        if self.after_read is not None:
            self.after_read()
        page = page_of(found, limit, max_bytes, last_offset=last)
        self.bytes_read += sum(len(record.data) for record in page.records)
        return page

    async def reaches(self, offset: int) -> bool:
        await asyncio.sleep(0)
        return offset <= self.last_offset

    async def check(self, offset: int) -> str | None:
        await asyncio.sleep(0)
        if self._removed is None and offset == 0:
            return "00000000"
        if self._removed is not None and offset == self._removed.offset:
            return self._removed.check
        record = self.records.get(offset)
        return None if record is None else record.check

    async def last_removed(self) -> Record | None:
        await asyncio.sleep(0)
        return self._removed

    async def size_bytes(self, *, after: int, upto: int) -> int:
        raise NotImplementedError("the gateway measures nothing")

    async def trim(self, before: int) -> int:
        return self.trim_now(before)

    def trim_now(self, before: int) -> int:
        gone = sorted(offset for offset in self.records if offset < before)
        if gone:
            self._removed = self.records[gone[-1]]
        for offset in gone:
            del self.records[offset]
        return len(gone)

    def tail(self, callback: Callable[[Sequence[Record]], None]) -> Callable[[], None]:
        self._tails.append(callback)
        return lambda: self._tails.remove(callback)

    async def append(self, record: NewRecord) -> Record:
        raise NotImplementedError("tests commit with put")

    def scan(self, *, after: int, upto: int | None = None) -> AsyncIterator[Record]:
        raise NotImplementedError("the gateway does not scan")

    async def save_snapshot(self, offset: int, changed: Sequence[SnapshotEntry]) -> None:
        raise NotImplementedError("the gateway saves nothing")

    async def load_snapshot(self) -> Snapshot:
        raise NotImplementedError("the gateway loads nothing")

    async def aclose(self) -> None:
        raise NotImplementedError("the gateway does not own the log")


def thing_record(
    name: str, n: int, tag: str | None = None
) -> tuple[str, list[tuple[str, dict[str, object]]]]:
    """Make a record of three events: a thing, and two notes about it."""
    return (
        f"thing.{name}",
        [
            ("things", {"id": name, "n": n, "tag": tag}),
            ("notes", {"id": name, "text": f"{n} begins"}),
            ("notes", {"id": name, "text": f"{n} ends"}),
        ],
    )


def derive(record: Record) -> tuple[StreamEvent, ...]:
    events = msgspec.json.decode(record.data, type=list[tuple[str, dict[str, object]]])
    return tuple(StreamEvent(stream, value) for stream, value in events)


def select(field: str, arguments: Mapping[str, object]) -> Selection:
    name, tag = arguments.get("id"), arguments.get("tag", "any")
    if name == "missing":
        raise EngineError(ErrorCode.NOT_FOUND, "there is no thing 'missing'", id=name)
    subjects = ("thing.*",) if name is None else (f"thing.{name}",)
    if field == "things" and tag != "any":
        return Selection(subjects, lambda value: value["tag"] == tag)
    return Selection(subjects)


def lines(_prefix_bytes: int, payloads: Sequence[bytes]) -> Sequence[bytes]:
    """Frame as text lines: the operation id, a blank, the payload."""
    return [b"", *(b" %b\n" % payload for payload in payloads)]


class FakePeer:
    """Takes ``room`` writes, then is full until :meth:`drain`; ``None`` takes any number."""

    def __init__(self, gateway: Gateway, *, resume: bool = True, room: int | None = None) -> None:
        self.gateway = gateway
        self.room = room
        self.writes: list[bytes] = []
        self.signals: list[tuple[str, str]] = []
        self.failures: list[tuple[str, tuple[GraphQLError, ...]]] = []
        self.completions: dict[str, int] = {}
        self.dropped = False
        self.news = asyncio.Event()
        self.feed: Feed = gateway.attach(self, frame=lines, resume=resume)
        if room == 0:
            self.feed.set_writable(False)

    def write(self, frames: bytes) -> None:
        assert self.feed.writable, "a full socket is not written to"
        self.writes.append(frames)
        if self.room is not None:
            self.room -= 1
            if self.room <= 0:
                self.feed.set_writable(False)
        self.news.set()

    def signal(self, cursors: Sequence[tuple[str, str]]) -> None:
        self.signals += cursors
        self.news.set()

    def caught_up(self, operation_id: str) -> None:
        self.news.set()

    def fail(self, operation_id: str, errors: Sequence[GraphQLError]) -> None:
        self.failures.append((operation_id, tuple(errors)))
        self.news.set()

    def complete(self, operation_id: str) -> None:
        """Note after how many events the operation was completed."""
        assert operation_id not in self.completions, "an operation is completed once"
        self.completions[operation_id] = len(self.payloads(operation_id))
        self.news.set()

    def drop(self) -> None:
        self.dropped = True
        self.news.set()

    def drain(self, room: int | None = None) -> None:
        self.room = room
        self.feed.set_writable(True)

    def subscribe(
        self,
        operation_id: str,
        query: str = ALL_THINGS,
        variables: Mapping[str, object] | None = None,
        *,
        after: str | None = None,
        begin: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        resume = {**begin} if after is None else {"after": after}
        self.gateway.subscribe(
            self.feed,
            operation_id,
            plan(query, variables),
            prefix=operation_id.encode(),
            extensions={"resume": resume} if resume else None,
        )

    def payloads(self, operation_id: str) -> list[bytes]:
        """The payloads written for one operation so far, in order."""
        found = []
        for line in b"".join(self.writes).splitlines():
            name, _, payload = line.partition(b" ")
            if name == operation_id.encode():
                found.append(payload)
        return found

    def events(self, operation_id: str) -> list[Payload]:
        return [msgspec.json.decode(payload) for payload in self.payloads(operation_id)]

    def numbers(self, operation_id: str) -> list[object]:
        """The ``n`` of the things that one operation received."""
        return [event["data"]["things"]["n"] for event in self.events(operation_id)]

    async def received(self, operation_id: str, count: int) -> list[Payload]:
        """Wait until an operation has so many events, and no more."""
        async with asyncio.timeout(5):
            while len(self.payloads(operation_id)) < count:
                self.news.clear()
                await self.news.wait()
        await turns()
        assert len(self.payloads(operation_id)) == count
        return self.events(operation_id)

    async def completed(self, operation_id: str) -> int:
        """Wait until an operation was completed; return after how many events."""
        async with asyncio.timeout(5):
            while operation_id not in self.completions:
                self.news.clear()
                await self.news.wait()
        return self.completions[operation_id]

    async def failed(self, operation_id: str) -> GraphQLError:
        """Wait until an operation was ended with one error."""
        async with asyncio.timeout(5):
            while not any(failed == operation_id for failed, _ in self.failures):
                self.news.clear()
                await self.news.wait()
        ((error,),) = (errors for failed, errors in self.failures if failed == operation_id)
        return error


_DOCUMENTS: Final = Documents(SCHEMA)


def plan(
    query: str, variables: Mapping[str, object] | None = None, operation_name: str | None = None
) -> Plan:
    document = _DOCUMENTS.get(query)
    return make_plan(SCHEMA, document, variables=variables, operation_name=operation_name)


def resume_of(event: Payload) -> tuple[str, str]:
    """Return an event's own cursor and the one before it."""
    resume = event["extensions"]["resume"]
    return str(resume["cursor"]), str(resume["prev"])


def assert_chained(events: Sequence[Payload], start: str) -> None:
    """Continuity as a client proves it: each event names the one before."""
    prev = start
    for event in events:
        cursor, named = resume_of(event)
        assert named == prev
        prev = cursor


def cursor_of(log: ScriptedLog, offset: int, index: int) -> str:
    return str(Cursor(log.epoch, offset, index, log.records[offset].check))


async def turns(count: int = 20) -> None:
    """Let everything that is due on the loop happen."""
    for _ in range(count):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(
    log: ScriptedLog,
    *,
    ring_size: int = 1024,
    ring_bytes: int = 256 * 1024,
    page_records: int = 256,
    select: Callable[[str, Mapping[str, object]], Selection] = select,
    begin_seconds: float = 60.0,
    advance_seconds: float = 30.0,
    look: Look | None = None,
    pacing: Pacing | None = None,
    derive: Callable[[Record], Sequence[StreamEvent]] = derive,
) -> AsyncIterator[Gateway]:
    gateway = Gateway(
        log,
        derive=derive,
        select=select,
        ring_size=ring_size,
        ring_bytes=ring_bytes,
        page_records=page_records,
        begin_seconds=begin_seconds,
        advance_seconds=advance_seconds,
        pacing=pacing,
        look=look or (lambda _rights, _field, _arguments: EVERYTHING_SEEN),
    )
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.aclose()
