"""A server that we did not write, Strawberry under uvicorn, streams to our generic ``client.subscribe``."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from circuit_breaker_sdk import Client, SubscriptionFailed
from tests.integration.strawberry_server import TickEvent, strawberry_server


async def test_generic_subscribe_receives_from_strawberry() -> None:
    async with strawberry_server() as url, Client(url) as client:
        subscription = await client.subscribe(
            "subscription($upto: Int!) { ticks(upto: $upto) { number label } }", {"upto": 50}, type=TickEvent
        )
        events = [event async for event in subscription]
    assert events == [TickEvent(number=n, label=f"tick {n}") for n in range(50)]
    assert subscription.continuity == "unknown"


async def test_generic_execute_answers_from_strawberry() -> None:
    class Hello(msgspec.Struct):
        hello: str

    async with strawberry_server() as url, Client(url) as client:
        assert await client.execute("{ hello }", type=Hello) == Hello(hello="hello")


async def test_an_unknown_field_fails_that_subscription_alone() -> None:
    async with strawberry_server() as url, Client(url) as client:
        broken = await client.subscribe("subscription { nothing { number } }", type=TickEvent)
        with pytest.raises(SubscriptionFailed, match="nothing"):
            await anext(aiter(broken))
        fine = await client.subscribe("subscription { ticks(upto: 3) { number label } }", type=TickEvent)
        assert [event.number async for event in fine] == [0, 1, 2]


async def test_a_stream_that_strawberry_breaks_off_ends_with_its_error() -> None:
    async with strawberry_server() as url, Client(url) as client:
        broken = await client.subscribe("subscription { breaking { number label } }", type=TickEvent)
        assert await anext(broken) == TickEvent(number=0, label="the only one")
        with pytest.raises(SubscriptionFailed, match="the source is gone"):
            await anext(broken)


async def test_a_syntax_error_at_which_strawberry_closes_fails_that_subscription_alone() -> None:
    document = "subscription { ticks(upto: 100000) { number label } }"
    async with strawberry_server() as url, Client(url) as client:
        fine = await client.subscribe(document, type=TickEvent)
        assert (await anext(fine)).number == 0
        broken = await client.subscribe("subscription {", type=TickEvent)
        with pytest.raises(SubscriptionFailed, match="Syntax Error") as caught:
            async with asyncio.timeout(20):
                await anext(broken)
        assert caught.value.close_code == 4400
        async with asyncio.timeout(20):
            while (await anext(fine)).number != 0:
                pass  # what came before the close
            assert (await anext(fine)).number == 1, "it began anew, on a connection of its own"
        assert client.state == "connected"
