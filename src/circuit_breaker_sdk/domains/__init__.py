"""The domain clients."""

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
from circuit_breaker_sdk.domains.consolidated import SubscriptionClient
from circuit_breaker_sdk.domains.execution import Executor
from circuit_breaker_sdk.domains.llm import LLMClient, LLMStream
from circuit_breaker_sdk.domains.llm_streams import LLMStreamSubscription, LLMStreamSubscriptionBuilder
from circuit_breaker_sdk.domains.nats import NATSClient
from circuit_breaker_sdk.domains.nats_streams import NATSResourceSubscription, NATSResourceSubscriptionBuilder
from circuit_breaker_sdk.domains.rules import RulesClient
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
    "Executor",
    "LLMClient",
    "LLMStream",
    "LLMStreamSubscription",
    "LLMStreamSubscriptionBuilder",
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
