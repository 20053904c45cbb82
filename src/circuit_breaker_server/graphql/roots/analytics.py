"""Root fields of costs and budgets."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_breaker_server.engine.costs.inputs import BudgetInput, CostAnalyticsInput
from circuit_breaker_server.graphql.roots.arguments import Mutation, Query, input_of, number, optional_text

__all__ = ["MUTATIONS", "QUERIES"]

QUERIES: Mapping[str, Query] = {
    "budgetStatus": lambda engine, given: engine.costs.budget_status(
        optional_text(given, "userId"), optional_text(given, "projectId")
    ),
    "costAnalytics": lambda engine, given: engine.costs.analytics(input_of(given, CostAnalyticsInput)),
}

MUTATIONS: Mapping[str, Mutation] = {
    "setBudget": lambda engine, given: engine.costs.set_budget(input_of(given, BudgetInput)),
    "applyCredit": lambda engine, given: engine.costs.apply_credit(
        optional_text(given, "userId"), optional_text(given, "projectId"), number(given, "amount")
    ),
}
