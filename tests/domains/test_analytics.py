"""``client.analytics``: budgets and what is charged to them, from the real server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from circuit_breaker_sdk import Client, OperationError, SubscriptionFilter
from circuit_breaker_sdk.types import ChatMessageInput, CostEventType, CostUpdate
from tests.domains.worlds import served


async def spend(client: Client, words: int, *, user: str, project: str | None = None) -> None:
    messages = [ChatMessageInput(role="user", content=" ".join(["w"] * words))]
    await client.llm.chat_completion(model="echo", messages=messages, user=user, project_id=project)


async def test_a_budget_warns_and_is_exhausted_under_fifty_completions_at_once(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        updates = await client.analytics.subscribe_cost_updates(user_id="ada").subscribe()
        status = await client.analytics.set_budget(
            user_id="ada", limit=0.000_090, period="monthly", warning_threshold=0.5
        )
        assert (status.budget_id, status.used, status.is_warning) == ("user:ada", 0.0, False)
        await asyncio.gather(*(spend(client, 1, user="ada") for _ in range(50)))
        events = [await anext(updates) for _ in range(53)]
        kinds = [event.type for event in events]
        assert {kind: kinds.count(kind) for kind in set(kinds)} == {
            CostEventType.BUDGET_RESET: 1,
            CostEventType.COST_INCURRED: 50,
            CostEventType.BUDGET_WARNING: 1,
            CostEventType.BUDGET_EXHAUSTED: 1,
        }
        assert events[1].service == "echo/echo"
        assert events[1].amount == pytest.approx(0.000_003)
        after = await client.analytics.budget_status(user_id="ada")
        assert (after.is_exhausted, after.percentage_used) == (True, 100.0)
        credited = await client.analytics.apply_credit(user_id="ada", amount=0.000_1)
        assert credited.used == pytest.approx(0.000_05)
        assert (await anext(updates)).amount == pytest.approx(-0.000_1)
        await updates.unsubscribe()


async def test_updates_are_of_a_user_a_project_or_all_and_filters_go_to_the_server(tmp_path: Path) -> None:
    seen: dict[str, list[CostUpdate]] = {"all": [], "ada": [], "p": [], "both": [], "here": []}
    async with served(tmp_path) as client:
        streams = client.subscriptions
        (await streams.cost_updates().subscribe()).on_update(seen["all"].append)
        (await streams.cost_updates(user_id="ada").subscribe()).on_update(seen["ada"].append)
        (await streams.cost_updates(project_id="p").subscribe()).on_cost_update(seen["p"].append)
        both = SubscriptionFilter.UserId("ada") & SubscriptionFilter.ProjectId("p")
        (await streams.cost_updates().filter(both).subscribe()).on_update(seen["both"].append)
        here = await streams.cost_updates().subscribe()
        here.filter_by_user("ada").filter_by_project("p").on_update(seen["here"].append)
        last = await streams.cost_updates(user_id="last").subscribe()
        await spend(client, 1, user="ada")
        await spend(client, 1, user="ada", project="p")
        await spend(client, 1, user="bob", project="p")
        await spend(client, 1, user="last")
        await anext(last)
        await last.unsubscribe()
    assert {name: len(events) for name, events in seen.items()} == {
        "all": 4,
        "ada": 2,
        "p": 2,
        "both": 1,
        "here": 1,
    }


async def test_analytics_answer_typed_and_a_bad_input_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        await spend(client, 3, user="ada")
        today = datetime.now(UTC).date().isoformat()
        spent = await client.analytics.cost_analytics(start_date=today, end_date=today)
        assert spent.total_tokens == 6
        assert spent.provider_breakdown == {"echo": {"cost": 9e-06, "tokens": 6, "requests": 1}}
        with pytest.raises(OperationError, match="period: 'hourly' is none of"):
            await client.analytics.set_budget(user_id="a", limit=1.0, period="hourly", warning_threshold=0.5)
        with pytest.raises(OperationError, match="userId or projectId"):
            await client.analytics.budget_status()


async def test_a_budget_that_is_not_set_has_no_limit_in_an_answer_and_in_an_event(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        updates = await client.analytics.subscribe_cost_updates(user_id="ada").subscribe()
        await spend(client, 1, user="ada")
        event = await anext(updates)
        await updates.unsubscribe()
        answer = await client.analytics.budget_status(user_id="ada")
    assert event.budget is not None
    for status in (answer, event.budget):
        assert (status.limit, status.remaining) == (None, None)
        assert "no limit" in status.message
