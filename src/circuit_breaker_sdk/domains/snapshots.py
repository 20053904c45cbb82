"""Read the present state behind a domain's stream, to bridge missing events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import final

import msgspec
from msgspec import UNSET, UnsetType

from circuit_breaker_sdk.domains.agents import AgentsClient
from circuit_breaker_sdk.domains.analytics import AnalyticsClient
from circuit_breaker_sdk.domains.execution import Executor
from circuit_breaker_sdk.domains.mcp import MCPClient
from circuit_breaker_sdk.domains.workflows import WorkflowsClient
from circuit_breaker_sdk.events import MCPServer, MCPServerStatus, MCPSession, PaginationInput, Resource
from circuit_breaker_sdk.subscriptions import Changes, SubscriptionManager

__all__ = ["Snapshots"]

Read = Callable[[], Awaitable[object]]


@final
class Snapshots:
    """For each stream that has one, the query of the state that its events change.

    ======================  =========================================================================
    resourceUpdates         the resources that it is about: a list
    workflowEvents          the resources of the workflow: a list
    agentExecutionStream    the run, or ``None``; of a resource, its runs: a list
    costUpdates             the budget's status
    mcpServerStatusUpdates  the MCP servers that it is about: a list
    mcpSessionEvents        the sessions that it is about: a list
    ======================  =========================================================================

    Example::

        read = Snapshots(executor, manager).of("resourceUpdates", {"workflowId": "w-1"})
    """

    def __init__(self, executor: Executor, manager: SubscriptionManager) -> None:
        self._workflows = WorkflowsClient(executor, manager)
        self._agents = AgentsClient(executor, manager)
        self._analytics = AnalyticsClient(executor, manager)
        self._mcp = MCPClient(executor, manager)
        self._by_field: Mapping[str, Callable[[Mapping[str, str]], Read | None]] = {
            "resourceUpdates": lambda given: lambda: self._resources(given),
            "workflowEvents": lambda given: lambda: self._resources(given),
            "agentExecutionStream": self._of_run,
            "costUpdates": self._of_costs,
            "mcpServerStatusUpdates": lambda given: lambda: self._servers(given.get("serverId")),
            "mcpSessionEvents": lambda given: (
                lambda: self._sessions(given.get("userId", UNSET), given.get("serverId", UNSET))
            ),
        }

    def of(self, field: str, arguments: Mapping[str, object]) -> Read | None:
        """Return what reads the state, ``None`` where there is no such query."""
        given = {name: value for name, value in arguments.items() if isinstance(value, str)}
        make = self._by_field.get(field)
        return None if make is None else make(given)

    def changes(self, field: str, arguments: Mapping[str, object]) -> Changes | None:
        """Return what asks for the changes of a stream by its query, ``None`` where that cannot tell them.

        A query tells what is the case: of resources and of the status of MCP servers the events can be made
        of it, of what has happened in between only the last.
        """
        given = {name: value for name, value in arguments.items() if isinstance(value, str)}
        if field == "resourceUpdates":
            return _Resources(lambda: self._resources(given)).changes
        if field == "mcpServerStatusUpdates":
            return _Statuses(lambda: self._servers(given.get("serverId"))).changes
        return None

    def _of_run(self, given: Mapping[str, str]) -> Read | None:
        if "executionId" in given:
            return lambda: self._agents.agent_execution(id=given["executionId"])
        if "resourceId" in given:
            return lambda: self._agents.resource_executions(resource_id=given["resourceId"])
        return None

    def _of_costs(self, given: Mapping[str, str]) -> Read | None:
        if not given:
            return None  # there is no budget of everyone
        return lambda: self._analytics.budget_status(
            user_id=given.get("userId", UNSET), project_id=given.get("projectId", UNSET)
        )

    async def _resources(self, given: Mapping[str, str]) -> list[Resource]:
        if "resourceId" in given:
            resource = await self._workflows.resource(id=given["resourceId"])
            found = [] if resource is None else [resource]
        else:
            found = await self._workflows.all_resources(workflow_id=given.get("workflowId", UNSET))
        # As the stream's arguments select: several must all hold.
        return [
            resource
            for resource in found
            if given.get("workflowId", resource.workflow_id) == resource.workflow_id
            and given.get("state", resource.state) == resource.state
        ]

    async def _servers(self, server_id: str | None) -> list[MCPServer]:
        if server_id is not None:
            server = await self._mcp.server(id=server_id)
            return [] if server is None else [server]
        servers: list[MCPServer] = []
        after: str | UnsetType = UNSET
        while True:
            page = await self._mcp.servers(pagination=PaginationInput(after=after))
            servers += [edge.node for edge in page.edges]
            if not page.page_info.has_next_page or not page.edges:
                return servers
            after = page.edges[-1].cursor

    async def _sessions(self, user_id: str | UnsetType, server_id: str | UnsetType) -> list[MCPSession]:
        sessions: list[MCPSession] = []
        after: str | UnsetType = UNSET
        while True:
            page = await self._mcp.sessions(
                user_id=user_id, server_id=server_id, pagination=PaginationInput(after=after)
            )
            sessions += [edge.node for edge in page.edges]
            if not page.page_info.has_next_page or not page.edges:
                return sessions
            after = page.edges[-1].cursor


@final
class _Resources:
    """The resources as they were told last."""

    def __init__(self, read: Callable[[], Awaitable[list[Resource]]]) -> None:
        self._read = read
        self._known: dict[str, bytes] | None = None

    async def changes(self) -> list[bytes]:
        now = {resource.id: msgspec.json.encode(resource) for resource in await self._read()}
        before, self._known = self._known, now
        if before is None:
            return []
        changed = [data for id_, data in now.items() if before.get(id_) != data]
        return [b'{"data":{"resourceUpdates":%b}}' % data for data in changed]


@final
class _Statuses:
    """The status of each MCP server as it was told last."""

    def __init__(self, read: Callable[[], Awaitable[list[MCPServer]]]) -> None:
        self._read = read
        self._known: dict[str, MCPServerStatus] | None = None

    async def changes(self) -> list[bytes]:
        servers = await self._read()
        before, self._known = self._known, {server.id: server.status for server in servers}
        if before is None:
            return []
        events = [
            {
                "serverId": server.id,
                "oldStatus": before.get(server.id, MCPServerStatus.UNKNOWN),
                "newStatus": server.status,
                "timestamp": datetime.now(UTC),  # when it was learned; nobody tells when it happened
            }
            for server in servers
            if before.get(server.id, MCPServerStatus.UNKNOWN) != server.status
        ]
        return [msgspec.json.encode({"data": {"mcpServerStatusUpdates": event}}) for event in events]
