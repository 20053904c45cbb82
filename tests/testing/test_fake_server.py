"""The fake server, against our own client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec
import pytest

from circuit_breaker_sdk import (
    AuthenticationFailed,
    Client,
    GapError,
    OperationError,
    SubscriptionFailed,
    SubscriptionState,
    UsageError,
)
from circuit_breaker_sdk.cli.streams import choose
from circuit_breaker_sdk.cli.watch import watch
from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.subscriptions.subscription import Subscription
from circuit_breaker_sdk.testing import FakeServer
from circuit_breaker_sdk.types import MCPServerStatus, MCPServerStatusUpdate
from tests.waiting import until

TICKS = "subscription { tick }"
STATUS = MCPServerStatusUpdate(
    server_id="m1",
    old_status=MCPServerStatus("ONLINE"),
    new_status=MCPServerStatus("ERROR"),
    timestamp=datetime(2030, 1, 1, tzinfo=UTC),
)


@contextlib.asynccontextmanager
async def following(*, resume: bool = True) -> AsyncIterator[tuple[FakeServer, Subscription[int]]]:
    async with FakeServer(resume=resume) as server, Client(server.url) as client:
        ticks = await client.subscribe(TICKS, type=int)
        await until(lambda: server.subscriptions)  # without resume it is live once it is written
        yield server, ticks


@pytest.mark.parametrize("resume", [True, False])
async def test_an_event_goes_to_who_asked_for_its_field(resume: bool) -> None:
    async with following(resume=resume) as (server, ticks):
        server.publish({"tock": 1})
        server.publish({"tick": 2})
        assert await anext(ticks) == 2
        (asked,) = server.subscriptions
        assert asked.query == TICKS
        server.complete()
        assert [tick async for tick in ticks] == []


@pytest.mark.parametrize("way", ["close", "drop"])
async def test_a_client_that_comes_again_misses_nothing(way: str) -> None:
    async with following() as (server, ticks):
        server.publish({"tick": 1})
        assert await anext(ticks) == 1
        if way == "close":
            server.close(1012)
        else:
            server.drop()
        server.publish({"tick": 2})
        assert await anext(ticks) == 2
        assert server.subscriptions[1].extensions == {"resume": {"after": "fake.1"}}


async def test_what_it_has_forgotten_is_a_gap() -> None:
    async with following() as (server, ticks):
        server.drop()
        server.publish({"tick": 1})
        server.forget()
        with pytest.raises(GapError, match="trimmed"):
            await anext(ticks)


async def test_it_ends_operations_with_errors() -> None:
    async with following() as (server, ticks):
        server.fail("no more", code="NOT_FOUND")
        with pytest.raises(SubscriptionFailed, match="no more"):
            await anext(ticks)


async def test_it_refuses_and_it_stays_silent() -> None:
    async with FakeServer() as server:
        server.refuses = True
        async with Client(server.url) as client:
            with pytest.raises(AuthenticationFailed):
                await client.subscribe(TICKS, type=int)
        await until(lambda: not server.connections)
    with pytest.raises(UsageError, match="not listening"):
        _ = server.url


async def test_it_answers_a_query_with_what_its_field_was_given() -> None:
    budget = {
        "budgetId": "user:ada",
        "limit": 5.0,
        "used": 1.0,
        "percentageUsed": 20.0,
        "isExhausted": False,
        "isWarning": False,
        "remaining": 4.0,
        "message": "",
    }
    async with FakeServer() as server, Client(server.url) as client:
        server.answer({"budgetStatus": budget})
        given = await client.analytics.budget_status(user_id="ada")
        server.answer({"budgetStatus": given})  # a value of the SDK's own type is as good
        assert msgspec.structs.asdict(await client.analytics.budget_status(user_id="ada")) == (
            msgspec.structs.asdict(given)
        )
        assert given.remaining == 4.0
        assert server.requests[0].variables == {"userId": "ada"}
        server.answer({"budgetStatus": GraphQLError(message="not today")})
        with pytest.raises(OperationError, match="not today"):
            await client.analytics.budget_status(user_id="ada")


async def test_a_query_without_an_answer_says_how_to_give_one() -> None:
    async with FakeServer() as server, Client(server.url) as client:
        with pytest.raises(OperationError, match=r"no answer for BudgetStatus: server\.answer"):
            await client.analytics.budget_status(user_id="ada")


async def test_an_event_may_be_published_as_the_sdks_own_type() -> None:
    async with FakeServer() as server, Client(server.url) as client:
        updates = await client.subscriptions.mcp_server_status_updates().subscribe()
        server.publish({"mcpServerStatusUpdates": STATUS})
        update = await anext(updates)
        assert (update.old_status, update.new_status) == ("ONLINE", "ERROR")


async def test_each_change_of_the_state_is_told_once() -> None:
    async with following() as (server, ticks):
        states: list[SubscriptionState] = []
        ticks.on_state(states.append)
        for _ in range(2):
            server.close(1012)
            await until(lambda: states[-1:] == ["reconnecting"])
            await until(lambda: states[-1:] == ["live"])
        server.complete()
        assert [tick async for tick in ticks] == []
        assert states == ["reconnecting", "live", "reconnecting", "live", "completed"]


async def test_watch_says_that_it_is_live_again(capfd: pytest.CaptureFixture[str]) -> None:
    async with FakeServer() as server:
        watching = asyncio.create_task(
            watch(
                asyncio.Event(),
                choose("mcp-server-status", {}),
                url=server.url,
                token=None,
                count=1,
                wait_seconds=None,
            )
        )
        await until(lambda: server.subscriptions)
        server.close(1012)
        await until(lambda: len(server.subscriptions) == 2)
        server.publish({"mcpServerStatusUpdates": STATUS})
        assert await watching == 0
    said = [line.partition(":")[0] for line in capfd.readouterr().err.splitlines()]
    assert said == ["connected", "live", "reconnecting", "live", "ended"]
