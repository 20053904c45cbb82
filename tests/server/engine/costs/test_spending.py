"""What was spent long ago is forgotten: looked for once a day, not with each charge."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from circuit_breaker_server.engine.costs.records import Account, Usage, UsageCharged
from circuit_breaker_server.engine.costs.state import KEPT_SPENDING_DAYS, CostState
from circuit_breaker_server.engine.record_bodies import encode_body
from circuit_breaker_server.log.event_log import Record

FIRST_DAY = date(2030, 1, 1)


def charge(state: CostState, offset: int, day: date) -> None:
    usage = Usage(
        id=str(offset),
        user="u",
        project=None,
        provider="p",
        model="m",
        prompt_tokens=1,
        completion_tokens=1,
        cost=0.1,
    )
    body = UsageCharged(
        key=usage.account,
        at=f"{day}T00:00:00.000Z",
        account=Account(budget=None, window=str(day), used=0.0),
        usage=usage,
        day=day.isoformat(),
    )
    state.apply(Record(offset=offset, subject="cost.u", id="0" * 32, time_ms=0, data=encode_body(body)))


def test_spending_of_too_long_ago_is_forgotten() -> None:
    state = CostState()
    charge(state, 1, FIRST_DAY)
    charge(state, 2, FIRST_DAY + timedelta(days=KEPT_SPENDING_DAYS))
    assert len(state.spending) == 2
    charge(state, 3, FIRST_DAY + timedelta(days=KEPT_SPENDING_DAYS + 1))
    assert [state.spending.get(key).requests for key in state.spending] == [1, 1]  # type: ignore[union-attr]
    assert next(iter(state.spending)).split("\x1f")[2] != FIRST_DAY.isoformat()


def test_the_charges_of_a_day_look_for_old_spending_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    day_of = CostState._day_of

    def counted(state: CostState, key: str) -> str:
        nonlocal looks
        looks += 1
        return day_of(state, key)

    monkeypatch.setattr(CostState, "_day_of", counted)
    state = CostState()
    for offset in range(1, 101):
        charge(state, offset, FIRST_DAY)
    assert looks <= 1
