"""The demo's lives: followed by the letter of their workflows, on paper, without a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from circuit_breaker_sdk.cli.demo.scenario import DEPLOYMENT, DOCUMENT_REVIEW, SCENARIOS, Life, Scenario

LIVES = range(30)

# The conditions that the two workflows use, as their authors mean them.
MEANING: dict[str, Callable[[Mapping[str, object]], bool]] = {
    "field_exists:reviewer": lambda data: "reviewer" in data,
    "field_equals:tests_passed=true": lambda data: data.get("tests_passed") is True,
    "field_greater_than:approvals=1": lambda data: data.get("approvals") in (2, 3),
}


def _follow(scenario: Scenario, life: Life) -> list[tuple[str, str, str]]:
    """Walk a life; return (activity, from, to) of each step that the rules allow."""
    activities = {activity.id: activity for activity in scenario.workflow.activities}
    state, data = scenario.workflow.initial_state, dict(life.data)
    walked = []
    for step in life.steps:
        activity = activities[step.activity]
        facts: Mapping[str, object] = {**data, **life.metadata}
        allowed = state in activity.from_states and all(MEANING[c](facts) for c in activity.conditions)
        assert allowed is not step.must_be_refused, (state, step)
        if allowed:
            walked.append((step.activity, state, activity.to_state))
            state, data = activity.to_state, {**data, **step.data}
    return walked


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.workflow.name)
def test_each_step_is_allowed_or_refused_as_it_says(scenario: Scenario) -> None:
    for number in LIVES:
        assert _follow(scenario, scenario.life(number))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.workflow.name)
def test_some_steps_are_refused_by_the_state_and_some_by_a_condition(scenario: Scenario) -> None:
    refused = {s.activity for n in LIVES for s in scenario.life(n).steps if s.must_be_refused}
    conditional = {a.id for a in scenario.workflow.activities if a.conditions}
    assert refused & conditional
    assert scenario is DEPLOYMENT or refused - conditional


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.workflow.name)
def test_the_lives_together_reach_every_state_by_every_activity(scenario: Scenario) -> None:
    walked = [step for n in LIVES for step in _follow(scenario, scenario.life(n))]
    assert {activity for activity, _, _ in walked} == {a.id for a in scenario.workflow.activities}
    assert {to for _, _, to in walked} | {scenario.workflow.initial_state} == {
        s.id for s in scenario.workflow.states
    }
    assert any(before == after for _, before, after in walked), "one that changes no state belongs to it"


def test_a_number_always_leads_the_same_life() -> None:
    for number in LIVES:
        assert DOCUMENT_REVIEW.life(number) == DOCUMENT_REVIEW.life(number)
        assert DEPLOYMENT.life(number) == DEPLOYMENT.life(number)
