"""What the generator of the SDK cannot know: the names that users expect, and conveniences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DOMAINS", "EXTRAS", "LENIENT", "MODULES", "NAMES", "STREAMS", "UNLIMITED", "Extra", "Stream"]

DOMAINS: Mapping[str, str] = {
    "base": "several domains",
    "agents": "agents and their runs",
    "llm": "language models",
    "analytics": "costs and budgets",
    "mcp": "MCP servers and sessions",
    "rules": "rules",
    "nats": "resources and their place in the log",
}
"""By file of the schema: what it is about. In the order in which they may use each other's types."""

NAMES: Mapping[str, str] = {
    "AutoTransitionConfigGQL": "AutoTransition",
    "HistoryEventGQL": "HistoryEntry",
    "StateNotificationConfigGQL": "StateNotifications",
    "WorkflowDefinitionInput": "WorkflowInput",
    "StateDefinitionInput": "StateInput",
    "ActivityDefinitionInput": "ActivityInput",
    "AutoTransitionConfigInput": "AutoTransitionInput",
    "StateNotificationConfigInput": "StateNotificationsInput",
    "AgentDefinitionGQL": "Agent",
    "AgentExecutionStatusGQL": "AgentExecutionStatus",
    "AgentLLMProviderGQL": "AgentLLMProvider",
    "LlmStreamEventGQL": "LLMStreamChunk",
    "LlmStreamEventType": "LLMStreamChunkType",
    "ChatMessageGQL": "ChatMessage",
    "CostUpdateEventGQL": "CostUpdate",
    "NatsResourceGQL": "NATSResource",
    "NatsResourceEventGQL": "NATSResourceEvent",
    "McpServerStatusEvent": "MCPServerStatusUpdate",
}
"""Of types whose name would be another one by rule (GQL is dropped, Llm and Mcp become LLM and MCP)."""

MODULES: Mapping[str, str] = {"base": "api"}
"""Of files of the schema whose module has another name."""

LENIENT: Mapping[str, tuple[str, ...]] = {
    "LlmResponseGQL": ("model", "provider", "routingInfo", "usage"),
}
"""Fields that may be missing in the SDK: a response that is put together from a stream does not have them."""

UNLIMITED: Mapping[str, tuple[str, ...]] = {
    "BudgetStatusGQL": ("limit", "remaining"),
}
"""Fields that are None in the SDK where there is no limit: the schema's number is the greatest float then."""


@dataclass(frozen=True)
class Extra:
    """What is added to a generated type.

    :ivar example: for its docstring.
    :ivar code: properties.
    """

    example: str
    code: str


EXTRAS: Mapping[str, Extra] = {
    "AgentExecutionEvent": Extra(
        example="""
        Example::

            async for event in client.agents.subscribe_execution_stream(execution_id="…"):
                print(event.type, event.data)
        """,
        code='''    @property
    def type(self) -> AgentExecutionEventType:
        """The same as :attr:`event_type`."""
        return self.event_type

    @property
    def is_last(self) -> bool:
        """Whether the run is over with it."""
        return self.event_type in ("COMPLETED", "FAILED", "CANCELLED")
''',
    ),
    "LLMStreamChunk": Extra(
        example="""
        Example::

            async for chunk in client.llm.subscribe_stream(request_id="…"):
                print(chunk.content, end="")
        """,
        code='''    @property
    def content(self) -> str:
        """The text that it adds; empty where it adds none."""
        return self.delta or "" if self.event_type == LLMStreamChunkType.CONTENT_DELTA else self.token or ""

    @property
    def type(self) -> LLMStreamChunkType:
        """The same as :attr:`event_type`."""
        return self.event_type
''',
    ),
    "LLMResponse": Extra(
        example="""
        Example::

            answer = await client.llm.chat_completion(model="echo", messages=[...])
            print(answer.content)
        """,
        code='''    @property
    def content(self) -> str:
        """The text of the first choice."""
        return self.choices[0].message.content if self.choices else ""
''',
    ),
    "MCPSessionEvent": Extra(
        example="""
        Example::

            async for event in client.mcp.subscribe_session_events(user_id="ada"):
                print(event.type, event.session.status)
        """,
        code='''    @property
    def user_id(self) -> str:
        """The user of the session."""
        return self.session.user_id
''',
    ),
    "CostUpdate": Extra(
        example="""
        Example::

            async for update in client.analytics.subscribe_cost_updates(user_id="ada"):
                print(update.service, update.amount)
        """,
        code='''    @property
    def type(self) -> CostEventType:
        """The same as :attr:`event_type`."""
        return self.event_type

    @property
    def amount(self) -> float:
        """USD: the same as :attr:`cost_delta`."""
        return self.cost_delta

    @property
    def service(self) -> str:
        """The provider and the model that were paid, ``budget`` where it is no usage."""
        return "/".join(filter(None, (self.provider, self.model))) or "budget"
''',
    ),
}


@dataclass(frozen=True, kw_only=True)
class Stream:
    """How a subscription field appears in the SDK.

    :ivar domain: the file of the schema that it is in.
    :ivar subscription: the typed subscription's class; the builder's is this and ``Builder``.
    :ivar suffix: the domain client's method is ``subscribe_`` and this.
    :ivar suffix_in_all: the consolidated client's method.
    :ivar said: a sentence about it.
    :ivar handlers: names of ``on_data`` that users expect.
    :ivar filters: methods that filter on the client: name, attribute, plural of what it names.
    :ivar filter_arguments: arguments that select by the event's attribute of that name.
    :ivar base: module and name of a base class written by hand.
    """

    domain: str
    subscription: str
    suffix: str
    suffix_in_all: str
    said: str
    handlers: tuple[str, ...]
    filters: tuple[tuple[str, str, str], ...] = ()
    filter_arguments: tuple[str, ...] = ()
    base: tuple[str, str] | None = None


STREAMS: Mapping[str, Stream] = {
    "resourceUpdates": Stream(
        domain="workflows",
        subscription="ResourceUpdateSubscription",
        suffix="resource_updates",
        suffix_in_all="resource_updates",
        said="Resources after each change.",
        handlers=("on_update",),
    ),
    "workflowEvents": Stream(
        domain="workflows",
        subscription="WorkflowEventSubscription",
        suffix="workflow_events",
        suffix_in_all="workflow_events",
        said="Events of a workflow.",
        handlers=("on_event",),
    ),
    "agentExecutionStream": Stream(
        domain="agents",
        subscription="AgentExecutionSubscription",
        suffix="execution_stream",
        suffix_in_all="agent_execution_stream",
        said="Events of agents' runs.",
        handlers=("on_event",),
        filter_arguments=("resourceId",),
    ),
    "llmStream": Stream(
        domain="llm",
        subscription="LLMStreamSubscription",
        suffix="stream",
        suffix_in_all="llm_stream",
        said="The pieces of one streamed completion.",
        handlers=("on_chunk",),
        base=("llm_assembly", "AssemblingSubscription"),
    ),
    "mcpServerStatusUpdates": Stream(
        domain="mcp",
        subscription="MCPServerStatusSubscription",
        suffix="server_status_updates",
        suffix_in_all="mcp_server_status_updates",
        said="MCP servers as their status changes.",
        handlers=("on_update",),
    ),
    "mcpSessionEvents": Stream(
        domain="mcp",
        subscription="MCPSessionEventSubscription",
        suffix="session_events",
        suffix_in_all="mcp_session_events",
        said="Events of sessions of MCP servers.",
        handlers=("on_event",),
        filters=(("filter_by_user", "user_id", "users"),),
        filter_arguments=("userId",),
    ),
    "mcpCapabilityUpdates": Stream(
        domain="mcp",
        subscription="MCPCapabilitySubscription",
        suffix="capability_updates",
        suffix_in_all="mcp_capability_updates",
        said="Capabilities of an MCP server, after each change.",
        handlers=("on_update",),
    ),
    "natsResourceStream": Stream(
        domain="nats",
        subscription="NATSResourceSubscription",
        suffix="resource_stream",
        suffix_in_all="nats_resource_stream",
        said="Resources after each change, with their place in the event log.",
        handlers=("on_event",),
    ),
    "costUpdates": Stream(
        domain="analytics",
        subscription="CostUpdateSubscription",
        suffix="cost_updates",
        suffix_in_all="cost_updates",
        said="Usage as it is charged, and what it does to budgets.",
        handlers=("on_update", "on_cost_update"),
        filters=(("filter_by_user", "user_id", "users"), ("filter_by_project", "project_id", "projects")),
        filter_arguments=("userId", "projectId"),
    ),
}
