# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""The domain of resources and their place in the log: ``client.nats``."""

from __future__ import annotations

from typing import final

from msgspec import UNSET, UnsetType

from circuit_breaker_sdk.domains import nats_streams
from circuit_breaker_sdk.domains.execution import Executor
from circuit_breaker_sdk.domains.nats_streams import NATSResourceSubscriptionBuilder
from circuit_breaker_sdk.events.base import JSONInput
from circuit_breaker_sdk.events.nats import NATSResource
from circuit_breaker_sdk.subscriptions import SubscriptionManager

__all__ = ["NATSClient"]

_NATS_RESOURCE = """
query NatsResource($id: String!) { natsResource(id: $id) { id workflowId state data metadata createdAt
updatedAt history { timestamp activity fromState toState data } natsSequence natsTimestamp natsSubject
activityHistory { fromState toState activityId timestamp triggeredBy natsSequence metadata } } }
"""

_RESOURCES_IN_STATE = """
query ResourcesInState($workflowId: String!, $stateId: String!, $first: Int, $after: String) {
resourcesInState(workflowId: $workflowId, stateId: $stateId, first: $first, after: $after) { id
workflowId state data metadata createdAt updatedAt history { timestamp activity fromState toState data }
natsSequence natsTimestamp natsSubject activityHistory { fromState toState activityId timestamp
triggeredBy natsSequence metadata } } }
"""

_FIND_RESOURCE = """
query FindResource($workflowId: String!, $resourceId: String!) { findResource(workflowId: $workflowId,
resourceId: $resourceId) { id workflowId state data metadata createdAt updatedAt history { timestamp
activity fromState toState data } natsSequence natsTimestamp natsSubject activityHistory { fromState
toState activityId timestamp triggeredBy natsSequence metadata } } }
"""

_CREATE_WORKFLOW_INSTANCE = """
mutation CreateWorkflowInstance($input: CreateWorkflowInstanceInput!) { createWorkflowInstance(input:
$input) { id workflowId state data metadata createdAt updatedAt history { timestamp activity fromState
toState data } natsSequence natsTimestamp natsSubject activityHistory { fromState toState activityId
timestamp triggeredBy natsSequence metadata } } }
"""

_EXECUTE_ACTIVITY_WITH_NATS = """
mutation ExecuteActivityWithNats($input: ExecuteActivityWithNatsInput!) { executeActivityWithNats(input:
$input) { id workflowId state data metadata createdAt updatedAt history { timestamp activity fromState
toState data } natsSequence natsTimestamp natsSubject activityHistory { fromState toState activityId
timestamp triggeredBy natsSequence metadata } } }
"""


@final
class NATSClient:
    """Queries, mutations and streams of resources and their place in the log.

    What is left ``UNSET`` is not sent; ``None`` is null. Every query and mutation raises ``OperationError``
    where the server answers with errors (see its ``code``), and ``ConnectionFailed`` and its kin where no
    answer came: then a mutation was executed whole or not at all.
    """

    def __init__(self, executor: Executor, manager: SubscriptionManager) -> None:
        self._executor = executor
        self._manager = manager

    async def nats_resource(self, *, id: str) -> NATSResource | None:
        """A resource with its place in the event log; null if there is none of this id."""
        variables: dict[str, object] = {"id": id}
        return await self._executor.optional(
            _NATS_RESOURCE, variables, type=NATSResource, operation_name="NatsResource"
        )

    async def resources_in_state(
        self,
        *,
        workflow_id: str,
        state_id: str,
        first: int | UnsetType | None = UNSET,
        after: str | UnsetType | None = UNSET,
    ) -> list[NATSResource]:
        """The resources of a workflow that are in a state now, in the order of their creation.

        :param first: The number of items at most: 1 to 1,000, which is the default.
        :param after: The id of the item before them: the last one of the page before.
        """
        variables: dict[str, object] = {
            "workflowId": workflow_id,
            "stateId": state_id,
            "first": first,
            "after": after,
        }
        return await self._executor.field(
            _RESOURCES_IN_STATE, variables, type=list[NATSResource], operation_name="ResourcesInState"
        )

    async def find_resource(self, *, workflow_id: str, resource_id: str) -> NATSResource | None:
        """A resource of a workflow; null if the workflow has none of this id."""
        variables: dict[str, object] = {"workflowId": workflow_id, "resourceId": resource_id}
        return await self._executor.optional(
            _FIND_RESOURCE, variables, type=NATSResource, operation_name="FindResource"
        )

    async def create_workflow_instance(
        self,
        *,
        workflow_id: str,
        initial_data: JSONInput | UnsetType = UNSET,
        metadata: JSONInput | UnsetType = UNSET,
        triggered_by: str | UnsetType | None = UNSET,
    ) -> NATSResource:
        """Does what createResource does, in the workflow's initial state, and keeps who did it.

        :param initial_data: An object of at most 256 KiB; left out or null: empty.
        :param metadata: An object of at most 64 KiB; left out or null: empty.
        :param triggered_by: The actor, 1 to 256 characters; told in the events.
        """
        variables: dict[str, object] = {
            "input": {
                "workflowId": workflow_id,
                "initialData": initial_data,
                "metadata": metadata,
                "triggeredBy": triggered_by,
            }
        }
        return await self._executor.field(
            _CREATE_WORKFLOW_INSTANCE, variables, type=NATSResource, operation_name="CreateWorkflowInstance"
        )

    async def execute_activity_with_nats(
        self,
        *,
        resource_id: str,
        activity_id: str,
        new_state: str,
        triggered_by: str | UnsetType | None = UNSET,
        data: JSONInput | UnsetType = UNSET,
    ) -> NATSResource:
        """Does what executeActivity does, if the activity leads where the caller expects, and keeps who
        did it.

        :param activity_id: The id of one of the activities of the resource's workflow.
        :param new_state: Must be the activity's ``toState``.
        :param triggered_by: The actor, 1 to 256 characters; told in the events and in ``activityHistory``.
        :param data: As in ActivityExecuteInput.
        """
        variables: dict[str, object] = {
            "input": {
                "resourceId": resource_id,
                "activityId": activity_id,
                "newState": new_state,
                "triggeredBy": triggered_by,
                "data": data,
            }
        }
        return await self._executor.field(
            _EXECUTE_ACTIVITY_WITH_NATS,
            variables,
            type=NATSResource,
            operation_name="ExecuteActivityWithNats",
        )

    def subscribe_resource_stream(
        self, workflow_id: str | None = None, *, state_id: str | None = None
    ) -> NATSResourceSubscriptionBuilder:
        """Resources of a workflow as they are created and changed, by whichever mutation or agent; with
        ``stateId``, only changes that leave the resource in that state.
        """
        return nats_streams.nats_resource_stream(self._manager, workflow_id=workflow_id, state_id=state_id)
