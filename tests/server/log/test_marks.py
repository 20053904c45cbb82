"""The marks of a log with one writer: what is forgotten refuses decisions that are older."""

from __future__ import annotations

import pytest

from circuit_breaker_server.log import marks as module
from circuit_breaker_server.log.event_log import MAX_GUARDS, Guards, NewRecord
from circuit_breaker_server.log.marks import Marks
from circuit_breaker_server.log.record_validation import validate


def refused_at(marks: Marks, name: str, *, decided_at: int) -> int | None:
    refusal = marks.refusal(Guards(decided_at=decided_at, unmarked=(name,)), {})
    return None if refusal is None else refusal.actual


def test_a_writer_that_has_just_begun_knows_no_decision_of_before() -> None:
    marks = Marks(began_at=7)
    assert refused_at(marks, "a", decided_at=6) == 7
    assert refused_at(marks, "a", decided_at=7) is None


def test_a_mark_refuses_what_was_decided_before_it_and_nothing_else() -> None:
    marks = Marks(began_at=0)
    marks.put({"a": 3})
    assert refused_at(marks, "a", decided_at=2) == 3
    assert refused_at(marks, "a", decided_at=3) is None
    assert refused_at(marks, "b", decided_at=0) is None


def test_marks_of_the_same_group_count_before_they_are_in_the_log() -> None:
    guards = Guards(decided_at=5, unmarked=("a",))
    refusal = Marks(began_at=0).refusal(guards, {"a": 6})
    assert refusal is not None
    assert (refusal.subject, refusal.expected, refusal.actual) == ("a", 5, 6)


def test_what_was_forgotten_refuses_every_decision_that_is_as_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GENERATION", 2)
    marks = Marks(began_at=0)
    for offset, name in enumerate("abcdef", 1):
        marks.put({name: offset})
    # Of what came before the two last ones it is known only that it was at 4 at the latest.
    assert refused_at(marks, "a", decided_at=3) == 4
    assert refused_at(marks, "never marked", decided_at=3) == 4
    assert refused_at(marks, "a", decided_at=4) is None
    assert refused_at(marks, "e", decided_at=4) == 5
    assert refused_at(marks, "f", decided_at=6) is None


def test_a_record_has_so_many_guards_at_most() -> None:
    many = tuple(f"m{number}" for number in range(MAX_GUARDS + 1))
    for guards in (Guards(decided_at=0, unmarked=many), Guards(decided_at=0, marks=many)):
        with pytest.raises(ValueError, match="500 guards"):
            validate(NewRecord(subject="a", id="0" * 32, data=b"", expected=0, guards=guards))
