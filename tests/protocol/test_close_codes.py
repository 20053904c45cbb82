"""Close codes: which allow another attempt, which may be sent, and how long a reason may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_sdk.protocol.close_codes import (
    MAX_REASON_BYTES,
    CloseCode,
    asked_to_return,
    asking_to_return,
    close_reason,
    is_retryable,
    is_sendable,
)


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 4408, 4500, 4504])
def test_a_passing_trouble_is_worth_another_attempt(code: int) -> None:
    assert is_retryable(code)


@pytest.mark.parametrize("code", [4400, 4401, 4403, 4406, 4409, 4429])
def test_a_mistake_that_would_be_repeated_is_not_retried(code: int) -> None:
    assert not is_retryable(code)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1010, 1015, 2999])
def test_a_broken_websocket_protocol_is_not_retried(code: int) -> None:
    assert not is_retryable(code)


@pytest.mark.parametrize("code", [3000, 3003, 4004, 4005])
def test_codes_known_elsewhere_as_fatal_are_not_retried(code: int) -> None:
    assert not is_retryable(code)


@pytest.mark.parametrize("code", [3001, 4000, 4499, 4999])
def test_an_applications_unknown_code_is_retried(code: int) -> None:
    assert is_retryable(code)


@pytest.mark.parametrize("code", [0, 999, 5000, 65_535])
def test_a_number_that_is_no_close_code_is_neither_retried_nor_sent(code: int) -> None:
    assert not is_retryable(code)
    assert not is_sendable(code)


def test_every_named_code_may_be_sent_except_the_two_that_report_a_missing_one() -> None:
    assert [code for code in CloseCode if not is_sendable(code)] == [CloseCode.NO_STATUS, CloseCode.ABNORMAL]


@pytest.mark.parametrize("code", [1004, 1015, 1016, 2999])
def test_reserved_codes_are_never_sent(code: int) -> None:
    assert not is_sendable(code)


def test_a_short_reason_is_sent_whole() -> None:
    assert close_reason("Forbidden") == b"Forbidden"
    assert close_reason("é" * 61 + "x") == ("é" * 61 + "x").encode()


def test_a_long_reason_is_cut_between_characters() -> None:
    assert close_reason("x" * 200) == b"x" * 123
    assert close_reason("é" * 100) == ("é" * 61).encode()
    assert close_reason("x" + "🙂" * 100) == ("x" + "🙂" * 30).encode()


@given(st.text(max_size=300))
def test_any_reason_is_valid_utf_8_within_the_limit(text: str) -> None:
    encoded = close_reason(text)
    assert len(encoded) <= MAX_REASON_BYTES
    assert text.encode("utf-8", "replace").decode().startswith(encoded.decode())


@pytest.mark.parametrize("seconds", [0.0, 0.1, 3.7, 86_400.0])
def test_a_reason_that_asks_to_come_back_is_read_as_it_was_written(seconds: float) -> None:
    reason = asking_to_return("the server is shutting down", seconds)
    assert close_reason(reason).decode() == reason
    assert asked_to_return(reason) == seconds


@pytest.mark.parametrize(
    "reason",
    ["", "bye", "retry-after=", "retry-after=-1", "retry-after=x", "retry-after=1e9", "retry-after=9999999",
     "noretry-after=1", "retry-after=1.2.3", "Retry-After: 5"],
)  # fmt: skip
def test_a_reason_that_asks_for_nothing_that_can_be_read_asks_for_nothing(reason: str) -> None:
    assert asked_to_return(reason) is None


@given(st.text(max_size=200))
def test_any_reason_can_be_read(reason: str) -> None:
    asked = asked_to_return(reason)
    assert asked is None or 0 <= asked < 1_000_000
