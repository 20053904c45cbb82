"""The domain clients."""

from circuit_breaker_sdk.domains.consolidated import SubscriptionClient
from circuit_breaker_sdk.domains.execution import Executor
from circuit_breaker_sdk.domains.workflow_streams import (
    ResourceUpdateSubscription,
    ResourceUpdateSubscriptionBuilder,
    WorkflowEventSubscription,
    WorkflowEventSubscriptionBuilder,
)
from circuit_breaker_sdk.domains.workflows import WorkflowsClient

__all__ = [
    "Executor",
    "ResourceUpdateSubscription",
    "ResourceUpdateSubscriptionBuilder",
    "SubscriptionClient",
    "WorkflowEventSubscription",
    "WorkflowEventSubscriptionBuilder",
    "WorkflowsClient",
]
