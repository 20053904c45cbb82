"""Each setting means the same over WebSocket, HTTP, event streams and polls: against real listeners."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from circuit_breaker_sdk import (
    Client,
    ConnectionFailed,
    ConnectionState,
    OperationTimeoutError,
    Timeouts,
    UsageError,
)
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_sdk.transports import address_resolution
from circuit_breaker_server import Server, ServerSettings
from tests.server.certificates import Authority

TRANSPORTS = ["websocket", "http", "sse", "poll"]


async def use(transport: str, url: str | list[str], **settings: object) -> None:
    """Do over one transport what it is there for, and see that it works."""
    if transport in {"sse", "poll"}:
        settings.setdefault("transports", ("websocket", transport))
    async with Client(url, **settings) as client:  # type: ignore[arg-type]
        match transport:
            case "http":
                assert await client.server_health()
            case "websocket":
                await client.subscriptions.resource_updates().subscribe()
                assert client.state is ConnectionState.CONNECTED
            case _:
                updates = await client.subscriptions.resource_updates().critical().subscribe()
                assert updates.transport == transport


@contextlib.asynccontextmanager
async def reached_by(transport: str, port: int, *, target_host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Give the port at which only this transport gets through to the server."""
    async with FaultProxy(target_host, port) as proxy:
        proxy.refuses_upgrades = transport in {"sse", "poll"}
        yield proxy.port


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let every name mean these addresses, in this order."""

    def set_to(*hosts: str) -> None:
        async def resolve(_host: str, port: int, _family: int = 0) -> list[object]:
            return [
                (
                    socket.AF_INET6 if ":" in host else socket.AF_INET,
                    socket.SOCK_STREAM,
                    socket.IPPROTO_TCP,
                    "",
                    (host, port, 0, 0) if ":" in host else (host, port),
                )
                for host in hosts
            ]

        monkeypatch.setattr(address_resolution, "resolve", resolve)

    return set_to


@contextlib.contextmanager
def silent_listener(host: str, port: int) -> Iterator[None]:
    """Listen with a full backlog: a connection attempt gets neither an answer nor a refusal."""
    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(3):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect((host, port))
        yield


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("path", ["", "/", "/graphql", "/graphql/", "/ws"])
@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_each_form_of_the_url_works(tmp_path: Path, transport: str, path: str, scheme: str) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path, allowed_hosts=("a-name",))) as server,
        reached_by(transport, server.port) as port,
    ):
        await use(transport, f"{scheme}://127.0.0.1:{port}{path}")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_dead_first_address_does_not_keep_from_the_living_one(
    tmp_path: Path, transport: str, resolved: Callable[..., None]
) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path, allowed_hosts=("a-name",))) as server,
        reached_by(transport, server.port) as port,
    ):
        with silent_listener("127.0.0.2", port):
            resolved("127.0.0.2", "127.0.0.1")
            async with asyncio.timeout(20):  # the system's own patience is two minutes
                await use(transport, f"ws://a-name:{port}/graphql")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("hosts", [["127.0.0.3", "127.0.0.1"], ["::1", "127.0.0.1"]])
async def test_an_address_that_refuses_is_followed_by_the_next(
    tmp_path: Path, transport: str, hosts: list[str], resolved: Callable[..., None]
) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path, allowed_hosts=("a-name",))) as server,
        reached_by(transport, server.port) as port,
    ):
        resolved(*hosts)
        await use(transport, f"ws://a-name:{port}/graphql")


@pytest.mark.parametrize("transport", ["websocket", "http"])
@pytest.mark.parametrize("host", ["[::1]", "a-name"])
async def test_ipv6_alone_is_enough(
    tmp_path: Path, transport: str, host: str, resolved: Callable[..., None]
) -> None:
    resolved("::1")
    async with Server(
        ServerSettings(host="::1", port=0, data_dir=tmp_path, allowed_hosts=("a-name",))
    ) as server:
        await use(transport, f"ws://{host}:{server.port}/graphql")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_certificate_is_trusted_by_all_or_by_none(tmp_path: Path, transport: str) -> None:
    authority = Authority()
    certificate, key = authority.write(tmp_path)
    settings = ServerSettings(
        port=0, data_dir=tmp_path, tls_cert=certificate, tls_key=key, allowed_hosts=("a-name",)
    )
    async with Server(settings) as server:
        url = f"wss://localhost:{server.port}/graphql"
        if transport not in {"sse", "poll"}:
            await use(transport, url, ssl=authority.context())
        with pytest.raises(ConnectionFailed, match="certificate was refused"):
            await use(transport, url, ssl=ssl.create_default_context())


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_a_host_header_is_sent_once_in_place_of_the_urls(transport: str) -> None:
    hosts: list[list[str]] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        hosts.append(request.headers.getall("Host"))
        return web.Response(status=404)

    server = web.Server(answer)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    with contextlib.suppress(ConnectionFailed):
        await use(transport, f"ws://127.0.0.1:{port}/graphql", headers={"Host": "tenant.example"})
    listener.close()
    await server.shutdown()
    assert hosts
    assert all(sent == ["tenant.example"] for sent in hosts)


@pytest.mark.parametrize("name", ["Accept", "Content-Type", "Upgrade", "Sec-WebSocket-Key"])
def test_a_header_that_a_transport_sets_itself_is_refused_before_anything_is_sent(name: str) -> None:
    with pytest.raises(UsageError, match=f"the header {name} is set by the client itself"):
        Client("ws://127.0.0.1:1/graphql", headers={name: "x"})


def test_a_header_that_is_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        Client("ws://127.0.0.1:1/graphql", headers={"X-Tenant": "a", "x-tenant": "b"})


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_header_may_hold_a_tab_and_each_character_of_a_name(tmp_path: Path, transport: str) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path, allowed_hosts=("a-name",))) as server,
        reached_by(transport, server.port) as port,
    ):
        await use(transport, f"ws://127.0.0.1:{port}/graphql", headers={"X.Tenant+1": "a\tb"})


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_next_url_is_used_where_nobody_listens_at_the_first(tmp_path: Path, transport: str) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path, allowed_hosts=("a-name",))) as server,
        reached_by(transport, server.port) as port,
    ):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            unused = free.getsockname()[1]
            await use(transport, [f"ws://127.0.0.1:{each}/graphql" for each in (unused, port)])


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_where_tls_fails_at_one_address_the_next_is_tried(
    tmp_path: Path, transport: str, resolved: Callable[..., None]
) -> None:
    authority = Authority()
    certificate, key = authority.write(tmp_path)
    settings = ServerSettings(
        port=0, data_dir=tmp_path, tls_cert=certificate, tls_key=key, allowed_hosts=("a-name",)
    )

    async def answer_in_plain(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with Server(settings) as server:
        plain = await asyncio.start_server(answer_in_plain, "127.0.0.2", server.port)
        async with plain:
            resolved("127.0.0.2", "127.0.0.1")
            await use(transport, f"wss://localhost:{server.port}/graphql", ssl=authority.context())


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_a_name_that_is_not_answered_is_given_up_after_connect_seconds(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(*_: object) -> list[object]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(address_resolution, "resolve", resolve)
    timeouts = Timeouts(connect_seconds=0.1, execute_seconds=20.0)
    with pytest.raises((ConnectionFailed, OperationTimeoutError), match="connect"):
        await use(transport, "ws://a-name/graphql", timeouts=timeouts)


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_an_address_that_is_silent_is_given_up_after_connect_seconds(
    transport: str, resolved: Callable[..., None]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    with silent_listener("127.0.0.2", port):
        resolved("127.0.0.2")
        timeouts = Timeouts(connect_seconds=0.1, execute_seconds=20.0)
        with pytest.raises((ConnectionFailed, OperationTimeoutError), match="connect"):
            await use(transport, f"ws://a-name:{port}/graphql", timeouts=timeouts)


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_a_path_and_a_query_go_out_as_they_were_given(transport: str) -> None:
    targets: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        targets.append(request.raw_path)
        return web.Response(status=404)

    server = web.Server(answer)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    with contextlib.suppress(ConnectionFailed):
        await use(transport, f"ws://127.0.0.1:{port}/a/../b?y=%7E")
    listener.close()
    await server.shutdown()
    assert targets[0] == "/a/../b?y=%7E"
