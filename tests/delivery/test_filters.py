"""Filters as values, and where each part of one is applied."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_sdk import (
    Client,
    HandlerError,
    Subscription,
    SubscriptionFilter,
    SubscriptionState,
    UsageError,
)
from circuit_breaker_sdk.delivery.filters import conjuncts, split
from circuit_breaker_sdk.types import Resource, WorkflowEvent
from circuit_breaker_server import Server, ServerSettings
from tests.integration.workflows import create_review_workflow
from tests.waiting import until

F = SubscriptionFilter
NOW = datetime(2026, 1, 2, tzinfo=UTC)
ATTRIBUTES = {
    "resourceId": "id",
    "workflowId": "workflow_id",
    "state": "state",
}


def resource(id_: str = "r", workflow_id: str = "w", state: str = "draft") -> Resource:
    return Resource(id=id_, workflow_id=workflow_id, state=state, created_at=NOW, updated_at=NOW)


class Cost(msgspec.Struct, frozen=True):
    user_id: str
    project_id: str


async def until_received(subscription: Subscription[Resource], count: int) -> None:
    await until(lambda: subscription.stats().received == count)


words = st.sampled_from(["a", "b"])
resources = st.builds(resource, words, words, words)
customs: tuple[Callable[[Resource], object], ...] = (
    lambda r: r.id == r.state,
    lambda r: r.workflow_id == "a",
    lambda _: "",
)
leaves: st.SearchStrategy[SubscriptionFilter[Resource]] = st.one_of(
    st.builds(F.ResourceId, words),
    st.builds(F.WorkflowId, words),
    st.builds(F.State, words),
    st.builds(F.Custom, st.sampled_from(customs)),
)
trees: st.SearchStrategy[SubscriptionFilter[Resource]] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
    max_leaves=12,
)


@given(trees, st.sets(st.sampled_from(sorted(ATTRIBUTES))), st.lists(resources, max_size=8))
def test_the_servers_part_and_the_clients_part_select_what_the_whole_filter_selects(
    whole: SubscriptionFilter[Resource], arguments: set[str], events: list[Resource]
) -> None:
    variables, rest = split(whole, arguments)
    assert variables.keys() <= arguments
    served = [e for e in events if all(getattr(e, ATTRIBUTES[k]) == v for k, v in variables.items())]
    assert [e for e in served if all(part(e) for part in rest)] == [e for e in events if whole(e)]


@given(trees, trees, resources)
def test_the_operators_are_those_of_logic(
    a: SubscriptionFilter[Resource], b: SubscriptionFilter[Resource], event: Resource
) -> None:
    assert (a & b)(event) == (a(event) and b(event))
    assert (a | b)(event) == (a(event) or b(event))
    assert (~a)(event) != a(event)
    assert ~~a == a


def test_every_plain_conjunct_of_a_free_argument_is_pushed_and_nothing_else() -> None:
    odd: SubscriptionFilter[object] = F.Custom(lambda _: True)
    whole = F.State("a") & (F.WorkflowId("w") & odd) & ~F.ResourceId("x") & (F.State("b") | F.State("c"))
    variables, rest = split(whole, {"state", "workflowId", "resourceId"})
    assert variables == {"state": "a", "workflowId": "w"}
    assert rest == (odd, ~F.ResourceId("x"), F.State("b") | F.State("c"))
    assert split(whole, ())[1] == conjuncts(whole)


def test_two_values_for_one_argument_go_one_to_each_side() -> None:
    assert split(F.State("a") & F.State("b") & F.State("a"), {"state"}) == ({"state": "a"}, (F.State("b"),))


def test_filters_are_frozen_values() -> None:
    assert F.State("a") & F.UserId("u") == F.State("a") & F.UserId("u")
    assert len({F.State("a"), F.State("a"), F.State("b"), F.ResourceId("a")}) == 3
    with pytest.raises(AttributeError):
        F.State("a").value = "b"  # type: ignore[attr-defined]


def test_each_kind_reads_its_attribute() -> None:
    event = WorkflowEvent(event_type="X", workflow_id="w", timestamp=NOW, resource_id="r")  # type: ignore[arg-type]
    assert F.ResourceId("r")(event)
    assert F.ResourceId("r")(resource())
    assert F.WorkflowId("w")(event)
    assert not F.WorkflowId("v")(event)
    assert F.UserId("u")(Cost("u", "p"))
    assert F.ProjectId("p")(Cost("u", "p"))
    assert not F.ProjectId("u")(Cost("u", "p"))


@dataclasses.dataclass
class Ticket:
    state: str


class Plain:
    @property
    def state(self) -> str:
        return "draft"


@pytest.mark.parametrize("event_type", [Resource, Ticket, Plain, Resource | Ticket])
def test_a_type_with_the_attribute_is_accepted(event_type: object) -> None:
    (F.State("a") | ~F.State("b")).check(event_type)


@pytest.mark.parametrize("event_type", [Cost, dict, dict[str, str], object, Resource | Cost, Resource | None])
def test_a_type_without_the_attribute_is_refused(event_type: object) -> None:
    for whole in (F.State("a"), F.UserId("u") | F.State("a"), ~F.State("a"), F.Custom(bool) & F.State("a")):
        with pytest.raises(UsageError, match="has no attribute"):
            whole.check(event_type)


def test_an_event_without_the_attribute_is_an_error_and_not_a_silent_yes() -> None:
    with pytest.raises(UsageError, match="Cost has no attribute state"):
        (~F.State("a"))(Cost("u", "p"))


def test_what_is_no_plain_function_and_what_is_no_text_is_refused() -> None:
    async def asynchronous(_: object) -> bool:
        return False

    with pytest.raises(UsageError, match="plain function"):
        F.Custom(asynchronous)
    with pytest.raises(UsageError, match="plain function"):
        F.Custom("draft")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="text"):
        F.State(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        F.State("a") & bool  # type: ignore[operator]


async def test_a_builder_sends_what_the_server_can_apply_and_applies_the_rest_from_the_first_event(
    tmp_path: Path,
) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server, Client(server.url) as client:
        workflow = await create_review_workflow(client)
        one = await client.workflows.create_resource(workflow_id=workflow.id)
        two = await client.workflows.create_resource(workflow_id=workflow.id)
        pushed = client.workflows.subscribe_resource_updates().filter(
            F.State("approved") & ~F.ResourceId(one.id)
        )
        # Set after the filter, and otherwise: both must hold, so nothing comes.
        contradicted = (
            client.workflows.subscribe_resource_updates().filter(F.State("approved")).filter_state("review")
        )
        required = client.workflows.subscribe_workflow_events().filter(F.WorkflowId(workflow.id))
        async with pushed as approved, contradicted as nothing, required as events:
            for resource_id in (one.id, two.id):
                for activity in ("submit", "approve"):
                    await client.workflows.execute_activity(resource_id=resource_id, activity_id=activity)
            assert (await anext(approved)).id == two.id
            await anext(events)
            await until_received(nothing, 2)
        assert (approved.stats().received, approved.stats().filtered) == (2, 1)
        assert (nothing.stats().received, nothing.stats().filtered) == (2, 2)
        with pytest.raises(UsageError, match="WorkflowEvent has no attribute state"):
            _ = client.workflows.subscribe_workflow_events().filter(F.State("approved"))


async def test_a_live_subscription_is_filtered_from_the_next_event_on(tmp_path: Path) -> None:
    def broken(_: Resource) -> bool:
        raise ValueError("no")

    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server, Client(server.url) as client:
        workflow = await create_review_workflow(client)
        one = await client.workflows.create_resource(workflow_id=workflow.id)
        async with (
            client.workflows.subscribe_resource_updates() as updates,
            client.workflows.subscribe_resource_updates() as neighbour,
        ):
            await client.workflows.execute_activity(resource_id=one.id, activity_id="submit")
            assert (await anext(neighbour)).state == "review"
            await until_received(updates, 1)
            updates.filter(F.Custom(broken) & ~F.State("draft"))
            for activity in ("reject", "submit"):
                await client.workflows.execute_activity(resource_id=one.id, activity_id=activity)
            assert [(await anext(neighbour)).state for _ in range(2)] == ["draft", "review"]
            assert [(await anext(updates)).state for _ in range(2)] == ["review", "review"]
            # A filter that raises is an error of its subscription only, and the other part still applies.
            assert isinstance(updates.last_error, HandlerError)
            assert "broken" in updates.last_error.handler
            assert updates.state is SubscriptionState.LIVE
            assert (updates.stats().handler_errors, updates.stats().filtered) == (2, 1)
            assert neighbour.last_error is None
            with pytest.raises(UsageError, match="Resource has no attribute user_id"):
                updates.filter(F.UserId("u"))
