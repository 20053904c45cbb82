"""Connections that say nothing or not all end by themselves, and one address has no more than its share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.admission.connection_limits import Peers, address_key

HEAD = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
WHOLE = b'{"query":"{ health }"}'
SHORT: dict[str, Any] = {"head_seconds": 0.05, "body_seconds": 0.05}


@contextlib.asynccontextmanager
async def serving(path: Path, **settings: Any) -> AsyncIterator[Server]:
    async with Server(ServerSettings(data_dir=path, port=0, **settings)) as server:
        yield server


@contextlib.asynccontextmanager
async def opened(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def rest(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionResetError):
            return await reader.read()
        return b""


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"", b""),
        (b"\r\n", b"HTTP/1.1 408"),
        (b"GET /health HT", b"HTTP/1.1 408"),
        (HEAD, b"HTTP/1.1 408"),
        (HEAD + b"Content-Length: 9\r\n\r\n{", b"HTTP/1.1 408"),
    ],
)
async def test_a_request_that_is_not_finished_in_time_ends_the_connection(
    tmp_path: Path, sent: bytes, answered: bytes
) -> None:
    async with serving(tmp_path, **SHORT) as server, opened(server) as (reader, writer):
        writer.write(sent)
        assert (await rest(reader))[:12] == answered


async def test_line_ends_between_two_requests_do_not_hold_a_connection(tmp_path: Path) -> None:
    async with serving(tmp_path, **SHORT) as server, opened(server) as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(2) == b"ok"
        writer.write(b"\r\n")
        assert (await rest(reader)).startswith(b"HTTP/1.1 408")


async def test_a_whole_request_and_an_upgraded_socket_have_no_deadline(tmp_path: Path) -> None:
    settings: dict[str, Any] = {**SHORT, "init_timeout_seconds": 0.2}
    async with serving(tmp_path, **settings) as server, aiohttp.ClientSession() as http:
        async with http.ws_connect(server.url, protocols=("graphql-transport-ws",)) as socket:
            message = await socket.receive()
            # Its own time limit ends it, not that of the handshake, which was over before.
            assert message.data == 4408
        poll = {"query": "subscription { resourceUpdates { id } }", "waitMs": 200}
        async with http.post(server.url + "/poll", json=poll) as answer:
            assert answer.status == 200


async def test_an_address_has_its_share_of_connections_of_all_kinds(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, max_connections_per_address=2) as server,
        aiohttp.ClientSession() as http,
        contextlib.AsyncExitStack() as stack,
    ):
        await stack.enter_async_context(http.ws_connect(server.url, protocols=("graphql-transport-ws",)))
        await (held := contextlib.AsyncExitStack()).enter_async_context(opened(server))
        async with opened(server) as (reader, _writer):
            refused = await rest(reader)
            assert refused.startswith(b"HTTP/1.1 429")
            assert b"Retry-After: 5" in refused
            assert b"max_connections_per_address" in refused
        await held.aclose()
        await until_let_in(server)


async def test_a_websocket_that_ended_or_was_refused_is_counted_no_more(tmp_path: Path) -> None:
    async with serving(tmp_path, max_connections_per_address=1) as server:
        for url in (server.url, server.url.replace("/graphql", "/elsewhere")):
            async with aiohttp.ClientSession() as http:
                with contextlib.suppress(aiohttp.WSServerHandshakeError):
                    async with http.ws_connect(url, protocols=("graphql-transport-ws",)):
                        pass
            await until_let_in(server)


async def until_let_in(server: Server) -> None:
    """Ask until the server has seen that a connection has gone."""
    async with asyncio.timeout(10):
        while True:
            async with opened(server) as (reader, writer):
                writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if (await rest(reader)).startswith(b"HTTP/1.1 200"):
                    return


async def test_all_together_have_a_bound_too_and_trusted_proxies_only_that(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "max_connections_per_address": 1,
        "max_connections": 3,
        "trusted_proxies": ("127.0.0.0/8",),
    }
    async with serving(tmp_path, **settings) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(opened(server))
        async with opened(server) as (reader, _writer):
            assert (await rest(reader)).startswith(b"HTTP/1.1 503")


def test_addresses_of_one_network_of_ipv6_count_as_one() -> None:
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff:1") == "2001:db8::/64"
    assert address_key("2001:db8:0:1::1") != address_key("2001:db8::1")
    assert address_key("::ffff:192.0.2.1") == "192.0.2.1"
    assert address_key("") == ""


def test_what_has_gone_is_not_remembered() -> None:
    peers = Peers(max_per_address=1)
    assert peers.enter("192.0.2.1") is None
    assert peers.enter("192.0.2.1") is not None
    assert peers.enter("192.0.2.2") is None
    peers.leave("192.0.2.1")
    peers.leave("192.0.2.2")
    assert (len(peers), peers._of) == (0, {})


def test_a_proxy_is_an_address_or_a_network(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trusted_proxies: 'proxy' does not appear to be"):
        ServerSettings(data_dir=tmp_path, trusted_proxies=("proxy",))


UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize(
    ("head", "status", "says"),
    [
        (b"GET /health HTTP/1.1\r\n", b"400", b"exactly one Host header, not 0"),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n", b"400", b"exactly one Host header, not 2"),
        (b"GET /health HTTP/1.0\r\nHost: a\r\nhost: a\r\n", b"400", b"exactly one Host header, not 2"),
        (b"GET /health HTTP/1.0\r\n", b"200", b"ok"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", b"200", b"ok"),
        (
            b"GET /graphql HTTP/1.0\r\nHost: localhost\r\n" + UPGRADE,
            b"400",
            b"needs HTTP/1.1",
        ),
        (
            b"GET /graphql HTTP/1.1\r\n" + UPGRADE,
            b"400",
            b"exactly one Host header",
        ),
    ],
)
async def test_a_head_that_the_rfc_refuses_is_400_and_says_why(
    tmp_path: Path, head: bytes, status: bytes, says: bytes
) -> None:
    async with serving(tmp_path) as server, opened(server) as (reader, writer):
        writer.write(head + b"\r\n")
        answer = await rest(reader)
    assert answer.split(b" ", 2)[1] == status
    assert says in answer
