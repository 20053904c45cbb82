"""What is slow is a line, above its threshold; without a threshold there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from circuit_breaker_server import Server, ServerSettings, logs
from circuit_breaker_server.instruments import Instruments, LoopDelay
from circuit_breaker_server.slow_log import SlowLog
from tests.server.operations import CREATE_WORKFLOW, WORKFLOW
from tests.server.site import Site
from tests.waiting import until

Write = Callable[[SlowLog, float], None]
KINDS: dict[str, Write] = {
    "slow_append": lambda slow, seconds: slow.append(seconds, records=3),
    "slow_snapshot": lambda slow, seconds: slow.snapshot(seconds, entries=3, offset=7),
    "slow_operation": lambda slow, seconds: slow.operation("query", seconds, fields=lambda: ["health"]),
    "slow_loop": lambda slow, seconds: slow.loop(seconds),
    "tail_lag": lambda slow, seconds: slow.tail(seconds, records=3),
}


@pytest.fixture(autouse=True)
def _at_warning() -> Iterator[None]:
    logs.configure("warning")
    yield
    logs.configure("warning")


@pytest.mark.parametrize("event", KINDS)
def test_only_what_is_above_its_threshold_has_a_line(event: str) -> None:
    slow = SlowLog(append_seconds=0.5, operation_seconds=0.5, loop_seconds=0.5)
    with capture_logs() as lines:
        KINDS[event](slow, 0.5)
        KINDS[event](slow, 0.6)
    assert [(line["event"], line["seconds"], line["log_level"]) for line in lines] == [
        (event, 0.6, "warning")
    ]


@pytest.mark.parametrize("event", KINDS)
def test_without_a_threshold_nothing_is_slow(event: str) -> None:
    with capture_logs() as lines:
        KINDS[event](SlowLog(), 1e9)
    assert lines == []


def test_a_record_that_is_not_offered_is_told_once_it_has_waited_too_long() -> None:
    instruments = Instruments()
    instruments.slow.operation_seconds = 1.0
    last, offered = 7, 7
    delay = LoopDelay(instruments, lambda: (last, offered))
    with capture_logs() as lines:
        delay._look_at_tail(100.0)
        last = 9
        delay._look_at_tail(100.1)
        delay._look_at_tail(101.0)
        assert lines == []
        delay._look_at_tail(101.2)
        offered = 9
        delay._look_at_tail(102.0)
        # New records all the time, and each is offered in time.
        for tick in range(20):
            last += 1
            delay._look_at_tail(103.0 + tick)
            offered = last
            delay._look_at_tail(103.5 + tick)
    assert [(line["event"], line["seconds"], line["records"]) for line in lines] == [("tail_lag", 1.1, 2)]


async def test_slow_operations_and_appends_of_a_server_are_told_by_their_fields(tmp_path: Path) -> None:
    settings = ServerSettings(
        data_dir=tmp_path, port=0, slow_append_seconds=1e-9, slow_operation_seconds=1e-9
    )
    async with Server(settings) as server:
        with capture_logs() as lines:
            await asked(server)
    told = {line["event"]: line for line in lines}
    assert told["slow_append"]["records"] == 1
    operations = [line for line in lines if line["event"] == "slow_operation"]
    assert [(line["kind"], line["fields"]) for line in operations] == [("mutation", "createWorkflow")]


async def test_thresholds_are_taken_over_by_a_running_server(tmp_path: Path) -> None:
    before = ServerSettings(
        data_dir=tmp_path,
        port=0,
        slow_append_seconds=None,
        slow_operation_seconds=None,
        slow_loop_seconds=None,
    )
    async with Server(before) as server:
        observed = server.instruments.loop_delay_seconds.counts
        assert sum(observed) == 0
        with capture_logs() as lines:
            await asked(server)
        assert lines == []
        server.reload(replace(before, slow_operation_seconds=1e-9, slow_loop_seconds=1.0))
        with capture_logs() as lines:
            await asked(server)
        assert "slow_operation" in [line["event"] for line in lines]
        await until(lambda: sum(observed))


async def asked(server: Server) -> None:
    async with aiohttp.ClientSession() as http:
        running = Site(server, http)
        answer = await running.post(CREATE_WORKFLOW, {"input": WORKFLOW})
        assert answer["data"]
