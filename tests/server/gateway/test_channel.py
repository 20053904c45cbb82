"""The ring: bounded in events and bytes, encoded once, honest about where it begins."""

from __future__ import annotations

from circuit_breaker_server.access.streams import EVERYTHING_SEEN
from circuit_breaker_server.engine.events import Selection
from circuit_breaker_server.gateway.channel import END_OF_RECORD, Channel, Position
from tests.server.gateway.worlds import ALL_THINGS, plan


def channel(*, ring_size: int = 4, ring_bytes: int = 10_000, base: Position = (10, 2)) -> Channel:
    made = plan(ALL_THINGS)
    return Channel(
        made,
        EVERYTHING_SEEN,
        Selection(("thing.*",)),
        base=base,
        base_cursor="start",
        ring_size=ring_size,
        ring_bytes=ring_bytes,
    )


def fill(ring: Channel, count: int, *, size_bytes: int = 0, first: int = 11) -> None:
    for offset in range(first, first + count):
        ring.offer((offset, 0), f"c{offset}", {"id": "a", "n": offset}, size_bytes=size_bytes)


def flush(ring: Channel) -> None:
    ring.flushed(ring.end_seq)


def test_a_full_ring_drops_the_oldest_and_moves_its_base() -> None:
    ring = channel()
    fill(ring, 6)
    flush(ring)
    assert (ring.first_seq, ring.end_seq) == (2, 6)
    assert ring.base == (12, 0)
    assert ring.entry(2).cursor == "c13"
    assert ring.last.cursor == "c16"


def test_a_ring_is_bounded_in_bytes_and_keeps_the_newest_event_whatever_its_size() -> None:
    ring = channel(ring_size=100, ring_bytes=1000)
    fill(ring, 20, size_bytes=300)
    flush(ring)
    assert ring.end_seq - ring.first_seq == 3
    fill(ring, 1, size_bytes=5000, first=50)
    assert ring.end_seq - ring.first_seq == 1
    assert ring.base == (30, 0)


def test_what_was_not_flushed_stays_however_much_it_is() -> None:
    ring = channel(ring_size=4, ring_bytes=1000)
    fill(ring, 2)
    flush(ring)
    fill(ring, 6, size_bytes=300, first=20)
    assert (ring.first_seq, ring.end_seq) == (2, 8)
    flush(ring)
    assert (ring.first_seq, ring.end_seq) == (5, 8)


def test_encoded_bytes_count_instead_of_the_estimate() -> None:
    ring = channel(ring_size=100, ring_bytes=1000)
    fill(ring, 3, size_bytes=300)
    ring.payloads(0, resume=True, prev="start")
    fill(ring, 5, size_bytes=30, first=20)
    assert ring.end_seq - ring.first_seq == 8
    ring.payloads(0, resume=False, prev="start")
    assert ring.entry(0).plain is not None
    assert ring.entry(0).resume is not None


def test_payloads_are_shared_but_for_a_first_event_whose_prev_is_the_reader_s_own() -> None:
    ring = channel()
    fill(ring, 3)
    shared = ring.payloads(0, resume=True, prev="start")
    assert all(a is b for a, b in zip(shared, ring.payloads(0, resume=True, prev="start"), strict=True))
    own = ring.payloads(1, resume=True, prev="elsewhere")
    assert own[0] == shared[1].replace(b'"prev":"c11"', b'"prev":"elsewhere"')
    assert own[1] is shared[2]
    plain = ring.payloads(0, resume=False, prev="whatever")
    assert plain[0] == b'{"data":{"things":{"id":"a","n":11}}}'


def test_a_place_is_found_in_the_ring_or_told_to_be_behind_it() -> None:
    ring = channel()
    assert ring.seq_after((10, 1)) is None
    assert ring.seq_after((10, 2)) == 0
    fill(ring, 6)
    flush(ring)  # 13 to 16 are kept
    assert ring.seq_after((11, 0)) is None
    assert ring.seq_after((12, 0)) == 2
    assert ring.seq_after((13, 0)) == 3
    assert ring.seq_after((14, END_OF_RECORD)) == 4
    assert ring.seq_after((99, 0)) == 6


def test_only_news_that_nobody_was_given_makes_a_ring_too_full_for_more() -> None:
    ring = channel()
    answers = []
    fill(ring, 4)
    answers.append(ring.is_full_of_news)
    flush(ring)
    answers.append(ring.is_full_of_news)
    fill(ring, 3, first=20)
    answers.append(ring.is_full_of_news)
    fill(ring, 1, first=30)
    answers.append(ring.is_full_of_news)
    assert answers == [True, False, False, True]


def test_a_ring_tells_when_half_of_it_is_news() -> None:
    ring = channel()
    answers = []
    for offset in range(11, 21):
        fill(ring, 1, first=offset)
        answers.append(ring.is_half_full_of_news)
        if offset == 16:
            flush(ring)
    # Not before it is full; then from the second event behind a flush on.
    assert answers == [False] * 3 + [True] * 3 + [False] + [True] * 3
