"""Each error says what, where and what to do; whether to retry stands on its class."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from threading import Lock

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
    TransportError,
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
    (
        HandlerError("1", "on_tick", ValueError("no")),
        "subscription 1: handler on_tick raised ValueError('no')",
    ),
    (
        GapError("1", "trimmed"),
        (
            "subscription 1: events are missing (trimmed). "
            "Read the present state with a query and subscribe anew, or let on_gap do both."
        ),
    ),
]


def tree_below(cls: type[CircuitBreakerError]) -> set[type[CircuitBreakerError]]:
    return {cls}.union(*map(tree_below, cls.__subclasses__()))


@pytest.mark.parametrize(("error", "text"), TEXTS)
def test_an_error_says_what_happened_to_what_and_what_to_do(error: CircuitBreakerError, text: str) -> None:
    assert str(error) == text


def test_every_class_of_the_tree_is_public_drawn_and_has_its_text_tested() -> None:
    classes = {value for value in vars(errors).values() if isinstance(value, type)}
    tree = {cls for cls in classes if issubclass(cls, CircuitBreakerError)}
    assert {cls.__name__ for cls in tree} | {"GraphQLError"} == set(errors.__all__)
    assert all(cls.__name__ in str(errors.__doc__) for cls in tree)
    assert tree - {type(error) for error, _ in TEXTS} == {
        CircuitBreakerError,
        SubscriptionError,
        TransportError,
    }


def test_only_what_may_pass_by_itself_is_retryable() -> None:
    retryable = {type(error) for error, _ in TEXTS if error.retryable}
    assert retryable == {ConnectionFailed, RateLimitExceeded, OperationTimeoutError}


def test_a_query_raises_no_error_of_a_subscription() -> None:
    of_queries = tree_below(TransportError) | {OperationError}
    assert not any(issubclass(error, SubscriptionError) for error in of_queries)


def test_timeouts_and_failed_connections_are_what_python_calls_them() -> None:
    assert isinstance(OperationTimeoutError("a query", seconds=1), TimeoutError)
    assert isinstance(ConnectionFailed("refused"), ConnectionError)
    assert isinstance(HandshakeFailed("no upgrade"), ConnectionError)


def test_the_code_is_the_first_errors_and_only_text() -> None:
    assert OperationError([NOT_FOUND]).code == SubscriptionFailed("1", "", errors=[NOT_FOUND]).code
    assert NOT_FOUND.code == "NOT_FOUND"
    assert OperationError([]).code is SubscriptionFailed("1", "").code is None
    assert GraphQLError(message="x", extensions={"code": 5}).code is None


class OfAnApplication(Exception):
    """An error that pickles and cannot be unpickled."""

    def __init__(self, text: str, *, number: int) -> None:
        super().__init__(text)
        self.number = number


class Unpicklable(Exception):
    """An error that cannot be pickled."""

    def __init__(self) -> None:
        self.lock = Lock()


class Unprintable(Exception):
    """An error whose text cannot be had."""

    def __repr__(self) -> str:
        raise ValueError("no text")


def rebuilt(error: CircuitBreakerError) -> CircuitBreakerError:
    loaded = pickle.loads(pickle.dumps(error))  # noqa: S301 (written in the same line)
    assert isinstance(loaded, CircuitBreakerError)
    return loaded


WAYS: list[Callable[[CircuitBreakerError], CircuitBreakerError]] = [rebuilt, copy.copy, copy.deepcopy]


def facts(error: CircuitBreakerError) -> tuple[object, ...]:
    return (type(error), error.args, vars(error), str(error), "".join(traceback.format_exception(error)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("error", "_text"), TEXTS)
def test_every_error_survives_pickle_and_copy(
    error: CircuitBreakerError, _text: str, way: Callable[[CircuitBreakerError], CircuitBreakerError]
) -> None:
    original = copy.copy(error)
    original.member = "resources"
    original.add_note("of a batch")
    first = ValueError("first")
    first.__cause__ = KeyError("before it")
    original.__cause__ = original.__cause__ or first
    again = way(original)
    assert facts(again) == facts(original)
    again.add_note("only here")
    assert original.__notes__ == ["of a batch"]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_chained_without_a_cause_is_shown_or_hidden_as_before(
    way: Callable[[CircuitBreakerError], CircuitBreakerError],
) -> None:
    for is_hidden in (False, True):
        error = UsageError("write this")
        error.__context__ = ProtocolError("junk", close_code=4400)
        error.__suppress_context__ = is_hidden
        assert facts(way(error)) == facts(error)


def test_a_chain_of_many_errors_costs_no_more_than_its_length() -> None:
    error: CircuitBreakerError = ConnectionFailed("lost")
    for number in range(40):
        above = ConnectionFailed(f"lost {number}")
        above.__cause__ = above.__context__ = error
        error = above
    assert len(pickle.dumps(error)) < 64 * 1024
    assert facts(rebuilt(error)) == facts(error)


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        (OfAnApplication("no", number=1), "OfAnApplication('no')"),
        (Unpicklable(), "Unpicklable()"),
        (Unprintable(), "Unprintable"),
    ],
)
def test_an_error_survives_a_cause_that_does_not_and_keeps_its_text(cause: Exception, text: str) -> None:
    again = rebuilt(HandlerError("1", "on_tick", cause))
    assert text in str(again)
    error = UsageError("write this")
    error.__cause__ = cause
    assert text in "".join(traceback.format_exception(rebuilt(error)))


def give_back(index: int) -> CircuitBreakerError:
    return TEXTS[index][0]


def fail(index: int) -> None:
    raise TEXTS[index][0]


def test_every_error_comes_out_of_a_process_pool() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for index, (error, text) in enumerate(TEXTS):
            assert vars(pool.submit(give_back, index).result()) == vars(error)
            with pytest.raises(type(error)) as raised:
                pool.submit(fail, index).result()
            assert str(raised.value) == text


def test_errors_of_every_part_of_the_package_are_in_the_tree_of_tested_ones() -> None:
    ours = {
        cls for cls in tree_below(CircuitBreakerError) if cls.__module__.startswith("circuit_breaker_sdk.")
    }
    of_commands = {cls for cls in ours if cls.__module__.startswith("circuit_breaker_sdk.cli.")}
    assert ours - of_commands - {type(error) for error, _ in TEXTS} == {
        CircuitBreakerError,
        SubscriptionError,
        TransportError,
    }
