"""Accounts: everything charged once, warnings and exhaustion once per window, windows that end."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import final

import msgspec
import pytest

from circuit_breaker_server.engine.costs import costs
from circuit_breaker_server.engine.costs.inputs import BudgetInput, CostAnalyticsInput
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.engine.llm.inputs import ChatCompletion
from circuit_breaker_server.log.event_log import EventLog, NewRecord, Record
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.worlds import part

WEDNESDAY = datetime(2030, 1, 2, 12, 0, tzinfo=UTC)
PER_PAIR = 0.000_003
"""What the echo charges for a word and its echo."""


@final
class Clock:
    """Stands where it is put."""

    def __init__(self) -> None:
        self.now = WEDNESDAY

    def __call__(self) -> datetime:
        return self.now

    def go_on(self, **by: float) -> None:
        self.now += timedelta(**by)


@contextlib.asynccontextmanager
async def running(log: EventLog, clock: Clock | None = None) -> AsyncIterator[Engine]:
    engine = Engine(log, now=clock or Clock())
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


async def spend(engine: Engine, pairs: int, *, user: str | None = "ada", project: str | None = None) -> None:
    given = {
        "model": "echo",
        "messages": [{"role": "user", "content": " ".join(["w"] * pairs)}],
        "user": user,
        "projectId": project,
    }
    await engine.llm.complete(msgspec.convert(given, ChatCompletion))


async def set_budget(engine: Engine, pairs: float, *, period: str = "daily", warn: float = 0.5) -> None:
    given = BudgetInput(user_id="ada", limit=pairs * PER_PAIR, period=period, warning_threshold=warn)
    await engine.costs.set_budget(given)


def events_of(records: list[Record]) -> list[dict[str, object]]:
    return [e.value for record in records for e in derive(record) if e.stream == "costUpdates"]


def types(log: MemoryLog) -> list[object]:
    return [value["eventType"] for value in events_of(log.records)]


async def test_warning_and_exhaustion_come_once_in_a_window_after_the_usage_that_caused_them() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        await set_budget(engine, 10)
        for _ in range(12):
            await spend(engine, 1)
        status = engine.costs.budget_status("ada", None)
    assert types(log) == [
        "BUDGET_RESET",
        *["COST_INCURRED"] * 5,
        "BUDGET_WARNING",
        *["COST_INCURRED"] * 5,
        "BUDGET_EXHAUSTED",
        *["COST_INCURRED"] * 2,
    ]
    for event in events_of(log.records):
        delta = part(event, "costDelta", float)
        assert delta > 0 if event["eventType"] == "COST_INCURRED" else delta == 0
        assert event["userId"] == "ada"
    assert (status["isExhausted"], status["isWarning"], status["percentageUsed"]) == (True, True, 100.0)
    assert (status["remaining"], status["budgetId"]) == (0.0, "user:ada")


async def test_one_usage_may_cross_both_lines_at_once() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        await set_budget(engine, 2)
        await spend(engine, 9)
    assert types(log) == ["BUDGET_RESET", "COST_INCURRED", "BUDGET_WARNING", "BUDGET_EXHAUSTED"]


async def test_fifty_completions_at_once_with_a_restart_between_them_warn_and_exhaust_once(
    tmp_path: Path,
) -> None:
    for half in range(2):
        log = await SqliteEventLog.open(tmp_path)
        async with running(log) as engine:
            if half == 0:
                await set_budget(engine, 60)
            await asyncio.gather(*(spend(engine, 1) for _ in range(50)))
        await log.aclose()
    log = await SqliteEventLog.open(tmp_path)
    records = [record async for record in log.scan(after=0)]
    await log.aclose()
    found = [str(event["eventType"]) for event in events_of(records)]
    assert {kind: found.count(kind) for kind in set(found)} == {
        "BUDGET_RESET": 1,
        "COST_INCURRED": 100,
        "BUDGET_WARNING": 1,
        "BUDGET_EXHAUSTED": 1,
    }
    totals = [part(e, "totalCost", float) for e in events_of(records) if e["eventType"] == "COST_INCURRED"]
    assert totals == pytest.approx([PER_PAIR * n for n in range(1, 101)])


async def test_what_was_due_when_the_server_stopped_is_charged_once_at_the_next_start() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        await set_budget(engine, 10)
        await spend(engine, 6)
    ends = next(i for i, record in enumerate(log.records) if record.subject.startswith("completion."))
    del log.records[ends + 2 :]  # as if the process had died between the completion's end and its charge
    log.snapshot = type(log.snapshot)(offset=0, entries={})
    assert types(log) == ["BUDGET_RESET"]
    for _ in range(2):
        async with running(log):
            assert types(log) == ["BUDGET_RESET", "COST_INCURRED", "BUDGET_WARNING"]


@pytest.mark.parametrize(
    ("period", "before", "after"),
    [("daily", 0.49, 0.5), ("weekly", 4.49, 4.5), ("monthly", 29.49, 29.5)],
)
async def test_a_window_ends_at_its_midnight_and_the_next_one_warns_anew(
    period: str, before: float, after: float
) -> None:
    log, clock = MemoryLog(), Clock()
    async with running(log, clock) as engine:
        await set_budget(engine, 4, period=period)
        await spend(engine, 2)
        clock.now = WEDNESDAY + timedelta(days=before)
        await engine.costs.roll_windows()
        await spend(engine, 1)
        assert types(log) == ["BUDGET_RESET", "COST_INCURRED", "BUDGET_WARNING", "COST_INCURRED"]
        clock.now = WEDNESDAY + timedelta(days=after)
        assert engine.costs.budget_status("ada", None)["used"] == 0.0, "told before the record is made"
        await asyncio.gather(engine.costs.roll_windows(), engine.costs.roll_windows())
        await spend(engine, 2)
    assert types(log)[4:] == ["BUDGET_RESET", "COST_INCURRED", "BUDGET_WARNING"]


async def test_a_window_that_ends_while_the_log_is_away_is_ended_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(costs, "_PAUSE_SECONDS", 0.0)
    log, clock, tries = MemoryLog(), Clock(), 0

    def fail_twice(_record: NewRecord) -> None:
        nonlocal tries
        tries += 1
        log.full = tries <= 2

    async with running(log, clock) as engine:
        await set_budget(engine, 4, period="daily")
        await spend(engine, 4)
        clock.go_on(days=1)
        log.before_append = fail_twice
        await engine.costs._roll_until_done()
        log.before_append = None
    assert types(log)[-1] == "BUDGET_RESET"


async def test_usage_in_a_new_window_ends_the_old_one_first_and_so_does_a_start() -> None:
    log, clock = MemoryLog(), Clock()
    async with running(log, clock) as engine:
        await set_budget(engine, 4)
        await spend(engine, 4)
        clock.go_on(days=1)
        await spend(engine, 1)
    clock.go_on(days=1)
    async with running(log, clock):
        pass
    assert types(log)[-3:] == ["BUDGET_RESET", "COST_INCURRED", "BUDGET_RESET"]
    assert [part(e, "totalCost", float) for e in events_of(log.records)[-3:]] == [0.0, PER_PAIR, 0.0]


async def test_a_new_budget_counts_what_was_used_in_its_window_and_may_warn_at_once() -> None:
    log, clock = MemoryLog(), Clock()
    async with running(log, clock) as engine:
        await spend(engine, 3)
        clock.go_on(days=-1)  # Tuesday: the same week and month
        await spend(engine, 4)
        clock.now = WEDNESDAY
        await set_budget(engine, 6, period="daily")
        assert engine.costs.budget_status("ada", None)["used"] == pytest.approx(3 * PER_PAIR)
        await set_budget(engine, 7, period="weekly")
        assert engine.costs.budget_status("ada", None)["used"] == pytest.approx(7 * PER_PAIR)
    assert types(log)[2:] == [
        "BUDGET_RESET",
        "BUDGET_WARNING",
        "BUDGET_RESET",
        "BUDGET_WARNING",
        "BUDGET_EXHAUSTED",
    ]


async def test_a_credit_is_an_event_below_zero_and_never_more_than_was_used() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        await spend(engine, 4)
        done = await engine.costs.apply_credit("ada", None, PER_PAIR)
        assert done.value["used"] == pytest.approx(3 * PER_PAIR)
        await engine.costs.apply_credit("ada", None, 1.0)
        assert engine.costs.budget_status("ada", None)["used"] == 0.0
        with pytest.raises(EngineError, match="nothing to credit"):
            await engine.costs.apply_credit("ada", None, 1.0)
    credited = [event for event in events_of(log.records) if event["eventType"] == "CREDIT_APPLIED"]
    assert [event["costDelta"] for event in credited] == pytest.approx([-PER_PAIR, -3 * PER_PAIR])


async def test_the_project_pays_if_one_is_given_and_without_a_budget_there_is_no_limit() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        await spend(engine, 2, project="p")
        await spend(engine, 1, user=None)
        status = engine.costs.budget_status("ada", "p")
        assert (status["budgetId"], status["used"]) == ("project:p", pytest.approx(2 * PER_PAIR))
        assert (status["limit"], status["remaining"]) == (sys.float_info.max, sys.float_info.max)
        assert (status["isWarning"], status["isExhausted"]) == (False, False)
        assert engine.costs.budget_status("ada", None)["used"] == 0.0
    assert [(e["userId"], e["projectId"]) for e in events_of(log.records)] == [("ada", "p"), (None, None)]


async def test_analytics_add_up_what_was_spent_by_day_provider_and_model() -> None:
    log, clock = MemoryLog(), Clock()
    async with running(log, clock) as engine:
        await spend(engine, 1)
        clock.go_on(days=1)
        await spend(engine, 2, project="p")
        await spend(engine, 4, user="bob")

        def ask(**given: str) -> dict[str, object]:
            days = {"start_date": "2030-01-02", "end_date": "2030-01-03T23:00:00Z"}
            return engine.costs.analytics(CostAnalyticsInput(**{**days, **given}))

        whole = ask()
        assert (whole["totalTokens"], whole["totalCost"]) == (14, pytest.approx(7 * PER_PAIR))
        assert whole["averageCostPerToken"] == pytest.approx(PER_PAIR / 2)
        for breakdown in ("providerBreakdown", "modelBreakdown"):
            assert part(whole, breakdown, dict)["echo"]["requests"] == 3
        assert part(whole, "dailyCosts", dict) == {
            "2030-01-02": pytest.approx(PER_PAIR),
            "2030-01-03": pytest.approx(6 * PER_PAIR),
        }
        assert ask(user_id="ada")["totalTokens"] == 6
        assert ask(user_id="ada", project_id="p")["totalTokens"] == 4
        assert ask(end_date="2030-01-02")["totalTokens"] == 2
        empty = ask(user_id="nobody")
        assert (empty["totalCost"], empty["averageCostPerToken"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"userId": None}, "userId or projectId must say whose"),
        ({"userId": ""}, "userId: must not be empty"),
        ({"userId": "u" * 300}, "userId: must not be empty, and has at most 256"),
        ({"limit": 0.0}, "limit: 0 is not between 1e-12"),
        ({"limit": 1e-13}, "limit: 1e-13 is not between 1e-12"),
        ({"limit": -1.0}, "limit: -1 is not between 1e-12"),
        ({"limit": 1e13}, "limit: 1e"),
        ({"period": "yearly"}, "period: 'yearly' is none of daily, weekly, monthly"),
        ({"warningThreshold": 0.0}, "warningThreshold: 0 is not a fraction"),
        ({"warningThreshold": 80.0}, "warningThreshold: 80 is not a fraction"),
    ],
)
async def test_a_budget_that_cannot_be_is_refused(given: dict[str, object], message: str) -> None:
    log = MemoryLog()
    whole = {"userId": "ada", "limit": 1.0, "period": "daily", "warningThreshold": 0.5, **given}
    async with running(log) as engine:
        with pytest.raises(EngineError, match=message) as raised:
            await engine.costs.set_budget(msgspec.convert(whole, BudgetInput))
        assert raised.value.code is ErrorCode.INVALID_INPUT
        for amount in (0.0, -1.0, 1e13):
            with pytest.raises(EngineError, match="amount"):
                await engine.costs.apply_credit("ada", None, amount)
        for start, end in (
            ("x", "2030-01-01"),
            ("2030-01-02", "2030-01-01"),
            ("2030-01-01T00:00:00", "x"),
            ("2030-01-01", "9999-12-31T23:59:59-14:00"),
        ):
            with pytest.raises(EngineError, match=r"startDate|endDate"):
                engine.costs.analytics(CostAnalyticsInput(start_date=start, end_date=end))
    assert log.records == []
