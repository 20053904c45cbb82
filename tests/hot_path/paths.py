"""The hot paths that are counted: real clients and gateways, given prepared input one read at a time.

Between the input and the counted code there is nothing but a few lines of this file, which are not counted:
a client's frames go into picows' own protocol object, as the event loop would put them there, and a server's
records into the tail that the gateway has put on its log. What a path does is synchronous, so that no turn of
the loop, no socket and no other task comes between: a count is the same in every run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple, final

import msgspec

from circuit_breaker_sdk import Client, Subscription
from circuit_breaker_sdk.connections import Connection
from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol.codec import decode_message, next_prefix
from circuit_breaker_sdk.protocol.message_assembly import text_frame_header
from circuit_breaker_sdk.protocol.messages import Subscribe
from circuit_breaker_sdk.transports.picows_protocol import FrameProtocol
from circuit_breaker_sdk.types import Resource
from circuit_breaker_server.endpoints.websocket.frame_headers import text_frames
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.gateway.subscription_plan import make_plan
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.schema import load_schema
from circuit_breaker_server.log.event_log import Record
from tests.connections.raw_server import acknowledge, send_message
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.worlds import create_resource, create_workflow, execute, running_engine
from tests.server.gateway.worlds import ScriptedLog
from tests.transports.peers import CLOSE, Peer, serve

__all__ = ["PATHS", "Path", "Rig"]

EPOCH: Final = "9f2c41d07be3a856"
DOCUMENT: Final = "subscription { resourceUpdates { id workflowId state data createdAt updatedAt } }"
ONE_RESOURCE: Final = (
    "subscription($id: String) "
    "{ resourceUpdates(resourceId: $id) { id workflowId state data createdAt updatedAt } }"
)
PEERS: Final = 100
FIRST_OFFSET: Final = 100_000
"""All offsets have as many digits."""


@final
class Rig(NamedTuple):
    """One path, ready to run.

    :ivar prepare: makes the input of the next step; not counted.
    :ivar step: takes such an input all the way; counted.
    :ivar verify: fails unless all that was prepared has gone all the way.
    """

    prepare: Callable[[], Any]  # Any: only the path's own step looks at it
    step: Callable[[Any], None]
    verify: Callable[[], None]


@final
class Path(NamedTuple):
    """What is counted.

    :ivar events_per_step: how many events one step brings: those of one read, of one flush.
    :ivar deliveries: to how many peers each event goes.
    :ivar events: how many are counted; as many go before to warm up.
    """

    name: str
    open: Callable[[], AbstractAsyncContextManager[Rig]]
    events_per_step: int
    deliveries: int
    events: int


# Client ----------------------------------------------------------------------------------------------------


def _cursor(number: int) -> str:
    return f"{EPOCH}.{FIRST_OFFSET + number}.0.7d3e9a10"


async def _server(peer: Peer) -> None:
    """Negotiate resume, and say of each subscription that it stands."""
    await acknowledge(peer, {"resume": {"version": 1, "epoch": EPOCH}})
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while (received := await peer.read_frame()).opcode != CLOSE:
            message = decode_message(received.payload)
            if isinstance(message, Subscribe):
                live = {"resume": {"id": message.id, "cursor": _cursor(0)}}
                send_message(peer, type="ping", payload=live)
        peer.send_frame(CLOSE, received.payload)


@final
class _Reads:
    """Makes reads: frames of events for one subscription after the other, each chained to its last."""

    def __init__(self, ids: Sequence[str], events: int) -> None:
        self._prefixes = [next_prefix(id_) for id_ in ids]
        self._events = events
        self.number = 0

    def __call__(self) -> bytes:
        return b"".join(self._frame() for _ in range(self._events))

    def _frame(self) -> bytes:
        turn, place = divmod(self.number, len(self._prefixes))
        self.number += 1
        payload = msgspec.json.encode(
            {
                "data": {
                    "resourceUpdates": {
                        "id": f"resource-{turn:08d}-3f8a-4a52",
                        "workflowId": "workflow-5b1e77c0-8d6f",
                        "state": "in_review",
                        "data": {"title": "Quarterly plan", "revision": 1},
                        "createdAt": "2026-01-15T10:30:00.123Z",
                        "updatedAt": "2026-01-15T10:31:07.456Z",
                    }
                },
                "extensions": {"resume": {"cursor": _cursor(turn + 1), "prev": _cursor(turn)}},
            }
        )
        message = self._prefixes[place] + payload + b"}"
        return text_frame_header(len(message)) + message


def _protocol_of(subscription: Subscription[Resource]) -> FrameProtocol:
    connection = subscription._delivery.link
    assert isinstance(connection, Connection)
    assert connection._socket is not None
    protocol = connection._socket._underlying.get_protocol()
    assert isinstance(protocol, FrameProtocol)
    return protocol


def _feeding(protocol: FrameProtocol) -> Callable[[bytes], None]:
    get_buffer, buffer_updated = protocol.get_buffer, protocol.buffer_updated

    def feed(read: bytes) -> None:
        size = len(read)
        buffer = get_buffer(size)
        buffer[:size] = read
        buffer_updated(size)

    return feed


@contextlib.asynccontextmanager
async def _subscribed(count: int, events: int) -> AsyncIterator[tuple[list[Subscription[Resource]], Rig]]:
    async with serve(_server) as port, Client(f"ws://127.0.0.1:{port}/graphql", heartbeat=None) as client:
        subscriptions = await asyncio.gather(
            *(client.subscribe(DOCUMENT, type=Resource) for _ in range(count))
        )
        reads = _Reads([subscription.id for subscription in subscriptions], events)

        def verify() -> None:
            stats = [subscription.stats() for subscription in subscriptions]
            assert sum(of_one.received for of_one in stats) == reads.number
            assert sum(of_one.handled for of_one in stats) == reads.number

        yield subscriptions, Rig(reads, _feeding(_protocol_of(subscriptions[0])), verify)


def _ignore(_event: Resource) -> None:
    """Handle an event: nothing is kept."""


@contextlib.asynccontextmanager
async def _handlers(subscriptions: int, events: int) -> AsyncIterator[Rig]:
    async with _subscribed(subscriptions, events) as (subscribed, rig):
        for subscription in subscribed:
            subscription.on_data(_ignore)
        yield rig


async def _iterate(subscription: Subscription[Resource]) -> None:
    async for _event in subscription:
        pass


async def _iterate_batches(subscription: Subscription[Resource], max_events: int) -> None:
    async for _batch in subscription.batches(max_events=max_events):
        pass


@contextlib.asynccontextmanager
async def _consumed(
    consume: Callable[[Subscription[Resource]], Coroutine[Any, Any, None]], events: int
) -> AsyncIterator[Rig]:
    async with _subscribed(1, events) as ((subscription,), rig):
        consumer = consume(subscription)
        proceed, feed = consumer.send, rig.step
        # By hand, not as a task: what the loop does to wake one is not ours to count.
        proceed(None)

        def step(read: bytes) -> None:
            feed(read)
            proceed(None)

        try:
            yield Rig(rig.prepare, step, rig.verify)
        finally:
            consumer.close()


# Server ----------------------------------------------------------------------------------------------------


@final
class _Peer:
    """A peer that has always room."""

    def write(self, frames: bytes) -> None:
        """Take what is written; nothing is kept."""

    def signal(self, cursors: Sequence[tuple[str, str]]) -> None:
        """Hear that an operation stands."""

    def caught_up(self, operation_id: str) -> None:
        raise AssertionError("nobody falls behind")

    def fail(self, operation_id: str, errors: Sequence[GraphQLError]) -> None:
        raise AssertionError(f"{operation_id} has failed: {errors}")

    def complete(self, operation_id: str) -> None:
        raise AssertionError("the streams have no end")

    def drop(self) -> None:
        raise AssertionError("the peer has failed")


@contextlib.asynccontextmanager
async def _gateway(resources: int, events: int, *, ring_size: int) -> AsyncIterator[Rig]:
    """A gateway with 100 peers of one subscription each, to so many resources, whose real records follow."""
    written = MemoryLog()
    async with running_engine(written) as engine:
        workflow = await create_workflow(engine.workflows)
        ids = []
        for _ in range(resources):
            data = {"title": "Quarterly plan", "revision": 1}
            ids.append(await create_resource(engine.workflows, workflow, data=data))
            await execute(engine.workflows, ids[-1], "edit")
        # Of each resource the last: the activity.
        last = list({record.subject: record for record in written.records}.values())[-resources:]
        log = ScriptedLog()
        # A small ring, which the events to warm up fill: from then on each takes the place of an older one.
        gateway = Gateway(log, derive=derive, select=engine.select, ring_size=ring_size)
        await gateway.start()
        documents = Documents(load_schema())
        document = documents.get(ONE_RESOURCE)
        for number in range(PEERS):
            plan = make_plan(documents.schema, document, variables={"id": ids[number % resources]})
            feed = gateway.attach(_Peer(), frame=text_frames, resume=True)
            gateway.subscribe(feed, "00000001", plan, prefix=next_prefix("00000001"))
        assert gateway.channels == resources
        subscribers = [subscriber for feed in gateway._feeds for subscriber in feed.subscribers.values()]
        (on_records,) = log._tails
        flush = gateway._fan_out.flush
        number = 0

        def prepare() -> list[Record]:
            nonlocal number
            records = []
            for _ in range(events):
                model = last[number % resources]
                number += 1
                records.append(
                    msgspec.structs.replace(model, offset=FIRST_OFFSET + number, id=f"{number:032x}")
                )
            return records

        def step(records: list[Record]) -> None:
            on_records(records)
            flush()

        def verify() -> None:
            assert sum(subscriber.seq for subscriber in subscribers) == number * PEERS // resources
            assert all(subscriber.is_current for subscriber in subscribers)

        try:
            yield Rig(prepare, step, verify)
        finally:
            await gateway.aclose()


# -----------------------------------------------------------------------------------------------------------


PATHS: Final = (
    Path("client, plain handler", lambda: _handlers(1, 20), 20, 1, 200),
    Path("client, plain handler, 1 event a read", lambda: _handlers(1, 1), 1, 1, 200),
    Path("client, async for", lambda: _consumed(_iterate, 20), 20, 1, 200),
    Path("client, async for, 1 event a read", lambda: _consumed(_iterate, 1), 1, 1, 200),
    Path("client, batches of 20", lambda: _consumed(lambda s: _iterate_batches(s, 20), 20), 20, 1, 200),
    Path("client, 1000 subscriptions", lambda: _handlers(1000, 20), 20, 1, 1000),
    Path("server, 100 peers of a channel", lambda: _gateway(1, 1, ring_size=16), 1, PEERS, 20),
    Path(
        "server, 100 peers, 10 events a flush",
        lambda: _gateway(1, 10, ring_size=16),
        10,
        PEERS,
        40,
    ),
    Path(
        "server, 100 channels of a peer",
        lambda: _gateway(PEERS, PEERS, ring_size=1),
        PEERS,
        1,
        200,
    ),
)
