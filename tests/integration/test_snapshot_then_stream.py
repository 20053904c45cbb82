"""The state that a stream changes, and then the stream: together they are the truth, whenever one joins."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from circuit_breaker_sdk import Client, SyncClient, UsageError
from circuit_breaker_sdk.types import ActivityInput, Resource, StateInput
from circuit_breaker_server import Server, ServerSettings
from tests.integration.strawberry_server import TickEvent, strawberry_server
from tests.waiting import until

STATES = ("a", "b", "c")


async def make_ring(client: Client) -> str:
    """Make a workflow whose resources go round and round."""
    workflow = await client.workflows.create_workflow(
        name="ring",
        initial_state="a",
        states=[StateInput(id=state, name=state) for state in STATES],
        activities=[
            ActivityInput(id=f"from-{before}", from_states=[before], to_state=after)
            for before, after in zip(STATES, (*STATES[1:], STATES[0]), strict=True)
        ],
    )
    return workflow.id


async def join(client: Client, workflow: str) -> dict[str, Resource]:
    """Subscribe, read the state, and keep it by the events, until the subscription ends."""
    updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
    known = {resource.id: resource for resource in await updates.snapshot()}

    def keep(resource: Resource) -> None:
        before = known.get(resource.id)
        if before is None or resource.updated_at >= before.updated_at:
            known[resource.id] = resource

    updates.on_data(keep)
    return known


async def joins(server: Server, *, count: int, seconds: float, per_second: int, seed: int) -> int:
    """Join at random moments while resources change; return how many ended with the truth."""
    chance = random.Random(seed)  # noqa: S311 (moments)
    async with Client(server.url) as client, Client(server.url) as writer:
        workflow = await make_ring(writer)
        resources = [await writer.workflows.create_resource(workflow_id=workflow) for _ in range(20)]
        states = {resource.id: 0 for resource in resources}
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def change() -> None:
            done = 0
            while (now := loop.time() - began) < seconds:
                due = int(now * per_second) - done
                moved = chance.sample(sorted(states), min(due, len(states)))
                await asyncio.gather(
                    *(
                        writer.workflows.execute_activity(
                            resource_id=id_, activity_id=f"from-{STATES[states[id_]]}", data={}
                        )
                        for id_ in moved
                    )
                )
                for id_ in moved:
                    states[id_] = (states[id_] + 1) % len(STATES)
                done += len(moved)
                await asyncio.sleep(0.002)

        async def join_later() -> dict[str, Resource]:
            await asyncio.sleep(chance.uniform(0, seconds * 0.9))
            return await join(client, workflow)

        changing = asyncio.create_task(change())
        known = await asyncio.gather(*(join_later() for _ in range(count)))
        await changing
        truth = {id_: STATES[state] for id_, state in states.items()}

        def is_true(each: dict[str, Resource]) -> bool:
            return {id_: resource.state for id_, resource in each.items()} == truth

        with contextlib.suppress(TimeoutError):
            await until(lambda: all(map(is_true, known)))
        return sum(map(is_true, known))


async def test_state_and_events_are_the_truth_whenever_one_joins(tmp_path: Path) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path, log_level="critical")) as server:
        assert await joins(server, count=40, seconds=1.0, per_second=300, seed=5) == 40


async def test_the_state_is_that_of_the_streams_arguments(tmp_path: Path) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server, Client(server.url) as client:
        one, other = await make_ring(client), await make_ring(client)
        mine = await client.workflows.create_resource(workflow_id=one)
        await client.workflows.create_resource(workflow_id=other)
        async with client.workflows.subscribe_resource_updates(workflow_id=one) as updates:
            assert [resource.id for resource in await updates.snapshot()] == [mine.id]

        def read() -> list[str]:
            with SyncClient(server.url) as blocking:
                updates = blocking.workflows.subscribe_resource_updates(workflow_id=one)
                assert updates.transport == "websocket"
                return [resource.id for resource in updates.snapshot()]

        assert await asyncio.to_thread(read) == [mine.id]


async def test_a_stream_without_a_query_says_so_and_takes_one_of_yours() -> None:
    document = "subscription { ticks(upto: 1000000) { number label } }"
    async with strawberry_server() as url, Client(url) as client:

        async def read() -> dict[str, str]:
            return await client.execute("{ hello }", type=dict[str, str])

        async with client.subscribe(document, type=TickEvent, snapshot=read) as ticks:
            assert await ticks.snapshot() == {"hello": "hello"}
        async with client.subscribe(document, type=TickEvent) as ticks:
            with pytest.raises(UsageError, match="no query"):
                await ticks.snapshot()
