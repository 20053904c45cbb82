# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""All streams in one place: ``client.subscriptions``."""

from __future__ import annotations

from typing import final

from circuit_breaker_sdk.domains import (
    agents_streams,
    analytics_streams,
    llm_streams,
    mcp_streams,
    nats_streams,
    workflows_streams,
)
from circuit_breaker_sdk.domains.agents_streams import AgentExecutionSubscriptionBuilder
from circuit_breaker_sdk.domains.analytics_streams import CostUpdateSubscriptionBuilder
from circuit_breaker_sdk.domains.llm_streams import LLMStreamSubscriptionBuilder
from circuit_breaker_sdk.domains.mcp_streams import (
    MCPCapabilitySubscriptionBuilder,
    MCPServerStatusSubscriptionBuilder,
    MCPSessionEventSubscriptionBuilder,
)
from circuit_breaker_sdk.domains.nats_streams import NATSResourceSubscriptionBuilder
from circuit_breaker_sdk.domains.workflows_streams import (
    ResourceUpdateSubscriptionBuilder,
    WorkflowEventSubscriptionBuilder,
)
from circuit_breaker_sdk.subscriptions import SubscriptionManager

__all__ = ["SubscriptionClient"]


@final
class SubscriptionClient:
    """The consolidated client; the streams are those of the domain clients.

    Example::

        async for resource in client.subscriptions.resource_updates(resource_id="r-1"):
            print(resource.state)
    """

    def __init__(self, manager: SubscriptionManager) -> None:
        self._manager = manager

    def resource_updates(
        self, *, resource_id: str | None = None, workflow_id: str | None = None, state: str | None = None
    ) -> ResourceUpdateSubscriptionBuilder:
        """Resources as they are created and changed: of one resource, of one workflow, of all; with
        ``state``, only changes that leave the resource in that state.
        """
        return workflows_streams.resource_updates(
            self._manager, resource_id=resource_id, workflow_id=workflow_id, state=state
        )

    def workflow_events(self, workflow_id: str | None = None) -> WorkflowEventSubscriptionBuilder:
        """Events of a workflow: of its resources, and of its definition."""
        return workflows_streams.workflow_events(self._manager, workflow_id=workflow_id)

    def agent_execution_stream(
        self, *, execution_id: str | None = None, agent_id: str | None = None, resource_id: str | None = None
    ) -> AgentExecutionSubscriptionBuilder:
        """Runs of agents.

        With ``executionId`` one run, from its beginning, whenever this is subscribed: STARTED, then PROGRESS,
        LOG and RETRY as they come, then COMPLETED, FAILED or CANCELLED; then it completes. With ``agentId``
        or ``resourceId`` all their runs from now on, without end. Exactly one argument is to be given.
        """
        return agents_streams.agent_execution_stream(
            self._manager, execution_id=execution_id, agent_id=agent_id, resource_id=resource_id
        )

    def llm_stream(self, request_id: str | None = None) -> LLMStreamSubscriptionBuilder:
        """The pieces of one streamed completion, from its beginning, whenever this is subscribed:
        STREAM_START, the deltas, then STREAM_END or STREAM_ERROR; then it completes.

        A request that does not come within a minute is an error. Streams can be read again for a day.
        """
        return llm_streams.llm_stream(self._manager, request_id=request_id)

    def mcp_server_status_updates(
        self, *, server_id: str | None = None
    ) -> MCPServerStatusSubscriptionBuilder:
        """The changes of status of one MCP server, or of all: UNKNOWN, STARTING, ONLINE; ONLINE, STOPPING,
        OFFLINE; from anywhere to ERROR.

        ``data`` has the ``cause``, and the ``error`` if there is one.
        """
        return mcp_streams.mcp_server_status_updates(self._manager, server_id=server_id)

    def mcp_session_events(
        self, *, user_id: str | None = None, server_id: str | None = None
    ) -> MCPSessionEventSubscriptionBuilder:
        """Events of sessions; of one user, of one MCP server, or of all."""
        return mcp_streams.mcp_session_events(self._manager, user_id=user_id, server_id=server_id)

    def mcp_capability_updates(self, server_id: str | None = None) -> MCPCapabilitySubscriptionBuilder:
        """Capabilities of an MCP server, after each change."""
        return mcp_streams.mcp_capability_updates(self._manager, server_id=server_id)

    def nats_resource_stream(
        self, workflow_id: str | None = None, *, state_id: str | None = None
    ) -> NATSResourceSubscriptionBuilder:
        """Resources of a workflow as they are created and changed, by whichever mutation or agent; with
        ``stateId``, only changes that leave the resource in that state.
        """
        return nats_streams.nats_resource_stream(self._manager, workflow_id=workflow_id, state_id=state_id)

    def cost_updates(
        self, *, user_id: str | None = None, project_id: str | None = None
    ) -> CostUpdateSubscriptionBuilder:
        """Usage as it is charged, and what it does to budgets: of a user, of a project, of both, of all."""
        return analytics_streams.cost_updates(self._manager, user_id=user_id, project_id=project_id)
