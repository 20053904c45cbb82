"""Each error says what, where and what to do; whether to retry stands on its class."""

from __future__ import annotations

import pytest

from circuit_breaker_sdk import errors
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    BufferOverflowError,
    CircuitBreakerError,
    ConnectionFailed,
    DecodeError,
    GapError,
    GraphQLError,
    HandlerError,
    HandshakeFailed,
    OfflineQueueFull,
    OperationError,
    OperationTimeoutError,
    ProtocolError,
    RateLimitExceeded,
    SubscriptionError,
    SubscriptionFailed,
    UsageError,
)

NOT_FOUND = GraphQLError(message="no", path=("a", 0), extensions={"code": "NOT_FOUND"})

TEXTS: list[tuple[CircuitBreakerError, str]] = [
    (UsageError("write this"), "write this"),
    (OperationError([NOT_FOUND], operation="Workflow"), "Workflow failed: no at a.0 [NOT_FOUND]"),
    (OperationError([]), "the operation failed: "),
    (ConnectionFailed("lost", url="ws://h/p", close_code=1006), "ws://h/p: lost (close code 1006)"),
    (ConnectionFailed("lost"), "lost"),
    (HandshakeFailed("wrong path", url="ws://h/p", status=404), "ws://h/p: wrong path"),
    (AuthenticationFailed("check the token"), "check the token"),
    (RateLimitExceeded(2.5), "rate limit exceeded: try again in 2.5 s"),
    (RateLimitExceeded(), "rate limit exceeded: try again later"),
    (OfflineQueueFull("Pay", 3), "Pay was not sent: 3 mutations wait for the server already"),
    (OperationTimeoutError("the ack", seconds=10.0), "the ack: no answer within 10 s"),
    (ProtocolError("junk", close_code=4400), "protocol error: junk (close code 4400)"),
    (SubscriptionFailed("1", "no", errors=[NOT_FOUND]), "subscription 1 failed: no"),
    (
        DecodeError("1", type_name="Tick", detail="Expected `int`"),
        (
            "operation 1: the server's payload does not fit Tick: Expected `int`. "
            "Compare the document with the type it is decoded to."
        ),
    ),
    (
        BufferOverflowError("1", events=2, size_bytes=3),
        (
            "subscription 1: buffer full (2 events, 3 bytes). "
            "Consume faster, raise BufferLimits, or choose another overflow policy."
        ),
    ),
    (HandlerError("1", "on_tick"), "subscription 1: handler on_tick raised None"),
    (
        GapError("1", "trimmed"),
        (
            "subscription 1: events are missing (trimmed). "
            "Read the present state with a query and subscribe anew, or let on_gap do both."
        ),
    ),
]


@pytest.mark.parametrize(("error", "text"), TEXTS)
def test_an_error_says_what_happened_to_what_and_what_to_do(error: CircuitBreakerError, text: str) -> None:
    assert str(error) == text


def test_every_class_of_the_tree_is_public_drawn_and_has_its_text_tested() -> None:
    classes = {value for value in vars(errors).values() if isinstance(value, type)}
    tree = {cls for cls in classes if issubclass(cls, CircuitBreakerError)}
    assert {cls.__name__ for cls in tree} | {"GraphQLError"} == set(errors.__all__)
    assert all(cls.__name__ in str(errors.__doc__) for cls in tree)
    assert tree - {type(error) for error, _ in TEXTS} == {CircuitBreakerError, SubscriptionError}


def test_only_what_may_pass_by_itself_is_retryable() -> None:
    retryable = {type(error) for error, _ in TEXTS if error.retryable}
    assert retryable == {ConnectionFailed, RateLimitExceeded, OperationTimeoutError}


def test_the_code_is_the_first_errors_and_only_text() -> None:
    assert OperationError([NOT_FOUND]).code == SubscriptionFailed("1", "", errors=[NOT_FOUND]).code
    assert NOT_FOUND.code == "NOT_FOUND"
    assert OperationError([]).code is SubscriptionFailed("1", "").code is None
    assert GraphQLError(message="x", extensions={"code": 5}).code is None
