"""A read of several messages comes to what its frames come to one by one, however the bytes are cut."""

from __future__ import annotations

import asyncio
import json
from typing import Final

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuit_breaker_sdk.protocol.message_assembly import FrameError, MessageAssembler
from circuit_breaker_sdk.transports.picows_protocol import FrameProtocol
from circuit_breaker_sdk.transports.websocket import WebSocket
from tests.transports.peers import BINARY, CONTINUATION, LIMITS, PING, PONG, TEXT, frame, open_pair

Sent = tuple[int, bytes, bool, int]
"""Opcode, payload, whether it is the last of its message, and the reserved bit."""

FULL_OF_HEADERS: Final = "\u0081~\u0081".encode() * 70
TEXTS: Final = (
    b"12", b"x" * 125, b"x" * 126, b"x" * 300, b"x" * 5_000, b"x" * 65_535, b"x" * 65_536,
    "n\u00e4me".encode(), FULL_OF_HEADERS, b"~" * 0x0181,
)  # fmt: skip
EVENT: Final = (TEXT, json.dumps({"id": "1", "text": "x" * 300}).encode(), True, 0)

WHOLE: Final = st.sampled_from([[(TEXT, text, True, 0)] for text in TEXTS])
BETWEEN: Final = st.sampled_from([[(PING, b"ping", True, 0)], [(PONG, b"\x81\x7e\x01\x81", True, 0)]])
IN_PIECES: Final = st.sampled_from(
    [
        [(TEXT, b"x" * 200, False, 0), (CONTINUATION, b"y" * 200, True, 0)],
        [(TEXT, b"\xc3", False, 0), (PING, b"ping", True, 0), (CONTINUATION, b"\x81", True, 0)],
    ]
)
BROKEN: Final = st.sampled_from(
    [
        [(BINARY, b"x" * 200, True, 0)],
        [(CONTINUATION, b"x" * 200, True, 0)],
        [(TEXT, b"x" * 200, True, 1)],
        [(TEXT, b"x" * 200, True, 3)],
        [(TEXT, b"\xff" * 200, True, 0)],
        [(TEXT, b"x" * 200, False, 0), (TEXT, b"y" * 200, True, 0)],
    ]
)
FRAMES: Final = st.lists(
    st.just([EVENT] * 20) | st.just([EVENT]) | WHOLE | BETWEEN | IN_PIECES | BROKEN, min_size=1, max_size=12
).map(lambda parts: [sent for part in parts for sent in part])
READS: Final = st.lists(
    st.integers(1, 20) | st.integers(300, 1_000) | st.integers(4_000, 70_000), min_size=1, max_size=6
)


def _expected(frames: list[Sent]) -> tuple[list[bytes], int | None]:
    """Return the messages that come, and the code that closes the socket."""
    assembler = MessageAssembler(
        max_message_bytes=LIMITS.max_message_bytes, max_fragments=LIMITS.max_fragments
    )
    messages: list[bytes] = []
    for opcode, payload, fin, rsv in frames:
        if opcode in (PING, PONG):
            continue
        try:
            message = assembler.receive_frame(opcode, payload, fin=fin, rsv=bool(rsv))
        except FrameError as error:
            return messages, error.close_code
        if message is not None:
            messages.append(message)
    return messages, None


def _feed(socket: WebSocket, data: bytes, sizes: list[int]) -> None:
    """Bring bytes in reads of these sizes, over and over, as far as the buffer has room."""
    protocol = socket._underlying.get_protocol()
    assert isinstance(protocol, FrameProtocol)
    at = number = 0
    while at < len(data):
        buffer = protocol.get_buffer(-1)
        read = data[at : at + min(sizes[number % len(sizes)], len(buffer))]
        buffer[: len(read)] = read
        protocol.buffer_updated(len(read))
        at, number = at + len(read), number + 1


async def _outcome(data: bytes, sizes: list[int]) -> tuple[list[bytes], int | None]:
    async with open_pair("client") as pair:
        _feed(pair.socket, data, sizes)
        closed_with = pair.socket._closed_with
        return pair.sink.messages, None if closed_with is None else closed_with[0]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames=FRAMES, sizes=READS)
def test_frames_of_one_read_come_to_the_same_as_one_by_one(frames: list[Sent], sizes: list[int]) -> None:
    data = b"".join(
        frame(opcode, payload, masked=False, fin=fin, rsv=rsv) for opcode, payload, fin, rsv in frames
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(_outcome(data, sizes)) == _expected(frames)


@pytest.mark.parametrize(
    "broken",
    [(BINARY, b"x" * 400, True, 0), (TEXT, b"x" * 400, True, 2), (CONTINUATION, b"x" * 400, True, 0)],
)
async def test_a_broken_frame_between_the_messages_of_a_read_closes_behind_those_before_it(
    broken: Sent,
) -> None:
    frames = [*[EVENT] * 50, broken, *[EVENT] * 50]
    data = b"".join(
        frame(opcode, payload, masked=False, fin=fin, rsv=rsv) for opcode, payload, fin, rsv in frames
    )
    messages, code = await _outcome(data, [len(data)])
    assert (messages, code) == _expected(frames)
    assert len(messages) == 50


async def test_a_small_read_behind_a_large_one_is_not_judged_by_it() -> None:
    # The large read ends within a frame. Its rest comes with a binary one, as long as what the large read had
    # from the header of its last whole message on.
    event, begun = frame(TEXT, EVENT[1], masked=False), 100
    cut = frame(TEXT, b"y" * 400, masked=False)
    last = frame(BINARY, b"x" * (len(event) + begun - 4), masked=False)
    data, sizes = event * 20 + cut + last, [20 * len(event) + begun, len(cut) - begun + len(last)]
    assert await _outcome(data, sizes) == ([EVENT[1]] * 20 + [b"y" * 400], 1003)
