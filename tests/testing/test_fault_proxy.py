"""The fault proxy, on real sockets: what it does to bytes, and what our client makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from circuit_breaker_sdk import Client, ConnectionFailed, ErrorRecoveryPolicy, UsageError
from circuit_breaker_sdk.testing import Direction, FaultProxy, fault_proxy
from circuit_breaker_server import Server, ServerSettings
from tests.integration.workflows import create_review_workflow
from tests.waiting import until

PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Pair:
    """A connection through a proxy, seen from both ends."""

    client: asyncio.StreamReader
    client_writer: asyncio.StreamWriter
    server: asyncio.StreamReader
    server_writer: asyncio.StreamWriter


@contextlib.asynccontextmanager
async def joined() -> AsyncIterator[tuple[FaultProxy, Pair]]:
    """Yield a proxy with one connection through it."""
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted.put((reader, writer))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            FaultProxy("127.0.0.1", listener.sockets[0].getsockname()[1]) as proxy,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            server_reader, server_writer = await accepted.get()
            try:
                yield proxy, Pair(reader, writer, server_reader, server_writer)
            finally:
                for end in (writer, server_writer):
                    end.transport.abort()
                    with contextlib.suppress(OSError):
                        await end.wait_closed()
    finally:
        listener.close()


async def gone(reader: asyncio.StreamReader) -> None:
    """Expect that the other side has reset the connection."""
    with pytest.raises(ConnectionResetError):
        await reader.read(-1)


async def test_untold_it_passes_everything_on_and_ends_when_both_sides_have() -> None:
    big = bytes(range(256)) * 4_000
    async with joined() as (proxy, pair):
        pair.client_writer.write(big)
        pair.client_writer.write_eof()
        assert await pair.server.read(-1) == big
        assert (proxy.connections, proxy.connections_made) == (1, 1)
        pair.server_writer.write(big)
        pair.server_writer.write_eof()
        assert await pair.client.read(-1) == big
        await until(lambda: proxy.connections == 0)


async def test_a_cut_resets_both_sides_and_later_connections_are_whole() -> None:
    async with joined() as (proxy, pair):
        assert proxy.cut() == 1
        await gone(pair.client)
        await gone(pair.server)
        await until(lambda: proxy.connections == 0)
        assert proxy.cut() == 0
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await until(lambda: proxy.connections_made == 2)
        writer.close()


async def test_a_cut_after_bytes_passes_on_exactly_so_many() -> None:
    async with joined() as (proxy, pair):
        proxy.cut(after_bytes=5, direction=Direction.TO_SERVER)
        pair.server_writer.write(b"the other way goes on")
        assert await pair.client.readexactly(21) == b"the other way goes on"
        pair.client_writer.write(b"123")
        assert await pair.server.readexactly(3) == b"123"
        pair.client_writer.write(b"4567")
        assert await pair.server.readexactly(2) == b"45"
        await gone(pair.server)
        await gone(pair.client)


async def test_a_stalled_direction_passes_on_nothing_until_it_flows_and_then_all_of_it() -> None:
    async with joined() as (proxy, pair):
        proxy.stall(Direction.TO_CLIENT)
        pair.server_writer.write(b"late")
        pair.server_writer.write_eof()
        pair.client_writer.write(b"question")
        assert await pair.server.readexactly(8) == b"question"
        reading = asyncio.create_task(pair.client.read(-1))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not reading.done()
        proxy.flow()
        assert await reading == b"late"


async def test_delay_rate_and_pieces_are_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    async with joined() as (proxy, pair):
        proxy.delay_seconds, proxy.bytes_per_second, proxy.piece_bytes = 7.0, 10.0, 4
        monkeypatch.setattr(asyncio, "sleep", note)
        pair.client_writer.write(b"x" * 20)
        assert await pair.server.readexactly(20) == b"x" * 20
        proxy.bytes_per_second = None
        while slept.count(0.1) < 20:  # half a byte in a twentieth of a second is one byte in a tenth
            await sleep(0)
        assert slept == [7.0, *[0.1] * 20]
        slept.clear()
        pair.client_writer.write(b"y" * 10)
        assert await pair.server.readexactly(10) == b"y" * 10
        assert slept == [7.0, 0, 0], "pieces of 4, 4 and 2"


async def test_it_refuses_when_told_to_and_where_there_is_no_server() -> None:
    async with joined() as (proxy, pair):
        proxy.refuses = True
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await gone(reader)
        writer.close()
        pair.client_writer.write(b"the open one goes on")
        assert await pair.server.readexactly(20) == b"the open one goes on"
    free = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = free.sockets[0].getsockname()[1]
    free.close()
    async with FaultProxy("127.0.0.1", port) as nowhere:
        reader, writer = await asyncio.open_connection("127.0.0.1", nowhere.port)
        await gone(reader)
        writer.close()


async def test_wrong_uses_say_what_is_wrong() -> None:
    proxy = FaultProxy("127.0.0.1", 1)
    with pytest.raises(UsageError, match="not listening"):
        _ = proxy.port
    with pytest.raises(UsageError, match="-1"):
        proxy.cut(after_bytes=-1)
    await proxy.start()
    await proxy.start()
    await proxy.aclose()
    await proxy.aclose()


async def test_a_connection_that_is_closed_already_can_be_cut() -> None:
    async with joined() as (proxy, pair):
        writer = pair.client_writer
        plug = writer.get_extra_info("socket")
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        with pytest.raises((OSError, ValueError)):  # the event loop has given it up
            plug.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER)
        fault_proxy._reset(writer)
        assert proxy.cut() <= 1


async def test_our_client_and_server_work_a_byte_at_a_time(tmp_path: Path) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(f"ws://127.0.0.1:{proxy.port}/graphql") as client,
    ):
        proxy.piece_bytes = 1
        workflow = await create_review_workflow(client)
        async with client.workflows.subscribe_resource_updates(workflow_id=workflow.id) as updates:
            for n in range(3):
                await client.workflows.create_resource(workflow_id=workflow.id, data={"n": n})
            assert [(await anext(updates)).data for _ in range(3)] == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_a_cut_in_the_middle_of_a_frame_ends_the_subscription_with_the_reason(tmp_path: Path) -> None:
    never = ErrorRecoveryPolicy(max_retries=0)
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(f"ws://127.0.0.1:{proxy.port}/graphql", recovery=never) as client,
        Client(server.url) as direct,
    ):
        workflow = await create_review_workflow(direct)
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow.id).subscribe()
        await direct.workflows.create_resource(workflow_id=workflow.id)
        assert (await anext(updates)).workflow_id == workflow.id
        proxy.cut(after_bytes=20)
        await direct.workflows.create_resource(workflow_id=workflow.id)
        with pytest.raises(ConnectionFailed):
            await anext(updates)
