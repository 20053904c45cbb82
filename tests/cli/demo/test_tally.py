"""Counting and percentiles."""

from __future__ import annotations

import pytest

from circuit_breaker_sdk.cli.demo.tally import Tally


def test_there_is_no_latency_before_the_first_event() -> None:
    tally = Tally(operation="o")
    assert tally.latency() is None
    assert tally.recent_latency() is None


def test_percentiles_are_of_the_nearest_rank() -> None:
    tally = Tally(operation="o")
    for ms in reversed(range(1, 101)):
        tally.time(ms / 1_000)
    latency = tally.latency()
    assert latency is not None
    assert latency.p50_ms == pytest.approx(50.0)
    assert latency.p99_ms == pytest.approx(99.0)


def test_one_event_is_every_percentile() -> None:
    tally = Tally(operation="o")
    tally.time(0.004)
    latency = tally.latency()
    assert latency is not None
    assert latency.p50_ms == latency.p99_ms == pytest.approx(4.0)


def test_recent_latency_forgets_what_is_long_ago() -> None:
    tally = Tally(operation="o")
    for _ in range(500):
        tally.time(9.0)
    for _ in range(1_000):
        tally.time(0.001)
    recent = tally.recent_latency()
    assert recent is not None
    assert recent.p99_ms == pytest.approx(1.0)
    overall = tally.latency()
    assert overall is not None
    assert overall.p99_ms == pytest.approx(9_000.0)


def test_counting_keeps_the_newest_words() -> None:
    tally = Tally(operation="o")
    tally.count("first")
    tally.count("second")
    assert (tally.events, tally.last_event) == (2, "second")
