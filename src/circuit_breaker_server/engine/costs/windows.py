"""The windows of budgets, all of them in UTC days."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta

__all__ = ["PERIODS", "next_midnight", "used_since", "window_start"]

PERIODS = ("daily", "weekly", "monthly")


def window_start(period: str, day: date) -> date:
    """Return the first day of the window that a day falls into: itself, its Monday, or the 1st."""
    match period:
        case "daily":
            return day
        case "weekly":
            return day - timedelta(days=day.weekday())
        case _:
            return day.replace(day=1)


def used_since(first: date, days: Mapping[str, float]) -> float:
    """Add up what was used from a day on; credits cannot make it less than nothing."""
    return max(0.0, sum(cost for day, cost in days.items() if day >= first.isoformat()))


def next_midnight(now: datetime) -> datetime:
    """Return when the next day begins: no window changes before."""
    return datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), time(), UTC)
