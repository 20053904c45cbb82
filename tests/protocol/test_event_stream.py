"""Parse server-sent events as the standard says, in pieces of any size."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_sdk.protocol.event_stream import EventParser, EventTooLong, ServerSentEvent

STREAM = (
    b'\xef\xbb\xbf: hello\n\nevent: next\nid: c1\ndata: {"a":1}\n\n:\n\nid: c2\n\n'
    b"event:complete\ndata:\n\ndata: one\ndata:  two\ndata\n\nid:\nretry: 5\nother\n\n"
    b"id: \0\ndata: x\n\nevent: next\n\n"
)
EVENTS = [
    ServerSentEvent("next", b'{"a":1}', "c1"),
    ServerSentEvent("message", None, "c2"),
    ServerSentEvent("complete", b"", None),
    ServerSentEvent("message", b"one\n two\n", None),
    ServerSentEvent("message", None, ""),
    ServerSentEvent("message", b"x", None),
]


def parsed(pieces: list[bytes]) -> list[ServerSentEvent]:
    parser = EventParser(max_bytes=100)
    return [event for piece in pieces for event in parser.receive_data(piece)]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@given(cuts=st.lists(st.integers(0, 300), max_size=20))
def test_any_pieces_and_line_ends_give_the_same_events(line_end: bytes, cuts: list[int]) -> None:
    stream = STREAM.replace(b"\n", line_end)
    places = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    pieces = [stream[begin:end] for begin, end in itertools.pairwise(places)]
    assert parsed(pieces) == EVENTS


def test_single_bytes_give_the_same_events() -> None:
    for line_end in (b"\n", b"\r\n", b"\r"):
        stream = STREAM.replace(b"\n", line_end)
        assert parsed([stream[i : i + 1] for i in range(len(stream))]) == EVENTS


def test_an_end_without_data_is_one_and_nothing_else_without_data_is() -> None:
    assert parsed([b"event: complete\n\nevent: next\n\n: a comment\n\n"]) == [
        ServerSentEvent("complete", b"", None)
    ]


def test_a_block_that_is_not_complete_is_no_event() -> None:
    assert parsed([b"event: next\ndata: {}\n"]) == []


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: " + b"x" * 200],
        [b"data: " + b"x" * 50, b"x" * 50],
        [b"data: " + b"x" * 100 + b"\n\n"],
        [b"data: 1\n\ndata: " + b"x" * 100],
    ],
)
def test_a_block_over_the_bound_ends_the_parsing(pieces: list[bytes]) -> None:
    with pytest.raises(EventTooLong, match="100 bytes"):
        parsed(pieces)
