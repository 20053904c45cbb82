"""The time by the brokers' clock, of a node whose own clock is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from circuit_breaker_server.log.event_log import Record
from circuit_breaker_server.log.log_clock import LogClock

START = 1_800_000_000.0


class World:
    """A moment, and a machine whose clock is wrong by so many seconds."""

    def __init__(self, wrong: float) -> None:
        self.seconds = 0.0
        self.wrong = wrong
        self.clock = LogClock(wall=lambda: START + self.seconds + self.wrong, monotonic=lambda: self.seconds)

    def arrive(self, *, after: float) -> Sequence[Record]:
        """Let a record arrive so many seconds after it was dated."""
        dated = START + self.seconds - after
        records = [Record(offset=1, subject="s", id="0" * 32, time_ms=round(dated * 1000), data=b"{}")]
        self.clock.follow(records)
        return records

    @property
    def error(self) -> float:
        return self.clock().timestamp() - (START + self.seconds)


@pytest.mark.parametrize("wrong", [600.0, -600.0, 0.0])
def test_the_brokers_clock_counts_whatever_the_machines_says(wrong: float) -> None:
    world = World(wrong)
    assert world.error == pytest.approx(wrong)
    world.arrive(after=0.005)
    assert world.error == pytest.approx(-0.005, abs=0.002)
    assert world.clock().tzinfo is UTC
    assert world.clock() == datetime.fromtimestamp(world.clock().timestamp(), UTC)


def test_records_that_come_late_do_not_turn_it_back() -> None:
    world = World(600.0)
    world.arrive(after=0.005)
    for _ in range(20):
        world.seconds += 10
        world.arrive(after=30.0 if world.seconds % 50 else 0.005)
        assert world.error == pytest.approx(-0.005, abs=0.002)


def test_a_clock_that_is_set_right_is_believed_within_two_minutes() -> None:
    world = World(-600.0)
    for _ in range(10):
        world.arrive(after=0.005)
        world.seconds += 10
    world.wrong = 0.0
    for _ in range(13):
        world.arrive(after=0.005)
        world.seconds += 10
    assert world.error == pytest.approx(-0.005, abs=0.002)
