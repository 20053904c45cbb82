"""Where no WebSocket gets through: event streams or polls, and back; nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from aiohttp import web

from circuit_breaker_sdk import (
    BufferLimits,
    CircuitBreakerPolicy,
    Client,
    ConnectionFailed,
    Continuity,
    ErrorRecoveryPolicy,
    Gap,
    GapError,
    OverflowPolicy,
    SubscriptionFailed,
    SubscriptionState,
    TransportError,
)
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_sdk.types import ChatMessageInput, MCPServerConfigInput, MCPServerType
from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.net import http_server
from circuit_breaker_server.net.websocket_upgrade import Refuse, UpgradeRequest
from tests.integration.strawberry_server import TickEvent, strawberry_server
from tests.integration.workflows import create_review_workflow, number_of
from tests.waiting import until


class World(NamedTuple):
    client: Client
    direct: Client
    proxy: FaultProxy
    workflow: str

    async def publish(self, *numbers: int) -> None:
        for n in numbers:
            await self.direct.workflows.create_resource(workflow_id=self.workflow, data={"n": n})


BOTH = pytest.mark.parametrize("fallback", ["sse", "poll"])


def client_of(port: int, *, critical: bool = False, fallback: str = "poll") -> Client:
    return Client(
        f"ws://127.0.0.1:{port}/graphql",
        recovery=ErrorRecoveryPolicy(base_delay=0.01, max_delay=0.05),
        circuit_breaker=CircuitBreakerPolicy(failure_threshold=2, open_seconds=0.1),
        critical=critical,
        transports=("websocket", fallback),
    )


@asynccontextmanager
async def world(tmp_path: Path, *, critical: bool = False, fallback: str = "poll") -> AsyncIterator[World]:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path, ring_size=4)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        client_of(proxy.port, critical=critical, fallback=fallback) as client,
        Client(server.url) as direct,
    ):
        yield World(client, direct, proxy, (await create_review_workflow(direct)).id)


@BOTH
async def test_it_falls_back_while_upgrades_are_refused_and_returns_by_itself(
    tmp_path: Path, fallback: str
) -> None:
    async with world(tmp_path, fallback=fallback) as w:
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        updates = await builder.critical().subscribe()
        n = 0
        for _ in range(3):
            assert updates.transport == "websocket"
            await w.publish(n, n + 1)
            w.proxy.refuses_upgrades = True
            w.proxy.cut()
            await w.publish(n + 2, n + 3)
            await until(lambda: updates.transport == fallback and updates.state is SubscriptionState.LIVE)
            await w.publish(n + 4, n + 5)
            assert [number_of(await anext(updates)) for _ in range(6)] == list(range(n, n + 6))
            await w.publish(n + 6)
            assert number_of(await anext(updates)) == n + 6
            w.proxy.refuses_upgrades = False
            await until(lambda: updates.transport == "websocket" and updates.state is SubscriptionState.LIVE)
            n += 7
        assert updates.continuity is Continuity.OK
        assert updates.stats().received == 21


@BOTH
async def test_one_that_is_not_critical_ends_where_upgrades_are_refused(
    tmp_path: Path, fallback: str
) -> None:
    async with world(tmp_path, fallback=fallback) as w:
        critical = await w.client.subscriptions.resource_updates().critical().subscribe()
        other = await w.client.subscriptions.resource_updates().subscribe()
        w.proxy.refuses_upgrades = True
        w.proxy.cut()
        with pytest.raises(TransportError):
            await anext(other)
        await until(lambda: critical.transport == fallback)


@BOTH
async def test_a_client_can_begin_with_a_fallback_which_several_share(tmp_path: Path, fallback: str) -> None:
    async with world(tmp_path, critical=True, fallback=fallback) as w:
        w.proxy.refuses_upgrades = True
        first = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        second = await w.client.workflows.subscribe_workflow_events(workflow_id=w.workflow).subscribe()
        assert first.transport == fallback
        assert second.transport == fallback
        await w.publish(1)
        assert number_of(await anext(first)) == 1
        assert (await anext(second)).type == "RESOURCE_CREATED"
        await second.unsubscribe()
        await w.publish(2)
        assert number_of(await anext(first)) == 2
        assert w.client.metrics.active_subscriptions == 1


@BOTH
async def test_a_stream_that_ends_ends_by_a_fallback_too(tmp_path: Path, fallback: str) -> None:
    async with world(tmp_path, critical=True, fallback=fallback) as w:
        w.proxy.refuses_upgrades = True
        text = " ".join(map(str, range(500)))
        chunks = await w.client.llm.subscribe_stream(request_id="r1").subscribe()
        await w.direct.llm.chat_completion(
            model="echo", messages=[ChatMessageInput(role="user", content=text)], stream=True, request_id="r1"
        )
        assert "".join([chunk.content async for chunk in chunks]) == text
        assert chunks.state is SubscriptionState.COMPLETED


@BOTH
async def test_refusals_and_gaps_come_by_a_fallback_too(tmp_path: Path, fallback: str) -> None:
    async with world(tmp_path, critical=True, fallback=fallback) as w:
        w.proxy.refuses_upgrades = True
        with pytest.raises(GapError, match="epoch"):
            await w.client.subscriptions.resource_updates().after("00000000000000ff.7.0.0123abcd").subscribe()
        with pytest.raises(SubscriptionFailed, match="NOT_FOUND"):
            await w.client.workflows.subscribe_workflow_events(workflow_id="nobody").subscribe()


@BOTH
async def test_a_slow_consumer_stops_its_stream_and_loses_nothing(tmp_path: Path, fallback: str) -> None:
    async with world(tmp_path, critical=True, fallback=fallback) as w:
        w.proxy.refuses_upgrades = True
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        slow = await builder.buffer(BufferLimits(max_events=4)).subscribe()
        await w.publish(*range(20))
        await until(lambda: slow.state is SubscriptionState.PAUSED)
        assert [number_of(await anext(slow)) for _ in range(20)] == list(range(20))
        assert slow.continuity is Continuity.OK
        assert slow.stats().received == 20


async def test_for_a_consumer_that_is_slow_nothing_more_is_polled(tmp_path: Path) -> None:
    async with world(tmp_path, critical=True) as w:
        w.proxy.refuses_upgrades = True
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        limits = BufferLimits(max_events=4, overflow=OverflowPolicy.BLOCK)
        slow = await builder.buffer(limits).subscribe()
        await w.publish(*range(20))
        await until(lambda: slow.stats().received >= 4)
        received = slow.stats().received
        fast = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        await w.publish(*range(20, 40))
        assert [number_of(await anext(fast)) for _ in range(20)] == list(range(20, 40))
        assert slow.stats().received == received
        assert [number_of(await anext(slow)) for _ in range(40)] == list(range(40))


@BOTH
async def test_a_fallback_that_is_cut_goes_on_from_the_cursor(tmp_path: Path, fallback: str) -> None:
    async with world(tmp_path, critical=True, fallback=fallback) as w:
        w.proxy.refuses_upgrades = True
        updates = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        for n in range(5):
            w.proxy.cut()
            await w.publish(n)
            assert number_of(await anext(updates)) == n
        assert updates.continuity is Continuity.OK


@asynccontextmanager
async def only_requests(server: Server) -> AsyncIterator[int]:
    """Let nothing through but ``POST /graphql``: no WebSocket, no polls."""

    async def forward(request: web.Request) -> web.Response:
        async with aiohttp.ClientSession() as session:
            headers = {"Content-Type": "application/json"}
            async with session.post(server.url, data=await request.read(), headers=headers) as answer:
                return web.Response(body=await answer.read(), content_type="application/json")

    app = web.Application()
    app.router.add_post("/graphql", forward)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_where_there_are_no_polls_either_resources_are_asked_for_by_their_query(tmp_path: Path) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        only_requests(server) as port,
        client_of(port, critical=True) as client,
        Client(server.url) as direct,
    ):
        workflow = (await create_review_workflow(direct)).id
        old = await direct.workflows.create_resource(workflow_id=workflow, data={"n": 0})
        told: list[Gap] = []
        builder = client.workflows.subscribe_resource_updates(workflow_id=workflow).on_gap(told.append)
        updates = await builder.subscribe()
        await until(lambda: told)  # the present state, with the reason that nobody knows what was before
        assert [resource.id for resource in told[0].snapshot] == [old.id]
        assert (updates.continuity, updates.is_polled) == (Continuity.UNKNOWN, False)
        seen: list[tuple[object, str]] = []
        updates.on_update(lambda resource: seen.append((number_of(resource), resource.state)))
        made = await direct.workflows.create_resource(workflow_id=workflow, data={"n": 1})
        await until(lambda: (1, "draft") in seen)
        await direct.workflows.execute_activity(resource_id=made.id, activity_id="submit", data={})
        await until(lambda: (1, "review") in seen)
        assert (0, "draft") not in seen


async def test_the_status_of_mcp_servers_is_asked_for_by_its_query_too(tmp_path: Path) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        only_requests(server) as port,
        client_of(port, critical=True) as client,
        Client(server.url) as direct,
    ):
        changes = await client.mcp.subscribe_server_status_updates().subscribe()
        seen: list[tuple[str, str]] = []
        changes.on_update(lambda change: seen.append((change.server_id, change.new_status.value)))
        made = await direct.mcp.create_server(
            name="Nowhere",
            type=MCPServerType.LOCAL,
            tenant_id="acme",
            config=MCPServerConfigInput(endpoint="http://127.0.0.1:1/mcp", timeout_seconds=2),
        )
        await until(lambda: (made.id, "ERROR") in seen)
        assert changes.continuity is Continuity.UNKNOWN


async def test_a_stream_that_no_query_can_tell_says_so(tmp_path: Path) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        only_requests(server) as port,
        client_of(port, critical=True) as client,
    ):
        with pytest.raises(TransportError, match="does not answer polls"):
            await client.analytics.subscribe_cost_updates(user_id="ada").subscribe()


async def test_a_server_that_is_not_there_is_an_error_for_critical_ones_too() -> None:
    async with client_of(1, critical=True) as client:
        with pytest.raises(ConnectionFailed, match="refused"):
            await client.subscriptions.resource_updates().subscribe()


async def test_a_server_that_has_no_polling_says_so() -> None:
    async with strawberry_server() as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        async with FaultProxy("127.0.0.1", port) as proxy, client_of(proxy.port, critical=True) as client:
            proxy.refuses_upgrades = True
            document = "subscription { ticks(upto: 3) { number label } }"
            with pytest.raises(TransportError, match="polls"):
                await client.subscribe(document, type=TickEvent)


@asynccontextmanager
async def only_event_streams() -> AsyncIterator[int]:
    """Answer each ``POST /graphql`` with one tick, and cut the first answer; there is nothing else."""
    answered, over = 0, asyncio.Event()

    async def tick(request: web.Request) -> web.StreamResponse:
        nonlocal answered
        answered += 1
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        payload = b'{"data":{"ticks":{"number":%d,"label":"-"}}}' % answered
        await answer.write(b"event: next\ndata: %b\n\n" % payload)
        if answered == 1:
            assert request.transport is not None
            request.transport.abort()
        else:
            await over.wait()
        return answer

    app = web.Application()
    app.router.add_post("/graphql", tick)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        over.set()
        await runner.cleanup()


async def test_an_event_stream_that_is_cut_comes_back_where_there_are_no_polls() -> None:
    async with only_event_streams() as port, Client(f"http://127.0.0.1:{port}/graphql") as client:
        document = "subscription { ticks(upto: 3) { number label } }"
        ticks = await client.subscribe(document, type=TickEvent)
        async with asyncio.timeout(10):
            assert [(await anext(ticks)).number for _ in range(2)] == [1, 2]
        assert ticks.transport == "sse"


async def test_a_poll_under_way_is_finished_while_subscriptions_come_and_go(tmp_path: Path) -> None:
    async with world(tmp_path, critical=True) as w:
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        w.proxy.refuses_upgrades = True
        w.proxy.delay_seconds = 0.05
        first = await builder.subscribe()
        assert first.is_polled
        before, seen = w.proxy.connections_made, []

        async def read() -> None:
            seen.extend([number_of(await anext(first)) for _ in range(10)])

        async def come_and_go() -> None:
            other = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
            await other.unsubscribe()

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            reading = group.create_task(read())
            for number in range(10):
                group.create_task(come_and_go())
                group.create_task(come_and_go())
                await w.publish(number)
            await reading
        assert seen == list(range(10))
        assert w.proxy.connections_made - before <= 4  # one for each request that may be under way


@pytest.mark.parametrize("size", [1, 2])
async def test_a_polled_stream_of_a_slow_consumer_goes_on_as_soon_as_half_its_buffer_is_free(
    tmp_path: Path, size: int
) -> None:
    async with world(tmp_path, critical=True) as w:
        w.proxy.refuses_upgrades = True
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        slow = await builder.buffer(BufferLimits(max_events=size)).subscribe()
        assert slow.is_polled
        await w.publish(*range(40))
        tried = w.proxy.connections_made
        async with asyncio.timeout(20):
            assert [number_of(await anext(slow)) for _ in range(40)] == list(range(40))
        assert slow.stats().pauses > 5
        # Each pause once waited for an attempt to upgrade, 2 s apart.
        assert w.proxy.connections_made - tried < 20


async def test_a_server_that_has_no_websockets_is_found_to_be_one_and_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def has_none(_serving: http_server.Serving, request: UpgradeRequest) -> Refuse:
        asked.append(request.path)
        return Refuse(status=404)

    monkeypatch.setattr(http_server.Serving, "_decide", has_none)
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path, ring_size=4)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(f"http://127.0.0.1:{proxy.port}/graphql") as client,
        Client(server.url) as direct,
    ):
        workflow = (await create_review_workflow(direct)).id
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
        assert updates.transport == "sse"
        assert asked
        asked.clear()
        for n in range(6):
            await direct.workflows.create_resource(workflow_id=workflow, data={"n": n})
            assert number_of(await anext(updates)) == n
            if n % 2:
                proxy.cut()
        other = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
        assert other.transport == "sse"
        assert updates.continuity is Continuity.OK
        assert asked == []


async def test_where_neither_is_there_the_websockets_refusal_is_told(tmp_path: Path) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(f"http://127.0.0.1:{proxy.port}/graphql") as client,
    ):
        proxy.refuses_upgrades = proxy.refuses_event_streams = True
        with pytest.raises(TransportError, match="credentials"):  # 403: as middleboxes answer
            await client.subscriptions.resource_updates().subscribe()
