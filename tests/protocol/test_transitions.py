"""The tables are complete, and each of their cells is what the specification says."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol.close_codes import CloseCode, is_retryable
from circuit_breaker_sdk.protocol.codec import encode_message
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
from circuit_breaker_sdk.protocol.transitions import (
    CLIENT_TRANSITIONS,
    SERVER_TRANSITIONS,
    ClientEvent,
    ClientState,
    ServerEvent,
    ServerState,
)
from tests.protocol.roles import client, server

NO = (GraphQLError(message="no"),)
SUBSCRIBE = Subscribe("1", "subscription { x }")
_S = ServerState
_C = ClientState


def test_a_server_knows_every_message_a_client_may_send_in_every_open_state() -> None:
    open_states = set(ServerState) - {ServerState.CLOSED}
    # One that cannot be read moves a conversation as one that can.
    sent = set(get_args(ServerEvent)) - {UnreadableSubscribe}
    assert set(SERVER_TRANSITIONS) == set(product(open_states, sent))


def test_a_client_knows_every_message_a_server_may_send_in_every_open_state() -> None:
    open_states = set(ClientState) - {ClientState.CLOSED}
    assert set(CLIENT_TRANSITIONS) == set(product(open_states, get_args(ClientEvent)))


def test_no_message_moves_a_conversation_backwards() -> None:
    server, client = list(ServerState), list(ClientState)
    for (before, _), after in SERVER_TRANSITIONS.items():
        assert isinstance(after, CloseCode) or server.index(after) >= server.index(before)
    for (was, _), then in CLIENT_TRANSITIONS.items():
        assert isinstance(then, CloseCode) or client.index(then) >= client.index(was)


def test_a_peers_mistake_is_never_answered_with_a_code_that_invites_to_repeat_it() -> None:
    codes = [
        code
        for code in [*SERVER_TRANSITIONS.values(), *CLIENT_TRANSITIONS.values()]
        if isinstance(code, CloseCode)
    ]
    assert codes
    assert not any(map(is_retryable, codes))


SERVER_CELLS: list[tuple[ServerState, Message, ServerState | int, list[Message], list[Message]]] = [
    # state before, message received, state after or close code, events, answers
    (_S.AWAITING_INIT, ConnectionInit({"a": 1}), _S.INITIALISING, [ConnectionInit({"a": 1})], []),
    (_S.AWAITING_INIT, SUBSCRIBE, 4401, [], []),
    (_S.AWAITING_INIT, Complete("1"), _S.AWAITING_INIT, [], []),
    (_S.AWAITING_INIT, Ping({"n": 1}), _S.AWAITING_INIT, [Ping({"n": 1})], [Pong({"n": 1})]),
    (_S.AWAITING_INIT, Pong(), _S.AWAITING_INIT, [Pong()], []),
    (_S.INITIALISING, ConnectionInit(), 4429, [], []),
    (_S.INITIALISING, SUBSCRIBE, 4401, [], []),
    (_S.INITIALISING, Complete("1"), _S.INITIALISING, [], []),
    (_S.INITIALISING, Ping(), _S.INITIALISING, [Ping()], [Pong()]),
    (_S.INITIALISING, Pong(), _S.INITIALISING, [Pong()], []),
    (_S.READY, ConnectionInit(), 4429, [], []),
    (_S.READY, SUBSCRIBE, _S.READY, [SUBSCRIBE], []),
    (_S.READY, Complete("1"), _S.READY, [], []),
    (_S.READY, Ping({}), _S.READY, [Ping({})], [Pong({})]),
    (_S.READY, Pong({"n": 1}), _S.READY, [Pong({"n": 1})], []),
    *(
        (state, message, 4400, [], [])
        for state in (_S.AWAITING_INIT, _S.INITIALISING, _S.READY)
        for message in (ConnectionAck(), Next("1", b"{}"), Error("1", NO))
    ),
    *(
        (_S.CLOSED, message, _S.CLOSED, [], [])
        for message in (ConnectionInit(), SUBSCRIBE, Complete("1"), Ping(), Pong(), ConnectionAck())
    ),
]
CLIENT_CELLS: list[tuple[ClientState, Message, ClientState | int, list[Message], list[Message]]] = [
    *(
        (state, message, 4400, [], [])
        for state in (_C.CONNECTED, _C.AWAITING_ACK)
        for message in (Next("1", b"{}"), Error("1", NO), Complete("1"))
    ),
    *(
        (state, message, 4400, [], [])
        for state in (_C.CONNECTED, _C.AWAITING_ACK, _C.READY)
        for message in (ConnectionInit(), SUBSCRIBE)
    ),
    (_C.CONNECTED, Ping({"n": 1}), _C.CONNECTED, [Ping({"n": 1})], [Pong({"n": 1})]),
    (_C.AWAITING_ACK, Ping(), _C.AWAITING_ACK, [Ping()], [Pong()]),
    (_C.READY, Ping({}), _C.READY, [Ping({})], [Pong({})]),
    (_C.CONNECTED, Pong(), _C.CONNECTED, [Pong()], []),
    (_C.AWAITING_ACK, Pong({"n": 1}), _C.AWAITING_ACK, [Pong({"n": 1})], []),
    (_C.READY, Pong(), _C.READY, [Pong()], []),
    (_C.CONNECTED, ConnectionAck(), 4400, [], []),
    (_C.AWAITING_ACK, ConnectionAck({"a": 1}), _C.READY, [ConnectionAck({"a": 1})], []),
    (_C.READY, ConnectionAck(), _C.READY, [], []),
    (_C.READY, Next("1", b"{}"), _C.READY, [], []),
    (_C.READY, Error("1", NO), _C.READY, [], []),
    (_C.READY, Complete("1"), _C.READY, [], []),
    *(
        (_C.CLOSED, message, _C.CLOSED, [], [])
        for message in (ConnectionAck(), Next("1", b"{}"), Error("1", NO), Complete("1"), Ping(), Pong())
    ),
]


@pytest.mark.parametrize(("state", "message", "after", "events", "answers"), SERVER_CELLS)
def test_every_cell_of_the_servers_table(
    state: ServerState,
    message: Message,
    after: ServerState | int,
    events: list[Message],
    answers: list[Message],
) -> None:
    protocol = server(state)
    protocol.receive_message(encode_message(message))
    assert (protocol.close.code if protocol.close else protocol.state) == after
    assert protocol.events_received() == events
    assert protocol.data_to_send() == [encode_message(answer) for answer in answers]


@pytest.mark.parametrize(("state", "message", "after", "events", "answers"), CLIENT_CELLS)
def test_every_cell_of_the_clients_table(
    state: ClientState,
    message: Message,
    after: ClientState | int,
    events: list[Message],
    answers: list[Message],
) -> None:
    protocol = client(state)
    protocol.receive_message(encode_message(message))
    assert (protocol.close.code if protocol.close else protocol.state) == after
    assert protocol.events_received() == events
    assert protocol.data_to_send() == [encode_message(answer) for answer in answers]
