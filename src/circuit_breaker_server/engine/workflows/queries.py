"""The read side of workflows: answers in the shape of the schema's types."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Protocol, final

import msgspec

from circuit_breaker_server.engine.command import Value
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.json_values import as_json
from circuit_breaker_server.engine.rules.conditions import Rule
from circuit_breaker_server.engine.validation import refuse
from circuit_breaker_server.engine.workflows.guards import decode_object, failed_condition
from circuit_breaker_server.engine.workflows.records import ResourceImage
from circuit_breaker_server.engine.workflows.state import FoldedState, Resource
from circuit_breaker_server.engine.workflows.workflow import Workflow

__all__ = ["Queries", "ResourceView", "RuleBook", "resource_value"]

_MERGED_WORKFLOWS = 100
"""Of how many workflows the resources are put in order by their creation, instead of looking at all."""
_HISTORY_ENTRIES = 1_000
"""Of a resource's history, the newest: what is shown of it at once."""


def resource_value(
    resource: Resource | ResourceImage, workflow: Workflow, history: Callable[[], list[Value]]
) -> Value:
    """Return a resource in the shape of ``ResourceGQL``."""
    return {
        "id": resource.id,
        "workflowId": resource.workflow_id,
        "state": resource.state,
        "stateDefinition": lambda: workflow.state_value(resource.state),
        "data": resource.data,
        "metadata": resource.metadata,
        "createdAt": resource.created_at,
        "updatedAt": resource.updated_at,
        "history": history,
    }


class RuleBook(Protocol):
    """The stored rules that conditions may name."""

    def find(self, rule_id: str) -> Rule | None:
        """Return the condition of a rule as it is now, ``None`` if there is none of that id."""
        ...


@final
class ResourceView(msgspec.Struct, frozen=True, kw_only=True):
    """A resource at one moment, its JSON decoded."""

    workflow_id: str
    state: str
    data: dict[str, object]
    metadata: dict[str, object]


class Queries:
    """Answers from the folded state; nothing here waits, and nothing changes.

    Example::

        engine.resource("…")
    """

    def __init__(self, state: FoldedState, rules: RuleBook) -> None:
        self._state = state
        self._rules = rules

    def workflow(self, workflow_id: str) -> Value | None:
        """Return a workflow as ``WorkflowGQL``, ``None`` if there is none."""
        workflow = self._state.workflow(workflow_id)
        return None if workflow is None else workflow.value()

    def workflows(self) -> Iterator[Value]:
        """Yield all workflows, in the order of their creation; each as it is when its turn comes."""
        for workflow_id in self._state.workflow_ids():
            yield self._workflow(workflow_id).value()

    def resource(self, resource_id: str) -> Value | None:
        """Return a resource as ``ResourceGQL``, ``None`` if there is none."""
        resource = self._state.resource(resource_id)
        return None if resource is None else self._value_of(resource)

    def resources(self, workflow_id: str | None = None, *, after: str | None = None) -> Iterator[Value]:
        """Yield a workflow's resources, or all, in the order of their creation; each as it is in its turn.

        :param after: the id of one of them: those that were made after it.
        :raises EngineError: at once: ``NOT_FOUND``: the workflow; ``INVALID_INPUT``: ``after`` is not one.
        """
        if workflow_id is not None:
            self._workflow(workflow_id)
        place = self._place(after, lambda workflow: workflow_id in (None, workflow))
        return map(self._value_of, self._state.resources_of([workflow_id], after=place))

    def resources_seen(
        self, may_see: Callable[[str], bool], *, after: str | None = None
    ) -> Iterator[Value | None]:
        """Yield the resources of some workflows, as :meth:`resources` does; ``None`` for each other.

        :param may_see: tells whether it is one of these workflows.
        """
        place = self._place(after, may_see)
        seen = list(filter(may_see, self._state.workflow_ids()))
        if len(seen) <= _MERGED_WORKFLOWS:
            return map(self._value_of, self._state.resources_of(seen, after=place))
        ids = frozenset(seen)
        return (
            self._value_of(resource) if resource.workflow_id in ids else None
            for resource in self._state.resources_of([None], after=place)
        )

    def _place(self, after: str | None, may_see: Callable[[str], bool]) -> int:
        if after is None:
            return 0
        last = self._state.resource(after)
        if last is None or not may_see(last.workflow_id):
            refuse(f"after: {shown(after)} is no item of this list")
        return last.created

    def workflow_ids(self) -> list[str]:
        """Return the ids of all workflows, in the order of their creation."""
        return self._state.workflow_ids()

    def count_resources(self, workflow_id: str) -> int:
        """Tell how many resources a workflow has."""
        return self._state.count_resources(workflow_id)

    def available_activities(self, resource_id: str) -> list[Value]:
        """Return what can be executed on a resource now, as ``ActivityGQL``.

        :raises EngineError: ``NOT_FOUND``.
        """
        resource = self._resource(resource_id)
        workflow = self._workflow(resource.workflow_id)
        return [
            as_json(activity)
            for activity in workflow.activities_from(resource.state)
            if failed_condition(activity, resource, workflow, self._rules.find) is None
        ]

    def state(self, workflow_id: str, state_id: str) -> Value | None:
        """Return a state as ``StateGQL``, ``None`` if the workflow has none of that id.

        :raises EngineError: ``NOT_FOUND``: the workflow.
        """
        workflow = self._workflow(workflow_id)
        return workflow.state_value(state_id) if state_id in workflow.states else None

    def workflow_states(self, workflow_id: str) -> list[Value]:
        """Return the states of a workflow as ``StateGQL``.

        :raises EngineError: ``NOT_FOUND``.
        """
        workflow = self._workflow(workflow_id)
        return [workflow.state_value(state_id) for state_id in workflow.states]

    def workflow_of(self, resource_id: str) -> str:
        """Return the id of a resource's workflow.

        :raises EngineError: ``NOT_FOUND``.
        """
        return self._resource(resource_id).workflow_id

    def owner_of(self, resource_id: str) -> str | None:
        """Return the id of a resource's workflow, ``None`` if there is no such resource."""
        resource = self._state.resource(resource_id)
        return None if resource is None else resource.workflow_id

    def state_ids(self, workflow_id: str) -> Collection[str]:
        """Return the ids of a workflow's states.

        :raises EngineError: ``NOT_FOUND``.
        """
        return self._workflow(workflow_id).states

    def last_offset(self, resource_id: str) -> int:
        """Return the offset of a resource's last record.

        :raises EngineError: ``NOT_FOUND``.
        """
        return self._resource(resource_id).last

    def rule_ids(self, workflow_id: str) -> tuple[str, ...]:
        """Return the ids of the rules that a workflow's activities name.

        :raises EngineError: ``NOT_FOUND``.
        """
        return self._workflow(workflow_id).rule_ids

    def view(self, resource_id: str) -> ResourceView:
        """Return a resource as other domains see it.

        :raises EngineError: ``NOT_FOUND``.
        """
        resource = self._resource(resource_id)
        return ResourceView(
            workflow_id=resource.workflow_id,
            state=resource.state,
            data=decode_object(resource.data),
            metadata=decode_object(resource.metadata),
        )

    def _workflow(self, workflow_id: str) -> Workflow:
        workflow = self._state.workflow(workflow_id)
        if workflow is None:
            raise EngineError(ErrorCode.NOT_FOUND, f"there is no workflow {shown(workflow_id)}")
        return workflow

    def _resource(self, resource_id: str) -> Resource:
        resource = self._state.resource(resource_id)
        if resource is None:
            raise EngineError(ErrorCode.NOT_FOUND, f"there is no resource {shown(resource_id)}")
        return resource

    def _history(self, resource: Resource) -> list[Value]:
        newest = deque(self._state.history(resource), _HISTORY_ENTRIES)
        return [msgspec.json.decode(entry, type=Value) for entry in newest]

    def _value_of(self, resource: Resource) -> Value:
        workflow = self._workflow(resource.workflow_id)
        return resource_value(resource, workflow, lambda: self._history(resource))
