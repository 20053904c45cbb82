"""Resume at servers with cursors of their own: nothing lost or doubled where they keep their promise."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from circuit_breaker_sdk import (
    Client,
    Continuity,
    Gap,
    GapError,
    ResumeBy,
    SubscriptionFailed,
    UsageError,
)
from circuit_breaker_sdk.streams import ResumeByExtension
from tests.integration.cursor_server import (
    COLUMN,
    EXTENSION,
    FIELD,
    CursorServer,
    EventIdServer,
    ExtensionServer,
)
from tests.integration.cursor_stage import (
    BY_COLUMN,
    BY_FIELD,
    Numbered,
    Order,
    Row,
    forget,
    go_through,
    numbered,
    orders,
    streamed,
    world,
)
from tests.waiting import until


async def test_a_cursor_in_the_events_is_given_back_as_an_argument() -> None:
    async with world() as w:
        subscription = await orders(w)
        seen: list[int] = []
        subscription.on_data(lambda order: seen.append(order.number))
        w.server.publish(10)
        await until(lambda: seen and seen[-1] == w.server.count - 1)
        w.server.doubles = 3
        await go_through(w, seen, events=1000, cuts=20, kills=2)
        assert seen == list(range(seen[0], w.server.count))
        stats = subscription.stats()
        assert stats.filtered >= 2 * 3
        assert stats.gaps == 0
        assert subscription.continuity is Continuity.RESUMED


async def test_a_column_of_the_last_row_is_given_back_as_an_argument() -> None:
    async with world() as w:
        variables = {"cursor": {"initial_value": {"id": -1}}}
        subscription = await w.client.subscribe(COLUMN, variables, type=list[Row], resume=BY_COLUMN)
        seen: list[int] = []
        subscription.on_data(lambda rows: seen.extend(row.id for row in rows))
        w.server.publish(10)
        await until(lambda: len(seen) == 10)
        await go_through(w, seen, events=1000, cuts=20, kills=2)
        assert seen == list(range(w.server.count))
        assert subscription.continuity is Continuity.RESUMED


async def test_a_cursor_that_is_kept_no_more_is_a_gap() -> None:
    async with world() as w:
        subscription = await orders(w)
        w.server.kept_from = 1_000_000
        w.proxy.cut()
        with pytest.raises(GapError, match="cursor"):
            async for _ in subscription:
                pass
        assert subscription.continuity is Continuity.GAP


async def test_a_handler_of_gaps_goes_on_without_the_cursor() -> None:
    async with world() as w:
        told: list[Gap] = []
        builder = w.client.subscribe(FIELD, type=Order, resume=BY_FIELD, on_gap=told.append)
        subscription = await builder.subscribe()
        seen: list[int] = []
        subscription.on_data(lambda order: seen.append(order.number))
        await forget(w, seen, told)
        assert subscription.continuity is Continuity.GAP
        assert subscription.stats().gaps == 1


async def test_the_id_of_a_server_sent_event_is_given_back_as_its_cursor() -> None:
    async with world(EventIdServer, transports=("sse",)) as w:
        seen: list[int] = []
        subscription = await streamed(w, seen)
        await go_through(w, seen, events=1000, cuts=20, kills=2)
        assert seen == list(range(seen[0], w.server.count))
        assert subscription.stats().gaps == 0
        assert subscription.continuity is Continuity.RESUMED


async def test_the_id_of_a_server_sent_event_that_is_kept_no_more_is_a_gap() -> None:
    async with world(EventIdServer, transports=("sse",)) as w:
        seen: list[int] = []
        subscription = await streamed(w, seen)
        w.server.kept_from = 1_000_000
        w.proxy.cut()
        with pytest.raises(GapError, match="cursor"):
            await subscription.wait_closed()


async def test_the_handler_of_gaps_goes_on_without_the_id() -> None:
    async with world(EventIdServer, transports=("sse",)) as w:
        gaps: list[Gap] = []
        seen: list[int] = []
        builder = w.client.subscribe(EXTENSION, type=Numbered).on_gap(gaps.append)
        subscription = await builder.subscribe()
        subscription.on_data(lambda order: seen.append(order.number))
        await forget(w, seen, gaps)
        assert subscription.continuity is Continuity.GAP


async def test_a_cursor_in_the_extensions_is_given_back_there() -> None:
    async with world(ExtensionServer) as w:
        seen: list[int] = []
        subscription = await numbered(w, seen)
        w.server.publish(10)
        await until(lambda: seen[-1] == w.server.count - 1)
        assert subscription.cursor == f"signed-{seen[-1]}"
        w.server.doubles = 3
        await go_through(w, seen, events=1000, cuts=20, kills=2)
        assert seen == list(range(seen[0], w.server.count))
        stats = subscription.stats()
        assert stats.filtered >= 2 * 3
        assert stats.gaps == 0
        assert subscription.continuity is Continuity.RESUMED


async def test_a_cursor_of_the_extensions_outlives_the_program(tmp_path: Path) -> None:
    async with ExtensionServer() as server:

        async def read(count: int) -> list[int]:
            url = f"ws://127.0.0.1:{server.port}/graphql"
            async with Client(url, cursor_store=tmp_path / "cursors.json") as client:
                builder = client.subscribe(EXTENSION, type=Numbered, resume=ResumeByExtension())
                async with builder.cursor_key("orders") as orders:
                    found: list[int] = []
                    while len(found) < count:
                        server.publish(1)
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(0.05):
                                event = await anext(orders.acknowledged())
                                found.append(event.value.number)
                                await event.ack()
                    return found

        first = await read(3)
        second = await read(3)
        assert first + second == list(range(first[0], first[0] + 6))


async def test_a_cursor_of_the_extensions_that_is_kept_no_more_is_a_gap() -> None:
    async with world(ExtensionServer) as w:
        told: list[Gap] = []
        seen: list[int] = []
        builder = w.client.subscribe(EXTENSION, type=Numbered, resume=ResumeByExtension(), on_gap=told.append)
        subscription = await builder.subscribe()
        subscription.on_data(lambda order: seen.append(order.number))
        await forget(w, seen, told)
        assert subscription.continuity is Continuity.GAP


async def test_a_server_without_cursors_refuses_the_subscription_by_name() -> None:
    async with world(ExtensionServer) as w:
        assert isinstance(w.server, ExtensionServer)
        w.server.guarantees = False
        subscription = await w.client.subscribe(EXTENSION, type=Numbered, resume=ResumeByExtension())
        with pytest.raises(SubscriptionFailed, match="DELIVERY_GUARANTEE_UNSUPPORTED"):
            await anext(subscription)


async def test_a_cursor_in_the_extensions_needs_a_websocket() -> None:
    async with CursorServer() as server, Client(server.url, transports=("sse",)) as client:
        with pytest.raises(UsageError, match="over WebSockets only"):
            await client.subscribe(EXTENSION, type=Numbered, resume=ResumeByExtension())


async def later(_order: object) -> object:
    return None


@pytest.mark.parametrize(
    ("resume", "message"),
    [
        ("after", "resume must be of type ResumeBy or ResumeByExtension, not str"),
        (ResumeBy(argument="$after", cursor=str), "no variable \\$\\$after: argument is its name, without"),
        (ResumeBy(argument="aft", cursor=str), "no variable \\$aft"),
        (ResumeBy(argument="after", cursor=later), "cursor is a plain function of an event, not <function"),
        (ResumeBy(argument="after", cursor="id"), "cursor is a plain function of an event, not 'id'"),  # type: ignore[arg-type]  # that is the point
    ],
)
async def test_what_would_fail_at_the_first_lost_connection_is_refused_at_once(
    resume: Any, message: str
) -> None:
    async with Client("ws://127.0.0.1:1/graphql") as client:
        with pytest.raises(UsageError, match=message):
            await client.subscribe(FIELD, resume=resume)
