"""Types of the workflow domain: what queries, mutations and the two streams deliver, and their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar, TypeVar

import msgspec

from circuit_breaker_sdk.events.base import JSON, Event, Input, JSONInput, OpenEnum

__all__ = [
    "Activity",
    "ActivityInput",
    "AutoTransition",
    "AutoTransitionInput",
    "HistoryEntry",
    "Resource",
    "State",
    "StateConfig",
    "StateConfigInput",
    "StateInput",
    "StateNotifications",
    "StateNotificationsInput",
    "StateType",
    "Workflow",
    "WorkflowEvent",
    "WorkflowEventType",
    "WorkflowInput",
]

T = TypeVar("T")

_NULL = msgspec.Raw(b"null")


class StateType(OpenEnum):
    """Type of a state (``StateType`` of the schema)."""

    NORMAL = "NORMAL"
    INITIAL = "INITIAL"
    TERMINAL = "TERMINAL"
    ERROR = "ERROR"
    WAITING = "WAITING"
    REVIEW = "REVIEW"


class WorkflowEventType(OpenEnum):
    """Kind of an event of a workflow (``WorkflowEventType`` of the schema)."""

    RESOURCE_CREATED = "RESOURCE_CREATED"
    RESOURCE_STATE_CHANGED = "RESOURCE_STATE_CHANGED"
    ACTIVITY_EXECUTED = "ACTIVITY_EXECUTED"
    WORKFLOW_UPDATED = "WORKFLOW_UPDATED"
    AGENT_TRIGGERED = "AGENT_TRIGGERED"


_SENTENCES = {
    WorkflowEventType.RESOURCE_CREATED: "{subject} was created in state {state}",
    WorkflowEventType.RESOURCE_STATE_CHANGED: "{subject} went from {from_state} to {to_state}",
    WorkflowEventType.ACTIVITY_EXECUTED: "activity {activity} was executed on {subject}",
    WorkflowEventType.WORKFLOW_UPDATED: "{subject} was changed",
    WorkflowEventType.AGENT_TRIGGERED: "agent {agent} was started for {subject}",
}


class Activity(Event, frozen=True, kw_only=True):
    """A way from some states to another (``ActivityGQL``).

    Example::

        for activity in await client.workflows.available_activities(resource_id="r-1"):
            print(activity.id, "leads to", activity.to_state)
    """

    id: str
    to_state: str
    from_states: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    name: str | None = None
    description: str | None = None


class AutoTransition(Event, frozen=True, kw_only=True):
    """A transition that the server makes by itself (``AutoTransitionConfigGQL``)."""

    enabled: bool
    delay_seconds: int
    target_state: str
    conditions: tuple[str, ...] = ()


class StateNotifications(Event, frozen=True, kw_only=True):
    """Recipients of the notice that a resource reached a state (``StateNotificationConfigGQL``)."""

    enabled: bool
    channels: tuple[str, ...] = ()
    _templates: msgspec.Raw = msgspec.field(name="templates", default=_NULL)

    @property
    def templates(self) -> JSON:
        """Texts by channel, as stored."""
        return self._json("_templates")


class StateConfig(Event, frozen=True, kw_only=True):
    """Settings of a state (``StateConfigGQL``)."""

    timeout_seconds: int | None = None
    auto_transition: AutoTransition | None = None
    notifications: StateNotifications | None = None
    _metadata: msgspec.Raw = msgspec.field(name="metadata", default=_NULL)

    @property
    def metadata(self) -> JSON:
        """Whatever the workflow's author stored."""
        return self._json("_metadata")


class State(Event, frozen=True, kw_only=True):
    """A state of a workflow (``StateGQL``).

    Example::

        state = await client.workflows.state(workflow_id="w-1", state_id="review")
        print(state.name, state.allowed_transitions)
    """

    id: str
    name: str
    state_type: StateType
    is_initial: bool = False
    is_terminal: bool = False
    description: str | None = None
    config: StateConfig | None = None
    allowed_transitions: tuple[str, ...] = ()
    available_activities: tuple[Activity, ...] = ()
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Workflow(Event, frozen=True, kw_only=True):
    """A workflow's definition (``WorkflowGQL``).

    Example::

        workflow = await client.workflows.workflow(id="w-1")
        print(workflow.initial_state, [state.id for state in workflow.states])
    """

    id: str
    name: str
    initial_state: str
    states: tuple[State, ...] = ()
    activities: tuple[Activity, ...] = ()
    created_at: datetime | None = None
    updated_at: datetime | None = None


class HistoryEntry(Event, frozen=True, kw_only=True):
    """One executed activity of a resource (``HistoryEventGQL``)."""

    timestamp: datetime
    activity: str
    from_state: str
    to_state: str
    _data: msgspec.Raw = msgspec.field(name="data", default=_NULL)

    @property
    def data(self) -> JSON:
        """The data that the activity was executed with."""
        return self._json("_data")


class Resource(Event, frozen=True, kw_only=True):
    """A resource after a change, or as a query finds it (``ResourceGQL``).

    ``history`` of a stream's event holds the most recent entries only; the query ``resource`` returns all.
    ``state_definition`` is ``None`` unless the document selects it.

    Example::

        async for resource in client.workflows.subscribe_resource_updates(workflow_id="w-1"):
            print(resource.id, resource.state, resource.data)
    """

    filter_names: ClassVar[Mapping[str, str]] = {"resource_id": "id"}
    """The attribute that a filter of another name reads."""

    id: str
    workflow_id: str
    state: str
    created_at: datetime
    updated_at: datetime
    history: tuple[HistoryEntry, ...] = ()
    state_definition: State | None = None
    _data: msgspec.Raw = msgspec.field(name="data", default=_NULL)
    _metadata: msgspec.Raw = msgspec.field(name="metadata", default=_NULL)

    @property
    def data(self) -> JSON:
        """The resource's data, decoded on first access."""
        return self._json("_data")

    @property
    def metadata(self) -> JSON:
        """The resource's metadata, decoded on first access."""
        return self._json("_metadata")

    def data_as(self, type: type[T]) -> T:  # noqa: A002 (msgspec's word for it)
        """Decode ``data`` into a type of your own: a struct, dataclass or ``TypedDict``.

        :raises msgspec.ValidationError: the data does not fit the type.
        """
        return self._json_as("_data", type)


class WorkflowEvent(Event, frozen=True, kw_only=True):
    """Something that happened in a workflow (``WorkflowEventGQL``).

    Example::

        async for event in client.workflows.subscribe_workflow_events(workflow_id="w-1"):
            print(event.type, event.message)
    """

    event_type: WorkflowEventType
    workflow_id: str
    timestamp: datetime
    resource_id: str | None = None
    triggered_by: str | None = None
    nats_sequence: str | None = None
    _data: msgspec.Raw = msgspec.field(name="data", default=_NULL)

    @property
    def type(self) -> WorkflowEventType:
        """The same as :attr:`event_type`."""
        return self.event_type

    @property
    def data(self) -> JSON:
        """The data of the event, decoded on first access."""
        return self._json("_data")

    @property
    def message(self) -> str:
        """The event in one sentence for people; made here, not sent by the server."""
        data = self.data
        facts = data if isinstance(data, dict) else {}
        subject = f"resource {self.resource_id}" if self.resource_id else f"workflow {self.workflow_id}"
        sentence = _SENTENCES.get(self.event_type, "{event_type}: {subject}")
        return sentence.format(
            event_type=self.event_type,
            subject=subject,
            state=facts.get("state", "?"),
            from_state=facts.get("fromState", "?"),
            to_state=facts.get("toState", "?"),
            activity=facts.get("activityId", "?"),
            agent=facts.get("agentId", "?"),
        )


class ActivityInput(Input, frozen=True, kw_only=True):
    """An activity of a workflow to create (``ActivityDefinitionInput``).

    ``conditions``: all must hold, in the form that the server's schema describes.

    Example::

        ActivityInput(id="approve", from_states=["review"], to_state="approved")
    """

    id: str
    from_states: Sequence[str]
    to_state: str
    conditions: Sequence[str] = ()
    name: str | msgspec.UnsetType | None = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET


class AutoTransitionInput(Input, frozen=True, kw_only=True):
    """A transition that the server shall make by itself (``AutoTransitionConfigInput``)."""

    enabled: bool
    delay_seconds: int
    target_state: str
    conditions: Sequence[str] = ()


class StateNotificationsInput(Input, frozen=True, kw_only=True):
    """Recipients of the notice that a resource reached a state (``StateNotificationConfigInput``)."""

    enabled: bool
    channels: Sequence[str]
    templates: JSONInput | msgspec.UnsetType = msgspec.UNSET


class StateConfigInput(Input, frozen=True, kw_only=True):
    """Settings of a state (``StateConfigInput``)."""

    timeout_seconds: int | msgspec.UnsetType | None = msgspec.UNSET
    auto_transition: AutoTransitionInput | msgspec.UnsetType | None = msgspec.UNSET
    notifications: StateNotificationsInput | msgspec.UnsetType | None = msgspec.UNSET
    metadata: JSONInput | msgspec.UnsetType = msgspec.UNSET


class StateInput(Input, frozen=True, kw_only=True):
    """A state of a workflow (``StateDefinitionInput``).

    ``workflow_id`` stays empty inside ``create_workflow``: the workflow has no id yet.

    Example::

        StateInput(id="draft", name="Draft", state_type=StateType.INITIAL, is_initial=True)
    """

    id: str
    name: str
    state_type: StateType = StateType.NORMAL
    is_initial: bool = False
    is_terminal: bool = False
    workflow_id: str = ""
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    config: StateConfigInput | msgspec.UnsetType | None = msgspec.UNSET


class WorkflowInput(Input, frozen=True, kw_only=True):
    """A workflow to create (``WorkflowDefinitionInput``); ``create_workflow`` takes its fields."""

    name: str
    states: Sequence[StateInput]
    activities: Sequence[ActivityInput]
    initial_state: str
    description: str | msgspec.UnsetType | None = msgspec.UNSET
