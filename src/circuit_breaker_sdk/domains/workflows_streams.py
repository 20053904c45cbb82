"""The two streams of the workflow domain: documents, typed subscriptions, builders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, final

from circuit_breaker_sdk.events import Resource, WorkflowEvent
from circuit_breaker_sdk.subscriptions import (
    Operation,
    Subscription,
    SubscriptionBuilder,
    SubscriptionFilter,
    SubscriptionManager,
)

__all__ = [
    "RESOURCE_FIELDS",
    "ResourceUpdateSubscription",
    "ResourceUpdateSubscriptionBuilder",
    "WorkflowEventSubscription",
    "WorkflowEventSubscriptionBuilder",
    "resource_updates",
    "workflow_events",
]

RESOURCE_FIELDS = """
  id workflowId state data metadata createdAt updatedAt
  history { timestamp activity fromState toState data }
"""

_RESOURCE_UPDATES = f"""
subscription ResourceUpdates($resourceId: String, $workflowId: String, $state: String) {{
  resourceUpdates(resourceId: $resourceId, workflowId: $workflowId, state: $state) {{ {RESOURCE_FIELDS} }}
}}
"""

_WORKFLOW_EVENTS = """
subscription WorkflowEvents($workflowId: String!) {
  workflowEvents(workflowId: $workflowId) {
    eventType workflowId resourceId timestamp data triggeredBy natsSequence
  }
}
"""


@final
class ResourceUpdateSubscription(Subscription[Resource]):
    """Resources after each change.

    Example::

        updates = await client.workflows.subscribe_resource_updates(workflow_id="w-1").subscribe()
        updates.filter_by_state("approved").on_update(print)
    """

    def on_update(self, handler: Callable[[Resource], object]) -> Self:
        """Call ``handler`` with each resource: ``on_data`` under this stream's name."""
        return self.on_data(handler)

    def filter_by_workflow(self, workflow_id: str) -> Self:
        """Keep back resources of other workflows, from the next event on."""
        return self.filter(SubscriptionFilter.WorkflowId(workflow_id))

    def filter_by_state(self, state: str) -> Self:
        """Keep back resources in other states, from the next event on."""
        return self.filter(SubscriptionFilter.State(state))


@final
class WorkflowEventSubscription(Subscription[WorkflowEvent]):
    """Events of a workflow.

    Example::

        events = await client.workflows.subscribe_workflow_events(workflow_id="w-1").subscribe()
        events.on_event(lambda event: print(event.type, event.message))
    """

    def on_event(self, handler: Callable[[WorkflowEvent], object]) -> Self:
        """Call ``handler`` with each event: ``on_data`` under this stream's name."""
        return self.on_data(handler)


@final
class ResourceUpdateSubscriptionBuilder(SubscriptionBuilder[Resource, ResourceUpdateSubscription]):
    """Arguments of ``resourceUpdates``; the server applies them all.

    Example::

        builder.workflow_id("w-1").filter_state("approved")
    """

    def resource_id(self, resource_id: str) -> Self:
        """Only this resource."""
        return self._with("resourceId", resource_id)

    def workflow_id(self, workflow_id: str) -> Self:
        """Only resources of this workflow."""
        return self._with("workflowId", workflow_id)

    def filter_state(self, state: str) -> Self:
        """Only changes that leave the resource in this state."""
        return self._with("state", state)


@final
class WorkflowEventSubscriptionBuilder(SubscriptionBuilder[WorkflowEvent, WorkflowEventSubscription]):
    """Arguments of ``workflowEvents``.

    Example::

        builder.workflow_id("w-1")
    """

    def workflow_id(self, workflow_id: str) -> Self:
        """Of this workflow, which the server requires."""
        return self._with("workflowId", workflow_id)


def resource_updates(
    manager: SubscriptionManager, *, resource_id: str | None, workflow_id: str | None, state: str | None
) -> ResourceUpdateSubscriptionBuilder:
    """Make the builder of ``resourceUpdates``; ``None`` arguments are not sent."""
    given = {"resourceId": resource_id, "workflowId": workflow_id, "state": state}
    operation = Operation(
        document=_RESOURCE_UPDATES,
        type=Resource,
        variables={name: value for name, value in given.items() if value is not None},
        root_field="resourceUpdates",
        filter_arguments=frozenset(given),
        label="resourceUpdates",
    )
    return ResourceUpdateSubscriptionBuilder(manager, operation, ResourceUpdateSubscription)


def workflow_events(
    manager: SubscriptionManager, *, workflow_id: str | None
) -> WorkflowEventSubscriptionBuilder:
    """Make the builder of ``workflowEvents``."""
    operation = Operation(
        document=_WORKFLOW_EVENTS,
        type=WorkflowEvent,
        variables={} if workflow_id is None else {"workflowId": workflow_id},
        root_field="workflowEvents",
        filter_arguments=frozenset({"workflowId"}),
        label="workflowEvents",
    )
    return WorkflowEventSubscriptionBuilder(manager, operation, WorkflowEventSubscription)
