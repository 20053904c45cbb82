"""From the records of accounts to ``costUpdates``, and from its arguments to records."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_breaker_server.engine.costs.records import (
    AccountKey,
    Body,
    BudgetSet,
    CreditApplied,
    UsageCharged,
    WindowRolled,
    decode_body,
)
from circuit_breaker_server.engine.events import Selection, StreamEvent
from circuit_breaker_server.log.event_log import Record

__all__ = ["derive", "select_cost_updates"]

COST_UPDATES = "costUpdates"


def derive(record: Record) -> tuple[StreamEvent, ...]:
    """Return the events of a record: what happened first, then what it did to the budget.

    A usage that costs nothing is no event.
    """
    body = decode_body(record)
    match body:
        case UsageCharged(usage=usage):
            if not usage.cost:
                return ()
            first = _event(body, "COST_INCURRED", user=usage.user, project=usage.project, delta=usage.cost)
            first |= {
                "provider": usage.provider,
                "model": usage.model,
                "tokenUsage": usage.tokens_value(),
            }
            user, project = usage.user, usage.project
        case CreditApplied(user=user, project=project):
            first = _event(body, "CREDIT_APPLIED", user=user, project=project, delta=-body.amount)
        case BudgetSet() | WindowRolled():
            user, project = _owner(body.key)
            first = _event(body, "BUDGET_RESET", user=user, project=project, delta=0.0)
    events = [first]
    if body.warns:
        events.append(_event(body, "BUDGET_WARNING", user=user, project=project, delta=0.0))
    if body.exhausts:
        events.append(_event(body, "BUDGET_EXHAUSTED", user=user, project=project, delta=0.0))
    return tuple(StreamEvent(COST_UPDATES, event) for event in events)


def _owner(key: AccountKey) -> tuple[str | None, str | None]:
    return (key.id if key.kind == "user" else None, key.id if key.kind == "project" else None)


def _event(
    body: Body, event_type: str, *, user: str | None, project: str | None, delta: float
) -> dict[str, object]:
    return {
        "eventType": event_type,
        "userId": user,
        "projectId": project,
        "costDelta": delta,
        "totalCost": body.account.used,
        "budget": body.account.status_value(body.key),
        "timestamp": body.at,
        "provider": None,
        "model": None,
        "tokenUsage": None,
    }


def select_cost_updates(arguments: Mapping[str, object]) -> Selection:
    """Tell what ``costUpdates`` reads: of a project its account, of a user a scan of all accounts."""
    user, project = arguments.get("userId"), arguments.get("projectId")
    subjects = ("cost.*.*",) if project is None else (AccountKey("project", str(project)).subject,)
    if user is None:
        return Selection(subjects)
    return Selection(subjects, lambda value: value["userId"] == user)
