"""The workflow that the integration tests run, and resources told apart by a number in their data."""

from __future__ import annotations

from collections.abc import Callable

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.events import ActivityInput, StateInput, StateType, Workflow
from circuit_breaker_sdk.types import Resource

__all__ = ["create_review_workflow", "number_of", "numbers"]


async def create_review_workflow(client: Client) -> Workflow:
    """Create draft → review → approved, with a way back from review to draft."""
    return await client.workflows.create_workflow(
        name="Document review",
        initial_state="draft",
        states=[
            StateInput(id="draft", name="Draft", state_type=StateType.INITIAL, is_initial=True),
            StateInput(id="review", name="In review", state_type=StateType.REVIEW),
            StateInput(id="approved", name="Approved", state_type=StateType.TERMINAL, is_terminal=True),
        ],
        activities=[
            ActivityInput(id="submit", from_states=["draft"], to_state="review"),
            ActivityInput(id="reject", from_states=["review"], to_state="draft"),
            ActivityInput(id="approve", from_states=["review"], to_state="approved"),
        ],
    )


def number_of(resource: Resource) -> object:
    """Return the number that a test gave a resource in its data."""
    assert isinstance(resource.data, dict)
    return resource.data["n"]


def numbers(seen: list[object]) -> Callable[[Resource], None]:
    """Return a callback that notes the number of each resource."""
    return lambda resource: seen.append(number_of(resource))
