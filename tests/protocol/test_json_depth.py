"""The depth of JSON is bounded by this package: the same on every Python."""

from __future__ import annotations

import pytest

from circuit_breaker_sdk.protocol.json_depth import MAX_DEPTH, check_depth


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_the_limit_is_taken_and_one_more_is_refused(opening: bytes) -> None:
    check_depth(opening * MAX_DEPTH)
    with pytest.raises(RecursionError, match="deeper than 500"):
        check_depth(opening * (MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "data", [b"[]," * 5_000, b'["' + b"[" * 5_000 + b'"]', b'["\\"' + b"{" * 5_000 + b'"]']
)
def test_brackets_side_by_side_or_in_texts_are_no_depth(data: bytes) -> None:
    check_depth(data)


def test_a_text_without_an_end_is_looked_through_once() -> None:
    # Looked through anew from each of its quotes, this would take minutes.
    check_depth(b"[]" * 501 + b'"' + b'\\"' * 2_000_000)
