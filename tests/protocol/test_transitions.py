"""The tables are complete: every open state has a word for every message its role can receive."""

from __future__ import annotations

from itertools import product
from typing import get_args

from circuit_breaker_sdk.protocol.close_codes import CloseCode, is_retryable
from circuit_breaker_sdk.protocol.transitions import (
    CLIENT_TRANSITIONS,
    SERVER_TRANSITIONS,
    ClientEvent,
    ClientState,
    ServerEvent,
    ServerState,
)


def test_a_server_knows_every_message_a_client_may_send_in_every_open_state() -> None:
    open_states = set(ServerState) - {ServerState.CLOSED}
    assert set(SERVER_TRANSITIONS) == set(product(open_states, get_args(ServerEvent)))


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
