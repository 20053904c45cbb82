"""Clients and a server that are the real ones, on a log and a network in memory, and what must come of it.

The history of the log is a tree: restoring an older copy begins another branch at some record, a wipe begins
another root. A reader stands at a place of it, and moves with each event that it is given: along one branch,
over nothing that it should have been given. Only a gap moves it anywhere else, and a gap needs a cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast, final
from unittest import mock

from circuit_breaker_sdk.config import BufferLimits, MessageLimits, OverflowPolicy, Timeouts
from circuit_breaker_sdk.connections import Connection, ConnectionSettings, FallbackLinks, Supervisor
from circuit_breaker_sdk.connections.credentials import Credentials
from circuit_breaker_sdk.connections.opening import open_connection
from circuit_breaker_sdk.delivery.buffer import BufferBudget
from circuit_breaker_sdk.delivery.decoding import EventDecoder
from circuit_breaker_sdk.delivery.delivery import Delivery
from circuit_breaker_sdk.delivery.fallbacks import Fallbacks
from circuit_breaker_sdk.delivery.subscription_state import Continuity, SubscriptionId, SubscriptionState
from circuit_breaker_sdk.errors import (
    ConnectionFailed,
    GapError,
    StreamFailure,
    SubscriptionError,
    TransportError,
)
from circuit_breaker_sdk.protocol.messages import Subscribe
from circuit_breaker_sdk.recovery.gaps import Gap, GapRecovery
from circuit_breaker_sdk.transports.websocket import MessageSink, WebSocket
from circuit_breaker_server.config import ServerSettings
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.endpoints.websocket.session import Session
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.gateway.subscription_plan import Plans
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.log.event_log import Record
from circuit_breaker_server.scheduling import Slices
from tests.model.network import Network, Wire, kind_and_id
from tests.server.gateway.worlds import (
    ALL_NOTES,
    ALL_THINGS,
    ONE_THING,
    SCHEMA,
    TAGGED,
    ScriptedLog,
    derive,
    select,
    thing_record,
    turns,
)
from tests.server.stage import answer_nothing

QUERIES: Final[list[tuple[str, str, dict[str, object]]]] = [
    ("things", ALL_THINGS, {}),
    ("notes", ALL_NOTES, {}),
    ("things", ONE_THING, {"id": "a"}),
    ("things", ONE_THING, {"id": "b"}),
    ("things", TAGGED, {"tag": "x"}),
]
LIMITS: Final = [
    BufferLimits(),
    BufferLimits(max_events=2, overflow=OverflowPolicy.RESUME),
    BufferLimits(max_events=3, overflow=OverflowPolicy.BLOCK),
]
ROOMS: Final = [1, 3, 1000]
NEVER: Final = 1e6
MAX_CONNECTIONS: Final = 3
MAX_READERS: Final = 6
ALL: Final = 1 << 30


@final
@dataclass(frozen=True, slots=True)
class Fact:
    """One record of the log, or the beginning of one life of it (``offset`` 0)."""

    serial: int
    offset: int
    name: str = ""
    tag: str | None = None

    @property
    def last_index(self) -> int:
        return 2 if self.name else 0

    def indexes(self, query: int) -> list[int]:
        """Which of its events a query asks for."""
        if not self.name:
            return []
        wanted = [True, True, self.name == "a", self.name == "b", self.tag == "x"][query]
        return ([1, 2] if query == 1 else [0]) if wanted else []


Place = tuple[Fact, int]
"""Just after an event, or after a record without any."""


def position(place: Place) -> tuple[int, int]:
    return (place[0].offset, place[1])


@final
@dataclass
class Copy:
    """What was saved of a log."""

    epoch: str
    records: dict[int, Record]
    last_offset: int
    removed: Record | None
    branch: list[Fact]
    removed_fact: Fact | None


@final
@dataclass(eq=False)
class Reader:
    """One subscriber of an application.

    :ivar place: where it stands; ``None`` until the server has told where it begins.
    :ivar may_miss: something has happened to the log since which a gap is due, or may be.
    :ivar was_robbed: one of its events was lost on a connection that went on.
    """

    query: int
    delivery: Delivery[dict[str, object]] = field(init=False)
    place: Place | None = None
    may_miss: bool = False
    was_robbed: bool = False
    is_telling: bool = False
    gaps: int = 0


@final
class World:
    """Plays steps; is the owner of all deliveries, as the SDK's manager is."""

    def __init__(self, *, ring_size: int, page_records: int, room: int) -> None:
        self.ring_size, self.page_records = ring_size, page_records
        self.room = room
        self.network = Network()
        self.log = ScriptedLog()
        self.serials = itertools.count(1)
        self.facts: dict[tuple[str, int, str], Fact] = {}
        self.paths: dict[int, tuple[Fact, ...]] = {}
        self.copy: Copy | None = None
        self.removed: Fact | None = None
        self.readers: list[Reader] = []
        self.waiting: dict[Delivery[Any], None] = {}
        self.connections: dict[Connection, Wire] = {}
        self.used_ids: dict[Connection, list[str]] = {}
        self.dialing: set[asyncio.Task[None]] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.more_connections = asyncio.Event()
        self.position_ids = itertools.count(1)
        self.budget = BufferBudget(1 << 30)
        # No rests between slices: they would last by the clock, which this world does not wait for.
        self.documents = Documents(SCHEMA, slices=Slices(clock=lambda: 0.0))
        self.was_robbed = False
        self.is_over = False
        self.is_up = False
        self.begin_life()
        self.recovery = GapRecovery(
            cast("Supervisor", self),
            FallbackLinks((), rest_seconds=1.0),
            fresh_id=lambda: f"f{next(self.position_ids):07x}",
            go_on=self.resume,
            tasks=self.tasks,
        )

    # --- the log -----------------------------------------------------------------------------------

    def begin_life(self) -> None:
        root = Fact(next(self.serials), 0)
        self.log.epoch = f"{root.serial:016x}"
        self.facts[self.log.epoch, 0, "00000000"] = root
        self.branch = [root]
        self.paths[root.serial] = (root,)

    def publish(self, name: str, tag: str | None = None) -> None:
        """Append a record: of a thing, or without events if it has no name."""
        serial = next(self.serials)
        self.log.salt = serial << 20
        fact = Fact(serial, self.log.last_offset + 1, name, tag)
        self.branch.append(fact)
        self.paths[serial] = tuple(self.branch)
        # The log tells the gateway within `put`: the record is to be known by then.
        check = f"{fact.offset * 7919 + self.log.salt:032x}"[-8:]
        self.facts[self.log.epoch, fact.offset, check] = fact
        self.log.put(thing_record(name, serial, tag) if name else ("thing.nothing", []))

    def trim(self, before: int) -> None:
        gone = [fact for fact in self.branch if fact.offset in self.log.records and fact.offset < before]
        if gone:
            self.removed = gone[-1]
            self.log.trim_now(before)
            self.note_damage()

    def save(self) -> None:
        log = self.log
        self.copy = Copy(
            log.epoch, dict(log.records), log.last_offset, log._removed, list(self.branch), self.removed
        )

    async def wipe(self) -> None:
        await self.crash()
        log = self.log
        log.records, log.last_offset, log._removed, self.removed = {}, 0, None, None
        self.begin_life()
        self.note_damage()
        await self.start()

    async def restore(self) -> None:
        copy = self.copy
        if copy is None:
            return
        await self.crash()
        log = self.log
        log.epoch, log.records = copy.epoch, dict(copy.records)
        log.last_offset, log._removed = copy.last_offset, copy.removed
        self.branch, self.removed = list(copy.branch), copy.removed_fact
        for reader in self.readers:
            reader.may_miss = True
        await self.start()

    def note_damage(self) -> None:
        for reader in self.readers:
            if reader.place is not None and not self.is_readable(reader.place):
                reader.may_miss = True

    def is_readable(self, place: Place) -> bool:
        """Tell whether everything behind a place is still in the log."""
        removed = self.removed
        is_gone = removed is not None and position(place) < (removed.offset, removed.last_index)
        return place[0] in self.branch and not is_gone

    def place_of(self, cursor: str) -> Place:
        parsed = Cursor.parse(cursor)
        return (self.facts[parsed.epoch, parsed.offset, parsed.check], parsed.index)

    def cursor_of(self, fact: Fact, index: int) -> str:
        (key,) = (key for key, known in self.facts.items() if known is fact)
        return str(Cursor(key[0], key[1], index, key[2]))

    def behind(self, path: list[Fact] | tuple[Fact, ...], query: int, place: Place) -> list[tuple[Fact, int]]:
        """Return what a query asks for on a branch after a place."""
        return [
            (fact, index)
            for fact in path
            for index in fact.indexes(query)
            if (fact.offset, index) > position(place)
        ]

    # --- the server --------------------------------------------------------------------------------

    async def start(self) -> None:
        self.gateway = Gateway(
            self.log,
            derive=derive,
            select=select,
            advance_seconds=NEVER,
            begin_seconds=NEVER,
            ring_size=self.ring_size,
            page_records=self.page_records,
        )
        await self.gateway.start()
        self.services = Services(
            gateway=self.gateway,
            documents=self.documents,
            execute=answer_nothing,
            epoch=self.log.epoch,
            settings=ServerSettings(
                data_dir=Path("unused"), init_timeout_seconds=NEVER, ping_seconds=NEVER, pong_seconds=NEVER
            ),
        )
        self.is_up = True

    async def crash(self) -> None:
        """End the server; what it has written may still arrive."""
        self.is_up = False
        for wire in self.network.wires:
            wire.to_server.clear()
            wire.server.lose()
        await self.gateway.aclose()

    async def restart(self, *, gracefully: bool) -> None:
        if gracefully:
            for wire in self.network.wires:
                if isinstance(wire.server.sink, Session) and not wire.server.is_closing:
                    wire.server.sink.shut_down()
        await self.crash()
        await self.start()

    # --- connections -------------------------------------------------------------------------------

    async def connect(self, _url: str, sink: MessageSink, **_: object) -> WebSocket:
        """Stand in for the transport's ``connect``."""
        if not self.is_up:
            raise ConnectionFailed("the server is down", url=_url)
        wire = Wire(self.network, room=self.room)
        wire.client.sink = sink
        wire.server.sink = Session(
            wire.server_socket,
            self.services,
            Plans(self.services.documents.schema),
            authorization=None,
            own=self.tasks.add,
            on_end=lambda _session: None,
        )
        assert isinstance(sink, Connection)
        self.connections[sink] = wire
        self.used_ids[sink] = []
        return wire.client_socket

    def dial(self) -> None:
        if len(self.usable) + len(self.dialing) < MAX_CONNECTIONS:
            task = asyncio.get_running_loop().create_task(self._dial())
            self.dialing.add(task)
            task.add_done_callback(self.dialing.discard)

    async def _dial(self) -> None:
        settings = ConnectionSettings(
            url="ws://model/graphql",
            credentials=Credentials(),
            limits=MessageLimits(),
            timeouts=Timeouts(acknowledge_seconds=NEVER),
        )
        with contextlib.suppress(TransportError, SubscriptionError):
            await open_connection(settings, lambda _connection, _error: None)
            self.more_connections.set()

    @property
    def usable(self) -> list[Connection]:
        return [c for c in self.connections if c.is_usable and c.resume_negotiated]

    async def connection(self) -> Connection:
        """Return a connection to who carries deliveries over gaps: the supervisor's part."""
        while not self.usable:
            self.more_connections.clear()
            await self.more_connections.wait()
        return self.usable[-1]

    def id_on(self, connection: Connection) -> SubscriptionId:
        """Return an id: one used before, where nothing of the earlier operation can still be under way."""
        wire, used = self.connections[connection], self.used_ids[connection]
        if wire.is_quiet and not connection._writes.is_waiting:
            taken = {r.delivery.id for r in self.readers if r.delivery.link is connection}
            for id_ in used:
                if id_ not in wire.server.active and id_ not in taken:
                    return SubscriptionId(id_)
        used.append(f"{len(used) + 1:08x}")
        return SubscriptionId(used[-1])

    # --- readers -----------------------------------------------------------------------------------

    def subscribe(self, query: int, *, after: str | None, limits: BufferLimits, bridges: bool) -> None:
        if not self.usable or sum(not r.delivery.state.is_end for r in self.readers) >= MAX_READERS:
            return
        connection = self.usable[-1]
        root_field, document, variables = QUERIES[query]
        reader = Reader(query)
        extensions: dict[str, object] | None = None if after is None else {"resume": {"after": after}}
        request = Subscribe(self.id_on(connection), document, variables, None, extensions)
        delivery: Delivery[dict[str, object]] = Delivery(
            label="model",
            decoder=EventDecoder(dict[str, object], root_field, with_resume=True),
            limits=limits,
            budget=self.budget,
            link=connection,
            request=request,
            owner=self,
            tasks=self.tasks,
            after=after,
        )
        reader.delivery = delivery
        self.readers.append(reader)
        if bridges:
            delivery.fallbacks = Fallbacks(on_gap=lambda gap: self.told(reader, gap))
        if after is not None:
            self.stand(reader, self.place_of(after))
        if limits is LIMITS[0]:
            delivery.consumer.handlers.add_data(lambda value: self.given(reader, value))
        connection.subscribe(request, delivery)

    def positioned(self, delivery: Delivery[Any], cursor: str) -> None:
        """Hear a live signal before the delivery does: it says where a reader begins."""
        reader = next(each for each in self.readers if each.delivery is delivery)
        if reader.place is None and not delivery.has_begun:
            self.stand(reader, self.place_of(cursor))

    def stand(self, reader: Reader, place: Place) -> None:
        reader.place = place
        reader.may_miss = reader.may_miss or not self.is_readable(place)

    def given(self, reader: Reader, value: Mapping[str, object]) -> None:
        """Check one event that a reader is given."""
        if "text" in value:
            number, word = str(value["text"]).split()
            serial, index = int(number), 1 if word == "begins" else 2
        else:
            serial, index = int(str(value["n"])), 0
        path = self.paths[serial]
        faults, place = self.network.faults, reader.place
        if place is None:
            faults.append("an event comes before the place where its stream begins")
        elif place[0] not in path:
            faults.append(f"{serial}.{index} is of another history than {place}, and no gap was told")
        else:
            following = self.behind(path, reader.query, place)[:1]
            if following != [(path[-1], index)]:
                faults.append(f"behind {place} comes {following}, not {serial}.{index}")
        self.stand(reader, (path[-1], index))

    def take(self, reader: Reader, count: int) -> None:
        """Let the application take what is buffered."""
        delivery = reader.delivery
        while count and delivery.consumer.buffered:
            self.given(reader, delivery.consumer.take_value())
            delivery.consumer.mark_handled()
            count -= 1

    def told(self, reader: Reader, gap: Gap) -> None:
        """Go on from where the gap says."""
        assert gap.cursor is not None
        reader.gaps += 1
        reader.may_miss = reader.was_robbed = reader.is_telling = False
        self.stand(reader, self.place_of(gap.cursor))

    def put_on(self, number: int) -> None:
        """Put those that wait on a connection."""
        usable = self.usable
        for delivery in list(self.waiting):
            connection = usable[number % len(usable)] if usable else None
            if connection is not None and connection.is_usable:
                del self.waiting[delivery]
                delivery.resume(self.id_on(connection), connection)

    def hand_over(self, reader: Reader) -> None:
        """Put one on another connection while the one it is on lives."""
        delivery = reader.delivery
        others = [c for c in self.usable if c is not delivery.link]
        if delivery.link is not None and others and not delivery.state.is_end:
            delivery.resume(self.id_on(others[0]), others[0])

    def rob(self, wire: Wire) -> None:
        """Lose the oldest event under way, and nothing else: no network does, a faulty peer may."""
        for at, message in enumerate(wire.to_client):
            if isinstance(message, bytes) and kind_and_id(message)[0] == "next":
                del wire.to_client[at]
                id_ = kind_and_id(message)[1]
                for reader in self.readers:
                    link = reader.delivery.link
                    if reader.delivery.id == id_ and link is not None and self.wire_of(link) is wire:
                        reader.was_robbed = self.was_robbed = True
                return

    def wire_of(self, link: object) -> Wire | None:
        return next((wire for c, wire in self.connections.items() if c is link), None)

    # --- the owner of deliveries -------------------------------------------------------------------

    def lost(self, delivery: Delivery[Any], error: StreamFailure, *, after_seconds: float = 0.0) -> None:
        if self.is_over:
            delivery.give_up(error)
        else:
            self.resume(delivery, after_seconds=after_seconds)
            delivery.await_link(error)

    def resume(self, delivery: Delivery[Any], *, after_seconds: float = 0.0) -> None:
        assert not after_seconds
        if not delivery.state.is_end:
            self.waiting[delivery] = None

    def missed(self, delivery: Delivery[Any], error: GapError) -> None:
        (reader,) = (r for r in self.readers if r.delivery is delivery)
        is_due = reader.was_robbed if error.reason == "prev" else reader.may_miss
        if not is_due:
            self.network.faults.append(f"a gap ({error.reason}) without a cause behind {reader.place}")
        reader.is_telling = True
        if delivery.fallbacks.on_gap is None:
            delivery.give_up(error)
        else:
            self.recovery.bridge(delivery, error)

    def snapshot_of(self, _delivery: Delivery[Any]) -> None:
        return None

    def uncertain(self, _delivery: Delivery[Any]) -> None:
        raise AssertionError("every server here gives cursors")

    def ended(self, delivery: Delivery[Any]) -> None:
        self.waiting.pop(delivery, None)

    # --- steps -------------------------------------------------------------------------------------

    async def play(self, kind: str, a: int, b: int) -> None:  # noqa: PLR0912 (one case for each step)
        wires = [w for w in self.network.wires if not (w.client.is_closed and w.server.is_closed)]
        wire = wires[a % len(wires)] if wires else None
        reader = self.readers[a % len(self.readers)] if self.readers else None
        match kind:
            case "publish":
                for i in range(b % 3 + 1):
                    self.publish("ab"[(a + i) % 2], "x" if (a + i) % 3 == 0 else None)
            case "nothing":
                self.publish("")
            case "hole":
                self.log.hole()
                self.publish("ab"[a % 2])
            case "dial":
                self.dial()
            case "subscribe":
                self.subscribe(
                    a % len(QUERIES), after=None, limits=LIMITS[b % len(LIMITS)], bridges=a % 4 != 3
                )
            case "begin after":
                known = list(self.facts.values())
                fact = known[b * 7 % len(known)]
                index = a % (fact.last_index + 1)
                self.subscribe(
                    a % len(QUERIES),
                    after=self.cursor_of(fact, index),
                    limits=LIMITS[b % len(LIMITS)],
                    bridges=a % 4 != 3,
                )
            case "to server" if wire is not None:
                wire.bring_to_server(b + 1)
            case "to client" if wire is not None:
                wire.bring_to_client(b + 1)
            case "flow":
                await self.flow()
            case "take" if reader is not None:
                self.take(reader, b + 1)
            case "unsubscribe" if reader is not None:
                reader.delivery.unsubscribe()
            case "put on":
                self.put_on(a)
            case "hand over" if reader is not None:
                self.hand_over(reader)
            case "cut" if wire is not None:
                wire.cut()
                wire.tell_ends(client=b % 3 == 0, server=b % 2 == 0)
            case "notice" if wire is not None:
                wire.tell_ends(client=b % 2 == 0, server=b % 3 == 0)
            case "advance" if not self.was_robbed:
                # A signal has no `prev`: it would hide what was stolen from a reader.
                self.gateway.advance()
            case "trim":
                self.trim(b * 5 % (self.log.last_offset + 1) + 1)
            case "restart":
                await self.restart(gracefully=b % 2 == 0)
            case "save":
                self.save()
            case "restore":
                await self.restore()
            case "wipe":
                await self.wipe()
            case "rob" if wire is not None:
                self.rob(wire)
            case _:
                pass
        await turns(b % 4 if kind != "turn" else b + 1)
        self.check_bounds()

    async def flow(self) -> None:
        """Bring everything to where it goes."""
        for wire in list(self.network.wires):
            wire.bring_to_server(ALL)
            wire.bring_to_client(ALL)
        await turns(8)

    def check_bounds(self) -> None:
        for reader in self.readers:
            limits = reader.delivery._limits
            if reader.delivery.consumer.buffered > limits.max_events:
                self.network.faults.append(
                    f"{reader.delivery.consumer.buffered} events in a buffer of {limits}"
                )
        assert self.network.faults == []

    async def finish(self) -> None:
        """Let everything come to rest, and look for what is missing."""
        if self.was_robbed:
            for name, tag in (("a", "x"), ("b", "x")):  # each query gets one: its `prev` tells of the theft
                self.publish(name, tag)
        still = 0
        for _ in range(200):
            for wire in self.network.wires:
                wire.tell_ends(client=True, server=True)
            if not self.usable:
                self.dial()
            self.put_on(0)
            before = [r.place for r in self.readers]
            await self.flow()
            for reader in self.readers:
                self.take(reader, ALL)
            self.check_bounds()
            at_rest = (
                not self.waiting
                and self.usable
                and all(wire.is_quiet for wire in self.network.wires)
                and before == [r.place for r in self.readers]
            )
            still = still + 1 if at_rest else 0
            if still == 4:
                break
            await turns(8)
        assert still == 4, "it does not come to rest"
        for reader in self.readers:
            self.check_end(reader)

    def check_end(self, reader: Reader) -> None:
        delivery = reader.delivery
        if delivery.state is SubscriptionState.UNSUBSCRIBED:
            return
        if delivery.state is SubscriptionState.FAILED:
            assert isinstance(delivery.error, GapError), delivery.error
            assert delivery.fallbacks.on_gap is None, "who is told of gaps is carried over them"
            return
        assert delivery.state is SubscriptionState.LIVE
        assert reader.place is not None
        assert not reader.is_telling, "a gap was noticed, and nobody told"
        assert reader.place[0] in self.branch, "it stands in a history that is no more, and no gap was told"
        assert self.behind(self.branch, reader.query, reader.place) == [], "silence"
        assert not reader.was_robbed, "an event was lost on the way, and no gap told"
        assert delivery.continuity is (Continuity.GAP if reader.gaps else Continuity.OK)

    async def aclose(self) -> None:
        self.is_over = True
        for reader in self.readers:
            reader.delivery.unsubscribe()
        for connection in self.connections:
            if connection.is_usable:
                await connection.aclose()
        for wire in self.network.wires:
            wire.cut()
            wire.tell_ends(client=True, server=True)
        for task in (*self.dialing, *self.tasks):
            task.cancel()
        await asyncio.gather(*self.dialing, *self.tasks, return_exceptions=True)
        await self.gateway.aclose()


@contextlib.asynccontextmanager
async def a_world(
    connect: Callable[[Callable[..., object]], contextlib.AbstractContextManager[object]],
    *,
    ring_size: int,
    page_records: int,
    room: int,
) -> AsyncIterator[World]:
    """Make a world whose connections are made by ``connect``, the patched transport."""
    world = World(ring_size=ring_size, page_records=page_records, room=room)
    await world.start()
    positioned = Delivery.positioned

    def told(delivery: Delivery[Any], cursor: str) -> None:
        world.positioned(delivery, cursor)
        positioned(delivery, cursor)

    with connect(world.connect), mock.patch.object(Delivery, "positioned", told):
        try:
            yield world
        finally:
            await world.aclose()
