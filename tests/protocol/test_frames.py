"""Frames become messages as RFC 6455 says, within limits, or end the connection with the right code."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_sdk.protocol.message_assembly import (
    FrameError,
    MessageAssembler,
    masked_text_frame,
    parse_close,
    text_frame_header,
)

CONTINUATION, TEXT, BINARY = 0, 1, 2


def assembler(max_message_bytes: int = 100, max_fragments: int = 4) -> MessageAssembler:
    return MessageAssembler(max_message_bytes=max_message_bytes, max_fragments=max_fragments)


def refused(
    frames: MessageAssembler, opcode: int, payload: bytes, *, fin: bool = True, rsv: bool = False
) -> CloseCode:
    with pytest.raises(FrameError) as caught:
        frames.receive_frame(opcode, payload, fin=fin, rsv=rsv)
    assert caught.value.reason in str(caught.value)
    return caught.value.close_code


def test_a_whole_text_frame_is_a_message() -> None:
    frames = assembler()
    assert frames.receive_frame(TEXT, b"hello", fin=True, rsv=False) == b"hello"
    assert frames.receive_frame(TEXT, "é🙂".encode(), fin=True, rsv=False) == "é🙂".encode()
    assert frames.receive_frame(TEXT, b"", fin=True, rsv=False) == b""


def test_fragments_are_joined_and_the_next_message_starts_afresh() -> None:
    frames = assembler()
    for _ in range(2):
        assert frames.receive_frame(TEXT, b"a", fin=False, rsv=False) is None
        assert frames.receive_frame(CONTINUATION, b"", fin=False, rsv=False) is None
        assert frames.receive_frame(CONTINUATION, b"b", fin=True, rsv=False) == b"ab"


def test_an_empty_first_fragment_is_a_start() -> None:
    frames = assembler()
    assert frames.receive_frame(TEXT, b"", fin=False, rsv=False) is None
    assert frames.receive_frame(CONTINUATION, b"x", fin=True, rsv=False) == b"x"


def test_a_character_may_be_cut_in_two_by_a_fragments_end() -> None:
    frames = assembler()
    first, second = "é".encode()[:1], "é".encode()[1:]
    assert frames.receive_frame(TEXT, first, fin=False, rsv=False) is None
    assert frames.receive_frame(CONTINUATION, second, fin=True, rsv=False) == "é".encode()


def test_control_frames_between_fragments_change_nothing() -> None:
    frames = assembler()
    assert frames.receive_frame(TEXT, b"a", fin=False, rsv=False) is None
    frames.check_control(False, fin=True, length=125)
    assert frames.receive_frame(CONTINUATION, b"b", fin=True, rsv=False) == b"ab"


def test_a_continuation_without_a_start_is_refused() -> None:
    assert refused(assembler(), CONTINUATION, b"x") == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [TEXT, BINARY, 3])
def test_a_new_message_inside_a_fragmented_one_is_refused(opcode: int) -> None:
    frames = assembler()
    frames.receive_frame(TEXT, b"a", fin=False, rsv=False)
    assert refused(frames, opcode, b"b") == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [CONTINUATION, TEXT, BINARY])
def test_a_reserved_bit_is_refused(opcode: int) -> None:
    assert refused(assembler(), opcode, b"x", rsv=True) == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [3, 7, 8, 11, 15])
def test_an_opcode_that_carries_no_data_is_refused(opcode: int) -> None:
    assert refused(assembler(), opcode, b"x") == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("fin", [True, False])
def test_binary_is_refused(fin: bool) -> None:
    assert refused(assembler(), BINARY, b"x", fin=fin) == CloseCode.UNSUPPORTED_DATA


@pytest.mark.parametrize("payload", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xc3"])
def test_text_that_is_not_utf_8_is_refused(payload: bytes) -> None:
    assert refused(assembler(), TEXT, payload) == CloseCode.INVALID_TEXT
    frames = assembler()
    frames.receive_frame(TEXT, payload, fin=False, rsv=False)
    assert refused(frames, CONTINUATION, b"") == CloseCode.INVALID_TEXT


def test_a_message_may_be_as_long_as_the_limit_and_no_longer() -> None:
    frames = assembler(max_message_bytes=4)
    assert frames.receive_frame(TEXT, b"1234", fin=True, rsv=False) == b"1234"
    assert refused(frames, TEXT, b"12345") == CloseCode.MESSAGE_TOO_BIG


def test_all_fragments_together_count_toward_the_limit() -> None:
    frames = assembler(max_message_bytes=4)
    frames.receive_frame(TEXT, b"12", fin=False, rsv=False)
    frames.receive_frame(CONTINUATION, b"34", fin=False, rsv=False)
    assert refused(frames, CONTINUATION, b"5") == CloseCode.MESSAGE_TOO_BIG


def test_a_message_is_not_charged_for_the_one_before_it() -> None:
    frames = assembler(max_message_bytes=4)
    for _ in range(3):
        assert frames.receive_frame(TEXT, b"12", fin=False, rsv=False) is None
        assert frames.receive_frame(CONTINUATION, b"34", fin=True, rsv=False) == b"1234"


def test_a_message_may_have_as_many_fragments_as_the_limit_and_no_more() -> None:
    frames = assembler(max_fragments=3)
    frames.receive_frame(TEXT, b"", fin=False, rsv=False)
    frames.receive_frame(CONTINUATION, b"", fin=False, rsv=False)
    assert frames.receive_frame(CONTINUATION, b"x", fin=True, rsv=False) == b"x"
    frames.receive_frame(TEXT, b"", fin=False, rsv=False)
    frames.receive_frame(CONTINUATION, b"", fin=False, rsv=False)
    frames.receive_frame(CONTINUATION, b"", fin=False, rsv=False)
    assert refused(frames, CONTINUATION, b"") == CloseCode.MESSAGE_TOO_BIG


@given(st.text(max_size=40), st.lists(st.integers(0, 160), max_size=5))
def test_however_a_text_is_cut_the_message_is_the_same(text: str, cuts: list[int]) -> None:
    data = text.encode("utf-8", "replace")
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    frames = MessageAssembler(max_message_bytes=160, max_fragments=6)
    pieces = [data[start:end] for start, end in pairwise(bounds)]
    answers = [
        frames.receive_frame(CONTINUATION if index else TEXT, piece, fin=index == len(pieces) - 1, rsv=False)
        for index, piece in enumerate(pieces)
    ]
    assert answers == [None] * (len(pieces) - 1) + [data]


@given(st.lists(st.tuples(st.integers(0, 15), st.binary(max_size=6), st.booleans(), st.booleans())))
def test_any_frames_are_messages_in_utf_8_or_refused(frames: list[tuple[int, bytes, bool, bool]]) -> None:
    receiver = MessageAssembler(max_message_bytes=8, max_fragments=2)
    for opcode, payload, fin, rsv in frames:
        try:
            message = receiver.receive_frame(opcode, payload, fin=fin, rsv=rsv)
        except FrameError:
            return
        if message is not None:
            message.decode()
            assert len(message) <= 8


@pytest.mark.parametrize(
    ("rsv", "fin", "length"),
    [(True, True, 0), (False, False, 0), (False, True, 126)],
)
def test_a_control_frame_that_breaks_the_rules_is_refused(rsv: bool, fin: bool, length: int) -> None:
    with pytest.raises(FrameError) as caught:
        assembler().check_control(rsv, fin=fin, length=length)
    assert caught.value.close_code == CloseCode.PROTOCOL_ERROR


def test_a_close_frame_is_a_code_and_a_reason() -> None:
    assert parse_close(b"") == (1005, "")
    assert parse_close(b"\x03\xe8") == (1000, "")
    assert parse_close(b"\x11\x30" + "schlüß".encode()) == (4400, "schlüß")


@pytest.mark.parametrize(
    "payload", [b"\x03", b"\x00\x00", b"\x03\xed", b"\x03\xee", b"\x03\xf7", b"\xff\xff"]
)
def test_half_a_code_or_one_that_must_not_be_sent_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        parse_close(payload)
    assert caught.value.close_code == CloseCode.PROTOCOL_ERROR


def test_a_close_reason_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(FrameError) as caught:
        parse_close(b"\x03\xe8\xff")
    assert caught.value.close_code == CloseCode.INVALID_TEXT


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, "8100"),
        (125, "817d"),
        (126, "817e007e"),
        (65_535, "817effff"),
        (65_536, "817f0000000000010000"),
    ],
)
def test_the_header_takes_the_shortest_length(length: int, header: str) -> None:
    assert text_frame_header(length).hex() == header


def test_a_masked_frame_is_that_of_the_specification() -> None:
    # RFC 6455, section 5.7: "a single-frame masked text message".
    assert masked_text_frame(b"Hello", bytes.fromhex("37fa213d")).hex() == "818537fa213d7f9f4d5158"


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masking_twice_gives_the_payload_back(payload: bytes, key: bytes) -> None:
    frame = masked_text_frame(payload, key)
    header = text_frame_header(len(payload))
    assert frame[: len(header)] == bytes((header[0], header[1] | 0x80)) + header[2:]
    assert frame[len(header) : len(header) + 4] == key
    masked = frame[len(header) + 4 :]
    assert bytes(byte ^ key[i % 4] for i, byte in enumerate(masked)) == payload
