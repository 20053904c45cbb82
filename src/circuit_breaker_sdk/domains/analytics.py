# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""The domain of costs and budgets: ``client.analytics``."""

from __future__ import annotations

from typing import final

from msgspec import UNSET, UnsetType

from circuit_breaker_sdk.domains import analytics_streams
from circuit_breaker_sdk.domains.analytics_streams import CostUpdateSubscriptionBuilder
from circuit_breaker_sdk.domains.execution import Executor
from circuit_breaker_sdk.events.analytics import BudgetStatus, CostAnalytics
from circuit_breaker_sdk.subscriptions import SubscriptionManager

__all__ = ["AnalyticsClient"]

_BUDGET_STATUS = """
query BudgetStatus($userId: String, $projectId: String) { budgetStatus(userId: $userId, projectId:
$projectId) { budgetId limit used percentageUsed isExhausted isWarning remaining message } }
"""

_COST_ANALYTICS = """
query CostAnalytics($input: CostAnalyticsInput!) { costAnalytics(input: $input) { totalCost totalTokens
averageCostPerToken providerBreakdown modelBreakdown dailyCosts periodStart periodEnd } }
"""

_SET_BUDGET = """
mutation SetBudget($input: BudgetInput!) { setBudget(input: $input) { budgetId limit used percentageUsed
isExhausted isWarning remaining message } }
"""

_APPLY_CREDIT = """
mutation ApplyCredit($userId: String, $projectId: String, $amount: Float!) { applyCredit(userId:
$userId, projectId: $projectId, amount: $amount) { budgetId limit used percentageUsed isExhausted
isWarning remaining message } }
"""


@final
class AnalyticsClient:
    """Queries, mutations and streams of costs and budgets.

    What is left ``UNSET`` is not sent; ``None`` is null. Every query and mutation raises ``OperationError``
    where the server answers with errors (see its ``code``), and ``ConnectionFailed`` and its kin where no
    answer came: then a mutation was executed whole or not at all.
    """

    def __init__(self, executor: Executor, manager: SubscriptionManager) -> None:
        self._executor = executor
        self._manager = manager

    async def budget_status(
        self, *, user_id: str | UnsetType | None = UNSET, project_id: str | UnsetType | None = UNSET
    ) -> BudgetStatus:
        """State of a budget: the project's if one is given, else the user's.

        Without a budget there is no limit, and the month's usage is told.
        """
        variables: dict[str, object] = {"userId": user_id, "projectId": project_id}
        return await self._executor.field(
            _BUDGET_STATUS, variables, type=BudgetStatus, operation_name="BudgetStatus"
        )

    async def cost_analytics(
        self,
        *,
        start_date: str,
        end_date: str,
        user_id: str | UnsetType | None = UNSET,
        project_id: str | UnsetType | None = UNSET,
    ) -> CostAnalytics:
        """Costs from one day to another, both included, of those whom the input names, or of all.

        :param start_date: A day (2030-01-31) or a time; its day in UTC counts as a whole.
        """
        variables: dict[str, object] = {
            "input": {
                "userId": user_id,
                "projectId": project_id,
                "startDate": start_date,
                "endDate": end_date,
            }
        }
        return await self._executor.field(
            _COST_ANALYTICS, variables, type=CostAnalytics, operation_name="CostAnalytics"
        )

    async def set_budget(
        self,
        *,
        limit: float,
        period: str,
        warning_threshold: float,
        user_id: str | UnsetType | None = UNSET,
        project_id: str | UnsetType | None = UNSET,
    ) -> BudgetStatus:
        """Sets the budget of a project, or of a user.

        What was used in its present window counts.

        :param limit: USD, above 0.
        :param period: daily (from 00:00 UTC), weekly (from Monday) or monthly (from the 1st).
        :param warning_threshold: A fraction, above 0 and at most 1.
        """
        variables: dict[str, object] = {
            "input": {
                "userId": user_id,
                "projectId": project_id,
                "limit": limit,
                "period": period,
                "warningThreshold": warning_threshold,
            }
        }
        return await self._executor.field(
            _SET_BUDGET, variables, type=BudgetStatus, operation_name="SetBudget"
        )

    async def apply_credit(
        self,
        *,
        amount: float,
        user_id: str | UnsetType | None = UNSET,
        project_id: str | UnsetType | None = UNSET,
    ) -> BudgetStatus:
        """Takes an amount off what was used in the present window, at most all of it."""
        variables: dict[str, object] = {"userId": user_id, "projectId": project_id, "amount": amount}
        return await self._executor.field(
            _APPLY_CREDIT, variables, type=BudgetStatus, operation_name="ApplyCredit"
        )

    def subscribe_cost_updates(
        self, *, user_id: str | None = None, project_id: str | None = None
    ) -> CostUpdateSubscriptionBuilder:
        """Usage as it is charged, and what it does to budgets: of a user, of a project, of both, of all."""
        return analytics_streams.cost_updates(self._manager, user_id=user_id, project_id=project_id)
