"""A lost connection, on real sockets: subscriptions come back, and whole where the server resumes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from circuit_breaker_sdk import (
    Client,
    ConnectionFailed,
    Continuity,
    ErrorRecoveryPolicy,
    GapError,
    Heartbeat,
    SubscriptionState,
)
from circuit_breaker_sdk.testing import Direction, FaultProxy
from circuit_breaker_sdk.types import ChatMessageInput
from circuit_breaker_server import Server, ServerSettings
from tests.integration.policies import NEVER_OPEN, SOON
from tests.integration.strawberry_server import TickEvent, strawberry_server
from tests.integration.workflows import create_review_workflow, number_of, numbers
from tests.waiting import until


async def test_a_connection_cut_again_and_again_loses_doubles_and_reorders_nothing(tmp_path: Path) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(f"ws://127.0.0.1:{proxy.port}/graphql", recovery=SOON) as client,
        Client(server.url) as direct,
    ):
        workflow = await create_review_workflow(direct)
        all_seen: list[list[object]] = [[], [], []]
        updates = []
        for seen in all_seen:
            builder = client.workflows.subscribe_resource_updates(workflow_id=workflow.id)
            updates.append((await builder.subscribe()).on_update(numbers(seen)))
        ids = {update.id for update in updates}
        for n in range(400):
            await direct.workflows.create_resource(workflow_id=workflow.id, data={"n": n})
            if n % 40 == 20:
                proxy.cut(after_bytes=n % 300)  # in the middle of a frame
        await until(lambda: all(len(seen) >= 400 for seen in all_seen))
        assert all(seen == list(range(400)) for seen in all_seen)
        assert client.metrics.reconnection_attempts >= 2
        assert not ids & {update.id for update in updates}, "each has a fresh id"
        assert {update.state for update in updates} == {SubscriptionState.LIVE}
        assert {update.continuity for update in updates} == {Continuity.OK}


async def test_what_happens_while_the_client_is_away_is_delivered_when_it_is_back(tmp_path: Path) -> None:
    server = Server(ServerSettings(port=0, data_dir=tmp_path))
    await server.start()
    port = server.port
    async with (
        FaultProxy("127.0.0.1", port) as proxy,
        Client(f"ws://127.0.0.1:{proxy.port}/graphql", recovery=SOON, circuit_breaker=NEVER_OPEN) as client,
    ):
        async with Client(server.url) as direct:
            workflow = (await create_review_workflow(direct)).id
            updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
            await direct.workflows.create_resource(workflow_id=workflow, data={"n": "before"})
            assert number_of(await anext(updates)) == "before"
        told: list[object] = []
        updates.on_error(lambda error: told.append((type(error), updates.state, updates.error)))
        proxy.refuses = True
        await server.aclose()
        await until(lambda: updates.state is SubscriptionState.RECONNECTING)
        async with Server(ServerSettings(port=port, data_dir=tmp_path)) as again:
            async with Client(again.url) as direct:
                for n in range(3):
                    await direct.workflows.create_resource(workflow_id=workflow, data={"n": n})
            proxy.refuses = False
            assert [number_of(await anext(updates)) for _ in range(3)] == [0, 1, 2]
            assert updates.continuity is Continuity.OK
            assert isinstance(updates.last_error, ConnectionFailed)
            assert told == [(ConnectionFailed, SubscriptionState.RECONNECTING, None)]


async def test_a_log_that_is_another_one_is_a_gap_and_never_a_partial_replay(tmp_path: Path) -> None:
    server = Server(ServerSettings(port=0, data_dir=tmp_path / "one"))
    await server.start()
    async with Client(server.url, recovery=SOON, circuit_breaker=NEVER_OPEN) as client:
        updates = await client.subscriptions.resource_updates().subscribe()
        await server.aclose()
        async with Server(ServerSettings(port=server.port, data_dir=tmp_path / "other")):
            with pytest.raises(GapError, match="epoch"):
                await anext(updates)
            assert updates.continuity is Continuity.GAP


async def test_a_completion_that_is_cut_in_the_middle_arrives_whole(tmp_path: Path) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(f"ws://127.0.0.1:{proxy.port}/graphql", recovery=SOON) as client,
        Client(server.url) as direct,
    ):
        text = " ".join(map(str, range(2_000)))
        chunks = await client.llm.subscribe_stream(request_id="r1").subscribe()
        proxy.cut(after_bytes=10_000)
        await direct.llm.chat_completion(
            model="echo", messages=[ChatMessageInput(role="user", content=text)], stream=True, request_id="r1"
        )
        assert "".join([chunk.content async for chunk in chunks]) == text
        assert chunks.state is SubscriptionState.COMPLETED
        assert client.metrics.reconnection_attempts == 1


async def test_it_gives_up_when_the_policy_says_so_with_the_last_error(tmp_path: Path) -> None:
    server = Server(ServerSettings(port=0, data_dir=tmp_path))
    await server.start()
    policy = ErrorRecoveryPolicy(max_retries=2, base_delay=0.01)
    async with Client(server.url, recovery=policy) as client:
        updates = await client.subscriptions.resource_updates().subscribe()
        await server.aclose()
        with pytest.raises(ConnectionFailed, match="refused"):
            await anext(updates)
        assert updates.state is SubscriptionState.FAILED
        assert client.metrics.reconnection_attempts == 2
        assert client.metrics.active_subscriptions == 0


async def test_one_that_is_ended_while_it_reconnects_does_not_come_back(tmp_path: Path) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(f"ws://127.0.0.1:{proxy.port}/graphql", recovery=SOON) as client,
    ):
        gone = await client.subscriptions.resource_updates().subscribe()
        stays = await client.subscriptions.resource_updates().subscribe()
        proxy.refuses = True
        proxy.cut()
        await until(lambda: gone.state is SubscriptionState.RECONNECTING)
        await gone.unsubscribe()
        proxy.refuses = False
        await until(lambda: stays.state is SubscriptionState.LIVE)
        assert gone.state is SubscriptionState.UNSUBSCRIBED
        assert client.metrics.active_subscriptions == 1


async def test_a_server_that_we_did_not_write_is_subscribed_to_again_and_continuity_is_unknown() -> None:
    async with strawberry_server() as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        async with (
            FaultProxy("127.0.0.1", port) as proxy,
            Client(f"ws://127.0.0.1:{proxy.port}/graphql", recovery=SOON) as client,
        ):
            document = "subscription($upto: Int!) { ticks(upto: $upto) { number label } }"
            ticks = await client.subscribe(document, {"upto": 100_000_000}, type=TickEvent)
            for _ in range(3):
                first = ticks.id
                assert (await anext(ticks)).number >= 0
                proxy.cut()
                await until(lambda before=first: ticks.id != before and ticks.state is SubscriptionState.LIVE)  # type: ignore[misc]
                assert ticks.continuity is Continuity.UNKNOWN
            await ticks.unsubscribe()


@pytest.mark.parametrize("dead", [[Direction.TO_SERVER], [Direction.TO_CLIENT], list(Direction)])
async def test_a_half_open_connection_is_noticed_whichever_direction_is_dead(
    tmp_path: Path, dead: list[Direction]
) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(
            f"ws://127.0.0.1:{proxy.port}/graphql",
            recovery=SOON,
            heartbeat=Heartbeat(interval_seconds=0.05, timeout_seconds=0.2),
        ) as client,
        Client(server.url) as direct,
    ):
        workflow = (await create_review_workflow(direct)).id
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
        await until(lambda: client.metrics.round_trip_seconds is not None)
        proxy.stall(*dead)
        await direct.workflows.create_resource(workflow_id=workflow, data={"n": 1})
        await until(lambda: client.metrics.connection_failures == 1)
        assert "ping" in str(updates.last_error)
        proxy.cut()
        proxy.flow()
        assert number_of(await anext(updates)) == 1
        await direct.workflows.create_resource(workflow_id=workflow, data={"n": 2})
        assert number_of(await anext(updates)) == 2
        assert updates.continuity is Continuity.OK


async def test_one_that_is_started_while_the_server_is_away_waits_for_it(tmp_path: Path) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(f"ws://127.0.0.1:{proxy.port}/graphql", recovery=SOON) as client,
        Client(server.url) as direct,
    ):
        first = await client.subscriptions.resource_updates().subscribe()
        proxy.refuses = True
        proxy.cut()
        await until(lambda: first.state is SubscriptionState.RECONNECTING)
        starting = asyncio.create_task(client.subscriptions.resource_updates().subscribe())
        await until(lambda: client.metrics.reconnection_attempts >= 3)
        assert not starting.done()
        proxy.refuses = False
        second = await starting
        workflow = (await create_review_workflow(direct)).id
        made = await direct.workflows.create_resource(workflow_id=workflow)
        assert (await anext(first)).id == (await anext(second)).id == made.id
        assert first.continuity is second.continuity is Continuity.OK
