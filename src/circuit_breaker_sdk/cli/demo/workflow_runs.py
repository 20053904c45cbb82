"""Lead the lives of the demo's resources: create them, execute their activities, one worker a resource."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterator
from itertools import count
from typing import final

import msgspec

from circuit_breaker_sdk.cli.demo.demo_part import Stage
from circuit_breaker_sdk.cli.demo.ledger import Owed
from circuit_breaker_sdk.cli.demo.scenario import SCENARIOS, Scenario, Step
from circuit_breaker_sdk.cli.event_rendering import words_of_resource, words_of_workflow_event
from circuit_breaker_sdk.errors import CircuitBreakerError, OperationError
from circuit_breaker_sdk.events import JSON, Resource, WorkflowEvent, WorkflowEventType

__all__ = ["RuleNotKeptError", "WorkflowRuns", "event_value", "owed_events", "update_value"]

_WORKERS_PER_WORKFLOW = 4
_REFUSED = "ACTIVITY_NOT_ALLOWED"


class RuleNotKeptError(CircuitBreakerError):
    """The server executed an activity that the workflow's rules forbid.

    :ivar activity: what it executed.
    :ivar state: the state the resource was in.
    """

    def __init__(self, activity: str, state: str) -> None:
        self.activity = activity
        self.state = state
        super().__init__(activity, state)

    def __str__(self) -> str:
        return f"the server executed {self.activity!r} in state {self.state!r}, which the workflow forbids"


@final
class WorkflowRuns:
    """The runs of all workflows, several resources at a time each."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._scenarios: dict[str, Scenario] = {}

    async def prepare(self) -> None:
        """Create the workflows, and subscribe the two streams to each."""
        stage, client = self._stage, self._stage.client
        for scenario in SCENARIOS:
            given = scenario.workflow
            workflow = await client.workflows.create_workflow(
                name=given.name,
                initial_state=given.initial_state,
                states=given.states,
                activities=given.activities,
            )
            id_ = workflow.id
            self._scenarios[id_] = scenario
            await stage.subscribe(
                "resourceUpdates",
                id_,
                client.workflows.subscribe_resource_updates(workflow_id=id_),
                client.subscriptions.resource_updates(workflow_id=id_),
                value_of=update_value,
                words_of=words_of_resource,
            )
            await stage.subscribe(
                "workflowEvents",
                id_,
                client.workflows.subscribe_workflow_events(workflow_id=id_),
                client.subscriptions.workflow_events(workflow_id=id_),
                value_of=event_value,
                words_of=words_of_workflow_event,
            )

    async def lead(self) -> None:
        """Lead one life after the other, several at a time."""
        async with asyncio.TaskGroup() as group:
            for workflow_id, scenario in self._scenarios.items():
                numbers = count()
                for _ in range(_WORKERS_PER_WORKFLOW):
                    group.create_task(self._work(workflow_id, scenario, numbers))

    async def _work(self, workflow_id: str, scenario: Scenario, numbers: Iterator[int]) -> None:
        stage = self._stage
        while not stage.stop.is_set():
            number = next(numbers)
            life = scenario.life(number)
            ticket = stage.ledger.send()
            resource = await stage.client.workflows.create_resource(
                workflow_id=workflow_id, data=life.data, metadata=life.metadata
            )
            stage.ledger.accepted(ticket, _owed(resource))
            state = resource.state
            for index, step in enumerate(life.steps):
                await stage.pause(_pause_seconds(number, index))
                if stage.stop.is_set():
                    return
                state = await self._take(resource.id, state, step)

    async def _take(self, resource_id: str, state: str, step: Step) -> str:
        """Execute a step's activity and return the state it leads to."""
        ledger = self._stage.ledger
        ticket = ledger.send()
        try:
            resource = await self._stage.client.workflows.execute_activity(
                resource_id=resource_id, activity_id=step.activity, data=step.data
            )
        except OperationError as error:
            if not (step.must_be_refused and error.code == _REFUSED):
                raise
            ledger.refused(ticket)
            return state
        if step.must_be_refused:
            raise RuleNotKeptError(step.activity, state)
        ledger.accepted(ticket, _owed(resource))
        return resource.state


def _owed(resource: Resource) -> Owed:
    id_ = resource.workflow_id
    return {
        ("resourceUpdates", id_): [update_value(resource)],
        ("workflowEvents", id_): owed_events(resource),
    }


def _canonical(value: JSON) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def update_value(resource: Resource) -> Hashable:
    """Reduce a resource, from a mutation's answer or from a stream, to what both must agree on."""
    activity = resource.history[-1].activity if resource.history else None
    return (resource.id, resource.state, resource.updated_at, activity, _canonical(resource.data))


def event_value(event: WorkflowEvent) -> Hashable:
    """Reduce a received workflow event to what a mutation's answer foretells."""
    return (event.workflow_id, event.resource_id, event.type, event.timestamp, _canonical(event.data))


def owed_events(resource: Resource) -> list[Hashable]:
    """Tell the workflow events that a mutation owes, from the resource it returned alone."""

    def event(kind: WorkflowEventType, data: JSON) -> Hashable:
        return (resource.workflow_id, resource.id, kind, resource.updated_at, _canonical(data))

    if not resource.history:
        return [event(WorkflowEventType.RESOURCE_CREATED, {"state": resource.state})]
    last = resource.history[-1]
    data: JSON = {"fromState": last.from_state, "toState": last.to_state, "activityId": last.activity}
    executed = event(WorkflowEventType.ACTIVITY_EXECUTED, data)
    if last.from_state == last.to_state:
        return [executed]
    return [executed, event(WorkflowEventType.RESOURCE_STATE_CHANGED, data)]


def _pause_seconds(number: int, index: int) -> float:
    """Spread the steps between 40 and 160 ms, always the same for the same step."""
    return (40 + (number * 37 + index * 53) % 120) / 1_000
