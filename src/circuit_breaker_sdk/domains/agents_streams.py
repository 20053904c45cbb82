# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""The streams of agents and their runs: documents, typed subscriptions, builders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, final

from circuit_breaker_sdk.events.agents import AgentExecutionEvent
from circuit_breaker_sdk.subscriptions import (
    Operation,
    Subscription,
    SubscriptionBuilder,
    SubscriptionManager,
)

__all__ = [
    "AgentExecutionSubscription",
    "AgentExecutionSubscriptionBuilder",
    "agent_execution_stream",
]

_AGENT_EXECUTION_STREAM = """
subscription AgentExecutionStream($executionId: String, $agentId: String, $resourceId: String) {
agentExecutionStream(executionId: $executionId, agentId: $agentId, resourceId: $resourceId) { eventType
executionId agentId resourceId status timestamp data error } }
"""


@final
class AgentExecutionSubscription(Subscription[AgentExecutionEvent]):
    """Events of agents' runs (``agentExecutionStream``).

    Example::

        stream = await client.subscriptions.agent_execution_stream(execution_id="…").subscribe()
        stream.on_event(print)
    """

    def on_event(self, handler: Callable[[AgentExecutionEvent], object]) -> Self:
        """Call ``handler`` with each event: ``on_data`` under this stream's name."""
        return self.on_data(handler)


@final
class AgentExecutionSubscriptionBuilder(SubscriptionBuilder[AgentExecutionEvent, AgentExecutionSubscription]):
    """Arguments of ``agentExecutionStream``; the server applies them all.

    Example::

        builder.execution_id("…")
    """

    def execution_id(self, execution_id: str) -> Self:
        """Set ``executionId``."""
        return self._with("executionId", execution_id)

    def agent_id(self, agent_id: str) -> Self:
        """Set ``agentId``."""
        return self._with("agentId", agent_id)

    def resource_id(self, resource_id: str) -> Self:
        """Set ``resourceId``."""
        return self._with("resourceId", resource_id)


def agent_execution_stream(
    manager: SubscriptionManager, *, execution_id: str | None, agent_id: str | None, resource_id: str | None
) -> AgentExecutionSubscriptionBuilder:
    """Make the builder of ``agentExecutionStream``; ``None`` arguments are not sent."""
    given = {"executionId": execution_id, "agentId": agent_id, "resourceId": resource_id}
    operation = Operation(
        document=_AGENT_EXECUTION_STREAM,
        type=AgentExecutionEvent,
        variables={name: value for name, value in given.items() if value is not None},
        root_field="agentExecutionStream",
        filter_arguments=frozenset({"resourceId"}),
        label="agentExecutionStream",
    )
    return AgentExecutionSubscriptionBuilder(manager, operation, AgentExecutionSubscription)
