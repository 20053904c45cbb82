"""Subjects, patterns and what a record may hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_server.log.event_log import (
    MAX_DATA_BYTES,
    ExpectationFailed,
    NewRecord,
    matches,
    subject,
)
from circuit_breaker_server.log.record_validation import validate

_tokens = st.text(st.characters(codec="utf-8"), min_size=1)


@given(st.lists(_tokens, min_size=1))
def test_any_tokens_make_a_subject_that_a_log_can_hold(tokens: list[str]) -> None:
    name = subject(*tokens)
    validate(NewRecord(subject=name, id="0" * 32, data=b""))
    assert len(name.split(".")) == len(tokens)


@given(st.lists(_tokens, min_size=1), st.lists(_tokens, min_size=1))
def test_different_tokens_make_different_subjects(one: list[str], other: list[str]) -> None:
    assert (subject(*one) == subject(*other)) == (one == other)


def test_a_subject_has_no_empty_tokens() -> None:
    with pytest.raises(ValueError, match="empty"):
        subject("resource", "")


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.b.c", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("*.>", "a", False),
        ("a.>.b", "a.x.b", False),
    ],
)
def test_a_star_is_one_token_and_a_last_arrow_one_or_more(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


@pytest.mark.parametrize(
    "name", ["", ".", "a.", ".a", "a..b", "a b", "a\t", "a\n", "*", "a.>", "a\x00", "\ud800"]
)
def test_what_is_no_subject_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"subject|surrogates"):
        validate(NewRecord(subject=name, id="0" * 32, data=b""))


@pytest.mark.parametrize("record_id", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "0" * 32 + "\n"])
def test_what_is_no_id_is_refused(record_id: str) -> None:
    with pytest.raises(ValueError, match="32 lower-case hex digits"):
        validate(NewRecord(subject="a", id=record_id, data=b""))


def test_data_has_a_limit() -> None:
    validate(NewRecord(subject="a", id="0" * 32, data=b"x" * MAX_DATA_BYTES))
    with pytest.raises(ValueError, match=str(MAX_DATA_BYTES)):
        validate(NewRecord(subject="a", id="0" * 32, data=b"x" * (MAX_DATA_BYTES + 1)))


def test_a_failed_expectation_says_what_was_expected_and_what_there_is() -> None:
    assert str(ExpectationFailed("a", expected=1, actual=2)) == "a: expected last offset 1, it is 2"
