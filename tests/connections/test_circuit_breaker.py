"""When an endpoint that keeps failing is left alone, and when it is tried again."""

from __future__ import annotations

import pytest

from circuit_breaker_sdk import BreakerState, CircuitBreakerPolicy, Heartbeat, UsageError
from circuit_breaker_sdk.connections import CircuitBreaker
from circuit_breaker_sdk.connections.endpoints import Endpoints
from tests.connections.clock import Clock


def test_it_opens_at_the_threshold_and_lets_one_attempt_through_after_its_time() -> None:
    clock = Clock()
    breaker = CircuitBreaker(CircuitBreakerPolicy(failure_threshold=3, open_seconds=5.0), clock=clock)
    breaker.failed()
    breaker.failed()
    assert (breaker.state, breaker.wait_seconds()) == (BreakerState.CLOSED, 0.0)
    breaker.failed()
    assert (breaker.state, breaker.wait_seconds()) == (BreakerState.OPEN, 5.0)
    clock.now += 5.0
    assert (breaker.state, breaker.wait_seconds()) == (BreakerState.HALF_OPEN, 0.0)


def test_the_attempt_of_a_half_open_one_decides() -> None:
    clock = Clock()
    breaker = CircuitBreaker(CircuitBreakerPolicy(failure_threshold=1, open_seconds=5.0), clock=clock)
    breaker.failed()
    clock.now += 6.0
    breaker.failed()
    assert (breaker.state, breaker.wait_seconds()) == (BreakerState.OPEN, 5.0)
    clock.now += 6.0
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED


def test_a_success_ends_the_row_of_failures() -> None:
    breaker = CircuitBreaker(CircuitBreakerPolicy(failure_threshold=2), clock=Clock())
    for _ in range(5):
        breaker.failed()
        breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED


def test_each_url_has_its_own_and_the_one_that_served_last_is_in_front() -> None:
    clock = Clock()
    endpoints = Endpoints(
        ("ws://a/graphql", "ws://b/graphql", "ws://c/graphql"),
        CircuitBreakerPolicy(failure_threshold=1, open_seconds=5.0),
        clock=clock,
    )
    a, b, c = endpoints.allowed()
    a.breaker.failed()
    endpoints.serves(c)
    assert (endpoints.allowed(), endpoints.current, endpoints.wait_seconds()) == ([c, b], c, 0.0)
    b.breaker.failed()
    clock.now += 1.0
    c.breaker.failed()
    assert (endpoints.allowed(), endpoints.wait_seconds()) == ([], 4.0)


@pytest.mark.parametrize("name", ["failure_threshold", "open_seconds"])
def test_a_policy_that_cannot_be_is_refused(name: str) -> None:
    for wrong in (0, -1, "5"):
        with pytest.raises(UsageError, match=name):
            CircuitBreakerPolicy(**{name: wrong})  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("name", ["interval_seconds", "timeout_seconds"])
def test_a_heartbeat_that_cannot_be_is_refused(name: str) -> None:
    for wrong in (0, float("nan"), None):
        with pytest.raises(UsageError, match=name):
            Heartbeat(**{name: wrong})  # type: ignore[arg-type]  # as above
