"""When a lost connection is tried again."""

from __future__ import annotations

import pytest

from circuit_breaker_sdk.config import ErrorRecoveryPolicy
from circuit_breaker_sdk.connections.backoff import Backoff
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    HandshakeFailed,
    RateLimitExceeded,
    UsageError,
)

LOST = ConnectionFailed("gone")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def backoff(clock: Clock, policy: ErrorRecoveryPolicy, *, part: float = 1.0) -> Backoff:
    return Backoff(policy, clock=clock, part=lambda: part)


def delays_of_slow_attempts(
    under_test: Backoff, clock: Clock, number: int, *, each: float
) -> list[float | None]:
    """Fail so many times, each attempt ``each`` seconds after the last."""
    delays = []
    for _ in range(number):
        delays.append(under_test.failed(LOST))
        clock.now += each
    return delays


def test_at_once_then_after_bounds_that_grow_to_the_greatest() -> None:
    clock = Clock()
    policy = ErrorRecoveryPolicy(base_delay=1.0, max_delay=5.0, backoff_multiplier=2.0)
    delays = delays_of_slow_attempts(backoff(clock, policy), clock, 6, each=100.0)
    assert delays == [0.0, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_the_delay_is_a_random_part_of_its_bound() -> None:
    clock = Clock()
    under_test = backoff(clock, ErrorRecoveryPolicy(base_delay=1.0), part=0.25)
    assert delays_of_slow_attempts(under_test, clock, 3, each=100.0) == [0.0, 0.25, 0.5]


def test_no_delay_is_longer_than_the_row_of_failures_has_lasted() -> None:
    clock = Clock()
    under_test = backoff(clock, ErrorRecoveryPolicy(base_delay=1.0))
    delays = []
    for _ in range(6):  # each attempt fails at once, at the end of the delay before it
        delay = under_test.failed(LOST)
        assert delay is not None
        delays.append(delay)
        clock.now += delay
    assert delays == [0.0, 1.0, 1.0, 2.0, 4.0, 8.0]
    under_test.connected()
    under_test.proven()  # the next row begins anew, however long the last one was
    clock.now += 1.0
    assert [under_test.failed(LOST), under_test.failed(LOST)] == [0.0, 1.0]


def test_only_a_connection_that_lived_for_five_seconds_ends_the_row() -> None:
    clock = Clock()
    under_test = backoff(clock, ErrorRecoveryPolicy(base_delay=1.0))
    delays = []
    for lived in (5.0, 4.9, 4.9, 5.0):
        under_test.connected()
        clock.now += lived
        delays.append(under_test.failed(LOST))
    assert delays == [0.0, 1.0, 2.0, 0.0]


def test_a_connection_that_has_delivered_ends_the_row_however_short_it_lived() -> None:
    under_test = backoff(Clock(), ErrorRecoveryPolicy(base_delay=1.0))
    delays = []
    for proven in (False, False, True):
        under_test.connected()
        if proven:
            under_test.proven()
        assert under_test.is_proven is proven
        delays.append(under_test.failed(LOST))
    assert delays == [0.0, 1.0, 0.0]
    under_test.proven()  # there is no connection it could be about
    assert under_test.failed(LOST) == 1.0


def test_it_gives_up_after_as_many_attempts_as_were_allowed() -> None:
    under_test = backoff(Clock(), ErrorRecoveryPolicy(max_retries=2, base_delay=1.0))
    assert [under_test.failed(LOST) for _ in range(3)] == [0.0, 1.0, None]


@pytest.mark.parametrize("error", [AuthenticationFailed("no"), HandshakeFailed("no", status=404)])
def test_what_another_attempt_cannot_mend_is_not_tried_again(
    error: AuthenticationFailed | HandshakeFailed,
) -> None:
    assert backoff(Clock(), ErrorRecoveryPolicy()).failed(error) is None


def test_a_server_that_says_how_long_to_wait_is_obeyed() -> None:
    under_test = backoff(Clock(), ErrorRecoveryPolicy(max_delay=1.0))
    assert under_test.failed(RateLimitExceeded(7.0)) == 7.0


def test_a_server_that_asks_to_come_back_later_is_obeyed_up_to_the_greatest_delay() -> None:
    policy = ErrorRecoveryPolicy(max_delay=5.0)
    for asked, delay in ((0.5, 0.5), (99.0, 5.0)):
        error = ConnectionFailed("the server goes away", close_code=1012, retry_after=asked)
        assert backoff(Clock(), policy).failed(error) == delay
        assert backoff(Clock(), policy).failed(error, goes_elsewhere=True) == 0.0


def test_a_policy_that_cannot_be_is_refused() -> None:
    for wrong in ({"max_retries": -1}, {"base_delay": 0.0}, {"max_delay": -1.0}, {"backoff_multiplier": 0.5}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            ErrorRecoveryPolicy(**wrong)


@pytest.mark.parametrize("close_code", [1001, 1012])
@pytest.mark.parametrize("lived", [0.9, 1.0])
def test_a_server_that_closes_to_go_away_after_a_second_begins_a_new_row(
    close_code: int, lived: float
) -> None:
    clock = Clock()
    under_test = backoff(clock, ErrorRecoveryPolicy(base_delay=1.0))
    delays_of_slow_attempts(under_test, clock, 4, each=20.0)
    under_test.connected()
    clock.now += lived
    delay = under_test.failed(ConnectionFailed("the server goes away", close_code=close_code))
    assert delay == (0.0 if lived >= 1.0 else 8.0)


def test_any_other_loss_after_a_second_belongs_to_the_row() -> None:
    clock = Clock()
    under_test = backoff(clock, ErrorRecoveryPolicy(base_delay=1.0))
    delays_of_slow_attempts(under_test, clock, 4, each=20.0)
    under_test.connected()
    clock.now += 3.0
    assert under_test.failed(ConnectionFailed("cut", close_code=1006)) == 8.0
