"""Consumers slower than their streams, on real sockets: each policy keeps what it promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from circuit_breaker_sdk import (
    BufferLimits,
    BufferOverflowError,
    Client,
    Continuity,
    ErrorRecoveryPolicy,
    Heartbeat,
    OverflowPolicy,
    SubscriptionState,
)
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_sdk.types import Resource
from circuit_breaker_server import Server, ServerSettings
from tests.integration.workflows import create_review_workflow, number_of
from tests.waiting import until


class World(NamedTuple):
    client: Client
    direct: Client
    proxy: FaultProxy
    workflow: str

    async def publish(self, *numbers: int, padding: int = 0) -> None:
        text = "x" * padding
        await asyncio.gather(
            *(
                self.direct.workflows.create_resource(workflow_id=self.workflow, data={"n": n, "text": text})
                for n in numbers
            )
        )


@asynccontextmanager
async def world(tmp_path: Path, *, max_buffered_bytes: int = 1 << 26) -> AsyncIterator[World]:
    async with (
        # A ring of 4: what a stopped stream has missed is read from the log.
        Server(ServerSettings(port=0, data_dir=tmp_path, ring_size=4)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(
            f"ws://127.0.0.1:{proxy.port}/graphql",
            recovery=ErrorRecoveryPolicy(base_delay=0.01),
            heartbeat=Heartbeat(interval_seconds=0.05, timeout_seconds=2.0),
            max_buffered_bytes=max_buffered_bytes,
        ) as client,
        Client(server.url) as direct,
    ):
        yield World(client, direct, proxy, (await create_review_workflow(direct)).id)


async def test_a_stream_is_stopped_at_a_full_buffer_and_goes_on_with_nothing_lost(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        slow = await builder.buffer(BufferLimits(max_events=10)).subscribe()
        for start in range(0, 200, 20):
            await w.publish(*range(start, start + 20))
        await until(lambda: slow.state is SubscriptionState.PAUSED)
        assert slow.stats().buffered_events == 10
        seen = {number_of(await anext(slow)) for _ in range(200)}
        assert seen == set(range(200))  # published side by side: in the order of the log
        assert slow.stats().pauses >= 10
        assert slow.stats().received == 200
        assert slow.continuity is Continuity.OK


async def test_a_connection_lost_while_it_is_stopped_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        slow = await builder.buffer(BufferLimits(max_events=4)).subscribe()
        for n in range(10):
            await w.publish(n)
        await until(lambda: slow.state is SubscriptionState.PAUSED)
        w.proxy.cut()
        assert [number_of(await anext(slow)) for _ in range(10)] == list(range(10))
        assert slow.continuity is Continuity.OK


async def test_the_bytes_of_all_buffers_together_are_bounded(tmp_path: Path) -> None:
    async with world(tmp_path, max_buffered_bytes=40_000) as w:
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        several = [await builder.subscribe() for _ in range(4)]
        most = 0
        for n in range(20):
            await w.publish(n, padding=2_000)
            most = max(most, w.client.metrics.buffered_bytes)
        await until(lambda: all(s.state is SubscriptionState.PAUSED for s in several))
        assert most <= 40_000

        async def read(subscription: AsyncIterator[Resource]) -> list[object]:
            return [number_of(await anext(subscription)) for _ in range(20)]

        assert await asyncio.gather(*map(read, several)) == [list(range(20))] * 4
        assert w.client.metrics.buffered_bytes == 0


async def test_an_event_that_no_buffer_could_hold_ends_the_subscription(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        small = await builder.buffer(BufferLimits(max_bytes=1_000)).subscribe()
        await w.publish(1, padding=5_000)
        with pytest.raises(BufferOverflowError):
            await anext(small)


async def test_under_block_the_whole_connection_waits_and_is_not_taken_for_dead(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        block = BufferLimits(max_events=4, overflow=OverflowPolicy.BLOCK)
        slow = await builder.buffer(block).subscribe()
        other: list[object] = []
        neighbour = (await builder.subscribe()).on_update(lambda r: other.append(number_of(r)))
        for n in range(100):
            await w.publish(n, padding=1_000)
        assert slow.stats().buffered_events >= 4
        assert len(other) < 100
        assert [number_of(await anext(slow)) for _ in range(100)] == list(range(100))
        await until(lambda: len(other) == 100)
        assert other == list(range(100))
        assert w.client.metrics.connection_failures == 0
        assert neighbour.stats().pauses == slow.stats().pauses == 0


async def test_a_client_can_be_closed_while_it_is_blocked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        slow = await builder.buffer(BufferLimits(max_events=1, overflow=OverflowPolicy.BLOCK)).subscribe()
        await w.publish(*range(10))
        await until(lambda: slow.stats().buffered_events)
        await w.client.aclose()
        assert slow.state is SubscriptionState.UNSUBSCRIBED


async def test_a_subscription_that_is_read_is_not_starved_by_others_that_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path, max_buffered_bytes=64 * 1024) as w:
        idle = [
            await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
            for _ in range(6)
        ]
        await w.publish(*range(100), padding=1_000)
        await until(lambda: all(each.state is SubscriptionState.PAUSED for each in idle))
        read = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        for number in range(100, 150):
            await w.publish(number, padding=300)
            async with asyncio.timeout(10):
                assert number_of(await anext(read)) == number
        assert read.state is SubscriptionState.LIVE
        assert all(each.stats().paused_seconds > 0 for each in idle)
        assert read.stats().paused_seconds == 0
    (warning,) = (each for each in caplog.records if "buffers are full" in each.message)
    assert "resourceUpdates" in warning.getMessage()


@pytest.mark.parametrize("how", ["overflow", "unsubscribe", "drop oldest"])
async def test_what_was_received_is_the_sum_of_what_became_of_it(tmp_path: Path, how: str) -> None:
    policy = {"overflow": OverflowPolicy.FAIL, "drop oldest": OverflowPolicy.DROP_OLDEST}.get(how)
    limits = BufferLimits(max_events=10, overflow=policy or OverflowPolicy.RESUME)
    async with world(tmp_path) as w:
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        slow = await builder.buffer(limits).subscribe()
        await w.publish(*range(8))
        await until(lambda: slow.stats().received == 8)
        for _ in range(3):
            await anext(slow)
        if how != "unsubscribe":
            await w.publish(*range(20))
            await until(lambda: slow.stats().dropped)
        await slow.unsubscribe()
        stats = slow.stats()
    assert stats.received == stats.handled + stats.filtered + stats.dropped + stats.buffered_events
    assert stats.dropped > 0
