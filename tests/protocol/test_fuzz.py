"""Whatever bytes a peer sends: no exception, and the end, if it comes, is a legal close."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_sdk.protocol.close_codes import is_sendable
from circuit_breaker_sdk.protocol.codec import encode_message
from circuit_breaker_sdk.protocol.message_assembly import FrameError, MessageAssembler
from circuit_breaker_sdk.protocol.messages import Subscribe
from circuit_breaker_sdk.protocol.transport_ws import ClientProtocol, ServerProtocol
from tests.protocol.roles import judge
from tests.protocol.strategies import layouts, messages

LEGAL_SERVER_CLOSES = {4400, 4401, 4409, 4429}
LEGAL_CLIENT_CLOSES = {4400}

almost_messages = layouts([("id", '"1"'), ("type", '"subscribe"'), ("payload", '{"query":"q"}')]) | layouts(
    [("id", '"1"'), ("type", '"next"'), ("payload", '{"data":1}')]
)
received = st.lists(
    st.binary(max_size=30) | messages.map(encode_message) | almost_messages, min_size=1, max_size=8
)


@given(acknowledged=st.booleans(), data=received)
def test_a_server_survives_any_bytes(acknowledged: bool, data: list[bytes]) -> None:
    protocol = ServerProtocol(max_operations=2)
    if acknowledged:
        protocol.receive_message(b'{"type":"connection_init"}')
        protocol.send_ack()
    for message in data:
        protocol.receive_message(message)
    protocol.events_received()
    judge(protocol, LEGAL_SERVER_CLOSES)


@given(acknowledged=st.booleans(), data=received)
def test_a_client_survives_any_bytes(acknowledged: bool, data: list[bytes]) -> None:
    protocol = ClientProtocol()
    protocol.send_init()
    if acknowledged:
        protocol.receive_message(b'{"type":"connection_ack"}')
        protocol.send_subscribe(Subscribe("1", "subscription { x }"))
    for message in data:
        protocol.receive_message(message)
    protocol.events_received()
    judge(protocol, LEGAL_CLIENT_CLOSES)


@given(
    data=st.lists(
        st.tuples(
            st.sampled_from([0, 1, 1, 1, 2, 3]), st.binary(max_size=20) | almost_messages, st.booleans()
        )
    )
)
def test_frames_of_any_bytes_reach_the_server_as_text_or_end_in_a_legal_close(
    data: list[tuple[int, bytes, bool]],
) -> None:
    assembler = MessageAssembler(max_message_bytes=200, max_fragments=3)
    protocol = ServerProtocol()
    for opcode, payload, fin in data:
        try:
            message = assembler.receive_frame(opcode, payload, fin=fin, rsv=False)
        except FrameError as error:
            protocol.send_close(error.close_code, error.reason)
            break
        if message is not None:
            protocol.receive_message(message)
    assert protocol.close is None or is_sendable(protocol.close.code)


@pytest.mark.parametrize("length", range(len(encode_message(Subscribe("1", "{ x }", {"v": "é"})))))
def test_a_message_cut_short_anywhere_closes_4400(length: int) -> None:
    protocol = ServerProtocol()
    protocol.receive_message(encode_message(Subscribe("1", "{ x }", {"v": "é"}))[:length])
    assert protocol.close is not None
    assert protocol.close.code == 4400
