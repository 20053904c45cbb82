"""Client and server talk to each other in memory: what one writes is what the other expects."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol.conversation import Close
from circuit_breaker_sdk.protocol.messages import (
    Complete,
    ConnectionAck,
    ConnectionInit,
    Error,
    Next,
    Ping,
    Pong,
    Subscribe,
)
from circuit_breaker_sdk.protocol.transport_ws import (
    ClientEvent,
    ClientProtocol,
    ClientState,
    ServerEvent,
    ServerProtocol,
    ServerState,
)

FAILED = (GraphQLError(message="no such field"),)


class Wire:
    """Join a client and a server; messages travel when told to."""

    def __init__(self) -> None:
        self.client = ClientProtocol()
        self.server = ServerProtocol()

    def to_server(self) -> list[ServerEvent]:
        for data in everything_of(self.client):
            self.server.receive_message(data)
        return self.server.events_received()

    def to_client(self) -> list[ClientEvent]:
        for data in everything_of(self.server):
            self.client.receive_message(data)
        return self.client.events_received()


def everything_of(role: ClientProtocol | ServerProtocol) -> list[bytes]:
    """Take what is to be sent; before and after that, the role says how many there are."""
    said = role.messages_to_send
    data = role.data_to_send()
    assert said == len(data)
    assert not role.messages_to_send
    return data


@pytest.fixture
def wire() -> Wire:
    wire = Wire()
    wire.client.send_init()
    wire.to_server()
    wire.server.send_ack()
    wire.to_client()
    return wire


def test_a_conversation_from_init_to_complete() -> None:
    wire = Wire()
    wire.client.send_init({"resume": {"version": 1}})
    assert wire.to_server() == [ConnectionInit({"resume": {"version": 1}})]
    wire.server.send_ack({"resume": {"version": 1, "epoch": "e"}})
    assert wire.to_client() == [ConnectionAck({"resume": {"version": 1, "epoch": "e"}})]
    subscribe = Subscribe("1", "subscription { x }", {"v": [1]}, "X", {"resume": {"after": "c"}})
    wire.client.send_subscribe(subscribe)
    assert wire.to_server() == [subscribe]
    live: dict[str, object] = {"resume": {"id": "1", "cursor": "c"}}
    wire.server.send_ping(live)
    wire.server.send_next("1", b'{"data":{"x":1}}')
    assert wire.to_client() == [Ping(live), Next("1", b'{"data":{"x":1}}')]
    assert wire.to_server() == [Pong(live)]
    wire.server.send_complete("1")
    assert wire.to_client() == [Complete("1")]
    assert not wire.client.operations
    assert not wire.server.operations
    assert wire.client.close is wire.server.close is None


def test_an_operation_that_fails_leaves_the_others_alone(wire: Wire) -> None:
    for id_ in ("1", "2"):
        wire.client.send_subscribe(Subscribe(id_, "subscription { x }"))
    wire.to_server()
    wire.server.send_error("1", FAILED)
    wire.server.send_next("2", b'{"data":1}')
    assert wire.to_client() == [Error("1", FAILED), Next("2", b'{"data":1}')]
    assert set(wire.client.operations) == set(wire.server.operations) == {"2"}


def test_completes_that_cross_in_flight_are_no_mistake(wire: Wire) -> None:
    wire.client.send_subscribe(Subscribe("1", "subscription { x }"))
    wire.to_server()
    wire.server.send_next("1", b"{}")
    wire.server.send_complete("1")
    wire.client.send_complete("1")
    assert wire.to_server() == []
    assert wire.to_client() == []
    assert wire.client.close is wire.server.close is None


def test_an_id_is_free_again_on_both_sides_once_it_has_ended(wire: Wire) -> None:
    for _ in range(2):
        wire.client.send_subscribe(Subscribe("1", "{ x }"))
        assert wire.to_server() == [Subscribe("1", "{ x }")]
        wire.server.send_next("1", b"{}")
        wire.server.send_complete("1")
        assert wire.to_client() == [Next("1", b"{}"), Complete("1")]


def test_a_refused_client_is_told_by_the_close_alone() -> None:
    wire = Wire()
    wire.client.send_init({"token": "old"})
    wire.to_server()
    wire.server.send_refuse()
    assert wire.to_client() == []
    assert wire.server.close == Close(4403, "Forbidden")


class Conversation(RuleBasedStateMachine):
    """Whatever the two applications do, and however late messages arrive, neither side faults the other."""

    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire()
        self.next_id = 0
        self.sent: dict[str, list[bytes]] = {}
        self.received: dict[str, list[bytes]] = {}
        self.stopped: set[str] = set()

    @initialize()
    def acknowledge(self) -> None:
        self.wire.client.send_init()
        self.wire.to_server()
        self.wire.server.send_ack()
        self.deliver_to_client()

    @rule()
    def deliver_to_client(self) -> None:
        for event in self.wire.to_client():
            if isinstance(event, Next):
                assert event.id not in self.stopped
                self.received.setdefault(event.id, []).append(event.payload)

    @rule()
    def deliver_to_server(self) -> None:
        self.wire.to_server()

    @rule()
    def subscribe(self) -> None:
        self.next_id += 1
        self.wire.client.send_subscribe(Subscribe(str(self.next_id), "subscription { x }"))

    @rule(data=st.data())
    @precondition(lambda self: self.wire.client.operations)
    def unsubscribe(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.wire.client.operations)))
        assert self.wire.client.send_complete(id_)
        self.stopped.add(id_)

    @rule(data=st.data(), payload=st.integers(0, 9).map(lambda n: b'{"data":%d}' % n))
    @precondition(lambda self: self.wire.server.operations)
    def publish(self, data: st.DataObject, payload: bytes) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.wire.server.operations)))
        assert self.wire.server.send_next(id_, payload)
        self.sent.setdefault(id_, []).append(payload)

    @rule(data=st.data(), fails=st.booleans())
    @precondition(lambda self: self.wire.server.operations)
    def end(self, data: st.DataObject, fails: bool) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.wire.server.operations)))
        assert self.wire.server.send_error(id_, FAILED) if fails else self.wire.server.send_complete(id_)

    @rule(from_client=st.booleans())
    def ping(self, from_client: bool) -> None:
        (self.wire.client if from_client else self.wire.server).send_ping({"n": 1})

    @invariant()
    def nobody_closes(self) -> None:
        assert self.wire.client.close is self.wire.server.close is None
        assert self.wire.client.state in (ClientState.CONNECTED, ClientState.READY)
        assert self.wire.server.state in (ServerState.AWAITING_INIT, ServerState.READY)

    def teardown(self) -> None:
        self.deliver_to_server()
        self.deliver_to_client()
        for id_, received in self.received.items():
            assert received == self.sent[id_][: len(received)]
        for id_ in self.wire.client.operations:
            assert self.received.get(id_, []) == self.sent.get(id_, [])
        assert set(self.wire.client.operations) == set(self.wire.server.operations)


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=30)
