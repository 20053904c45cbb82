"""Floods of lines: each key has so many in a second, and the rest is a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs

from circuit_breaker_server import logs
from circuit_breaker_server.bounded_log import BoundedLogger
from circuit_breaker_server.refusals import Refusals, reason_of_close, reason_of_status


class Clock:
    """A clock that stands still, and timers that are called by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> bool:
        self.timers.append((self.now + seconds, callback))
        return True

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds
        due = [each for each in self.timers if each[0] <= self.now]
        self.timers = [each for each in self.timers if each[0] > self.now]
        for _, callback in due:
            callback()


@pytest.fixture(autouse=True)
def _at_info() -> Iterator[None]:
    logs.configure("info")
    yield
    logs.configure("warning")


def logger_of(clock: Clock, lines_per_second: int = 3) -> BoundedLogger:
    return BoundedLogger("test", lines_per_second=lines_per_second, clock=clock, call_later=clock.call_later)


def test_a_flood_has_so_many_lines_and_one_with_the_rest() -> None:
    clock = Clock()
    logger = logger_of(clock)
    with capture_logs() as lines:
        for number in range(10):
            logger.info("refused", number=number)
        clock.pass_seconds(1.0)
    assert [line["event"] for line in lines] == ["refused"] * 3 + ["lines_left_out"]
    assert lines[-1]["lines"] == 7
    assert lines[-1]["of"] == "refused"
    assert clock.timers == []


def test_a_long_flood_is_told_each_second() -> None:
    clock = Clock()
    logger = logger_of(clock)
    with capture_logs() as lines:
        for _ in range(50):
            logger.info("refused")
            clock.pass_seconds(0.1)
        clock.pass_seconds(1.0)
    left_out = sum(line["lines"] for line in lines if line["event"] == "lines_left_out")
    told = sum(line["event"] == "refused" for line in lines)
    assert told + left_out == 50
    assert len(lines) <= 6 * (3 + 1)


def test_each_key_has_its_own_lines() -> None:
    clock = Clock()
    logger = logger_of(clock, 1)
    with capture_logs() as lines:
        for key in ("rate", "rate", "host"):
            logger.info("refused", key=key, reason=key)
    assert [line["reason"] for line in lines] == ["rate", "host"]


def test_without_an_event_loop_the_next_line_tells_what_was_left_out() -> None:
    clock = Clock()
    logger = BoundedLogger("test", lines_per_second=1, clock=clock)
    with capture_logs() as lines:
        logger.info("refused")
        logger.info("refused")
        clock.now += 1.0
        logger.info("refused")
    assert [line["event"] for line in lines] == ["refused", "lines_left_out", "refused"]


def test_below_the_level_nothing_is_written_nor_counted() -> None:
    logs.configure("warning")
    clock = Clock()
    logger = logger_of(clock, 1)
    with capture_logs() as lines:
        for _ in range(3):
            logger.info("refused")
            logger.debug("refused")
        clock.pass_seconds(1.0)
        logger.warning("slow")
    assert [line["event"] for line in lines] == ["slow"]
    assert clock.timers == []


def test_a_refusal_is_counted_also_where_its_line_is_left_out() -> None:
    refusals = Refusals(clock=Clock())
    with capture_logs() as lines:
        for _ in range(25):
            refusals.note("rate", "request", remote="192.0.2.7", status=429)
        refusals.close()
    assert refusals.counts["rate"] == 25
    assert [line["event"] for line in lines].count("refused") == 10
    assert lines[-1]["lines"] == 15


def test_counts_of_refusals_cannot_be_changed_without_a_line() -> None:
    with pytest.raises(TypeError):
        Refusals().counts["rate"] += 1  # type: ignore[index]  # that is the rule


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "malformed"),
        (404, "not_found"),
        (415, "malformed"),
        (429, "rate"),
        (500, "failed"),
        (502, "failed"),
    ],
)
def test_a_status_has_a_reason(status: int, reason: str) -> None:
    assert reason_of_status(status) == reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1000, None),
        (1012, None),
        (1013, "draining"),
        (4400, "malformed"),
        (4406, "subprotocol"),
        (4500, None),
    ],
)
def test_a_close_that_refuses_has_a_reason(code: int, reason: str | None) -> None:
    assert reason_of_close(code) == reason
