"""The text of a position."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_server.engine.cursor import Cursor

CURSORS = st.builds(
    Cursor,
    epoch=st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    offset=st.integers(0, 2**53),
    index=st.integers(0, 1000),
    check=st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
)


@given(CURSORS)
def test_a_cursor_is_read_back_from_its_text(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


def test_the_text_is_epoch_offset_index_check() -> None:
    assert str(Cursor("00000000deadbeef", 12, 1, "0123abcd")) == "00000000deadbeef.12.1.0123abcd"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "…",
        "00000000deadbeef",
        "00000000deadbeef.12.1",
        "00000000deadbeef.12.1.0123abcd.",
        "00000000deadbeef.012.1.0123abcd",
        "00000000deadbeef.-1.1.0123abcd",
        "00000000deadbeef.1.+1.0123abcd",
        "00000000deadbeef.1.1.0123ABCD",
        "00000000deadbeef.1.1.0123abc",
        "00000000deadbeef.\u0661.1.0123abcd",
        "00000000deadbeef.1.1.0123abcd\n",
        " 00000000deadbeef.1.1.0123abcd",
        "00000000deadbeef." + "9" * 5000 + ".1.0123abcd",
    ],
)
def test_anything_else_is_no_cursor(text: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        Cursor.parse(text)


@given(st.text(alphabet="0123456789abcdef.-", max_size=60))
def test_what_parses_is_written_back_the_same(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except ValueError:
        return
    assert str(cursor) == text
