"""The fake server, against our own client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from circuit_breaker_sdk import AuthenticationFailed, Client, GapError, SubscriptionFailed, UsageError
from circuit_breaker_sdk.subscriptions.subscription import Subscription
from circuit_breaker_sdk.testing import FakeServer
from tests.waiting import until

TICKS = "subscription { tick }"


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
