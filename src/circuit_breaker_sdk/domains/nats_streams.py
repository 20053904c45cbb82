# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""The streams of resources and their place in the log: documents, typed subscriptions, builders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, final

from circuit_breaker_sdk.events.nats import NATSResourceEvent
from circuit_breaker_sdk.subscriptions import (
    Operation,
    Subscription,
    SubscriptionBuilder,
    SubscriptionManager,
)

__all__ = [
    "NATSResourceSubscription",
    "NATSResourceSubscriptionBuilder",
    "nats_resource_stream",
]

_NATS_RESOURCE_STREAM = """
subscription NatsResourceStream($workflowId: String!, $stateId: String) { natsResourceStream(workflowId:
$workflowId, stateId: $stateId) { eventType resource { id workflowId state data metadata createdAt
updatedAt history { timestamp activity fromState toState data } natsSequence natsTimestamp natsSubject
activityHistory { fromState toState activityId timestamp triggeredBy natsSequence metadata } } subject
sequence timestamp activity previousState metadata } }
"""


@final
class NATSResourceSubscription(Subscription[NATSResourceEvent]):
    """Resources after each change, with their place in the event log (``natsResourceStream``).

    Example::

        stream = await client.subscriptions.nats_resource_stream(workflow_id="…").subscribe()
        stream.on_event(print)
    """

    def on_event(self, handler: Callable[[NATSResourceEvent], object]) -> Self:
        """Call ``handler`` with each event: ``on_data`` under this stream's name."""
        return self.on_data(handler)


@final
class NATSResourceSubscriptionBuilder(SubscriptionBuilder[NATSResourceEvent, NATSResourceSubscription]):
    """Arguments of ``natsResourceStream``; the server applies them all.

    Example::

        builder.workflow_id("…")
    """

    def workflow_id(self, workflow_id: str) -> Self:
        """Set ``workflowId``."""
        return self._with("workflowId", workflow_id)

    def state_id(self, state_id: str) -> Self:
        """Set ``stateId``."""
        return self._with("stateId", state_id)


def nats_resource_stream(
    manager: SubscriptionManager, *, workflow_id: str | None, state_id: str | None
) -> NATSResourceSubscriptionBuilder:
    """Make the builder of ``natsResourceStream``; ``None`` arguments are not sent."""
    given = {"workflowId": workflow_id, "stateId": state_id}
    operation = Operation(
        document=_NATS_RESOURCE_STREAM,
        type=NATSResourceEvent,
        variables={name: value for name, value in given.items() if value is not None},
        root_field="natsResourceStream",
        label="natsResourceStream",
    )
    return NATSResourceSubscriptionBuilder(manager, operation, NATSResourceSubscription)
