"""The judge must be able to fail: lost, duplicated and reordered inputs, and what is none of these."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import pytest

from circuit_breaker_sdk.cli.demo.judge import Judge, Ticket, Verdict


def _clean() -> Verdict:
    return Verdict(lost=0, duplicated=0, reordered=0)


def _run(owed: Sequence[Sequence[Hashable]], delivered: Sequence[Hashable]) -> Verdict:
    """Send and answer one mutation after the other, then deliver what one stream received."""
    judge = Judge(["s"])
    clock = 0.0
    for events in owed:
        ticket = judge.sent(at=clock)
        judge.answered(ticket, {"s": events}, at=clock + 0.5)
        clock += 1.0
    for event in delivered:
        judge.received("s", event, at=clock)
    return judge.verdict()


def test_all_events_once_and_in_order_are_clean() -> None:
    assert _run([["a"], ["b", "c"], ["d"]], ["a", "b", "c", "d"]) == _clean()
    assert _clean().is_clean


@pytest.mark.parametrize(
    ("delivered", "verdict"),
    [
        (["a", "b", "d"], Verdict(lost=1, duplicated=0, reordered=0)),
        ([], Verdict(lost=4, duplicated=0, reordered=0)),
        (["b", "c", "d"], Verdict(lost=1, duplicated=0, reordered=0)),
        (["a", "b", "c"], Verdict(lost=1, duplicated=0, reordered=0)),
        (["a", "a", "b", "c", "d"], Verdict(lost=0, duplicated=1, reordered=0)),
        (["a", "b", "c", "d", "a"], Verdict(lost=0, duplicated=1, reordered=0)),
        (["a", "b", "c", "d", "d", "d"], Verdict(lost=0, duplicated=2, reordered=0)),
        (["a", "b", "c", "x", "d"], Verdict(lost=0, duplicated=1, reordered=0)),
        (["b", "a", "c", "d"], Verdict(lost=0, duplicated=0, reordered=1)),
        (["a", "c", "b", "d"], Verdict(lost=0, duplicated=0, reordered=1)),
        (["d", "a", "b", "c"], Verdict(lost=0, duplicated=0, reordered=3)),
        (["c", "d", "b", "a"], Verdict(lost=0, duplicated=0, reordered=2)),
        (["d", "d", "a", "b"], Verdict(lost=1, duplicated=1, reordered=2)),
    ],
)
def test_lost_duplicated_and_reordered_events_are_counted(
    delivered: Sequence[Hashable], verdict: Verdict
) -> None:
    assert _run([["a"], ["b", "c"], ["d"]], delivered) == verdict
    assert not verdict.is_clean


def test_an_event_may_arrive_before_the_answer_of_its_mutation() -> None:
    judge = Judge(["s"])
    ticket = judge.sent(at=1.0)
    judge.received("s", "a", at=1.25)
    assert judge.take_matched() == []
    judge.answered(ticket, {"s": ["a"]}, at=2.0)
    assert judge.is_settled
    assert judge.verdict() == _clean()
    assert [(m.stream, m.latency_seconds) for m in judge.take_matched()] == [("s", 0.25)]
    assert judge.take_matched() == []


def test_mutations_in_flight_together_may_be_delivered_in_either_order() -> None:
    for order in (["a", "b"], ["b", "a"]):
        judge = Judge(["s"])
        first, second = judge.sent(at=1.0), judge.sent(at=1.1)
        judge.answered(second, {"s": ["b"]}, at=2.0)
        judge.answered(first, {"s": ["a"]}, at=2.1)
        for event in order:
            judge.received("s", event, at=3.0)
        assert judge.verdict() == _clean()


def test_an_early_arrival_still_proves_that_a_later_one_is_out_of_order() -> None:
    judge = Judge(["s"])
    first = judge.sent(at=1.0)
    judge.answered(first, {"s": ["a"]}, at=2.0)
    second = judge.sent(at=3.0)
    judge.received("s", "b", at=3.1)
    judge.received("s", "a", at=3.2)
    judge.answered(second, {"s": ["b"]}, at=4.0)
    assert judge.verdict() == Verdict(lost=0, duplicated=0, reordered=1)


def test_events_of_one_mutation_are_held_to_their_order_even_with_others_between() -> None:
    judge = Judge(["s"])
    first, second = judge.sent(at=1.0), judge.sent(at=1.0)
    judge.answered(first, {"s": ["a1", "a2"]}, at=2.0)
    judge.answered(second, {"s": ["b"]}, at=2.0)
    for event in ("a2", "b", "a1"):
        judge.received("s", event, at=3.0)
    assert judge.verdict() == Verdict(lost=0, duplicated=0, reordered=1)


def test_each_stream_is_judged_alone() -> None:
    judge = Judge(["s", "t"])
    ticket = judge.sent(at=1.0)
    judge.answered(ticket, {"s": ["a"], "t": ["a"]}, at=2.0)
    judge.received("s", "a", at=3.0)
    judge.received("s", "a", at=3.0)
    assert judge.verdict() == Verdict(lost=1, duplicated=1, reordered=0)


def test_equal_events_are_owed_as_often_as_mutations_returned_them() -> None:
    assert _run([["a"], ["a"]], ["a", "a"]) == _clean()
    assert _run([["a"], ["a"]], ["a"]) == Verdict(lost=1, duplicated=0, reordered=0)
    assert _run([["a"], ["a"]], ["a", "a", "a"]) == Verdict(lost=0, duplicated=1, reordered=0)


def test_an_event_of_a_refused_mutation_is_one_too_many() -> None:
    judge = Judge(["s"])
    ticket = judge.sent(at=1.0)
    judge.received("s", "a", at=1.5)
    judge.refused(ticket, at=2.0)
    assert judge.is_settled
    assert judge.verdict() == Verdict(lost=0, duplicated=1, reordered=0)


def test_an_unexplained_arrival_waits_only_for_mutations_sent_before_it() -> None:
    judge = Judge(["s"])
    early = judge.sent(at=1.0)
    judge.received("s", "x", at=1.5)
    late = judge.sent(at=2.0)
    judge.answered(early, {"s": ["a"]}, at=3.0)
    assert judge.verdict() == Verdict(lost=1, duplicated=1, reordered=0)
    judge.received("s", "a", at=3.5)
    judge.refused(late, at=4.0)
    assert judge.verdict() == Verdict(lost=0, duplicated=1, reordered=0)


def test_a_settled_judge_holds_nothing_of_the_mutations_it_saw() -> None:
    judge = Judge(["s"])
    tickets: list[Ticket] = [judge.sent(at=float(n)) for n in range(100)]
    for n, ticket in enumerate(tickets):
        judge.answered(ticket, {"s": [n]}, at=200.0)
        judge.received("s", n, at=201.0)
    judge.take_matched()
    assert judge.is_settled
    stream = judge._streams["s"]
    assert not stream.owed
    assert not stream.waiting
    assert not judge._in_flight


def test_what_is_on_its_way_is_not_lost_for_certain_until_a_later_event_has_overtaken_it() -> None:
    judge = Judge(["s"])
    first = judge.sent(at=1.0)
    judge.answered(first, {"s": ["a"]}, at=2.0)
    second = judge.sent(at=3.0)
    judge.answered(second, {"s": ["b"]}, at=4.0)
    assert judge.certain() == _clean()
    judge.received("s", "b", at=5.0)
    assert judge.certain() == Verdict(lost=1, duplicated=0, reordered=0)
    judge.received("s", "a", at=6.0)
    assert judge.certain() == Verdict(lost=0, duplicated=0, reordered=1)
    judge.received("s", "b", at=7.0)
    assert judge.certain() == Verdict(lost=0, duplicated=1, reordered=1)
