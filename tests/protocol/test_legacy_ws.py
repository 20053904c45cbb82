"""The legacy protocol: every message in every state, for both roles, and what is written."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_sdk.protocol.codec import encode_message
from circuit_breaker_sdk.protocol.conversation import Close
from circuit_breaker_sdk.protocol.legacy_ws import LegacyClientProtocol, LegacyServerProtocol
from circuit_breaker_sdk.protocol.messages import (
    Complete,
    ConnectionAck,
    ConnectionInit,
    Error,
    Message,
    Next,
    Pong,
    Subscribe,
    UnreadableSubscribe,
)
from circuit_breaker_sdk.protocol.transitions import ClientState, ServerEvent, ServerState
from tests.protocol.roles import judge
from tests.protocol.strategies import ids, layouts, messages

_S = ServerState
_C = ClientState
SUBSCRIBE = Subscribe("1", "subscription { x }")
NO = (GraphQLError(message="no"),)

INIT = b'{"type":"connection_init","payload":{"a":1}}'
START = b'{"id":"1","type":"start","payload":{"query":"subscription { x }"}}'
STOP = b'{"id":"1","type":"stop"}'
TERMINATE = b'{"type":"connection_terminate"}'
ACK = b'{"type":"connection_ack"}'
REFUSAL = b'{"type":"connection_error","payload":{"message":"no"}}'
KA = b'{"type":"ka"}'
DATA = b'{"id":"1","type":"data","payload":{"data":1}}'
ERROR = b'{"id":"1","type":"error","payload":{"message":"no"}}'
COMPLETE = b'{"id":"1","type":"complete"}'
INVALID = b'{"id":"1","type":"error","payload":{"message":"Invalid message type!"}}'
INVALID_WITHOUT_ID = b'{"type":"error","payload":{"message":"Invalid message type!"}}'


def server(state: ServerState = _S.READY, *active: str, max_operations: int = 2000) -> LegacyServerProtocol:
    protocol = LegacyServerProtocol(max_operations=max_operations)
    if state in (_S.INITIALISING, _S.READY):
        protocol.receive_message(INIT)
    if state is _S.READY:
        protocol.send_ack()
    if state is _S.CLOSED:
        protocol.receive_closed()
    for id_ in active:
        protocol.receive_message(START.replace(b'"1"', b'"%b"' % id_.encode()))
    protocol.events_received()
    protocol.data_to_send()
    assert protocol.state is state
    return protocol


def client(state: ClientState = _C.READY, *active: str) -> LegacyClientProtocol:
    protocol = LegacyClientProtocol()
    if state in (_C.AWAITING_ACK, _C.READY):
        protocol.send_init()
    if state is _C.READY:
        protocol.receive_message(ACK)
    if state is _C.CLOSED:
        protocol.receive_closed()
    for id_ in active:
        protocol.send_subscribe(Subscribe(id_, "subscription { x }"))
    protocol.events_received()
    protocol.data_to_send()
    assert protocol.state is state
    return protocol


_OPEN = (_S.AWAITING_INIT, _S.INITIALISING, _S.READY)
_NOT_A_CLIENTS = (COMPLETE, DATA, ERROR, b'{"id":"1","type":"subscribe"}', b'{"id":"1","type":"hello"}')
SERVER_CELLS: list[tuple[ServerState, bytes, ServerState | int, list[ServerEvent], list[bytes]]] = [
    (_S.AWAITING_INIT, INIT, _S.INITIALISING, [ConnectionInit({"a": 1})], []),
    (_S.AWAITING_INIT, START, 4401, [], []),
    (_S.INITIALISING, INIT, 4429, [], []),
    (_S.INITIALISING, START, 4401, [], []),
    (_S.READY, INIT, 4429, [], []),
    (_S.READY, START, _S.READY, [SUBSCRIBE], []),
    *((state, STOP, state, [], []) for state in _OPEN),
    *((state, TERMINATE, 1000, [], []) for state in _OPEN),
    *((state, message, state, [], [INVALID]) for state in _OPEN for message in _NOT_A_CLIENTS),
    *((state, message, state, [], [INVALID_WITHOUT_ID]) for state in _OPEN for message in (ACK, KA, REFUSAL)),
    *((state, b'{"type":"ping","id":7}', state, [], [INVALID_WITHOUT_ID]) for state in _OPEN),
    *((state, b"no JSON", 4400, [], []) for state in _OPEN),
    *((_S.CLOSED, message, _S.CLOSED, [], []) for message in (INIT, START, STOP, TERMINATE, KA, b"no JSON")),
]
_NOT_YET = (_C.CONNECTED, _C.AWAITING_ACK)
CLIENT_CELLS: list[tuple[ClientState, bytes, ClientState | int, Sequence[Message]]] = [
    (_C.CONNECTED, ACK, 4400, []),
    (_C.AWAITING_ACK, ACK, _C.READY, [ConnectionAck()]),
    (_C.AWAITING_ACK, b'{"type":"connection_ack","payload":[1]}', _C.READY, [ConnectionAck()]),
    (_C.READY, ACK, _C.READY, []),
    (_C.READY, REFUSAL, 4400, []),
    *((state, REFUSAL, 4403, []) for state in _NOT_YET),
    *((state, message, 4400, []) for state in _NOT_YET for message in (DATA, ERROR, COMPLETE)),
    *((_C.READY, message, _C.READY, []) for message in (DATA, ERROR, COMPLETE)),
    *((state, KA, state, [Pong()]) for state in (*_NOT_YET, _C.READY)),
    *((state, INVALID_WITHOUT_ID, state, []) for state in (*_NOT_YET, _C.READY)),
    *(
        (state, message, 4400, [])
        for state in (*_NOT_YET, _C.READY)
        for message in (INIT, START, STOP, TERMINATE, b'{"type":"ping"}', b"no JSON", b'{"type":"data"}')
    ),
    *((_C.CLOSED, message, _C.CLOSED, []) for message in (ACK, REFUSAL, KA, DATA, ERROR, COMPLETE)),
]


def test_the_cells_are_all_there_are() -> None:
    assert {(state, message) for state, message, *_ in SERVER_CELLS} >= set(
        product(_OPEN, (INIT, START, STOP, TERMINATE))
    )
    assert {(state, message) for state, message, *_ in CLIENT_CELLS} >= set(
        product(_C, (ACK, REFUSAL, KA, DATA, ERROR, COMPLETE))
    )


@pytest.mark.parametrize(("state", "message", "after", "events", "answers"), SERVER_CELLS)
def test_every_message_in_every_state_of_a_server(
    state: ServerState,
    message: bytes,
    after: ServerState | int,
    events: list[ServerEvent],
    answers: list[bytes],
) -> None:
    protocol = server(state)
    protocol.receive_message(message)
    assert (protocol.close.code if protocol.close else protocol.state) == after
    assert protocol.events_received() == events
    assert protocol.data_to_send() == answers


@pytest.mark.parametrize(("state", "message", "after", "events"), CLIENT_CELLS)
def test_every_message_in_every_state_of_a_client(
    state: ClientState, message: bytes, after: ClientState | int, events: Sequence[Message]
) -> None:
    protocol = client(state)
    protocol.receive_message(message)
    assert (protocol.close.code if protocol.close else protocol.state) == after
    assert protocol.events_received() == events
    assert protocol.data_to_send() == []


# The server's ----------------------------------------------------------------------------------------------


def test_a_ka_goes_out_right_behind_the_acknowledgement_and_wherever_a_ping_would() -> None:
    protocol = server(_S.INITIALISING)
    assert protocol.send_ack()
    protocol.send_ping()
    protocol.send_ping({"resume": {"id": "1", "cursor": "c"}})
    assert protocol.data_to_send() == [ACK, KA, KA]
    protocol.receive_closed()
    protocol.send_ping()
    assert protocol.data_to_send() == []


def test_an_acknowledgement_behind_the_end_is_none() -> None:
    protocol = server(_S.CLOSED)
    assert not protocol.send_ack()
    assert not protocol.send_refuse()
    assert protocol.data_to_send() == []


def test_a_refusal_is_a_connection_error_and_a_close_a_little_later() -> None:
    protocol = server(_S.INITIALISING)
    assert protocol.send_refuse("no")
    assert protocol.data_to_send() == [REFUSAL]
    assert protocol.close == Close(CloseCode.FORBIDDEN, "no", 0.01)
    protocol.receive_message(START)
    assert protocol.events_received() == []


def test_a_stop_is_answered_with_complete() -> None:
    protocol = server(_S.READY, "1", "2")
    protocol.receive_message(STOP)
    assert protocol.events_received() == [Complete("1")]
    assert protocol.data_to_send() == [COMPLETE]
    assert protocol.operations == {"2"}


def test_an_id_that_is_started_again_is_ended_first_without_a_word() -> None:
    protocol = server(_S.READY, "1")
    protocol.receive_message(START)
    assert protocol.events_received() == [Complete("1"), SUBSCRIBE]
    assert protocol.data_to_send() == []
    assert protocol.operations == {"1"}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "start: the payload is missing"),
        (b',"payload":{}', "start: the payload has no query"),
        (b',"payload":{"query":1}', "start: invalid payload"),
        (b',"payload":{"query":"q","variables":{"v":NaN}}', "start: invalid payload: NaN"),
    ],
)
def test_a_start_that_cannot_be_read_is_its_operations_fault(payload: bytes, reason: str) -> None:
    protocol = server()
    protocol.receive_message(b'{"id":"1","type":"start"' + payload + b"}")
    (event,) = protocol.events_received()
    assert isinstance(event, UnreadableSubscribe)
    assert event.reason.startswith(reason)
    assert protocol.send_error("1", NO)
    assert protocol.data_to_send() == [ERROR]


def test_events_errors_and_the_end_are_written_in_the_legacy_form() -> None:
    protocol = server(_S.READY, "1")
    assert protocol.send_next("1", b'{"data":1}')
    assert protocol.event_prefix("1") + b'{"data":1}}' == DATA
    assert protocol.send_complete("1")
    assert protocol.data_to_send() == [DATA, COMPLETE]


def test_one_error_is_an_object_and_more_are_listed_in_the_first() -> None:
    protocol = server(_S.READY, "1", "2", "3")
    listed = b'"errors":[{"message":"no"},{"message":"nor this","path":["a",0]}]'
    protocol.send_error("1", NO)
    protocol.send_error("2", (*NO, GraphQLError(message="nor this", path=("a", 0))))
    protocol.send_error("3", ())
    assert protocol.data_to_send() == [
        ERROR,
        b'{"id":"2","type":"error","payload":{"message":"no",' + listed + b"}}",
        b'{"id":"3","type":"error","payload":{"message":"the operation failed"}}',
    ]


def test_one_operation_too_many_is_an_error_of_its_own() -> None:
    protocol = server(_S.READY, "1", max_operations=1)
    protocol.receive_message(START.replace(b'"1"', b'"2"'))
    (data,) = protocol.data_to_send()
    assert data.startswith(b'{"id":"2","type":"error","payload":{"message":"more than 1 operations')
    assert protocol.close is None


# The client's ----------------------------------------------------------------------------------------------


def test_a_client_starts_and_stops() -> None:
    protocol = client()
    protocol.send_subscribe(SUBSCRIBE)
    assert protocol.send_complete("1")
    protocol.send_ping()
    assert protocol.data_to_send() == [START, STOP]
    # The reference sends no `complete` for a `stop`; one of another server is dropped.
    protocol.receive_message(COMPLETE)
    assert protocol.events_received() == []


def test_a_client_hears_data_errors_and_the_end() -> None:
    protocol = client(_C.READY, "1", "2")
    for message in (DATA, ERROR, DATA, COMPLETE.replace(b'"1"', b'"2"')):
        protocol.receive_message(message)
    assert protocol.events_received() == [Next("1", b'{"data":1}'), Error("1", NO), Complete("2")]
    assert not protocol.operations


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b',"payload":{"message":"no token"}', "no token"),
        (b',"payload":"no token"', "no token"),
        (b',"payload":{"errors":[{"message":"a"},{"message":"b"}]}', "a; b"),
        (b"", ""),
    ],
)
def test_a_refusal_has_the_servers_text(payload: bytes, text: str) -> None:
    protocol = client(_C.AWAITING_ACK)
    protocol.receive_message(b'{"type":"connection_error"' + payload + b"}")
    assert protocol.close == Close(CloseCode.FORBIDDEN, text)


@given(id_=ids)
def test_any_id_comes_back_as_it_was(id_: str) -> None:
    ours, peer = client(), server()
    ours.send_subscribe(Subscribe(id_, "subscription { x }"))
    (start,) = ours.data_to_send()
    peer.receive_message(start)
    if len(id_.encode()) > 128:
        return
    assert peer.events_received() == [Subscribe(id_, "subscription { x }")]
    peer.send_next(id_, b"{}")
    peer.send_error(id_, NO)
    for data in peer.data_to_send():
        ours.receive_message(data)
    assert ours.events_received() == [Next(id_, b"{}"), Error(id_, NO)]


# Any bytes -------------------------------------------------------------------------------------------------

_almost = layouts([("id", '"1"'), ("type", '"start"'), ("payload", '{"query":"q"}')]) | layouts(
    [("id", '"1"'), ("type", '"data"'), ("payload", '{"data":1}')]
)
_known = st.sampled_from([INIT, START, STOP, TERMINATE, ACK, REFUSAL, KA, DATA, ERROR, COMPLETE, INVALID])
_received = st.lists(
    st.binary(max_size=30) | messages.map(encode_message) | _almost | _known, min_size=1, max_size=8
)


@given(acknowledged=st.booleans(), data=_received)
def test_a_server_survives_any_bytes(acknowledged: bool, data: list[bytes]) -> None:
    protocol = server(_S.READY if acknowledged else _S.AWAITING_INIT, max_operations=2)
    for message in data:
        protocol.receive_message(message)
    protocol.events_received()
    judge(protocol, {1000, 4400, 4401, 4429})


@given(acknowledged=st.booleans(), data=_received)
def test_a_client_survives_any_bytes(acknowledged: bool, data: list[bytes]) -> None:
    protocol = client(_C.READY if acknowledged else _C.AWAITING_ACK, *(["1"] if acknowledged else []))
    for message in data:
        protocol.receive_message(message)
    protocol.events_received()
    judge(protocol, {4400, 4403})
