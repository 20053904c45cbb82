"""The benchmarks show the log's cost apart, and a peer that cannot run here is no failure."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from benchmarks import durability
from benchmarks.durability import IN_MEMORY, LOGGING_NODE, log_text, logging_node, without_log
from benchmarks.memory_log import MemoryEventLog
from benchmarks.our_server import make_workflow
from benchmarks.row import Rounds
from circuit_breaker_server import Server, ServerSettings, log_parts
from circuit_breaker_server.log.event_log import EventLog, ExpectationFailed, NewRecord, Record, ServingLog


def rounds(**figures: Sequence[float]) -> Rounds:
    """Return rounds that measured these, after the one that does not count."""
    names = {"in_memory": IN_MEMORY}
    measured = {names.get(name, name): iter([1.0, *each]) for name, each in figures.items()}
    return Rounds({name: partial(next, each) for name, each in measured.items()}, 3)


def test_the_cost_of_the_log_is_the_difference_of_the_times_per_event() -> None:
    # 100 deliveries are one event: 500 events/s are 2,000 µs each, 1,000 are 1,000 µs.
    measured = rounds(
        ours=[50_000, 50_000, 50_000], in_memory=[100_000, 100_000, 100_000], bare=[200_000, 250_000, 160_000]
    )
    assert without_log(measured, "deliveries/s", per_event=100, limit="bare") == {
        "deliveries/s with the log's cost taken out (log in memory)": 100_000,
        "of the limit then": 0.5,
        "the durable log's cost, microseconds per event": 1000.0,
    }


def test_rounds_are_compared_each_with_its_own() -> None:
    # The machine halves its speed in the second round: no ratio changes by it.
    measured = rounds(
        ours=[10_000, 5_000, 10_000], in_memory=[20_000, 10_000, 20_000], other=[5_000, 2_500, 1]
    )
    found = without_log(measured, "events/s", per_event=1, peer="other")
    assert found["times other then"] == 4.0
    assert found["the durable log's cost, microseconds per event"] == 50.0


def test_a_node_that_cannot_load_the_database_is_told_of_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answering:
        def receive(self) -> dict[str, str]:
            return {"unavailable": "ERR_MODULE_NOT_FOUND"}

    @contextlib.contextmanager
    def answering(*_arguments: object, core: int | None) -> Iterator[Answering]:
        del core
        yield Answering()

    monkeypatch.setattr(durability, "prepare_node", lambda: True)
    monkeypatch.setattr(durability, "node_process", answering)
    with logging_node() as found:
        assert found == (
            "not measured: this Node cannot load better-sqlite3 (ERR_MODULE_NOT_FOUND); "
            "to have it installed anew, remove benchmarks/peers/node_modules"
        )


def test_a_machine_without_node_is_told_of_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "prepare_node", lambda: False)
    with logging_node() as found:
        assert found == "not measured: there is no Node with npm on this machine"


def test_the_settings_of_a_log_are_one_line() -> None:
    settings = {"journal_mode": "wal", "synchronous": "FULL"}
    assert log_text(settings, 799.6) == "journal_mode wal, synchronous FULL, events in a transaction 800"
    assert "log" in LOGGING_NODE


def new(expected: int | None = None) -> NewRecord:
    return NewRecord(subject="resource.w.r", id=uuid.uuid4().hex, data=b"{}", expected=expected)


async def test_a_server_can_run_on_the_log_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log: ServingLog = MemoryEventLog()  # the type checker compares it with the port
    assert log.last_offset == 0
    monkeypatch.setattr(log_parts, "SqliteEventLog", MemoryEventLog)
    server = Server(ServerSettings(data_dir=tmp_path, port=0))
    await server.start()
    async with contextlib.aclosing(server):
        await make_workflow(server.engine)


async def test_the_log_in_memory_groups_what_is_appended_together() -> None:
    log: EventLog = MemoryEventLog()
    groups: list[Sequence[Record]] = []
    log.tail(groups.append)
    appended = await asyncio.gather(*(log.append(new()) for _ in range(3)))
    appended.append(await log.append(new(expected=3)))
    assert [[record.offset for record in group] for group in groups] == [[1, 2, 3], [4]]
    assert await log.read(after=0) == appended
    assert log.last_offset == 4


async def test_the_log_in_memory_refuses_a_failed_expectation_alone() -> None:
    log = MemoryEventLog()
    first, second = await asyncio.gather(
        log.append(new(expected=0)), log.append(new(expected=0)), return_exceptions=True
    )
    assert isinstance(first, Record)
    assert isinstance(second, ExpectationFailed)
    assert second.actual == 1
