"""What the JSON scalar lets in, and when two values are equal."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_server.engine.json_values import (
    MAX_DEPTH,
    InvalidJSON,
    check_json,
    encode,
    json_equal,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (math.nan, "not a finite number"),
        (math.inf, "not a finite number"),
        ({"a": [0, -math.inf]}, r"^a\[1\]: not a finite number"),
        (2**64, "more than 64 bits"),
        ({"big": -(2**63) - 1}, "^big: an integer of more than 64 bits"),
        ("\ud800", "not valid Unicode"),
        ({"\udfff": 1}, "not valid Unicode"),
        ({1: 1}, "key that is not a string"),
        ({"a": {"b": object()}}, "^a.b: not a JSON value"),
        (nested(MAX_DEPTH + 1), "nested more than 64 levels"),
        (nested(500), "nested more than 64 levels"),
    ],
)
def test_what_json_cannot_carry_unharmed_is_refused_with_its_place(value: object, where: str) -> None:
    with pytest.raises(InvalidJSON, match=where):
        check_json(value)


@pytest.mark.parametrize(
    "value",
    [None, True, 0, 2**64 - 1, -(2**63), 1.5, -0.0, "", "é\x00", [], {}, (1, 2), nested(MAX_DEPTH)],
)
def test_what_json_can_carry_passes(value: object) -> None:
    check_json(value)


@given(VALUES)
def test_what_passes_comes_back_from_its_encoding_equal(value: object) -> None:
    try:
        check_json(value)
    except InvalidJSON:
        return
    assert json_equal(msgspec.json.decode(encode(value)), value)
    assert json_equal(json.loads(bytes(encode(value))), value)


def test_an_integer_too_long_to_print_is_refused_like_the_others() -> None:
    with pytest.raises(InvalidJSON, match="more than 64 bits"):
        check_json(10**5000)


def test_a_long_key_does_not_make_the_message_long() -> None:
    with pytest.raises(InvalidJSON) as raised:
        check_json({"k" * 100_000: [math.nan]})
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1, 1.0, True),
        (True, 1, False),
        (False, 0, False),
        (None, False, False),
        ({"a": 1, "b": [True]}, {"b": [True], "a": 1.0}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ([1, 2], [2, 1], False),
        ([1], [True], False),
        ("1", 1, False),
        ([], {}, False),
    ],
)
def test_equality_is_jsons(a: object, b: object, equal: bool) -> None:
    assert json_equal(a, b) is equal
    assert json_equal(b, a) is equal
