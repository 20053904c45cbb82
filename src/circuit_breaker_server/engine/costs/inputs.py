"""The inputs of the commands and queries on accounts, as the schema's input types have them."""

from __future__ import annotations

from typing import final

import msgspec

__all__ = ["BudgetInput", "CostAnalyticsInput"]


@final
class BudgetInput(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``BudgetInput``."""

    user_id: str | None = None
    project_id: str | None = None
    limit: float
    period: str
    warning_threshold: float


@final
class CostAnalyticsInput(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``CostAnalyticsInput``."""

    user_id: str | None = None
    project_id: str | None = None
    start_date: str
    end_date: str
