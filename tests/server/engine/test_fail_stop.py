"""A record that cannot be applied stops the engine, and nothing of the state is ever lost."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import structlog.testing

from circuit_breaker_server.engine import state_projector
from circuit_breaker_server.engine.costs.inputs import BudgetInput
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError
from circuit_breaker_server.engine.skipped_records import CannotSkip, skip
from circuit_breaker_server.engine.state_projector import RecordNotApplied
from circuit_breaker_server.engine.workflows.state import FoldedState
from circuit_breaker_server.log.event_log import Record
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.server.engine.ghost_record import ghost
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.worlds import clock, create_resource, create_workflow, everything, execute

pytestmark = pytest.mark.usefixtures("quiet_logs")

ENGINE = str(Path(state_projector.__file__).parent)


@pytest.fixture(name="quiet_logs")
def _quiet_logs() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@contextmanager
def memory_error_at(step: int) -> Iterator[Callable[[], bool]]:
    """Raise a MemoryError at the n-th line that the engine executes while it applies records.

    Yields a function that tells whether there was such a line.
    """
    steps, raised = 0, False

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal steps, raised
        if not frame.f_code.co_filename.startswith(ENGINE):
            return None
        if event == "line" and not raised and _is_folding(frame):
            steps += 1
            if steps == step:
                raised = True
                raise MemoryError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lambda: raised
    finally:
        sys.settrace(before)


def _is_folding(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is state_projector.Folding._follow.__code__:
            return True
        if frame.f_code is state_projector.Folding._fail.__code__:
            return False
        frame = frame.f_back
    return False


async def started(log: MemoryLog) -> Engine:
    engine = Engine(log, now=clock(), snapshot_every=10_000)
    await engine.start()
    return engine


def state_of(engine: Engine) -> dict[str, object]:
    return {
        **everything(engine.workflows),
        "budget": engine.costs.budget_status("ada", None),
        "idempotency": len(engine.idempotency),
    }


async def change_something(engine: Engine, kind: str, resource: str) -> None:
    match kind:
        case "activity":
            await execute(engine.workflows, resource, "edit", {"n": 1})
        case "budget":
            await engine.costs.set_budget(
                BudgetInput(user_id="ada", limit=5.0, period="daily", warning_threshold=0.8)
            )
        case _:
            await create_workflow(engine.workflows)


@pytest.mark.parametrize("kind", ["activity", "budget", "workflow"])
async def test_a_memory_error_at_any_step_of_folding_loses_no_state(kind: str) -> None:
    step = 0
    while True:
        step += 1
        log = MemoryLog()
        engine = await started(log)
        resource = await create_resource(engine.workflows, await create_workflow(engine.workflows))
        try:
            with memory_error_at(step) as was_raised:
                await change_something(engine, kind, resource)
        except (EngineError, MemoryError):
            assert was_raised()
        appended = log.last_offset
        if engine.failure is not None:
            with pytest.raises(EngineError, match="not running"):
                await create_workflow(engine.workflows)
            assert log.last_offset == appended
        await engine.aclose()
        assert (engine.failure is not None) is was_raised()
        again = await started(log)
        whole = MemoryLog()
        whole.records = list(log.records)
        reference = await started(whole)
        assert state_of(again) == state_of(reference)
        await again.aclose()
        await reference.aclose()
        if not was_raised():
            break
    assert step > 20


async def test_a_record_that_was_not_applied_at_all_stops_the_engine() -> None:
    log = MemoryLog()
    engine = await started(log)
    (follow,) = log._tails
    log._tails.clear()  # as if the call itself had failed
    with pytest.raises(EngineError, match="durable"):
        await create_workflow(engine.workflows)
    assert engine.failure is not None
    follow(log.records)
    log._tails.append(follow)
    await engine.aclose()
    assert log.snapshot.offset == 0
    again = await started(log)
    assert len([*again.workflows.workflows()]) == 1
    await again.aclose()


async def test_changes_that_could_not_be_taken_stop_the_engine_and_save_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = MemoryLog()
    engine = await started(log)
    await create_workflow(engine.workflows)
    before = state_of(engine)

    def fail(_self: FoldedState) -> object:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(FoldedState, "take_changes", fail)
        with pytest.raises(RecordNotApplied):
            await engine.make_durable(1)
    assert engine.failure is not None
    await engine.aclose()
    assert log.snapshot.offset == 0
    again = await started(log)
    assert state_of(again) == before
    await again.aclose()


async def log_with_ghost(directory: Path) -> SqliteEventLog:
    log = await SqliteEventLog.open(directory)
    engine = Engine(log, now=clock())
    await engine.start()
    workflow = await create_workflow(engine.workflows)
    await engine.aclose()
    record = await log.append(ghost())
    assert record.offset == 2
    assert workflow
    return log


async def test_a_start_that_meets_the_record_again_says_which_release_wrote_it(tmp_path: Path) -> None:
    log = await log_with_ghost(tmp_path)
    with pytest.raises(
        RecordNotApplied, match=r"record 2 \(resource\.w\.r\), written by release 9\.9\.9"
    ) as e:
        await Engine(log).start()
    assert e.value.offset == 2
    assert "circuit-breaker log skip 2" in str(e.value)
    await log.aclose()


async def test_a_skipped_record_is_not_applied_and_the_rest_is(tmp_path: Path) -> None:
    log = await log_with_ghost(tmp_path)
    record = await skip(log, 2, reason="made by a defect", operator="ada")
    assert record.offset == 3
    engine = Engine(log, now=clock())
    await engine.start()
    assert len([*engine.workflows.workflows()]) == 1
    assert [*engine.workflows.resources()] == []
    await create_workflow(engine.workflows)
    await engine.aclose()
    again = Engine(log, now=clock())
    await again.start()
    assert len([*again.workflows.workflows()]) == 2
    await again.aclose()
    await log.aclose()


async def test_what_cannot_be_skipped_is_refused_with_its_reason(tmp_path: Path) -> None:
    log = await log_with_ghost(tmp_path)
    for offset, reason, why in (
        (7, "r", "no record 7: it holds 1 to 2"),
        (1, "r", "applied already"),
        (2, " ", "--reason must not be empty"),
    ):
        with pytest.raises(CannotSkip, match=why):
            await skip(log, offset, reason=reason, operator="ada")
    record = await skip(log, 2, reason="r", operator="ada")
    with pytest.raises(CannotSkip, match="skipped already"):
        await skip(log, 2, reason="r", operator="ada")
    with pytest.raises(CannotSkip, match="itself about the log"):
        await skip(log, record.offset, reason="r", operator="ada")
    await log.aclose()


async def test_the_first_failure_is_told_once_with_offset_and_subject() -> None:
    log = MemoryLog()
    engine = await started(log)
    told: asyncio.Queue[RecordNotApplied] = asyncio.Queue()
    engine.on_failure(told.put_nowait)
    stored: Record = log.put(ghost())
    failure = told.get_nowait()
    assert (failure.offset, engine.failure) == (stored.offset, failure)
    assert "resource.w.r" in str(failure)
    assert told.empty()
    await engine.aclose()
