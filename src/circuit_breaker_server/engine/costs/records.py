"""The records of accounts: each holds what happened and the account after it."""

from __future__ import annotations

import sys
from typing import Final, final

import msgspec

from circuit_breaker_server.engine.record_bodies import VersionedBody, decode_as
from circuit_breaker_server.log.event_log import Record, subject

__all__ = [
    "Account",
    "AccountKey",
    "Body",
    "Budget",
    "BudgetSet",
    "CreditApplied",
    "Usage",
    "UsageCharged",
    "WindowRolled",
    "decode_body",
    "usd",
]

NO_LIMIT: Final = sys.float_info.max
"""The limit where no budget is set."""


def usd(amount: float) -> float:
    """Round an amount to a millionth of a millionth, so that sums of what was charged meet a limit."""
    return round(amount, 12)


@final
class AccountKey(msgspec.Struct, frozen=True):
    """The account of a usage: the project if one is given, else the user, else the account ``nobody``.

    :ivar kind: ``project``, ``user`` or ``nobody``.
    """

    kind: str
    id: str

    @classmethod
    def of(cls, user: str | None, project: str | None) -> AccountKey:
        """Return the account of a user's usage for a project."""
        if project is not None:
            return cls("project", project)
        return cls("nobody", "-") if user is None else cls("user", user)

    @property
    def subject(self) -> str:
        """The subject of the account's records."""
        return subject("cost", self.kind, self.id)

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


@final
class Usage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The tokens and cost of one completion, and the user and project that are charged.

    :ivar id: unique; a usage is charged once.
    :ivar provider: the provider's name.
    :ivar cost: USD.
    """

    id: str
    user: str | None
    project: str | None
    provider: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cost: float

    @property
    def account(self) -> AccountKey:
        """The account that is charged."""
        return AccountKey.of(self.user, self.project)

    def tokens_value(self) -> dict[str, object]:
        """Return it in the shape of ``TokenUsageGQL``."""
        return {
            "promptTokens": self.prompt_tokens,
            "completionTokens": self.completion_tokens,
            "totalTokens": self.prompt_tokens + self.completion_tokens,
            "estimatedCost": self.cost,
        }


@final
class Budget(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A limit on what an account may use in a window.

    :ivar limit: USD.
    :ivar period: ``daily``, ``weekly`` or ``monthly``.
    :ivar warning_threshold: a fraction of the limit.
    """

    limit: float
    period: str
    warning_threshold: float


@final
class Account(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An account in its present window.

    :ivar window: the first day of the window, as ``2030-01-31``.
    :ivar used: USD in the window.
    :ivar warned: the warning was given in this window; ``exhausted`` likewise.
    """

    budget: Budget | None = None
    window: str
    used: float
    warned: bool = False
    exhausted: bool = False

    def status_value(self, key: AccountKey) -> dict[str, object]:
        """Return it in the shape of ``BudgetStatusGQL``."""
        budget, used = self.budget, self.used
        if budget is None:
            message = f"{key} used {used:.6f} USD this month; no limit, as no budget is set"
            return _status(key, limit=NO_LIMIT, used=used, percentage=0.0, message=message)
        percentage = min(100.0, used / budget.limit * 100.0)
        message = f"{key} used {used:.6f} of {budget.limit:g} USD ({percentage:.1f} %, {budget.period})"
        status = _status(key, limit=budget.limit, used=used, percentage=percentage, message=message)
        status["isExhausted"] = used >= budget.limit
        status["isWarning"] = used / budget.limit >= budget.warning_threshold
        return status


def _status(
    key: AccountKey, *, limit: float, used: float, percentage: float, message: str
) -> dict[str, object]:
    return {
        "budgetId": str(key),
        "limit": limit,
        "used": used,
        "percentageUsed": percentage,
        "isExhausted": False,
        "isWarning": False,
        "remaining": limit if limit == NO_LIMIT else max(0.0, limit - used),
        "message": message,
    }


class AccountBody(VersionedBody, frozen=True, kw_only=True):
    """The base of all records of an account.

    :ivar warns: this change crossed the warning threshold, for the first time in the window;
        ``exhausts`` likewise the limit.
    """

    key: AccountKey
    at: str
    account: Account
    warns: bool = False
    exhausts: bool = False


@final
class UsageCharged(AccountBody, frozen=True, kw_only=True, tag="usage_charged"):
    """By a completion, once for each."""

    usage: Usage
    day: str


@final
class BudgetSet(AccountBody, frozen=True, kw_only=True, tag="budget_set"):
    """By ``setBudget``."""


@final
class WindowRolled(AccountBody, frozen=True, kw_only=True, tag="window_rolled"):
    """By the clock: the budget's window is over, the next one begins with nothing used."""


@final
class CreditApplied(AccountBody, frozen=True, kw_only=True, tag="credit_applied"):
    """By ``applyCredit``; ``amount`` is what was taken off."""

    user: str | None
    project: str | None
    amount: float
    day: str


Body = UsageCharged | BudgetSet | WindowRolled | CreditApplied
_DECODER: msgspec.json.Decoder[Body] = msgspec.json.Decoder(Body)


def decode_body(record: Record) -> Body:
    """Read a record of an account.

    :raises LogCorruptError: it is of a newer version, of an unknown type, or no body at all.
    """
    return decode_as(_DECODER, record)
