# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""The streams of costs and budgets: documents, typed subscriptions, builders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, final

from circuit_breaker_sdk.events.analytics import CostUpdate
from circuit_breaker_sdk.subscriptions import (
    Operation,
    Subscription,
    SubscriptionBuilder,
    SubscriptionManager,
)

__all__ = [
    "CostUpdateSubscription",
    "CostUpdateSubscriptionBuilder",
    "cost_updates",
]

_COST_UPDATES = """
subscription CostUpdates($userId: String, $projectId: String) { costUpdates(userId: $userId, projectId:
$projectId) { eventType userId projectId costDelta totalCost budget { budgetId limit used percentageUsed
isExhausted isWarning remaining message } timestamp provider model tokenUsage { promptTokens
completionTokens totalTokens estimatedCost } } }
"""


@final
class CostUpdateSubscription(Subscription[CostUpdate]):
    """Usage as it is charged, and what it does to budgets (``costUpdates``).

    Example::

        stream = await client.subscriptions.cost_updates(user_id="…").subscribe()
        stream.on_update(print)
    """

    def on_update(self, handler: Callable[[CostUpdate], object]) -> Self:
        """Call ``handler`` with each event: ``on_data`` under this stream's name."""
        return self.on_data(handler)

    def on_cost_update(self, handler: Callable[[CostUpdate], object]) -> Self:
        """Call ``handler`` with each event: ``on_data`` under this stream's name."""
        return self.on_data(handler)

    def filter_by_user(self, user_id: str) -> Self:
        """Keep back events of other users, from the next event on."""
        return self.filter(lambda event: event.user_id == user_id)

    def filter_by_project(self, project_id: str) -> Self:
        """Keep back events of other projects, from the next event on."""
        return self.filter(lambda event: event.project_id == project_id)


@final
class CostUpdateSubscriptionBuilder(SubscriptionBuilder[CostUpdate, CostUpdateSubscription]):
    """Arguments of ``costUpdates``; the server applies them all.

    Example::

        builder.user_id("…")
    """

    def user_id(self, user_id: str) -> Self:
        """Set ``userId``."""
        return self._with("userId", user_id)

    def project_id(self, project_id: str) -> Self:
        """Set ``projectId``."""
        return self._with("projectId", project_id)


def cost_updates(
    manager: SubscriptionManager, *, user_id: str | None, project_id: str | None
) -> CostUpdateSubscriptionBuilder:
    """Make the builder of ``costUpdates``; ``None`` arguments are not sent."""
    given = {"userId": user_id, "projectId": project_id}
    operation = Operation(
        document=_COST_UPDATES,
        type=CostUpdate,
        variables={name: value for name, value in given.items() if value is not None},
        root_field="costUpdates",
        filter_arguments=frozenset({"userId", "projectId"}),
        label="costUpdates",
    )
    return CostUpdateSubscriptionBuilder(manager, operation, CostUpdateSubscription)
