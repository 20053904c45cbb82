"""Subscriptions that begin in the past, over every transport, on a real server and a log on the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from circuit_breaker_sdk import Client, Continuity, GapError, SubscriptionFailed, SyncClient, UsageError
from circuit_breaker_sdk.streams import ResourceUpdateSubscriptionBuilder
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_server import Server, ServerSettings
from tests.integration.strawberry_server import TickEvent, strawberry_server
from tests.integration.workflows import create_review_workflow, number_of

TRANSPORTS = pytest.mark.parametrize("transport", ["websocket", "sse", "poll"])


async def publish(client: Client, workflow: str, *numbers: int) -> None:
    for n in numbers:
        await client.workflows.create_resource(workflow_id=workflow, data={"n": n})


Begin = Callable[[ResourceUpdateSubscriptionBuilder, datetime], ResourceUpdateSubscriptionBuilder]
BEGINNINGS: dict[str, tuple[Begin, int]] = {
    "the beginning": (lambda builder, _: builder.from_beginning(), 0),
    "the last seven": (lambda builder, _: builder.last(7), 13),
    "a moment": (lambda builder, moment: builder.since(moment), 10),
}


@TRANSPORTS
@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_the_past_comes_first_then_what_happens(tmp_path: Path, transport: str, beginning: str) -> None:
    begin, first = BEGINNINGS[beginning]
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path, ring_size=4)) as server,
        Client(server.url, transports=(transport,)) as client,
    ):
        workflow = (await create_review_workflow(client)).id
        await publish(client, workflow, *range(10))
        await asyncio.sleep(0.01)
        moment = datetime.now(UTC)
        await publish(client, workflow, *range(10, 20))
        builder = client.workflows.subscribe_resource_updates(workflow_id=workflow)
        updates = await begin(builder, moment).subscribe()
        assert updates.transport == transport
        wanted = list(range(first, 20))
        assert [number_of(await anext(updates)) for _ in wanted] == wanted
        await publish(client, workflow, 20)
        assert number_of(await anext(updates)) == 20
        assert updates.continuity is Continuity.OK


@TRANSPORTS
async def test_a_cut_in_the_past_goes_on_from_the_cursor(tmp_path: Path, transport: str) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path, ring_size=4)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(f"http://127.0.0.1:{proxy.port}/graphql", transports=(transport,)) as client,
        Client(server.url) as direct,
    ):
        workflow = (await create_review_workflow(direct)).id
        await publish(direct, workflow, *range(100))
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).last(90).subscribe()
        seen = []
        for n in range(90):
            seen.append(number_of(await anext(updates)))
            if n % 30 == 15:
                proxy.cut()
        assert seen == list(range(10, 100))
        assert updates.continuity is Continuity.OK


async def test_what_was_trimmed_is_a_gap(tmp_path: Path) -> None:
    settings = ServerSettings(
        port=0, data_dir=tmp_path, keep_records=5, trim_every_seconds=0.05, snapshot_every=1
    )
    async with Server(settings) as server, Client(server.url) as client:
        workflow = (await create_review_workflow(client)).id
        await publish(client, workflow, *range(20))

        async def until_it_is_trimmed() -> None:
            while True:
                async with client.subscriptions.resource_updates().from_beginning():
                    await asyncio.sleep(0.05)

        with pytest.raises(GapError, match="trimmed"):
            await asyncio.wait_for(until_it_is_trimmed(), 20)


async def test_a_server_without_the_resume_protocol_is_told_apart() -> None:
    document = "subscription { ticks(upto: 3) { number label } }"
    async with strawberry_server() as url, Client(url) as client:
        with pytest.raises((UsageError, SubscriptionFailed), match="resume protocol"):
            await client.subscribe(document, type=TickEvent).last(3).subscribe()


async def test_arguments_that_are_none_are_refused_at_once() -> None:
    async with Client("ws://127.0.0.1:1/graphql") as client:
        builder = client.subscriptions.resource_updates()
        for count in (0, -1, 1001, True, "5"):
            with pytest.raises(UsageError, match="1 to 1000"):
                _ = builder.last(count)  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(UsageError, match="zone"):
            _ = builder.since(datetime(2026, 1, 31))  # noqa: DTZ001 (wrong on purpose)
        with pytest.raises(UsageError, match="zone"):
            _ = builder.since("yesterday")  # type: ignore[arg-type]  # wrong on purpose


async def test_the_blocking_client_takes_them_by_keyword(tmp_path: Path) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server, Client(server.url) as client:
        workflow = (await create_review_workflow(client)).id
        await publish(client, workflow, *range(5))

        def read() -> list[object]:
            with SyncClient(server.url) as blocking:
                updates = blocking.workflows.subscribe_resource_updates(workflow_id=workflow, last=2)
                return [number_of(updates.next(timeout=10)) for _ in range(2)]

        assert await asyncio.to_thread(read) == [3, 4]
