"""All streams in one place: ``client.subscriptions``."""

from __future__ import annotations

from typing import final

from circuit_breaker_sdk.domains import workflow_streams
from circuit_breaker_sdk.domains.workflow_streams import (
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
        self,
        *,
        resource_id: str | None = None,
        workflow_id: str | None = None,
        state: str | None = None,
    ) -> ResourceUpdateSubscriptionBuilder:
        """Follow resources (``resourceUpdates``): one, a workflow's, or all."""
        return workflow_streams.resource_updates(
            self._manager, resource_id=resource_id, workflow_id=workflow_id, state=state
        )

    def workflow_events(self, *, workflow_id: str | None = None) -> WorkflowEventSubscriptionBuilder:
        """Follow what happens in a workflow (``workflowEvents``)."""
        return workflow_streams.workflow_events(self._manager, workflow_id=workflow_id)
