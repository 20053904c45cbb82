"""Resources with their place in the event log: the same resources, the same commands, told in more detail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import cast, final

from circuit_breaker_server.engine.command import Committed, Value
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.events import Selection
from circuit_breaker_server.engine.nats.inputs import CreateInstance, ExecuteWithNats
from circuit_breaker_server.engine.nats.serializers import activity_records, nats_value
from circuit_breaker_server.engine.validation import check_name
from circuit_breaker_server.engine.workflows.inputs import CreateResource, ExecuteActivity
from circuit_breaker_server.engine.workflows.subjects import resource_subject
from circuit_breaker_server.engine.workflows.workflows import Workflows
from circuit_breaker_server.log.event_log import subject

__all__ = ["NatsResources"]


@final
class NatsResources:
    """Queries, commands and the stream of resources as ``NatsResourceGQL``.

    Example::

        made = await engine.nats.create_instance(CreateInstance(workflow_id="…", triggered_by="ada"))
        made.value["natsSequence"]
    """

    def __init__(self, workflows: Workflows) -> None:
        self._workflows = workflows

    # --- queries ---

    def resource(self, resource_id: str) -> Value | None:
        """Return a resource, ``None`` if there is none."""
        resource = self._workflows.resource(resource_id)
        return None if resource is None else self._value(resource)

    def find(self, workflow_id: str, resource_id: str) -> Value | None:
        """Return a resource of a workflow, ``None`` if the workflow has none of that id."""
        value = self.resource(resource_id)
        return value if value is not None and value["workflowId"] == workflow_id else None

    def in_state(
        self, workflow_id: str, state_id: str, *, after: str | None = None
    ) -> Iterator[Value | None]:
        """Yield a workflow's resources in a state, in the order of their creation; ``None`` for each other.

        :param after: of these, those that were made after this one.

        :raises EngineError: ``NOT_FOUND``: the workflow, or its state; at once.
        """
        if state_id not in self._workflows.state_ids(workflow_id):
            raise EngineError(
                ErrorCode.NOT_FOUND, f"workflow {shown(workflow_id)} has no state {shown(state_id)}"
            )
        return (
            self._value(resource) if resource["state"] == state_id else None
            for resource in self._workflows.resources(workflow_id, after=after)
        )

    # --- commands ---

    async def create_instance(self, given: CreateInstance) -> Committed[Value]:
        """Put a new resource into a workflow, in its initial state.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``UNAVAILABLE``.
        """
        _check_trigger(given.triggered_by)
        created = CreateResource(
            workflow_id=given.workflow_id, data=given.initial_data, metadata=given.metadata
        )
        return await self._workflows.create_resource(created, triggered_by=given.triggered_by, shape=_shape)

    async def execute_activity(self, given: ExecuteWithNats) -> Committed[Value]:
        """Move a resource along an activity, which must lead to the state that the input names.

        :raises EngineError: ``NOT_FOUND``, ``ACTIVITY_NOT_ALLOWED``, ``INVALID_INPUT``, ``CONFLICT``,
            ``UNAVAILABLE``.
        """
        _check_trigger(given.triggered_by)
        executed = ExecuteActivity(
            resource_id=given.resource_id, activity_id=given.activity_id, data=given.data
        )
        return await self._workflows.execute_activity(
            executed, triggered_by=given.triggered_by, new_state=given.new_state, shape=_shape
        )

    # --- the stream ---

    def select_stream(self, arguments: Mapping[str, object]) -> Selection:
        """Tell what ``natsResourceStream`` reads.

        :raises EngineError: ``NOT_FOUND``; ``INVALID_INPUT``: the workflow has no such state.
        """
        workflow_id = str(arguments["workflowId"])
        states = self._workflows.state_ids(workflow_id)
        subjects = (f"{subject('resource', workflow_id)}.*",)
        state_id = arguments.get("stateId")
        if state_id is None:
            return Selection(subjects)
        if state_id not in states:
            raise EngineError(
                ErrorCode.INVALID_INPUT,
                f"workflow {shown(workflow_id)} has no state {shown(str(state_id))}: "
                "no event could ever match",
            )
        return Selection(subjects, lambda value: _state_of(value["resource"]) == state_id)

    def _value(self, resource: Value) -> Value:
        id_ = str(resource["id"])
        return nats_value(
            resource,
            _activities(resource),
            offset=self._workflows.last_offset(id_),
            subject=resource_subject(str(resource["workflowId"]), id_),
        )


def _shape(resource: Value, offset: str) -> Value:
    of = resource_subject(str(resource["workflowId"]), str(resource["id"]))
    return nats_value(resource, _activities(resource), offset=offset, subject=of)


def _activities(resource: Value) -> Callable[[], list[Value]]:
    history = cast("Callable[[], list[Value]]", resource["history"])
    return lambda: activity_records(history())


def _state_of(resource: object) -> object:
    return resource["state"] if isinstance(resource, Mapping) else None


def _check_trigger(triggered_by: str | None) -> None:
    if triggered_by is not None:
        check_name(triggered_by, "triggeredBy")
