"""Workflows and engines for tests."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from circuit_breaker_server.engine.command import Value
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.workflows.inputs import (
    CreateResource,
    CreateWorkflow,
    ExecuteActivity,
    StateInput,
)
from circuit_breaker_server.engine.workflows.workflows import Workflows
from circuit_breaker_server.log.event_log import EventLog
from circuit_breaker_server.log.sqlite import SqliteEventLog

_T = TypeVar("_T")


def state(id_: str, **more: object) -> dict[str, object]:
    """Describe a state, as ``StateDefinitionInput`` has it."""
    return {"id": id_, "name": id_.title(), "workflowId": "", "stateType": "NORMAL", **more}


def activity(id_: str, from_: list[str], to: str, *conditions: str, **more: object) -> dict[str, object]:
    """Describe an activity, as ``ActivityDefinitionInput`` has it."""
    return {"id": id_, "fromStates": from_, "toState": to, "conditions": list(conditions), **more}


def review(**more: object) -> dict[str, object]:
    """Describe a document review, as ``WorkflowDefinitionInput`` has it."""
    return {
        "name": "document review",
        "states": [state("draft"), state("review"), state("approved", stateType="TERMINAL")],
        "activities": [
            activity("edit", ["draft"], "draft"),
            activity("submit", ["draft"], "review", "field_exists:title"),
            activity("reject", ["review"], "draft"),
            activity("approve", ["review"], "approved", "not:field_equals:blocked=true"),
        ],
        "initialState": "draft",
        **more,
    }


def workflow_input(given: Mapping[str, object] | None = None) -> CreateWorkflow:
    """Return the input of ``createWorkflow``; a document review if nothing is given."""
    return msgspec.convert(given or review(), CreateWorkflow)


def state_input(workflow_id: object, id_: str, **more: object) -> StateInput:
    """Return the input of ``createState``."""
    return msgspec.convert(state(id_, workflowId=workflow_id, **more), StateInput)


def clock() -> Callable[[], datetime]:
    """Return a clock that goes on by one second at each look."""
    ticks = itertools.count()
    return lambda: datetime(2030, 1, 2, 3, 4, 5, 678_901, UTC) + timedelta(seconds=next(ticks))


@contextlib.asynccontextmanager
async def running(log: EventLog, *, snapshot_every: int = 10_000) -> AsyncIterator[Workflows]:
    """Run an engine on a log; yield its workflows."""
    async with running_engine(log, snapshot_every=snapshot_every) as engine:
        yield engine.workflows


@contextlib.asynccontextmanager
async def running_engine(log: EventLog, *, snapshot_every: int = 10_000) -> AsyncIterator[Engine]:
    """Run an engine on a log."""
    engine = Engine(log, now=clock(), snapshot_every=snapshot_every)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


@contextlib.asynccontextmanager
async def engine_in(
    directory: Path, *, snapshot_every: int = 10_000
) -> AsyncIterator[tuple[Workflows, EventLog]]:
    """Run an engine on the real log in a directory."""
    log = await SqliteEventLog.open(directory)
    try:
        async with running(log, snapshot_every=snapshot_every) as engine:
            yield engine, log
    finally:
        await log.aclose()


async def create_workflow(engine: Workflows, given: Mapping[str, object] | None = None) -> str:
    """Create a workflow; return its id."""
    return str((await engine.create_workflow(workflow_input(given))).value["id"])


async def create_resource(
    engine: Workflows, workflow_id: str, *, data: object = None, metadata: object = None
) -> str:
    """Create a resource in the workflow's initial state; return its id."""
    given = CreateResource(workflow_id=workflow_id, data=data, metadata=metadata)
    return str((await engine.create_resource(given)).value["id"])


async def execute(engine: Workflows, resource_id: str, activity_id: str, data: object = None) -> Value:
    """Execute an activity; return the answer, all of it decoded."""
    given = ExecuteActivity(resource_id=resource_id, activity_id=activity_id, data=data)
    return plain((await engine.execute_activity(given)).value)


def plain(value: Value | None) -> Value:
    """Decode an answer as a whole."""
    assert value is not None
    return {key: _plain(item() if callable(item) else item) for key, item in value.items()}


def _plain(item: object) -> object:
    return msgspec.json.decode(item) if isinstance(item, msgspec.Raw) else item


def part(value: Mapping[str, object], key: str, kind: type[_T]) -> _T:
    """Return a part of an answer, checked to be of a type."""
    assert key in value, value
    found = value[key]
    assert isinstance(found, kind)
    return found


def everything(engine: Workflows) -> dict[str, object]:
    """Return all that an engine answers, decoded: two engines with the same state give the same."""
    return {
        "workflows": [plain(value) for value in engine.workflows()],
        "resources": [plain(value) for value in engine.resources()],
        "by workflow": [
            [value["id"] for value in engine.resources(str(workflow["id"]))]
            for workflow in engine.workflows()
        ],
    }
