"""A server or a client in the state a test starts from."""

from __future__ import annotations

from circuit_breaker_sdk.protocol.codec import encode_message
from circuit_breaker_sdk.protocol.messages import ConnectionAck, ConnectionInit, Subscribe
from circuit_breaker_sdk.protocol.transitions import ClientState, ServerState
from circuit_breaker_sdk.protocol.transport_ws import ClientProtocol, ServerProtocol


def server(
    state: ServerState = ServerState.READY, *active: str, max_operations: int = 2000
) -> ServerProtocol:
    """Bring a server into a state, with these operations active and everything taken."""
    protocol = ServerProtocol(max_operations=max_operations)
    if state in (ServerState.INITIALISING, ServerState.READY):
        protocol.receive_message(encode_message(ConnectionInit()))
    if state is ServerState.READY:
        protocol.send_ack()
    if state is ServerState.CLOSED:
        protocol.receive_closed()
    for id_ in active:
        protocol.receive_message(encode_message(Subscribe(id_, "subscription { x }")))
    protocol.events_received()
    protocol.data_to_send()
    assert protocol.state is state
    return protocol


def client(state: ClientState = ClientState.READY, *active: str) -> ClientProtocol:
    """Bring a client into a state, with these operations active and everything taken."""
    protocol = ClientProtocol()
    if state in (ClientState.AWAITING_ACK, ClientState.READY):
        protocol.send_init()
    if state is ClientState.READY:
        protocol.receive_message(encode_message(ConnectionAck()))
    if state is ClientState.CLOSED:
        protocol.receive_closed()
    for id_ in active:
        protocol.send_subscribe(Subscribe(id_, "subscription { x }"))
    protocol.events_received()
    protocol.data_to_send()
    assert protocol.state is state
    return protocol


def judge(protocol: ServerProtocol | ClientProtocol, legal: set[int]) -> None:
    """Require that what a role has made of a peer's bytes is legal."""
    for data in protocol.data_to_send():
        data.decode()
    if protocol.close is None:
        assert str(protocol.state) != "closed"
        return
    assert str(protocol.state) == "closed"
    assert protocol.close.code in legal
    assert len(protocol.close.reason.encode()) <= 123
    before = protocol.close
    protocol.receive_message(b'{"type":"ping"}')
    assert protocol.close is before
    assert protocol.data_to_send() == []
