"""The state of accounts, of what was spent, and of what is still to be charged."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import date, timedelta
from typing import final

import msgspec

from circuit_breaker_server.engine.costs.records import (
    Account,
    AccountKey,
    CreditApplied,
    Usage,
    UsageCharged,
    decode_body,
)
from circuit_breaker_server.engine.state_tables import Entry, Table, TablePart
from circuit_breaker_server.log.event_log import Record

__all__ = ["AccountEntry", "CostState", "SpendEntry"]

KEPT_DAYS = 62
"""Days of an account that may still fall into a window, with one to spare."""

KEPT_SPENDING_DAYS = 400
"""The days that ``costAnalytics`` can look back: a year, and the month that is compared with it."""


@final
class DueEntry(Entry, frozen=True, kw_only=True):
    """A usage that was recorded where it happened and is not charged yet."""

    usage: Usage


@final
class AccountEntry(Entry, frozen=True, kw_only=True):
    """An account as its last record left it.

    :ivar last: the offset of its last record.
    :ivar days: USD by day, credits taken off.
    """

    key: AccountKey
    last: int
    account: Account
    days: Mapping[str, float]


@final
class SpendEntry(Entry, frozen=True, kw_only=True):
    """The spending of a user for a project with one model of one provider on one day."""

    user: str | None
    project: str | None
    day: str
    provider: str
    model: str
    requests: int = 0
    tokens: int = 0
    cost: float = 0.0


@final
class CostState(TablePart):
    """Accounts, spending, dues."""

    tokens = frozenset({"cost"})

    def __init__(self) -> None:
        self.dues: Table[DueEntry] = Table("due", DueEntry)
        self.accounts: Table[AccountEntry] = Table("account", AccountEntry)
        self.spending: Table[SpendEntry] = Table("spend", SpendEntry)
        self._oldest_day = ""
        super().__init__(self.dues, self.accounts, self.spending)

    def owe(self, usage: Usage | None, record: Record) -> None:
        """Note a usage that a record of another domain holds."""
        if usage is not None:
            self.dues.put(usage.id, DueEntry(created=record.offset, usage=usage))

    def apply(self, record: Record) -> None:
        """Apply a record of an account."""
        body = decode_body(record)
        old = self.accounts.get(body.key.subject)
        days = dict(old.days) if old is not None else {}
        match body:
            case UsageCharged(usage=usage, day=day):
                self.dues.remove(usage.id)
                self._spend(usage, day, record)
                days[day] = days.get(day, 0.0) + usage.cost
            case CreditApplied(amount=amount, day=day):
                days[day] = days.get(day, 0.0) - amount
            case _:
                pass
        entry = AccountEntry(
            created=record.offset if old is None else old.created,
            key=body.key,
            last=record.offset,
            account=body.account,
            days=dict(sorted(days.items())[-KEPT_DAYS:]),
        )
        self.accounts.put(body.key.subject, entry)

    def _spend(self, usage: Usage, day: str, record: Record) -> None:
        key = "\x1f".join((usage.user or "", usage.project or "", day, usage.provider, usage.model))
        old = self.spending.get(key) or SpendEntry(
            created=record.offset,
            user=usage.user,
            project=usage.project,
            day=day,
            provider=usage.provider,
            model=usage.model,
        )
        new = msgspec.structs.replace(
            old,
            requests=old.requests + 1,
            tokens=old.tokens + usage.prompt_tokens + usage.completion_tokens,
            cost=old.cost + usage.cost,
        )
        self.spending.put(key, new)
        self._forget_spending(day)

    def _forget_spending(self, day: str) -> None:
        """Forget spending of too long before a day; entries are in the order of their days."""
        oldest = (date.fromisoformat(day) - timedelta(days=KEPT_SPENDING_DAYS)).isoformat()
        if oldest <= self._oldest_day:
            return  # what this day makes too old is forgotten
        self._oldest_day = oldest
        for key in list(itertools.takewhile(lambda key: self._day_of(key) < oldest, self.spending)):
            self.spending.remove(key)

    def _day_of(self, key: str) -> str:
        return key.split("\x1f")[2]
