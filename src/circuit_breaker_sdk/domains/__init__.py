"""The domain clients; each is loaded when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuit_breaker_sdk.domains.agents import AgentsClient
    from circuit_breaker_sdk.domains.agents_streams import (
        AgentExecutionSubscription,
        AgentExecutionSubscriptionBuilder,
    )
    from circuit_breaker_sdk.domains.analytics import AnalyticsClient
    from circuit_breaker_sdk.domains.analytics_streams import (
        CostUpdateSubscription,
        CostUpdateSubscriptionBuilder,
    )
    from circuit_breaker_sdk.domains.llm import LLMClient, LLMStream
    from circuit_breaker_sdk.domains.llm_streams import LLMStreamSubscription, LLMStreamSubscriptionBuilder
    from circuit_breaker_sdk.domains.mcp import MCPClient
    from circuit_breaker_sdk.domains.mcp_streams import (
        MCPCapabilitySubscription,
        MCPCapabilitySubscriptionBuilder,
        MCPServerStatusSubscription,
        MCPServerStatusSubscriptionBuilder,
        MCPSessionEventSubscription,
        MCPSessionEventSubscriptionBuilder,
    )
    from circuit_breaker_sdk.domains.nats import NATSClient
    from circuit_breaker_sdk.domains.nats_streams import (
        NATSResourceSubscription,
        NATSResourceSubscriptionBuilder,
    )
    from circuit_breaker_sdk.domains.rules import RulesClient
    from circuit_breaker_sdk.domains.subscription_client import SubscriptionClient
    from circuit_breaker_sdk.domains.workflows import WorkflowsClient
    from circuit_breaker_sdk.domains.workflows_streams import (
        ResourceUpdateSubscription,
        ResourceUpdateSubscriptionBuilder,
        WorkflowEventSubscription,
        WorkflowEventSubscriptionBuilder,
    )

__all__ = [
    "AgentExecutionSubscription",
    "AgentExecutionSubscriptionBuilder",
    "AgentsClient",
    "AnalyticsClient",
    "CostUpdateSubscription",
    "CostUpdateSubscriptionBuilder",
    "LLMClient",
    "LLMStream",
    "LLMStreamSubscription",
    "LLMStreamSubscriptionBuilder",
    "MCPCapabilitySubscription",
    "MCPCapabilitySubscriptionBuilder",
    "MCPClient",
    "MCPServerStatusSubscription",
    "MCPServerStatusSubscriptionBuilder",
    "MCPSessionEventSubscription",
    "MCPSessionEventSubscriptionBuilder",
    "NATSClient",
    "NATSResourceSubscription",
    "NATSResourceSubscriptionBuilder",
    "ResourceUpdateSubscription",
    "ResourceUpdateSubscriptionBuilder",
    "RulesClient",
    "SubscriptionClient",
    "WorkflowEventSubscription",
    "WorkflowEventSubscriptionBuilder",
    "WorkflowsClient",
]

_MODULES = {
    "AgentsClient": "agents",
    "AgentExecutionSubscription": "agents_streams",
    "AgentExecutionSubscriptionBuilder": "agents_streams",
    "AnalyticsClient": "analytics",
    "CostUpdateSubscription": "analytics_streams",
    "CostUpdateSubscriptionBuilder": "analytics_streams",
    "SubscriptionClient": "subscription_client",
    "LLMClient": "llm",
    "LLMStream": "llm",
    "LLMStreamSubscription": "llm_streams",
    "LLMStreamSubscriptionBuilder": "llm_streams",
    "MCPClient": "mcp",
    "MCPCapabilitySubscription": "mcp_streams",
    "MCPCapabilitySubscriptionBuilder": "mcp_streams",
    "MCPServerStatusSubscription": "mcp_streams",
    "MCPServerStatusSubscriptionBuilder": "mcp_streams",
    "MCPSessionEventSubscription": "mcp_streams",
    "MCPSessionEventSubscriptionBuilder": "mcp_streams",
    "NATSClient": "nats",
    "NATSResourceSubscription": "nats_streams",
    "NATSResourceSubscriptionBuilder": "nats_streams",
    "RulesClient": "rules",
    "WorkflowsClient": "workflows",
    "ResourceUpdateSubscription": "workflows_streams",
    "ResourceUpdateSubscriptionBuilder": "workflows_streams",
    "WorkflowEventSubscription": "workflows_streams",
    "WorkflowEventSubscriptionBuilder": "workflows_streams",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value  # found without this function from now on
    return value
