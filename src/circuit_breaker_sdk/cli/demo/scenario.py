"""The demo's workflows, and the lives their resources lead.

A life is a list of steps; some steps break a rule on purpose and must be refused. Nothing is random: the
n-th life of a workflow is always the same, so that two runs of the demo can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import final

from circuit_breaker_sdk.events import ActivityInput, JSONInput, StateInput, StateType, WorkflowInput

__all__ = ["DEPLOYMENT", "DOCUMENT_REVIEW", "SCENARIOS", "Life", "Scenario", "Step"]


@final
@dataclass(frozen=True, slots=True)
class Step:
    """One activity, and whether the workflow's rules must refuse it."""

    activity: str
    data: Mapping[str, JSONInput] = field(default_factory=dict)
    must_be_refused: bool = False


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One resource from its creation to its end."""

    data: Mapping[str, JSONInput]
    metadata: Mapping[str, JSONInput]
    steps: tuple[Step, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A workflow, and the lives of its resources by number."""

    workflow: WorkflowInput
    life: Callable[[int], Life]


_AUTHORS = ("Ada", "Grace", "Barbara", "Frances", "Radia")
_TITLES = ("Incident report", "Release notes", "Privacy policy", "Onboarding guide", "Quarterly plan")
_SERVICES = ("billing", "search", "checkout", "inventory", "notifications")


def _review_life(number: int) -> Life:
    author = _AUTHORS[number % len(_AUTHORS)]
    reviewer = _AUTHORS[(number + 2) % len(_AUTHORS)]
    assign = Step("assign_reviewer", {"reviewer": reviewer})
    steps: tuple[Step, ...]
    match number % 3:
        case 0:
            steps = (
                Step("submit"),
                assign,
                Step("approve", {"verdict": "looks good"}),
                Step("publish", {"url": f"/documents/{number}"}),
            )
        case 1:
            steps = (
                Step("submit"),
                Step("approve", must_be_refused=True),  # nobody has been asked to review yet
                assign,
                Step("request_changes", {"comment": "the second section needs numbers"}),
                Step("publish", must_be_refused=True),  # not approved
                Step("resubmit", {"revision": 2}),
                Step("approve", {"verdict": "much better"}),
                Step("publish", {"url": f"/documents/{number}"}),
            )
        case _:
            steps = (
                Step("publish", must_be_refused=True),  # still a draft
                Step("submit"),
                assign,
                Step("reject", {"reason": "superseded"}),
                Step("resubmit", must_be_refused=True),  # rejected for good
            )
    return Life(
        data={"title": f"{_TITLES[number % len(_TITLES)]} {number + 1}", "revision": 1},
        metadata={"author": author, "team": "documentation"},
        steps=steps,
    )


def _deployment_life(number: int) -> Life:
    build = Step("build", {"artifact": f"image-{number + 1}", "build_seconds": 41 + number % 17})
    passing = Step("test", {"tests_passed": True, "tests": 1_284})
    steps: tuple[Step, ...]
    match number % 3:
        case 0:
            steps = (
                build,
                passing,
                Step("deploy_to_staging"),
                Step("promote", must_be_refused=True),  # two approvals are needed
                Step("sign_off", {"approvals": 2}),
                Step("promote", {"traffic_percent": 100}),
            )
        case 1:
            steps = (
                build,
                Step("test", {"tests_passed": False, "tests": 1_284, "failures": 3}),
                Step("deploy_to_staging", must_be_refused=True),  # the tests failed
                Step("abandon", {"reason": "3 tests failed"}),
            )
        case _:
            steps = (
                build,
                Step("deploy_to_staging", must_be_refused=True),  # not tested
                passing,
                Step("deploy_to_staging"),
                Step("sign_off", {"approvals": 3}),
                Step("promote", {"traffic_percent": 10}),
                Step("roll_back", {"reason": "error rate above 1 %"}),
            )
    return Life(
        data={"version": f"2.{number // 10}.{number % 10}"},
        metadata={"service": _SERVICES[number % len(_SERVICES)], "environment": "production"},
        steps=steps,
    )


DOCUMENT_REVIEW = Scenario(
    workflow=WorkflowInput(
        name="Document review",
        initial_state="draft",
        states=[
            StateInput(id="draft", name="Draft", state_type=StateType.INITIAL, is_initial=True),
            StateInput(id="in_review", name="In review", state_type=StateType.REVIEW),
            StateInput(id="changes_requested", name="Changes requested", state_type=StateType.WAITING),
            StateInput(id="approved", name="Approved"),
            StateInput(id="published", name="Published", state_type=StateType.TERMINAL, is_terminal=True),
            StateInput(id="rejected", name="Rejected", state_type=StateType.TERMINAL, is_terminal=True),
        ],
        activities=[
            ActivityInput(id="submit", from_states=["draft"], to_state="in_review"),
            ActivityInput(id="assign_reviewer", from_states=["in_review"], to_state="in_review"),
            ActivityInput(id="request_changes", from_states=["in_review"], to_state="changes_requested"),
            ActivityInput(id="resubmit", from_states=["changes_requested"], to_state="in_review"),
            ActivityInput(
                id="approve",
                from_states=["in_review"],
                to_state="approved",
                conditions=["field_exists:reviewer"],
            ),
            ActivityInput(id="reject", from_states=["in_review"], to_state="rejected"),
            ActivityInput(id="publish", from_states=["approved"], to_state="published"),
        ],
    ),
    life=_review_life,
)

DEPLOYMENT = Scenario(
    workflow=WorkflowInput(
        name="Software deployment",
        initial_state="queued",
        states=[
            StateInput(id="queued", name="Queued", state_type=StateType.INITIAL, is_initial=True),
            StateInput(id="built", name="Built"),
            StateInput(id="tested", name="Tested"),
            StateInput(id="staging", name="On staging", state_type=StateType.REVIEW),
            StateInput(id="production", name="In production"),
            StateInput(id="rolled_back", name="Rolled back", state_type=StateType.TERMINAL, is_terminal=True),
            StateInput(id="failed", name="Failed", state_type=StateType.ERROR, is_terminal=True),
        ],
        activities=[
            ActivityInput(id="build", from_states=["queued"], to_state="built"),
            ActivityInput(id="test", from_states=["built"], to_state="tested"),
            ActivityInput(
                id="deploy_to_staging",
                from_states=["tested"],
                to_state="staging",
                conditions=["field_equals:tests_passed=true"],
            ),
            ActivityInput(id="sign_off", from_states=["staging"], to_state="staging"),
            ActivityInput(
                id="promote",
                from_states=["staging"],
                to_state="production",
                conditions=["field_greater_than:approvals=1"],
            ),
            ActivityInput(id="roll_back", from_states=["production"], to_state="rolled_back"),
            ActivityInput(id="abandon", from_states=["built", "tested"], to_state="failed"),
        ],
    ),
    life=_deployment_life,
)

SCENARIOS = (DOCUMENT_REVIEW, DEPLOYMENT)
