"""How much work one may ask for: a bucket for each principal, and none of the others'."""

from __future__ import annotations

import pytest

from circuit_breaker_server.security.work_budgets import Budgets


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_full_budget_is_spent_at_once_and_comes_back_in_time() -> None:
    clock = Clock()
    budgets = Budgets(100, monotonic=clock)
    assert budgets.spend("ada", 300) is None
    assert budgets.spend("ada", 150) == pytest.approx(0.5)
    assert budgets.spend("ben", 400) is None
    clock.now = 0.5
    assert budgets.spend("ada", 150) is None
    assert budgets.spend("ada", 1) == pytest.approx(0.01)


def test_what_costs_more_than_can_be_saved_up_waits_for_all_of_it_and_leaves_a_debt() -> None:
    clock = Clock()
    budgets = Budgets(100, monotonic=clock)
    assert budgets.spend("ada", 1_000) is None
    clock.now = 6.0
    assert budgets.spend("ada", 1) == pytest.approx(0.01)
    clock.now = 9.9
    assert budgets.spend("ada", 1_000) == pytest.approx(0.1)


def test_without_a_limit_anything_goes() -> None:
    budgets = Budgets(None)
    assert budgets.spend("ada", 1e12) is None
    assert budgets.keys == 0


def test_budgets_that_are_full_again_are_forgotten() -> None:
    clock = Clock()
    budgets = Budgets(100, monotonic=clock)
    for n in range(1_000):
        clock.now = n
        assert budgets.spend(f"user-{n}", 100) is None
    assert budgets.keys <= 4
