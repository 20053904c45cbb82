"""The commands on accounts: usage is charged, budgets are set, windows end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from datetime import UTC, date
from typing import final

import msgspec

from circuit_breaker_server.engine.command import ATTEMPTS, Appender, Committed, Value
from circuit_breaker_server.engine.costs.inputs import BudgetInput, CostAnalyticsInput
from circuit_breaker_server.engine.costs.records import (
    Account,
    AccountKey,
    Body,
    Budget,
    BudgetSet,
    CreditApplied,
    Usage,
    UsageCharged,
    WindowRolled,
    decode_body,
    usd,
)
from circuit_breaker_server.engine.costs.state import CostState, SpendEntry
from circuit_breaker_server.engine.costs.windows import PERIODS, next_midnight, used_since, window_start
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.nodes.ownership import Ownership
from circuit_breaker_server.engine.timestamps import parse_timestamp
from circuit_breaker_server.engine.turns import Turns
from circuit_breaker_server.engine.validation import refuse
from circuit_breaker_server.log.event_log import ExpectationFailed, Record
from circuit_breaker_server.logs import get_logger

__all__ = ["Costs"]

_MAX_ID = 256
_MAX_SLEEP_SECONDS = 60.0
_PAUSE_SECONDS = 0.5  # before a usage is charged again, where the log could not be written
_MIN_AMOUNT = 1e-12
_MAX_AMOUNT = 1e12

_log = get_logger("costs")


@final
class Costs:
    """Accounts of users and projects.

    :param enforced: whether an exhausted budget refuses what would be charged to it.

    A usage is recorded where it happens and charged by a record of its own that follows from it: what is
    still due when the server stops is charged when it starts again, and nothing is charged twice.

    Example::

        given = BudgetInput(user_id="ada", limit=5.0, period="daily", warning_threshold=0.8)
        await engine.costs.set_budget(given)
    """

    def __init__(
        self, state: CostState, appender: Appender, *, ownership: Ownership, enforced: bool = False
    ) -> None:
        self._ownership = ownership
        self._state = state
        self._enforced = enforced
        self._appender = appender
        # A lock is there as long as a command holds it or waits for it.
        self._turns = Turns[AccountKey]()
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Charge what is due and end the windows that are over, now and from now on."""
        await self._charge_mine()
        await self.roll_windows()
        self._tasks = [
            asyncio.create_task(self._roll_at_midnights(), name="engine-budget-windows"),
            asyncio.create_task(self._charge_when_due(), name="engine-charges"),
        ]

    async def aclose(self) -> None:
        """Stop charging and watching the clock. Idempotent."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def follow(self) -> None:
        """Charge what the last record has made due, if anything."""
        if self._state.dues:
            self._due.set()

    def take_over(self) -> None:
        """Charge what belongs to this node now; the windows that are over end with the next look."""
        self.follow()

    # --- queries ---

    def budget_status(self, user: str | None, project: str | None) -> Value:
        """Return ``BudgetStatusGQL`` of an account in its present window.

        :raises EngineError: ``INVALID_INPUT``: neither is given.
        """
        key = _account_key(user, project)
        return self._present(key).status_value(key)

    def require_budget(self, user: str | None, project: str | None) -> None:
        """Refuse what would be charged to an exhausted budget, if budgets are enforced.

        What is under way already goes on, and may take the account further beyond its limit.

        :raises EngineError: ``BUDGET_EXHAUSTED``.
        """
        if not self._enforced:
            return
        key = AccountKey.of(user, project)
        account = self._present(key)
        if account.budget is not None and account.used >= account.budget.limit:
            raise EngineError(
                ErrorCode.BUDGET_EXHAUSTED,
                f"the {account.budget.period} budget of {key} is exhausted: {account.used:g} of "
                f"{account.budget.limit:g} USD are used; raise it, apply a credit, or wait for a new window",
                budgetId=str(key),
            )

    def analytics(self, given: CostAnalyticsInput) -> Value:
        """Return ``CostAnalyticsGQL`` of the days from one to another.

        :raises EngineError: ``INVALID_INPUT``.
        """
        first, last = _day(given.start_date, "startDate"), _day(given.end_date, "endDate")
        if last < first:
            refuse(f"endDate: {last} is before startDate {first}")
        found = [
            entry
            for entry in self._state.spending.values()
            if first.isoformat() <= entry.day <= last.isoformat()
            and given.user_id in (None, entry.user)
            and given.project_id in (None, entry.project)
        ]
        cost, tokens = math.fsum(each.cost for each in found), sum(each.tokens for each in found)
        days: dict[str, float] = {}
        for entry in sorted(found, key=lambda each: each.day):
            days[entry.day] = days.get(entry.day, 0.0) + entry.cost
        return {
            "totalCost": cost,
            "totalTokens": tokens,
            "averageCostPerToken": cost / tokens if tokens else 0.0,
            "providerBreakdown": _breakdown(found, lambda entry: entry.provider),
            "modelBreakdown": _breakdown(found, lambda entry: entry.model),
            "dailyCosts": days,
            "periodStart": first.isoformat(),
            "periodEnd": last.isoformat(),
        }

    # --- commands ---

    async def set_budget(self, given: BudgetInput) -> Committed[Value]:
        """Set an account's budget; answers ``BudgetStatusGQL``.

        :raises EngineError: ``INVALID_INPUT``, ``RATE_LIMITED``, ``UNAVAILABLE``.
        """
        self._appender.count_creation()
        key = _account_key(given.user_id, given.project_id)
        if given.period not in PERIODS:
            refuse(f"period: {shown(given.period)} is none of {', '.join(PERIODS)}")
        # Not `0 <`: below a millionth of a millionth it would be kept as 0.
        if not _MIN_AMOUNT <= given.limit <= _MAX_AMOUNT:
            refuse(f"limit: {given.limit:g} is not between {_MIN_AMOUNT:g} and {_MAX_AMOUNT:g} USD")
        if not 0 < given.warning_threshold <= 1:
            refuse(f"warningThreshold: {given.warning_threshold:g} is not a fraction above 0 and at most 1")
        budget = Budget(
            limit=usd(given.limit), period=given.period, warning_threshold=given.warning_threshold
        )

        def decide(_old: Account) -> BudgetSet:
            entry = self._state.accounts.get(key.subject)
            window = window_start(budget.period, self._today())
            used = usd(used_since(window, {} if entry is None else entry.days))
            account, warns, exhausts = _crossed(Account(budget=budget, window=window.isoformat(), used=used))
            at = self._appender.at()
            return BudgetSet(key=key, at=at, account=account, warns=warns, exhausts=exhausts)

        return await self._answer(key, decide)

    async def apply_credit(self, user: str | None, project: str | None, amount: float) -> Committed[Value]:
        """Take an amount off what was used in the window; answers ``BudgetStatusGQL``.

        :raises EngineError: ``INVALID_INPUT``, ``UNAVAILABLE``.
        """
        key = _account_key(user, project)
        if not 0 < amount <= _MAX_AMOUNT:
            refuse(f"amount: {amount:g} is not above 0 and at most {_MAX_AMOUNT:g} USD")

        def decide(old: Account) -> CreditApplied:
            taken = min(usd(amount), old.used)
            if taken == 0:
                refuse(f"amount: {key} has used nothing in its present window; there is nothing to credit")
            account = msgspec.structs.replace(old, used=usd(old.used - taken))
            return CreditApplied(
                key=key,
                at=self._appender.at(),
                account=account,
                user=user,
                project=project,
                amount=taken,
                day=self._today().isoformat(),
            )

        return await self._answer(key, decide)

    async def charge(self, usage: Usage) -> None:
        """Charge a usage that is due; once, however often this is called.

        Everything that is due is charged anyway; this is for a caller that waits for it.

        :raises EngineError: ``UNAVAILABLE``: it stays due.
        """

        def decide(old: Account) -> UsageCharged | None:
            if usage.id not in self._state.dues:
                return None
            account, warns, exhausts = _crossed(msgspec.structs.replace(old, used=usd(old.used + usage.cost)))
            return UsageCharged(
                key=usage.account,
                at=self._appender.at(),
                account=account,
                warns=warns,
                exhausts=exhausts,
                usage=usage,
                day=self._today().isoformat(),
            )

        await self._change(usage.account, decide, cause=("usage", usage.id))

    async def roll_windows(self) -> None:
        """End the windows of budgets that are over.

        :raises EngineError: ``UNAVAILABLE``.
        """
        for entry in self._state.accounts.values():
            if self._is_mine(entry.key):
                async with self._turns.of(entry.key):
                    await self._roll(entry.key)

    # -------------------------------------------------------------------------------------------------------

    def _today(self) -> date:
        return self._appender.now().astimezone(UTC).date()

    def _state_of(self, key: AccountKey) -> Account:
        entry = self._state.accounts.get(key.subject)
        return self._fresh() if entry is None else entry.account

    def _fresh(self, budget: Budget | None = None) -> Account:
        period = "monthly" if budget is None else budget.period
        return Account(budget=budget, window=window_start(period, self._today()).isoformat(), used=0.0)

    def _present(self, key: AccountKey) -> Account:
        """Return the account as it is in the present window, whether or not the last one was ended."""
        account = self._state_of(key)
        fresh = self._fresh(account.budget)
        return account if account.window == fresh.window else fresh

    async def _answer(self, key: AccountKey, decide: Callable[[Account], Body]) -> Committed[Value]:
        record = await self._change(
            key, decide, effect=lambda body: Effect.of(body.account.status_value(key))
        )
        if record is None:
            raise RuntimeError("a command that always decides has decided nothing")
        return self._appender.committed(decode_body(record).account.status_value(key), record)

    async def _change(
        self,
        key: AccountKey,
        decide: Callable[[Account], Body | None],
        *,
        cause: tuple[str, str] | None = None,
        effect: Callable[[Body], Effect] | None = None,
    ) -> Record | None:
        """Decide on an account as it is, one after another, and append what was decided, if anything."""
        async with self._turns.of(key):
            for _ in range(ATTEMPTS):
                await self._roll(key)
                body = decide(self._present(key))
                if body is None:
                    return None
                entry = self._state.accounts.get(key.subject)
                record_id = None if cause is None else self._appender.follow_up_id(*cause)
                try:
                    return await self._appender.append(
                        key.subject,
                        body,
                        expected=0 if entry is None else entry.last,
                        record_id=record_id,
                        effect=None if effect is None else effect(body),
                    )
                except ExpectationFailed:
                    continue
        raise EngineError(ErrorCode.CONFLICT, f"{key} is being changed by others; try again")

    async def _roll(self, key: AccountKey) -> None:
        entry = self._state.accounts.get(key.subject)
        if entry is None or entry.account.budget is None:
            return
        fresh = self._fresh(entry.account.budget)
        if entry.account.window >= fresh.window:
            return
        body = WindowRolled(key=key, at=self._appender.at(), account=fresh)
        record_id = self._appender.follow_up_id("window", key.subject, fresh.window, str(entry.last))
        try:
            await self._appender.append(key.subject, body, expected=entry.last, record_id=record_id)
        except ExpectationFailed:
            return  # another command changed the account: the next change checks it again

    async def _charge_mine(self) -> None:
        for due in self._state.dues.values():
            if self._is_mine(due.usage.account):
                await self.charge(due.usage)

    def _is_mine(self, key: AccountKey) -> bool:
        return self._ownership.is_mine(f"account/{key.subject}")

    async def _charge_when_due(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self._charge_mine()
            except EngineError as error:
                _log.warning("usage_not_charged", reason=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
                self._due.set()

    async def _roll_at_midnights(self) -> None:
        while True:
            now = self._appender.now()
            left = (next_midnight(now) - now).total_seconds()
            # A sleep runs on the monotonic clock: the system's one may be set meanwhile.
            await asyncio.sleep(min(left, _MAX_SLEEP_SECONDS))
            if left > _MAX_SLEEP_SECONDS:
                continue
            await self._roll_until_done()

    async def _roll_until_done(self) -> None:
        while True:
            try:
                await self.roll_windows()
            except EngineError as error:
                _log.warning("windows_not_ended", reason=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return


def _crossed(account: Account) -> tuple[Account, bool, bool]:
    """Tell whether an account has come to warn, to be exhausted, for the first time in its window."""
    budget = account.budget
    if budget is None:
        return account, False, False
    warns = not account.warned and account.used / budget.limit >= budget.warning_threshold
    exhausts = not account.exhausted and account.used >= budget.limit
    marked = msgspec.structs.replace(
        account, warned=account.warned or warns, exhausted=account.exhausted or exhausts
    )
    return marked, warns, exhausts


def _account_key(user: str | None, project: str | None) -> AccountKey:
    for name, value in (("userId", user), ("projectId", project)):
        if value is not None and (not value.strip() or len(value) > _MAX_ID):
            refuse(f"{name}: must not be empty, and has at most {_MAX_ID} characters")
    if user is None and project is None:
        refuse("userId or projectId must say whose budget is meant")
    return AccountKey.of(user, project)


def _day(text: str, where: str) -> date:
    try:
        return date.fromisoformat(text) if len(text) == 10 else parse_timestamp(text).date()
    except ValueError as error:
        refuse(f"{where}: {shown(text)} is neither a day (2030-01-31) nor a time (RFC 3339): {error}")


def _breakdown(entries: Iterable[SpendEntry], name: Callable[[SpendEntry], str]) -> dict[str, object]:
    found: dict[str, dict[str, float]] = {}
    for entry in entries:
        sums = found.setdefault(name(entry), {"cost": 0.0, "tokens": 0, "requests": 0})
        sums["cost"] += entry.cost
        sums["tokens"] += entry.tokens
        sums["requests"] += entry.requests
    return dict(found)
