"""The workflow domain: ``client.workflows``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import msgspec

from circuit_breaker_sdk.domains import workflows_streams
from circuit_breaker_sdk.domains.execution import Executor
from circuit_breaker_sdk.domains.workflows_streams import (
    RESOURCE_FIELDS,
    ResourceUpdateSubscriptionBuilder,
    WorkflowEventSubscriptionBuilder,
)
from circuit_breaker_sdk.events import (
    UNSET,
    Activity,
    ActivityInput,
    JSONInput,
    Resource,
    State,
    StateConfigInput,
    StateInput,
    StateType,
    UnsetType,
    Workflow,
    WorkflowInput,
)
from circuit_breaker_sdk.subscriptions import SubscriptionManager

__all__ = ["WorkflowsClient"]

_ACTIVITY = "id name fromStates toState conditions description"
_STATE = f"""
  id name description stateType isInitial isTerminal allowedTransitions createdAt updatedAt
  availableActivities {{ {_ACTIVITY} }}
  config {{
    timeoutSeconds metadata
    autoTransition {{ enabled delaySeconds targetState conditions }}
    notifications {{ enabled channels templates }}
  }}
"""
_WORKFLOW = f"id name initialState createdAt updatedAt states {{ {_STATE} }} activities {{ {_ACTIVITY} }}"

_PAGE = 500


class _NewResource(msgspec.Struct, rename="camel", kw_only=True):
    """``ResourceCreateInput``."""

    workflow_id: str
    initial_state: str | UnsetType
    data: JSONInput | UnsetType
    metadata: JSONInput | UnsetType


class _Execution(msgspec.Struct, rename="camel", kw_only=True):
    """``ActivityExecuteInput``."""

    resource_id: str
    activity_id: str
    data: JSONInput | UnsetType


class _StateUpdate(msgspec.Struct, rename="camel", kw_only=True):
    """``StateUpdateInput``."""

    name: str | UnsetType
    description: str | UnsetType | None
    state_type: StateType | UnsetType
    is_terminal: bool | UnsetType
    config: StateConfigInput | UnsetType | None


@final
class WorkflowsClient:
    """Queries, mutations and streams of workflows. What is left ``UNSET`` is not sent; ``None`` is null.

    Every query and mutation raises ``OperationError`` where the server answers with errors (its ``code`` is
    ``NOT_FOUND``, ``INVALID_INPUT``, ``ACTIVITY_NOT_ALLOWED``, ``CONFLICT`` or ``UNAVAILABLE``), and
    ``ConnectionFailed`` and its kin where no answer came: then a mutation was executed whole or not at all.

    Example::

        resource = await client.workflows.create_resource(workflow_id="w-1", data={"title": "Plan"})
        await client.workflows.execute_activity(resource_id=resource.id, activity_id="submit")
    """

    def __init__(self, executor: Executor, manager: SubscriptionManager) -> None:
        self._field = executor.field
        self._optional = executor.optional
        self._manager = manager

    # Queries -----------------------------------------------------------------------------------------------

    async def workflow(self, *, id: str) -> Workflow | None:
        """Return a workflow, ``None`` where the id names none."""
        document = f"query Workflow($id: String!) {{ workflow(id: $id) {{ {_WORKFLOW} }} }}"
        return await self._optional(document, {"id": id}, type=Workflow, operation_name="Workflow")

    async def workflows(
        self, *, first: int | UnsetType = UNSET, after: str | UnsetType = UNSET
    ) -> list[Workflow]:
        """Return all workflows, in the order of their creation; a page of them.

        :param first: how many at most: 1 to 1,000, which is the default.
        :param after: the id of the workflow before them: the last one of the page before.
        """
        document = f"""
        query Workflows($first: Int, $after: String) {{
          workflows(first: $first, after: $after) {{ {_WORKFLOW} }}
        }}
        """
        variables = {"first": first, "after": after}
        return await self._field(document, variables, type=list[Workflow], operation_name="Workflows")

    async def resource(self, *, id: str) -> Resource | None:
        """Return a resource with all of its history, ``None`` where the id names none."""
        document = f"query Resource($id: String!) {{ resource(id: $id) {{ {RESOURCE_FIELDS} }} }}"
        return await self._optional(document, {"id": id}, type=Resource, operation_name="Resource")

    async def resources(
        self,
        *,
        workflow_id: str | UnsetType = UNSET,
        first: int | UnsetType = UNSET,
        after: str | UnsetType = UNSET,
    ) -> list[Resource]:
        """Return the resources of a workflow, or all, in the order of their creation; a page of them.

        :param first: how many at most: 1 to 1,000, which is the default.
        :param after: the id of the resource before them: the last one of the page before.
        """
        document = f"""
        query Resources($workflowId: String, $first: Int, $after: String) {{
          resources(workflowId: $workflowId, first: $first, after: $after) {{ {RESOURCE_FIELDS} }}
        }}
        """
        variables = {"workflowId": workflow_id, "first": first, "after": after}
        return await self._field(document, variables, type=list[Resource], operation_name="Resources")

    async def all_resources(self, *, workflow_id: str | UnsetType = UNSET) -> list[Resource]:
        """Return the resources of a workflow, or all, page by page; those made meanwhile may be in it."""
        found: list[Resource] = []
        while True:
            page = await self.resources(
                workflow_id=workflow_id, first=_PAGE, after=found[-1].id if found else UNSET
            )
            found += page
            if len(page) < _PAGE:
                return found

    async def available_activities(self, *, resource_id: str) -> list[Activity]:
        """Return what can be executed on a resource now: its state fits and every condition holds."""
        document = f"""
        query AvailableActivities($resourceId: String!) {{
          availableActivities(resourceId: $resourceId) {{ {_ACTIVITY} }}
        }}
        """
        variables = {"resourceId": resource_id}
        return await self._field(
            document, variables, type=list[Activity], operation_name="AvailableActivities"
        )

    async def state(self, *, workflow_id: str, state_id: str) -> State | None:
        """Return a state of a workflow, ``None`` where the workflow has no such state."""
        document = f"""
        query State($workflowId: String!, $stateId: String!) {{
          state(workflowId: $workflowId, stateId: $stateId) {{ {_STATE} }}
        }}
        """
        variables = {"workflowId": workflow_id, "stateId": state_id}
        return await self._optional(document, variables, type=State, operation_name="State")

    async def workflow_states(self, *, workflow_id: str) -> list[State]:
        """Return the states of a workflow, in the order of their definition."""
        document = f"""
        query WorkflowStates($workflowId: String!) {{
          workflowStates(workflowId: $workflowId) {{ {_STATE} }}
        }}
        """
        return await self._field(
            document, {"workflowId": workflow_id}, type=list[State], operation_name="WorkflowStates"
        )

    # Mutations ---------------------------------------------------------------------------------------------

    async def create_workflow(
        self,
        *,
        name: str,
        states: Sequence[StateInput],
        activities: Sequence[ActivityInput],
        initial_state: str,
        description: str | UnsetType | None = UNSET,
    ) -> Workflow:
        """Create a workflow (``createWorkflow``)."""
        given = WorkflowInput(
            name=name,
            states=states,
            activities=activities,
            initial_state=initial_state,
            description=description,
        )
        document = f"""
        mutation CreateWorkflow($input: WorkflowDefinitionInput!) {{
          createWorkflow(input: $input) {{ {_WORKFLOW} }}
        }}
        """
        return await self._field(document, {"input": given}, type=Workflow, operation_name="CreateWorkflow")

    async def create_resource(
        self,
        *,
        workflow_id: str,
        initial_state: str | UnsetType = UNSET,
        data: JSONInput | UnsetType = UNSET,
        metadata: JSONInput | UnsetType = UNSET,
    ) -> Resource:
        """Put a new resource into a workflow (``createResource``)."""
        given = _NewResource(
            workflow_id=workflow_id, initial_state=initial_state, data=data, metadata=metadata
        )
        document = f"""
        mutation CreateResource($input: ResourceCreateInput!) {{
          createResource(input: $input) {{ {RESOURCE_FIELDS} }}
        }}
        """
        return await self._field(document, {"input": given}, type=Resource, operation_name="CreateResource")

    async def execute_activity(
        self, *, resource_id: str, activity_id: str, data: JSONInput | UnsetType = UNSET
    ) -> Resource:
        """Move a resource along an activity (``executeActivity``); ``data`` is merged key by key."""
        given = _Execution(resource_id=resource_id, activity_id=activity_id, data=data)
        document = f"""
        mutation ExecuteActivity($input: ActivityExecuteInput!) {{
          executeActivity(input: $input) {{ {RESOURCE_FIELDS} }}
        }}
        """
        return await self._field(document, {"input": given}, type=Resource, operation_name="ExecuteActivity")

    async def create_state(self, state: StateInput) -> State:
        """Add a state to the workflow that ``state.workflow_id`` names (``createState``)."""
        document = f"""
        mutation CreateState($input: StateDefinitionInput!) {{ createState(input: $input) {{ {_STATE} }} }}
        """
        return await self._field(document, {"input": state}, type=State, operation_name="CreateState")

    async def update_state(
        self,
        *,
        workflow_id: str,
        state_id: str,
        name: str | UnsetType = UNSET,
        description: str | UnsetType | None = UNSET,
        state_type: StateType | UnsetType = UNSET,
        is_terminal: bool | UnsetType = UNSET,
        config: StateConfigInput | UnsetType | None = UNSET,
    ) -> State:
        """Change what is given, and nothing else (``updateState``)."""
        given = _StateUpdate(
            name=name,
            description=description,
            state_type=state_type,
            is_terminal=is_terminal,
            config=config,
        )
        document = f"""
        mutation UpdateState($workflowId: String!, $stateId: String!, $input: StateUpdateInput!) {{
          updateState(workflowId: $workflowId, stateId: $stateId, input: $input) {{ {_STATE} }}
        }}
        """
        variables = {"workflowId": workflow_id, "stateId": state_id, "input": given}
        return await self._field(document, variables, type=State, operation_name="UpdateState")

    # Streams -----------------------------------------------------------------------------------------------

    def subscribe_resource_updates(
        self,
        *,
        resource_id: str | None = None,
        workflow_id: str | None = None,
        state: str | None = None,
    ) -> ResourceUpdateSubscriptionBuilder:
        """Follow resources (``resourceUpdates``): one, a workflow's, or all."""
        return workflows_streams.resource_updates(
            self._manager, resource_id=resource_id, workflow_id=workflow_id, state=state
        )

    def subscribe_workflow_events(self, workflow_id: str | None = None) -> WorkflowEventSubscriptionBuilder:
        """Follow what happens in a workflow (``workflowEvents``)."""
        return workflows_streams.workflow_events(self._manager, workflow_id=workflow_id)
