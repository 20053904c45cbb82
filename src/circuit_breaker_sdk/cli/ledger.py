"""Book what the demo's mutations returned and what its operations received.

Both sides are turned into the same kind of value independently of each other, so that the judge can compare
them: an update is its resource's id, state, time, last activity and whole data; an event is its workflow,
resource, type, time and data.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from typing import final

import msgspec

from circuit_breaker_sdk.cli.judge import Judge, Ticket
from circuit_breaker_sdk.cli.tally import Mutations, Tally
from circuit_breaker_sdk.cli.words import words_of_resource, words_of_workflow_event
from circuit_breaker_sdk.events import JSON, Resource, WorkflowEvent, WorkflowEventType

__all__ = ["OPERATIONS", "Ledger", "event_value", "owed_events", "update_value"]

UPDATE_OPERATIONS = ("workflows.resourceUpdates", "subscriptions.resourceUpdates")
EVENT_OPERATIONS = ("workflows.workflowEvents", "subscriptions.workflowEvents")
OPERATIONS = (
    "workflows.resourceUpdates",
    "workflows.workflowEvents",
    "subscriptions.resourceUpdates",
    "subscriptions.workflowEvents",
)


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


@final
class Ledger:
    """Judge and count the four operations, each of them subscribed once per workflow.

    :ivar tallies: by operation, in the order of :data:`OPERATIONS`.
    :ivar judge: told of every mutation and every event.
    :ivar on_first_event: called with the first event of any operation.
    """

    def __init__(self, workflow_ids: Sequence[str]) -> None:
        self.tallies = {name: Tally(operation=name) for name in OPERATIONS}
        self.mutations = Mutations()
        self.judge = Judge([_stream(name, id_) for name in OPERATIONS for id_ in workflow_ids])
        self.on_first_event: Callable[[], None] | None = None
        self._changed = asyncio.Event()

    @property
    def events(self) -> int:
        """Events received over all operations."""
        return sum(tally.events for tally in self.tallies.values())

    def send(self) -> Ticket:
        """Note that a mutation is sent now; to be called right before the call that sends it."""
        return self.judge.sent(at=time.perf_counter())

    def accepted(self, ticket: Ticket, resource: Resource) -> None:
        """Note what the mutation returned, and with it what every operation owes."""
        at = time.perf_counter()
        self.mutations.accepted += 1
        updates, events = [update_value(resource)], owed_events(resource)
        owed = {_stream(name, resource.workflow_id): updates for name in UPDATE_OPERATIONS} | {
            _stream(name, resource.workflow_id): events for name in EVENT_OPERATIONS
        }
        self.judge.answered(ticket, owed, at=at)
        self._after_change()

    def refused(self, ticket: Ticket) -> None:
        """Note that the mutation was refused: it owes nothing."""
        self.mutations.refused += 1
        self.judge.refused(ticket, at=time.perf_counter())
        self._after_change()

    def update_handler(self, operation: str, workflow_id: str) -> Callable[[Resource], None]:
        """Make the handler of one subscription to resource updates."""
        stream, tally = _stream(operation, workflow_id), self.tallies[operation]

        def on_update(resource: Resource) -> None:
            at = time.perf_counter()  # first of all: this is where the latency ends
            tally.count(words_of_resource(resource))
            self.judge.received(stream, update_value(resource), at=at)
            self._after_change()

        return on_update

    def event_handler(self, operation: str, workflow_id: str) -> Callable[[WorkflowEvent], None]:
        """Make the handler of one subscription to workflow events."""
        stream, tally = _stream(operation, workflow_id), self.tallies[operation]

        def on_event(event: WorkflowEvent) -> None:
            at = time.perf_counter()  # as above
            tally.count(words_of_workflow_event(event))
            self.judge.received(stream, event_value(event), at=at)
            self._after_change()

        return on_event

    async def settled(self) -> None:
        """Wait until everything owed is there and everything there is explained."""
        while not self.judge.is_settled:
            self._changed.clear()
            await self._changed.wait()

    def _after_change(self) -> None:
        for matched in self.judge.take_matched():
            self.tallies[matched.stream.partition(" ")[0]].time(matched.latency_seconds)
        self._changed.set()
        if self.on_first_event is not None and self.events:
            tell, self.on_first_event = self.on_first_event, None
            tell()


def _stream(operation: str, workflow_id: str) -> str:
    return f"{operation} {workflow_id}"
