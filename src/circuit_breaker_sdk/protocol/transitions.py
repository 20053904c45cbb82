"""States of a ``graphql-transport-ws`` conversation, and the transition for each message.

One table per role holds every pair of state and message; the roles in
:mod:`circuit_breaker_sdk.protocol.transport_ws` ask nothing else.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, TypeAlias

from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_sdk.protocol.messages import (
    Complete,
    ConnectionAck,
    ConnectionInit,
    Error,
    Next,
    Ping,
    Pong,
    Subscribe,
    UnreadableSubscribe,
)

__all__ = [
    "CLIENT_TRANSITIONS",
    "SERVER_TRANSITIONS",
    "ClientEvent",
    "ClientState",
    "ServerEvent",
    "ServerState",
]


class ServerState(enum.StrEnum):
    """State of a server's conversation."""

    AWAITING_INIT = "awaiting_init"
    INITIALISING = "initialising"
    """``connection_init`` arrived; the application has not yet said ``send_ack``."""
    READY = "ready"
    CLOSED = "closed"


class ClientState(enum.StrEnum):
    """State of a client's conversation."""

    CONNECTED = "connected"
    AWAITING_ACK = "awaiting_ack"
    READY = "ready"
    CLOSED = "closed"


ServerEvent: TypeAlias = ConnectionInit | Subscribe | UnreadableSubscribe | Complete | Ping | Pong
ClientEvent: TypeAlias = ConnectionAck | Next | Error | Complete | Ping | Pong

_SERVER: Final = ServerState
_CLIENT: Final = ClientState

# What each message a client may send does to a server in each state: the next state, or the code the
# server closes with. Any other message is a client's mistake: 4400. After CLOSED nothing is read.
SERVER_TRANSITIONS: Final[Mapping[tuple[ServerState, type[ServerEvent]], ServerState | CloseCode]] = {
    (_SERVER.AWAITING_INIT, ConnectionInit): _SERVER.INITIALISING,
    (_SERVER.AWAITING_INIT, Subscribe): CloseCode.UNAUTHORIZED,
    (_SERVER.AWAITING_INIT, Complete): _SERVER.AWAITING_INIT,
    (_SERVER.AWAITING_INIT, Ping): _SERVER.AWAITING_INIT,
    (_SERVER.AWAITING_INIT, Pong): _SERVER.AWAITING_INIT,
    (_SERVER.INITIALISING, ConnectionInit): CloseCode.TOO_MANY_INIT,
    (_SERVER.INITIALISING, Subscribe): CloseCode.UNAUTHORIZED,
    (_SERVER.INITIALISING, Complete): _SERVER.INITIALISING,
    (_SERVER.INITIALISING, Ping): _SERVER.INITIALISING,
    (_SERVER.INITIALISING, Pong): _SERVER.INITIALISING,
    (_SERVER.READY, ConnectionInit): CloseCode.TOO_MANY_INIT,
    (_SERVER.READY, Subscribe): _SERVER.READY,
    (_SERVER.READY, Complete): _SERVER.READY,
    (_SERVER.READY, Ping): _SERVER.READY,
    (_SERVER.READY, Pong): _SERVER.READY,
}

# The same for a client. A message about an operation before the ack is a server's mistake, since nothing
# was subscribed; a second ack does no harm and is dropped.
CLIENT_TRANSITIONS: Final[Mapping[tuple[ClientState, type[ClientEvent]], ClientState | CloseCode]] = {
    (_CLIENT.CONNECTED, ConnectionAck): CloseCode.BAD_REQUEST,
    (_CLIENT.CONNECTED, Next): CloseCode.BAD_REQUEST,
    (_CLIENT.CONNECTED, Error): CloseCode.BAD_REQUEST,
    (_CLIENT.CONNECTED, Complete): CloseCode.BAD_REQUEST,
    (_CLIENT.CONNECTED, Ping): _CLIENT.CONNECTED,
    (_CLIENT.CONNECTED, Pong): _CLIENT.CONNECTED,
    (_CLIENT.AWAITING_ACK, ConnectionAck): _CLIENT.READY,
    (_CLIENT.AWAITING_ACK, Next): CloseCode.BAD_REQUEST,
    (_CLIENT.AWAITING_ACK, Error): CloseCode.BAD_REQUEST,
    (_CLIENT.AWAITING_ACK, Complete): CloseCode.BAD_REQUEST,
    (_CLIENT.AWAITING_ACK, Ping): _CLIENT.AWAITING_ACK,
    (_CLIENT.AWAITING_ACK, Pong): _CLIENT.AWAITING_ACK,
    (_CLIENT.READY, ConnectionAck): _CLIENT.READY,
    (_CLIENT.READY, Next): _CLIENT.READY,
    (_CLIENT.READY, Error): _CLIENT.READY,
    (_CLIENT.READY, Complete): _CLIENT.READY,
    (_CLIENT.READY, Ping): _CLIENT.READY,
    (_CLIENT.READY, Pong): _CLIENT.READY,
}
