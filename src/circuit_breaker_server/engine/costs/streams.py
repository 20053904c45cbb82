"""From the records of accounts to ``costUpdates``, and from its arguments to records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from circuit_breaker_server.engine.costs.records import (
    AccountKey,
    Body,
    BudgetSet,
    CreditApplied,
    UsageCharged,
    WindowRolled,
    decode_body,
)
from circuit_breaker_server.engine.event_fields import EventFields, FieldSource, Make, always
from circuit_breaker_server.engine.events import Selection, StreamEvent
from circuit_breaker_server.log.event_log import Record

__all__ = ["EVENT_FIELDS", "derive", "select_cost_updates"]

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


_NULL = always(None)
_ZERO = always(0.0)


def _types(first: str) -> Callable[[Body], tuple[str, ...]]:
    """Return what lists the types of a body's events, in their order."""

    def types(body: Body) -> tuple[str, ...]:
        if isinstance(body, UsageCharged) and not body.usage.cost:
            return ()
        warning = ("BUDGET_WARNING",) if body.warns else ()
        return (first, *warning, "BUDGET_EXHAUSTED") if body.exhausts else (first, *warning)

    return types


def _fields(
    user: FieldSource,
    project: FieldSource,
    delta: FieldSource = _ZERO,
    *,
    provider: FieldSource = _NULL,
    model: FieldSource = _NULL,
    tokens: FieldSource = _NULL,
) -> dict[str, FieldSource]:
    return {
        "eventType": lambda _record, _body, event_type: event_type,
        "userId": user,
        "projectId": project,
        "costDelta": delta,
        "totalCost": "account.used",
        "budget": lambda _record, body, _item: body.account.status_value(body.key),
        "timestamp": "at",
        "provider": provider,
        "model": model,
        "tokenUsage": tokens,
    }


def _in_first(make: Callable[[Any], object], otherwise: object = None) -> Make:
    """Return the source of a field that only tells of the change itself, not of the budget after it."""

    def value(_record: Record, body: Any, event_type: str) -> object:
        return otherwise if event_type in ("BUDGET_WARNING", "BUDGET_EXHAUSTED") else make(body)

    return value


_RESET = EventFields(
    _fields(
        lambda _record, body, _item: _owner(body.key)[0], lambda _record, body, _item: _owner(body.key)[1]
    ),
    items=_types("BUDGET_RESET"),
)

EVENT_FIELDS: Mapping[str, Mapping[type, EventFields]] = {
    COST_UPDATES: {
        UsageCharged: EventFields(
            _fields(
                "usage.user",
                "usage.project",
                _in_first(lambda body: body.usage.cost, 0.0),
                provider=_in_first(lambda body: body.usage.provider),
                model=_in_first(lambda body: body.usage.model),
                tokens=_in_first(lambda body: body.usage.tokens_value()),
            ),
            items=_types("COST_INCURRED"),
        ),
        CreditApplied: EventFields(
            _fields("user", "project", _in_first(lambda body: -body.amount, 0.0)),
            items=_types("CREDIT_APPLIED"),
        ),
        BudgetSet: _RESET,
        WindowRolled: _RESET,
    },
}
"""The sources of the fields of events, by stream and type of body."""
