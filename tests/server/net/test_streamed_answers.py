"""Answers without an end: their bytes on the wire, their connection, and a client that does not listen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path

import pytest

from circuit_breaker_server import ServerSettings
from circuit_breaker_server.net.listener import listen
from tests.server.event_stream_stage import asked, opened
from tests.server.http_stage import HttpStage, http_stage
from tests.waiting import until


async def ask(stage: HttpStage, *, behind: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a stream, byte by byte as it stands here; return the connection behind the head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    body = json.dumps(asked()).encode()
    writer.write(
        b"POST /graphql HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b%b" % (len(body), body, behind)
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"transfer-encoding: chunked\r\n" in head
    assert b"connection: close\r\n" in head
    return reader, writer


async def chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readline(), 16)
    data = await reader.readexactly(size)
    assert await reader.readexactly(2) == b"\r\n"
    return data


async def test_each_write_is_one_chunk() -> None:
    async with http_stage() as stage:
        reader, writer = await ask(stage)
        assert (await chunk(reader)).startswith(b"id: ")
        stage.log.thing("a", 1)
        assert (await chunk(reader)).startswith(b"event: next\nid: ")
        writer.close()


async def test_a_client_of_http_1_0_gets_no_chunks() -> None:
    async with http_stage() as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        body = json.dumps(asked()).encode()
        writer.write(
            b"POST /graphql HTTP/1.0\r\nAccept: text/event-stream\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"chunked" not in head
        assert b"connection: close\r\n" in head
        assert (await reader.readuntil(b"\n\n")).startswith(b"id: ")
        stage.log.thing("a", 1)
        assert (await reader.readuntil(b"\n\n")).startswith(b"event: next\nid: ")
        writer.close()


async def test_a_request_behind_it_is_not_answered_and_a_request_before_it_is() -> None:
    query = b'{"query":"{ nothing }"}'
    second = (
        b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(query), query)
    )
    async with http_stage() as stage:
        reader, writer = await ask(stage, behind=second)
        assert (await chunk(reader)).startswith(b"id: ")
        writer.write(second)
        stage.log.thing("a", 1)
        assert (await chunk(reader)).startswith(b"event: next\n")
        writer.close()


async def test_what_is_sent_behind_the_request_is_dropped_and_bounded() -> None:
    async with http_stage() as stage:
        reader, writer = await ask(stage)
        await chunk(reader)
        writer.write(b"x" * 60_000)
        await writer.drain()
        stage.log.thing("a", 1)
        await chunk(reader)
        writer.write(b"x" * 10_000)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        await until(lambda: not len(stage.endpoints.streams))
        writer.close()


async def test_a_client_that_leaves_before_its_head_is_written_leaves_nothing_behind() -> None:
    async with http_stage() as stage:
        body = json.dumps(asked()).encode()
        for _ in range(50):
            _reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
            writer.write(
                b"POST /graphql HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            await asyncio.sleep(0)
            writer.transport.abort()
        await until(lambda: not len(stage.endpoints.streams) and not stage.gateway.channels)


async def test_a_peer_that_takes_nothing_for_too_long_is_dropped() -> None:
    settings = {"ping_seconds": 0.02, "stall_seconds": 0.1}
    async with http_stage(settings=settings) as stage:
        reader, writer = await ask(stage)
        await chunk(reader)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket
        for n in range(20_000):
            stage.log.thing("x" * 1000, n)
            if n % 100 == 0:
                await asyncio.sleep(0)
        await until(lambda: not len(stage.endpoints.streams))
        writer.close()


async def test_a_stream_counts_as_a_connection_of_its_address_until_it_is_gone() -> None:
    async with http_stage(settings={"max_connections_per_address": 2}) as stage:
        for _ in range(3):
            async with opened(stage) as stream:
                await stream.signal()
                _reader, writer = await ask(stage)
                third = await asyncio.open_connection("127.0.0.1", stage.port)
                assert b" 429 " in await third[0].readline()
                third[1].close()
                writer.close()
            await until(lambda: not len(stage.endpoints.streams))


async def test_the_system_is_told_to_drop_a_peer_that_has_vanished(tmp_path: Path) -> None:
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is None:
        pytest.skip("this system has no TCP_USER_TIMEOUT")
    with listen(ServerSettings(data_dir=tmp_path, port=0, stall_seconds=7.0)) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, option) == 7000
