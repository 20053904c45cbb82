"""How long handlers take and how late they are called: only where it is asked for, and said in the log."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from pathlib import Path

import pytest

from circuit_breaker_sdk import HandlerError
from circuit_breaker_sdk.observability.latency import BOUNDS, Histogram, Latency, Timed
from circuit_breaker_sdk.types import Resource
from tests.hot_path.paths import _handlers
from tests.observability.worlds import World, world
from tests.waiting import until


def handler_count(w: World) -> int:
    latency = w.client.health().latency
    return 0 if latency is None else latency.handler.count


def test_buckets_double_and_a_quantile_is_in_the_bucket_of_its_value() -> None:
    assert len(BOUNDS) == 25
    assert [round(b / a, 9) for a, b in itertools.pairwise(BOUNDS)] == [2.0] * 24
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    for _ in range(98):
        histogram.observe(0.001)
    for _ in range(2):
        histogram.observe(1.0)
    summary = histogram.summary()
    assert (summary.count, round(summary.total_seconds, 6)) == (100, 2.098)
    assert 0.0005 < summary.p50_seconds <= 0.001024  # type: ignore[operator]
    assert 0.5 < summary.p99_seconds <= 1.05  # type: ignore[operator]
    histogram.observe(1000.0)
    assert histogram.quantile(1.0) == BOUNDS[-1]


async def test_plain_handlers_are_timed_while_it_is_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        seen: list[Resource] = []
        updates = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        updates.on_data(seen.append)
        before = updates._delivery.consumer.inline
        await w.publish(1)
        await until(lambda: len(seen) == 1)
        assert w.client.health().latency is None
        w.client.measure_latency()
        later = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        later.on_data(lambda _event: time.sleep(0.02))
        await w.publish(2)
        await until(lambda: handler_count(w) == 2)
        latency = w.client.health().latency
        assert latency is not None
        assert latency.wire_to_handler.count == 2
        assert latency.handler.p99_seconds > 0.015  # type: ignore[operator]
        assert latency.wire_to_handler.p50_seconds > 0.0  # type: ignore[operator]
        w.client.measure_latency(enabled=False)
        assert updates._delivery.consumer.inline is before
        await w.publish(3)
        await until(lambda: len(seen) == 3)
        assert w.client.health().latency is None


async def test_async_handlers_are_timed_until_they_are_done(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.client.measure_latency()

        async def handle(_event: Resource) -> None:
            await asyncio.sleep(0.03)

        updates = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        updates.on_data(handle)
        await w.publish(1, 2, 3)
        # The first is called as a plain one, and awaited elsewhere.
        await until(lambda: handler_count(w) == 2)
        latency = w.client.health().latency
        assert latency is not None
        assert latency.handler.total_seconds > 0.05


async def test_a_handler_that_raises_is_named_as_it_is(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.client.measure_latency()

        def raises(_event: Resource) -> None:
            raise ValueError("no")

        updates = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        updates.on_data(raises)
        await w.publish(1)
        await until(lambda: updates.last_error)
        assert isinstance(updates.last_error, HandlerError)
        assert updates.last_error.handler.endswith("raises")


async def test_slow_handlers_and_late_calls_are_logged_once_a_second(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path) as w:
        w.client.measure_latency(slow_handler_seconds=0.02, lag_seconds=0.02)
        handled = []

        def slow(event: Resource) -> None:
            time.sleep(0.03)
            handled.append(event)

        first = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        # Its handler waits for that of the first one.
        second = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        first.on_data(slow)
        second.on_data(handled.append)
        with caplog.at_level(logging.WARNING, "circuit_breaker_sdk"):
            await w.publish(1, 2, 3)
            await until(lambda: len(handled) == 6)
        slow_ones = [r for r in caplog.records if r.getMessage().startswith("slow handler")]
        assert len(slow_ones) == 1
        facts = vars(slow_ones[0])
        assert (facts["subscription_id"], facts["operation"]) == (first.id, "resourceUpdates")
        assert facts["handler"].endswith("slow")
        assert facts["seconds"] >= 0.02


def test_a_late_call_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Stream:
        id, label, received_at = "00000001", "resourceUpdates", time.perf_counter() - 3.0

    latency = Latency(lag_seconds=2.0)
    timed: Timed[str] = latency.timed(lambda _event: None, Stream())
    with caplog.at_level(logging.WARNING, "circuit_breaker_sdk"):
        timed("event")
    (record,) = caplog.records
    assert record.getMessage().startswith("events wait for their handler subscription_id=00000001")
    assert latency.wire_to_handler.quantile(0.5) > 2.0  # type: ignore[operator]


async def test_one_event_of_a_read_is_timed_and_none_while_it_is_off() -> None:
    async with _handlers(1, 20) as rig:
        rig.step(rig.prepare())
        rig.verify()
    seen: list[int] = []

    class Stream:
        id, label, received_at = "00000001", "ticks", time.perf_counter()

    latency = Latency()
    timed: Timed[int] = latency.timed(seen.append, Stream())
    for number in range(20):
        timed(number)
    assert seen == list(range(20))
    assert latency.handler.summary().count == 1
