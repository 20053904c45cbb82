"""The clock that a test moves on."""

from __future__ import annotations

import pytest

from circuit_breaker_sdk import CircuitBreakerPolicy, UsageError
from circuit_breaker_sdk.connections.circuit_breaker import BreakerState, CircuitBreaker
from circuit_breaker_sdk.testing import ManualClock


def test_it_tells_what_it_was_set_to_and_never_goes_back() -> None:
    clock = ManualClock(5.0)
    clock.advance(2.5)
    assert clock() == 7.5
    with pytest.raises(UsageError, match="does not go back"):
        clock.advance(-1)


def test_a_circuit_breaker_takes_it() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(CircuitBreakerPolicy(failure_threshold=1, open_seconds=2.0), clock=clock)
    breaker.failed()
    assert breaker.state is BreakerState.OPEN
    clock.advance(2.0)
    assert breaker.state is not BreakerState.OPEN
