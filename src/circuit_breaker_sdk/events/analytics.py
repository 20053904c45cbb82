# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""Types of costs and budgets: results, events and inputs."""

from __future__ import annotations

import sys
from datetime import datetime

import msgspec

from circuit_breaker_sdk.events.base import JSON, Event, OpenEnum
from circuit_breaker_sdk.events.llm import TokenUsage

__all__ = [
    "BudgetStatus",
    "CostAnalytics",
    "CostEventType",
    "CostUpdate",
]

_NULL = msgspec.Raw(b"null")


class BudgetStatus(Event, frozen=True, kw_only=True):
    """A budget in its present window (``BudgetStatusGQL``).

    :ivar budget_id: project:<id> or user:<id>
    :ivar limit: USD; the greatest float where there is no limit, which the SDK gives as None.
    :ivar used: USD in this window, credits taken off.
    :ivar percentage_used: 0 to 100.
    :ivar remaining: USD; never below 0. The greatest float where there is no limit, which the SDK gives as
        None.
    :ivar message: The same for people.
    """

    budget_id: str
    limit: float | None
    used: float
    percentage_used: float
    is_exhausted: bool
    is_warning: bool
    remaining: float | None
    message: str

    def __post_init__(self) -> None:
        if self.limit == sys.float_info.max:
            msgspec.structs.force_setattr(self, "limit", None)
        if self.remaining == sys.float_info.max:
            msgspec.structs.force_setattr(self, "remaining", None)


class CostAnalytics(Event, frozen=True, kw_only=True):
    """Costs of a period (``CostAnalyticsGQL``).

    :ivar provider_breakdown: By provider: {cost, tokens, requests}.
    :ivar model_breakdown: By model: {cost, tokens, requests}.
    :ivar daily_costs: By day: USD.
    """

    total_cost: float
    total_tokens: int
    average_cost_per_token: float
    period_start: str
    period_end: str
    _provider_breakdown: msgspec.Raw = msgspec.field(name="providerBreakdown", default=_NULL)
    _model_breakdown: msgspec.Raw = msgspec.field(name="modelBreakdown", default=_NULL)
    _daily_costs: msgspec.Raw = msgspec.field(name="dailyCosts", default=_NULL)

    @property
    def provider_breakdown(self) -> JSON:
        """By provider: {cost, tokens, requests}."""
        return self._json("_provider_breakdown")

    @property
    def model_breakdown(self) -> JSON:
        """By model: {cost, tokens, requests}."""
        return self._json("_model_breakdown")

    @property
    def daily_costs(self) -> JSON:
        """By day: USD."""
        return self._json("_daily_costs")


class CostEventType(OpenEnum):
    """Kind of an event of an account (``CostEventType``)."""

    COST_INCURRED = "COST_INCURRED"
    BUDGET_WARNING = "BUDGET_WARNING"
    """Once per window and budget."""
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    """Once per window and budget."""
    BUDGET_RESET = "BUDGET_RESET"
    """A budget was set, or its window is over."""
    CREDIT_APPLIED = "CREDIT_APPLIED"


class CostUpdate(Event, frozen=True, kw_only=True):
    """A change of an account (``CostUpdateEventGQL``).

    :ivar cost_delta: USD: above 0 for usage, below 0 for a credit, else 0.
    :ivar total_cost: USD in the budget's window, after this.
    :ivar budget: After this.
    :ivar provider: Of COST_INCURRED.
    :ivar model: Of COST_INCURRED.
    :ivar token_usage: Of COST_INCURRED.

    Example::

        async for update in client.analytics.subscribe_cost_updates(user_id="ada"):
            print(update.service, update.amount)
    """

    event_type: CostEventType
    cost_delta: float
    total_cost: float
    timestamp: datetime
    user_id: str | None = None
    project_id: str | None = None
    budget: BudgetStatus | None = None
    provider: str | None = None
    model: str | None = None
    token_usage: TokenUsage | None = None

    @property
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
