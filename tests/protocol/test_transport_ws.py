"""Both roles: bytes in; events, bytes and closes out. Each cell of the tables: test_transitions.py."""

from __future__ import annotations

import json

import pytest

from circuit_breaker_sdk.errors import GraphQLError, UsageError
from circuit_breaker_sdk.protocol import conversation
from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_sdk.protocol.codec import encode_message
from circuit_breaker_sdk.protocol.conversation import Close
from circuit_breaker_sdk.protocol.messages import (
    Complete,
    ConnectionAck,
    ConnectionInit,
    Error,
    Message,
    Next,
    Ping,
    Pong,
    Subscribe,
    UnreadableSubscribe,
)
from circuit_breaker_sdk.protocol.transitions import ClientState, ServerState
from circuit_breaker_sdk.protocol.transport_ws import ClientProtocol, ServerProtocol
from tests.protocol.roles import client, server

NO = (GraphQLError(message="no"),)
SUBSCRIBE = Subscribe("1", "subscription { x }")
INVALID = [
    b"",
    b"hello",
    b"[]",
    b'{"type":"hello"}',
    b'{"type":"complete"}',
    b'{"type":"ping","payload":1}',
    b'{"id":"","type":"complete"}',
    b'{"type":"' + "é".encode() * 100 + b'"}',
    b'{"type":"ping","x":"\xff"}',
    b"[" * 100_000,
]


_S = ServerState
_C = ClientState

# ---------------------------------------------------------------- what no table decides: both roles


@pytest.mark.parametrize("data", INVALID)
@pytest.mark.parametrize("state", [*ServerState, *ClientState])
def test_either_role_closes_4400_on_an_invalid_message(state: ServerState | ClientState, data: bytes) -> None:
    protocol = server(state) if isinstance(state, ServerState) else client(state)
    protocol.receive_message(data)
    assert str(protocol.state) == "closed"
    if str(state) == "closed":
        assert protocol.close is None
        return
    assert protocol.close is not None
    assert protocol.close.code == 4400
    assert 0 < len(protocol.close.reason.encode()) <= 123


HALF_A_PAIR = rb'{"id":"1","type":"subscribe","payload":{"query":"q","variables":{"v":"\ud83d"}}}'


def test_a_subscribe_that_cannot_be_read_is_reported_with_its_id_reserved() -> None:
    protocol = server()
    protocol.receive_message(HALF_A_PAIR)
    (event,) = protocol.events_received()
    assert isinstance(event, UnreadableSubscribe)
    assert "surrogate" in event.reason
    assert protocol.operations == {"1"}
    assert protocol.send_error(event.id, NO)
    assert (protocol.operations, protocol.close) == (set(), None)


def test_a_subscribe_that_cannot_be_read_keeps_the_rules_of_one_that_can() -> None:
    early = server(ServerState.AWAITING_INIT)
    early.receive_message(HALF_A_PAIR)
    assert early.close is not None
    assert early.close.code == 4401
    twice = server()
    for _ in range(2):
        twice.receive_message(HALF_A_PAIR)
    assert twice.close is not None
    assert twice.close.code == 4409
    long = server()
    long.receive_message(rb'{"id":"%b","type":"subscribe","payload":{"query":"q"}}' % (rb"\ud83d" * 43))
    assert long.close is not None
    assert long.close.code == 4400


def test_an_id_with_half_a_surrogate_pair_is_answered_under_that_id() -> None:
    protocol = server()
    protocol.receive_message(rb'{"id":"\ud83d","type":"subscribe","payload":{"query":"q"}}')
    (event,) = protocol.events_received()
    assert isinstance(event, UnreadableSubscribe)
    assert protocol.send_error(event.id, NO)
    (answer,) = protocol.data_to_send()
    assert json.loads(answer) == {"id": "\ud83d", "type": "error", "payload": [{"message": "no"}]}
    protocol.receive_message(rb'{"id":"\ud83d","type":"complete"}')
    assert (protocol.events_received(), protocol.close) == ([], None)


def test_the_other_roles_messages_close_4400() -> None:
    ours, theirs = server(), client()
    ours.receive_message(encode_message(ConnectionAck()))
    theirs.receive_message(encode_message(SUBSCRIBE))
    assert ours.close == Close(4400, "this message is not a client's")
    assert theirs.close == Close(4400, "this message is not a server's")


def test_results_before_the_ack_close_4400() -> None:
    protocol = client(ClientState.AWAITING_ACK)
    protocol.receive_message(encode_message(Next("1", b"{}")))
    assert protocol.close == Close(4400, "unexpected message before the connection was acknowledged")


def test_the_ack_is_reported_once() -> None:
    protocol = client(ClientState.AWAITING_ACK)
    protocol.receive_message(encode_message(ConnectionAck({"a": 1})))
    protocol.receive_message(encode_message(ConnectionAck()))
    assert protocol.events_received() == [ConnectionAck({"a": 1})]


def test_an_unasked_pong_is_reported_and_answers_nothing() -> None:
    for protocol in (server(), client()):
        protocol.receive_message(encode_message(Pong()))
        assert protocol.events_received() == [Pong()]
        assert protocol.data_to_send() == []


def test_ka_is_a_servers_habit_and_a_clients_mistake() -> None:
    receiver = client()
    receiver.receive_message(b'{"type":"ka"}')
    assert (receiver.state, receiver.close, receiver.events_received()) == (ClientState.READY, None, [])
    sender = server()
    sender.receive_message(b'{"type":"ka"}')
    assert sender.close == Close(4400, "this message is not a client's")


@pytest.mark.parametrize("protocol", [server(), client()], ids=["server", "client"])
def test_what_was_queued_is_still_written_before_the_close(protocol: ServerProtocol | ClientProtocol) -> None:
    protocol.send_ping()
    protocol.send_close(1012, "restart")
    protocol.send_ping()
    protocol.send_close(1011, "too late")
    assert protocol.data_to_send() == [b'{"type":"ping"}']


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 5000])
@pytest.mark.parametrize("protocol", [server(), client()], ids=["server", "client"])
def test_a_code_that_no_close_frame_may_carry_is_refused(
    protocol: ServerProtocol | ClientProtocol, code: int
) -> None:
    with pytest.raises(UsageError, match=str(code)):
        protocol.send_close(code, "")


def test_the_first_close_stands_and_its_reason_is_cut_to_fit() -> None:
    protocol = server()
    protocol.send_close(4500, "é" * 100)
    protocol.send_close(1000, "")
    protocol.receive_message(b"hello")
    assert protocol.close == Close(4500, "é" * 61)


def test_a_transport_that_is_gone_leaves_no_close_to_do() -> None:
    for protocol in (server(), client()):
        protocol.receive_closed()
        protocol.send_close(1000, "")
        assert protocol.close is None
        assert str(protocol.state) == "closed"


def test_events_and_data_are_taken_once_and_in_order() -> None:
    protocol = server()
    protocol.receive_message(encode_message(Ping({"n": 1})))
    protocol.receive_message(encode_message(Ping({"n": 2})))
    assert protocol.events_received() == [Ping({"n": 1}), Ping({"n": 2})]
    assert protocol.data_to_send() == [encode_message(Pong({"n": 1})), encode_message(Pong({"n": 2}))]
    assert protocol.events_received() == []
    assert protocol.data_to_send() == []


def test_events_that_came_before_a_mistake_are_still_handed_out() -> None:
    protocol = server()
    protocol.receive_message(encode_message(SUBSCRIBE))
    protocol.receive_message(b"hello")
    assert protocol.events_received() == [SUBSCRIBE]
    assert set(protocol.operations) == {"1"}


def test_a_ping_whose_payload_cannot_be_echoed_gets_an_empty_pong(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_payloads(message: Message) -> bytes:
        if isinstance(message, Pong) and message.payload is not None:
            raise UsageError("nested too deep")
        return encode_message(message)

    monkeypatch.setattr(conversation, "encode_message", refuse_payloads)
    protocol = client()
    protocol.receive_message(encode_message(Ping({"n": 1})))
    assert protocol.data_to_send() == [b'{"type":"pong"}']


def test_however_deep_a_ping_is_nested_it_is_answered_or_refused() -> None:
    for depth in range(800, 1100):
        protocol = server()
        protocol.receive_message(b'{"type":"ping","payload":{"x":' + b"[" * depth + b"]" * depth + b"}}")
        answered = bool(protocol.data_to_send())
        assert answered == (protocol.close is None)


# ---------------------------------------------------------------- the server


def test_no_init_in_time_closes_4408() -> None:
    protocol = server(ServerState.AWAITING_INIT)
    protocol.receive_init_timeout()
    assert protocol.close == Close(CloseCode.INIT_TIMEOUT, "Connection initialisation timeout")


@pytest.mark.parametrize("state", [_S.INITIALISING, _S.READY, _S.CLOSED])
def test_the_init_timeout_means_nothing_once_an_init_was_received(state: ServerState) -> None:
    protocol = server(state)
    protocol.receive_init_timeout()
    assert (protocol.state, protocol.close) == (state, None)


def test_the_ack_carries_a_payload_and_makes_ready() -> None:
    protocol = server(ServerState.INITIALISING)
    assert protocol.send_ack({"resume": {"version": 1}})
    assert protocol.state is ServerState.READY
    assert protocol.data_to_send() == [b'{"type":"connection_ack","payload":{"resume":{"version":1}}}']


def test_an_ack_that_cannot_be_written_changes_nothing() -> None:
    protocol = server(ServerState.INITIALISING)
    with pytest.raises(UsageError):
        protocol.send_ack({"x": object()})
    assert protocol.state is ServerState.INITIALISING
    assert protocol.data_to_send() == []


def test_refused_credentials_close_4403() -> None:
    protocol = server(ServerState.INITIALISING)
    assert protocol.send_refuse("token expired")
    assert protocol.close == Close(4403, "token expired")
    assert protocol.data_to_send() == []


@pytest.mark.parametrize("state", [_S.AWAITING_INIT, _S.READY])
def test_acknowledging_or_refusing_without_an_init_is_a_mistake_of_ours(state: ServerState) -> None:
    protocol = server(state)
    with pytest.raises(UsageError, match="send_ack"):
        protocol.send_ack()
    with pytest.raises(UsageError, match="send_refuse"):
        protocol.send_refuse()


def test_a_client_that_left_while_it_was_being_checked_gets_neither_ack_nor_refusal() -> None:
    protocol = server(ServerState.INITIALISING)
    protocol.receive_message(encode_message(ConnectionInit()))
    assert not protocol.send_ack()
    assert not protocol.send_refuse()
    assert protocol.close == Close(4429, "Too many initialisation requests")
    assert protocol.data_to_send() == []


def test_an_id_is_reserved_with_the_subscribe_and_its_second_use_closes_4409() -> None:
    protocol = server()
    protocol.receive_message(encode_message(SUBSCRIBE))
    assert set(protocol.operations) == {"1"}
    protocol.receive_message(encode_message(Subscribe("1", "{ aQuery }")))
    assert protocol.close == Close(4409, "Subscriber for 1 already exists")
    assert protocol.events_received() == [SUBSCRIBE]


def test_an_id_over_the_limit_closes_4400() -> None:
    protocol = server()
    protocol.receive_message(encode_message(Subscribe("é" * 64, "q")))
    assert protocol.close is None
    protocol.receive_message(encode_message(Subscribe("é" * 64 + "x", "q")))
    assert protocol.close == Close(4400, "subscribe: the id is over 128 bytes")


def test_an_operation_too_many_is_refused_alone() -> None:
    protocol = server(ServerState.READY, "1", max_operations=1)
    protocol.receive_message(encode_message(Subscribe("2", "q")))
    assert protocol.events_received() == []
    assert protocol.close is None
    [answer] = protocol.data_to_send()
    refusal = json.loads(answer)
    assert (refusal["id"], refusal["type"]) == ("2", "error")
    assert refusal["payload"][0]["extensions"] == {"code": "TOO_MANY_OPERATIONS"}
    assert protocol.send_complete("1")
    protocol.receive_message(encode_message(Subscribe("2", "q")))
    assert protocol.events_received() == [Subscribe("2", "q")]


def test_results_go_out_as_they_were_encoded_and_errors_in_them_end_nothing() -> None:
    protocol = server(ServerState.READY, "1")
    assert protocol.send_next("1", b'{"errors":[{"message":"no"}]}')
    assert protocol.send_next("1", b'{"data":{"x": 1}}')
    assert protocol.data_to_send() == [
        b'{"id":"1","type":"next","payload":{"errors":[{"message":"no"}]}}',
        b'{"id":"1","type":"next","payload":{"data":{"x": 1}}}',
    ]
    assert set(protocol.operations) == {"1"}


def test_an_error_ends_its_operation_alone_and_frees_the_id() -> None:
    protocol = server(ServerState.READY, "1", "2")
    assert protocol.send_error("1", NO)
    assert not protocol.send_complete("1")
    assert not protocol.send_error("1", NO)
    assert protocol.data_to_send() == [b'{"id":"1","type":"error","payload":[{"message":"no"}]}']
    assert set(protocol.operations) == {"2"}
    protocol.receive_message(encode_message(SUBSCRIBE))
    assert protocol.events_received() == [SUBSCRIBE]


def test_a_complete_ends_its_operation_and_nothing_follows_it() -> None:
    protocol = server(ServerState.READY, "1")
    assert protocol.send_complete("1")
    assert not protocol.send_next("1", b"{}")
    assert protocol.data_to_send() == [b'{"id":"1","type":"complete"}']


def test_a_clients_complete_frees_the_id_and_is_reported_once() -> None:
    protocol = server(ServerState.READY, "1")
    protocol.receive_message(encode_message(Complete("1")))
    protocol.receive_message(encode_message(Complete("1")))
    assert protocol.events_received() == [Complete("1")]
    assert not protocol.send_next("1", b"{}")
    assert protocol.data_to_send() == []


def test_nothing_is_sent_on_a_closed_connection() -> None:
    protocol = server(ServerState.READY, "1")
    protocol.receive_closed()
    assert not protocol.send_next("1", b"{}")
    assert not protocol.send_error("1", NO)
    assert not protocol.send_complete("1")
    assert protocol.data_to_send() == []
    assert set(protocol.operations) == {"1"}


def test_shutting_down_closes_without_completing_anything() -> None:
    protocol = server(ServerState.READY, "1")
    protocol.send_next("1", b"{}")
    protocol.send_close(CloseCode.SERVICE_RESTART, "restarting")
    assert protocol.data_to_send() == [b'{"id":"1","type":"next","payload":{}}']
    assert protocol.close == Close(1012, "restarting")


# ---------------------------------------------------------------- the client


def test_init_is_sent_once_and_first() -> None:
    protocol = client(ClientState.CONNECTED)
    protocol.send_init({"token": "t"})
    assert protocol.state is ClientState.AWAITING_ACK
    with pytest.raises(UsageError, match="awaiting_ack"):
        protocol.send_init()
    assert protocol.data_to_send() == [b'{"type":"connection_init","payload":{"token":"t"}}']


def test_an_init_that_cannot_be_written_changes_nothing() -> None:
    protocol = client(ClientState.CONNECTED)
    with pytest.raises(UsageError):
        protocol.send_init({"x": object()})
    assert protocol.state is ClientState.CONNECTED


@pytest.mark.parametrize("state", [_C.CONNECTED, _C.AWAITING_ACK, _C.CLOSED])
def test_nothing_is_subscribed_unless_ready(state: ClientState) -> None:
    protocol = client(state)
    with pytest.raises(UsageError, match=str(state)):
        protocol.send_subscribe(SUBSCRIBE)
    assert protocol.data_to_send() == []


@pytest.mark.parametrize("state", [_C.CONNECTED, _C.AWAITING_ACK, _C.READY])
def test_a_ping_may_be_sent_at_any_time(state: ClientState) -> None:
    protocol = client(state)
    protocol.send_ping({"n": 1})
    assert protocol.data_to_send() == [b'{"type":"ping","payload":{"n":1}}']


def test_an_operation_is_registered_before_its_subscribe_is_written() -> None:
    protocol = client()
    protocol.send_subscribe(SUBSCRIBE)
    assert set(protocol.operations) == {"1"}
    assert protocol.data_to_send() == [encode_message(SUBSCRIBE)]


@pytest.mark.parametrize("id_", ["1", ""])
def test_an_id_in_use_or_empty_is_a_mistake_of_the_caller(id_: str) -> None:
    protocol = client(ClientState.READY, "1")
    with pytest.raises(UsageError, match="in use"):
        protocol.send_subscribe(Subscribe(id_, "q"))
    assert protocol.data_to_send() == []


def test_a_subscribe_that_cannot_be_written_reserves_nothing() -> None:
    protocol = client()
    with pytest.raises(UsageError):
        protocol.send_subscribe(Subscribe("1", "q", {"x": object()}))
    assert set(protocol.operations) == set()


def test_results_of_an_active_operation_are_events_errors_in_them_included() -> None:
    protocol = client(ClientState.READY, "1")
    result = Next("1", b'{"data":null,"errors":[{"message":"no"}]}')
    protocol.receive_message(encode_message(result))
    protocol.receive_message(encode_message(result))
    assert protocol.events_received() == [result, result]
    assert set(protocol.operations) == {"1"}


@pytest.mark.parametrize("end", [Error("1", NO), Complete("1")])
def test_an_error_or_a_complete_ends_its_operation_alone(end: Message) -> None:
    protocol = client(ClientState.READY, "1", "2")
    protocol.receive_message(encode_message(end))
    protocol.receive_message(encode_message(end))
    protocol.receive_message(encode_message(Next("1", b"{}")))
    protocol.receive_message(encode_message(Next("2", b"{}")))
    assert protocol.events_received() == [end, Next("2", b"{}")]
    assert set(protocol.operations) == {"2"}
    assert protocol.close is None


def test_what_was_under_way_when_we_completed_is_dropped_silently() -> None:
    protocol = client(ClientState.READY, "1")
    assert protocol.send_complete("1")
    assert not protocol.send_complete("1")
    for late in (Next("1", b"{}"), Complete("1"), Error("1", NO)):
        protocol.receive_message(encode_message(late))
    assert protocol.events_received() == []
    assert protocol.data_to_send() == [b'{"id":"1","type":"complete"}']


def test_a_complete_on_a_closed_connection_is_not_sent() -> None:
    protocol = client(ClientState.READY, "1")
    protocol.receive_closed()
    assert not protocol.send_complete("1")
    assert protocol.data_to_send() == []


@pytest.mark.parametrize(
    ("state", "close"),
    [
        (_C.AWAITING_ACK, Close(CloseCode.FORBIDDEN, "no token")),
        (_C.READY, Close(CloseCode.BAD_REQUEST, "unknown message type 'connection_error'")),
    ],
)
def test_a_refusal_of_the_legacy_protocol_has_the_servers_text(state: ClientState, close: Close) -> None:
    protocol = client(state)
    protocol.receive_message(b'{"type":"connection_error","payload":{"message":"no token"}}')
    assert protocol.close == close


def test_a_client_sends_no_refusal() -> None:
    protocol = server()
    protocol.receive_message(b'{"type":"connection_error","payload":{"message":"no token"}}')
    assert protocol.close == Close(CloseCode.BAD_REQUEST, "unknown message type 'connection_error'")
