"""What one read brings is decoded together, and comes to what it comes to when each message is alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, final

import msgspec
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuit_breaker_sdk import BufferLimits, Client, OverflowPolicy, Subscription
from circuit_breaker_sdk.connections import Connection
from circuit_breaker_sdk.protocol.codec import decode_message, next_prefix
from circuit_breaker_sdk.protocol.messages import Subscribe
from tests.connections.raw_server import acknowledge, send_message
from tests.transports.peers import CLOSE, Peer, serve

PER_READ: Final = 32


class Tick(msgspec.Struct):
    n: int


class Name(msgspec.Struct):
    name: str


TYPES: Final[tuple[type, ...]] = (Tick, Tick, Name, Tick)


@final
class Sub:
    """One subscription, and all that came of it."""

    def __init__(self, subscription: Subscription[Any], *, is_first: bool) -> None:
        self.subscription = subscription
        self.is_first = is_first
        self.seen: list[object] = []
        self.errors: list[str] = []
        self.last = 0

    def on_event(self, event: Any) -> object:
        self.seen.append(msgspec.to_builtins(event))
        if isinstance(event, Tick):
            if event.n % 7 == 0:
                raise ValueError(f"{event.n} is not wanted")
            if event.n % 13 == 0:
                self.subscription._delivery.unsubscribe()
            if event.n == 4 and self.is_first:
                self.subscription.filter(lambda event: event.n % 2 == 0)
            elif event.n == 4:
                self.subscription.on_data(lambda event: self.seen.append(("second", event.n)))
        return None

    def on_error(self, error: Exception) -> None:
        self.errors.append(repr(error))

    def outcome(self) -> object:
        delivery = self.subscription._delivery
        waiting = [msgspec.to_builtins(r.data) for r in delivery.consumer.buffer.items or ()]
        return (
            self.seen,
            self.errors,
            waiting,
            delivery.consumer.buffer.size_bytes,
            msgspec.to_builtins(self.subscription.stats()),
            str(self.subscription.state),
            str(delivery.continuity),
            delivery.received,
            delivery.consumer.handled,
            delivery._last_cursor,
            repr(delivery.error),
        )


async def _server(peer: Peer) -> None:
    await acknowledge(peer, {"resume": {"version": 1, "epoch": "e"}})
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while (received := await peer.read_frame()).opcode != CLOSE:
            message = decode_message(received.payload)
            if isinstance(message, Subscribe):
                send_message(peer, type="ping", payload={"resume": {"id": message.id, "cursor": "c0"}})
        peer.send_frame(CLOSE, received.payload)


@contextlib.asynccontextmanager
async def _world(how: Sequence[str]) -> AsyncIterator[tuple[Connection, list[Sub]]]:
    """Yield a connection, and a subscription of each of the types; ``how`` says who takes the events."""
    async with serve(_server) as port, Client(f"ws://127.0.0.1:{port}/graphql", heartbeat=None) as client:
        subs: list[Sub] = []
        for type_, taken in zip(TYPES, how, strict=True):
            overflow = OverflowPolicy.DROP_OLDEST if taken == "drop" else OverflowPolicy.RESUME
            limits = BufferLimits(max_events=5 if taken == "drop" else 1_000, overflow=overflow)
            one: Subscription[Any] = await client.subscribe(
                "subscription { field { n } }", type=type_, buffer=limits
            )
            sub = Sub(one, is_first=not subs)
            one.on_error(sub.on_error)
            if taken == "filter":
                one.filter(lambda event: getattr(event, "n", 1) % 3 != 0)
            if taken in ("handler", "filter"):
                one.on_data(sub.on_event)
            subs.append(sub)
        connection = subs[0].subscription._delivery.link
        assert isinstance(connection, Connection)
        yield connection, subs


def _next(id_: str, number: int, kind: str, fields: dict[str, object]) -> bytes:
    payloads: dict[str, dict[str, object]] = {
        "errors": {"data": {"field": fields}, "errors": [{"message": "half of it failed"}]},
        "nothing": {"data": None, "errors": [{"message": "all of it failed"}]},
        "null": {"data": {"field": None}},
        "unfit": {"data": {"field": {"n": "many", "name": 1}}},
        "text": {"data": {"field": {"n": number, "name": "n\u00e4me"}}},
    }
    payload = payloads.get(kind, {"data": {"field": fields}})
    if kind != "no cursor":
        prev = "c999" if kind == "broken chain" else f"c{number - 1}"
        payload["extensions"] = {"resume": {"cursor": f"c{number}", "prev": prev}}
    if kind == "other layout":
        return msgspec.json.encode({"id": id_, "payload": payload, "type": "next"})
    return next_prefix(id_) + msgspec.json.encode(payload) + b"}"


def _message(subs: Sequence[Sub], step: tuple[int, str]) -> bytes:
    """Write a message to one of them; which it is also depends on those written before."""
    place, kind = step
    sub = subs[place]
    id_, cursor = sub.subscription.id, f"c{sub.last}"
    others: dict[str, bytes] = {
        "complete": msgspec.json.encode({"type": "complete", "id": id_}),
        "error": msgspec.json.encode({"type": "error", "id": id_, "payload": [{"message": "over"}]}),
        "signal": msgspec.json.encode({"type": "ping", "payload": {"resume": {"id": id_, "cursor": cursor}}}),
        "pong": b'{"type":"pong"}',
        "rubbish": next_prefix(id_) + b'{"data":{"field":{"n":1}},"x":[1,}',
        "stranger": next_prefix("f" * len(id_)) + b'{"data":{"field":{"n":1}}}}',
    }
    if kind in others:
        return others[kind]
    sub.last += 1
    return _next(
        id_, sub.last, kind, {"n": sub.last} if TYPES[place] is Tick else {"name": f"name {sub.last}"}
    )


KINDS: Final = (
    "errors", "nothing", "null", "unfit", "broken chain", "no cursor", "text", "complete", "error", "signal",
    "pong", "rubbish", "other layout", "stranger",
)  # fmt: skip
DECODED: Final = ("errors", "nothing", "null", "broken chain", "no cursor", "stranger", "text")
"""What does not keep the other messages of its read from being decoded together."""


@st.composite
def _runs(draw: st.DrawFn) -> list[tuple[int, str]]:
    """Draw events that are nearly all of one subscription, and one that is not as it should be."""
    place, odd = draw(st.sampled_from((0, 1, 3))), draw(st.sampled_from(DECODED))
    steps = [(place, "event")] * draw(st.integers(1, 30))
    for _ in range(draw(st.integers(0, 2))):
        other = draw(st.sampled_from(((0, "event"), (1, "event"), (2, "text"), (3, "event"))))
        steps.insert(draw(st.integers(0, len(steps))), other)
    steps.insert(draw(st.integers(0, len(steps))), (place, odd))
    return steps


STEPS: Final = _runs() | st.lists(
    st.tuples(st.integers(0, 3) | st.just(0), st.just("event") | st.just("event") | st.sampled_from(KINDS)),
    min_size=1,
    max_size=60,
)
CONSUMERS: Final = st.tuples(*[st.sampled_from(("handler", "handler", "buffer", "filter", "drop"))] * 4)


async def _outcomes(
    steps: Sequence[tuple[int, str]],
    how: Sequence[str],
    hand_on: Callable[[Connection, list[bytes]], None],
) -> list[object]:
    async with _world(how) as (connection, subs):
        # Some of each first, alone: what the server writes like is learned from it, and the cursors of one
        # become those of another later.
        for place in range(len(TYPES)):
            for _ in range(place + 1):
                connection.on_message(_message(subs, (place, "event")))
        hand_on(connection, [_message(subs, step) for step in steps])
        await asyncio.sleep(0)
        return [sub.outcome() for sub in subs]


def _one_by_one(connection: Connection, messages: list[bytes]) -> None:
    assert connection._socket is not None
    for data in messages:
        if connection._socket.is_closing:
            return
        connection.on_message(data)


def _together(connection: Connection, messages: list[bytes]) -> None:
    assert connection._socket is not None
    for start in range(0, len(messages), PER_READ):
        if connection._socket.is_closing:
            return
        connection._runs._apart = 0
        connection.on_messages(messages[start : start + PER_READ])


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, how=CONSUMERS)
def test_messages_of_one_read_come_to_the_same_as_one_by_one(
    steps: list[tuple[int, str]], how: tuple[str, ...]
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        alone = runner.run(_outcomes(steps, how, _one_by_one))
        together = runner.run(_outcomes(steps, how, _together))
    assert together == alone


@pytest.mark.parametrize("taken", ["handler", "buffer", "filter", "drop"])
async def test_a_run_of_events_is_decoded_in_one_go(taken: str) -> None:
    async with _world([taken] * 4) as (connection, subs):
        connection.on_message(_message(subs, (0, "event")))
        messages = [_message(subs, (0, "event")) for _ in range(10)]
        assert connection._runs.receive(messages, connection._routes) == 10
        assert subs[0].subscription.stats().received == 11


async def test_events_of_several_subscriptions_of_one_type_are_decoded_in_one_go() -> None:
    async with _world(["handler"] * 4) as (connection, subs):
        for place in (0, 1, 3):
            connection.on_message(_message(subs, (place, "event")))
        messages = [_message(subs, (place, "event")) for _ in range(5) for place in (0, 1, 3)]
        assert connection._runs.receive(messages, connection._routes) == len(messages)
        assert [sub.subscription.stats().received for sub in subs] == [6, 6, 0, 6]


@pytest.mark.parametrize("places", [(0,), (0, 1, 3)])
async def test_a_handler_in_a_run_finds_the_events_so_far_counted(places: tuple[int, ...]) -> None:
    async with _world(["buffer"] * 4) as (connection, subs):
        found: dict[int, list[tuple[int, str | None, int]]] = {place: [] for place in places}

        def note(place: int) -> Callable[[Tick], None]:
            def on_data(event: Tick) -> None:
                subscription = subs[place].subscription
                found[place].append((event.n, subscription.cursor, subscription.stats().received))

            return on_data

        for place in places:
            subs[place].subscription.on_data(note(place))
            connection.on_message(_message(subs, (place, "event")))
        messages = [_message(subs, (place, "event")) for _ in range(8) for place in places]
        assert connection._runs.receive(messages, connection._routes) == len(messages)
        for place in places:
            # Handled is what came before: the handler has not returned yet.
            assert found[place] == [(n, f"c{n - 1}", n) for n in range(1, 10)]
            assert subs[place].subscription.stats().received == 9


async def test_a_run_of_several_subscriptions_goes_to_handlers_filters_and_buffers_in_one_go() -> None:
    async with _world(["handler", "buffer", "handler", "filter"]) as (connection, subs):
        for place in (0, 1, 3):
            connection.on_message(_message(subs, (place, "event")))
        messages = [_message(subs, (place, "event")) for _ in range(5) for place in (0, 1, 3)]
        assert connection._runs.receive(messages, connection._routes) == len(messages)
        assert [sub.subscription.stats().received for sub in subs] == [6, 6, 0, 6]
        around = connection._routes.prefix_length + 1
        held = subs[1].subscription._delivery.consumer.buffer
        assert [response.size_bytes for response in held.items or ()][1:] == [
            len(data) - around for data in messages[1::3]
        ]


async def test_where_types_are_mixed_the_next_reads_are_not_tried_in_vain() -> None:
    async with _world(["handler"] * 4) as (connection, subs):
        for place in (0, 2):
            connection.on_message(_message(subs, (place, "event")))
        connection.on_messages([_message(subs, (place, "event")) for place in (0, 2)])
        assert connection._runs._apart > 0
        assert connection._runs.receive([_message(subs, (0, "event"))] * 2, connection._routes) == 0
        assert [sub.subscription.stats().received for sub in subs] == [2, 0, 2, 0]
