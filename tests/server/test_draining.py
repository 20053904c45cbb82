"""A server that drains: not ready first, nothing new, connections closed one by one, nothing lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from circuit_breaker_sdk import Client, SubscriptionState
from circuit_breaker_server import Server, ServerSettings
from tests.integration.policies import NEVER_OPEN, SOON
from tests.integration.workflows import create_review_workflow, numbers
from tests.server.operations import CREATE_WORKFLOW, UPDATES, WORKFLOW
from tests.server.site import Site, site
from tests.server.stage import Client as Socket
from tests.transports.peers import raw_client
from tests.waiting import until

QUERY = {"query": "{ health }"}
EVENTS = {"Accept": "text/event-stream"}


async def test_subscribers_of_a_drained_server_come_back_to_the_next_one_and_lose_nothing(
    tmp_path: Path,
) -> None:
    first = Server(ServerSettings(port=0, data_dir=tmp_path, log_level="critical"))
    await first.start()
    port = first.port
    async with (
        Client(first.url, recovery=SOON, circuit_breaker=NEVER_OPEN) as by_socket,
        Client(first.url, recovery=SOON, circuit_breaker=NEVER_OPEN, transports=("sse",)) as by_stream,
        Client(first.url, recovery=SOON, circuit_breaker=NEVER_OPEN, transports=("poll",)) as by_poll,
    ):
        async with Client(first.url) as direct:
            workflow = (await create_review_workflow(direct)).id
            updates, all_seen = [], list[list[object]]()
            for client in (by_socket, by_stream, by_poll):
                all_seen.append([])
                builder = client.workflows.subscribe_resource_updates(workflow_id=workflow)
                updates.append((await builder.subscribe()).on_update(numbers(all_seen[-1])))
            await until(lambda: all(each.state is SubscriptionState.LIVE for each in updates))
            for n in range(50):
                await direct.workflows.create_resource(workflow_id=workflow, data={"n": n})
        await first.drain()
        async with Server(ServerSettings(port=port, data_dir=tmp_path, log_level="critical")) as second:
            async with Client(second.url) as direct:
                for n in range(50, 100):
                    await direct.workflows.create_resource(workflow_id=workflow, data={"n": n})
            await until(lambda: all(len(seen) >= 100 for seen in all_seen))
    assert all_seen == [list(range(100))] * 3


async def opened(port: int, count: int) -> Sequence[Socket]:
    sockets = [Socket(await raw_client(port)) for _ in range(count)]
    for socket in sockets:
        assert "101" in await socket.peer.read_head()
        await socket.init()
    return sockets


async def test_many_connections_are_closed_in_no_more_than_the_time(tmp_path: Path) -> None:
    closed: dict[int, float] = {}
    async with site(tmp_path) as running:
        sockets = await opened(running.server.port, 150)

        async def watch(number: int, socket: Socket) -> None:
            assert await socket.close_code() == 1012
            closed[number] = time.monotonic()
            await socket.leave()

        watching = [asyncio.create_task(watch(*each)) for each in enumerate(sockets)]
        began = time.monotonic()
        await running.server.drain(2.0)
        await asyncio.gather(*watching)
    assert max(closed.values()) - min(closed.values()) > 0.5
    assert max(closed.values()) - began < 10
    assert list(closed) != sorted(closed), "the clients come back in no order"


async def test_few_connections_do_not_take_all_of_the_time(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        sockets = await opened(running.server.port, 3)
        began = time.monotonic()
        watching = [asyncio.create_task(socket.close_code()) for socket in sockets]
        async with asyncio.timeout(30):
            closing = asyncio.create_task(running.server.drain(600))
            assert await asyncio.gather(*watching) == [1012] * 3
            for socket in sockets:
                await socket.leave()
            await closing
        assert time.monotonic() - began < 10


async def test_a_server_that_was_told_to_stop_at_once_while_it_drains_does(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        sockets = await opened(running.server.port, 30)
        draining = asyncio.create_task(running.server.drain())
        assert await is_ready(running) == (503, ["the server is draining"])
        draining.cancel()
        watching = [asyncio.create_task(leave_when_closed(socket)) for socket in sockets]
        await running.server.aclose()
        assert await asyncio.gather(*watching) == [1012] * 30


async def leave_when_closed(socket: Socket) -> int:
    code = await socket.close_code()
    await socket.leave()
    return code


async def is_ready(running: Site) -> tuple[int, list[str]]:
    async with aiohttp.ClientSession() as http, http.get(running.root + "/health/ready") as answer:
        return answer.status, (await answer.json())["reasons"]


async def test_nothing_new_is_taken_on_and_what_is_open_goes_on(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        await running.made(CREATE_WORKFLOW, WORKFLOW)  # its connection is kept
        subscribed, asking, silent = await running.open(), await running.open(), await running.open()
        for client in (subscribed, asking):
            await client.init()
        subscribed.subscribe("1", UPDATES)
        await subscribed.live("1")
        running.server._draining.begin()

        # Health is told to new connections too; nothing else is.
        assert await is_ready(running) == (503, ["the server is draining"])
        async with aiohttp.ClientSession() as http:
            async with http.get(running.root + "/health/live") as answer:
                assert answer.status == 200
            async with http.post(running.server.url, json=QUERY) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
                assert "the server is draining" in await answer.text()
        late = await raw_client(running.server.port)
        head = await late.read_head()
        assert "503" in head
        assert "Retry-After: 5" in head
        await late.close()

        # A connection from before may ask, and not subscribe.
        assert await running.post("{ health }") == {"data": {"health": "ok"}}
        for path, headers in (("/graphql", EVENTS), ("/graphql/stream", {}), ("/graphql/poll", {})):
            async with running.http.post(
                running.root + path, json={"query": UPDATES}, headers=headers
            ) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "5"), path
                assert (await answer.json())["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
        asking.send({"id": "q", "type": "subscribe", "payload": QUERY})
        assert await asking.result_of("q") == {"data": {"health": "ok"}}
        assert (await asking.receive())["type"] == "complete"
        asking.subscribe("2", UPDATES)
        assert await asking.closed() == (1013, "the server is draining: it takes on nothing new; try again")
        silent.send({"type": "connection_init"})
        assert await silent.close_code() == 1013
        await subscribed.answers()


async def test_draining_a_server_that_is_closed_or_was_not_started_does_nothing(tmp_path: Path) -> None:
    server = Server(ServerSettings(port=0, data_dir=tmp_path, log_level="critical"))
    await server.start()
    await server.aclose()
    await server.drain()
    await Server(ServerSettings(data_dir=tmp_path)).drain()
