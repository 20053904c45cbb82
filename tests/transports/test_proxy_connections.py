"""Each transport through a proxy on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from circuit_breaker_sdk import (
    Client,
    ConnectionFailed,
    Continuity,
    ErrorRecoveryPolicy,
    UsageError,
)
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_sdk.transports import address_resolution
from circuit_breaker_server import Server, ServerSettings
from tests.integration.workflows import create_review_workflow, number_of
from tests.server.certificates import Authority
from tests.transports.each_transport import CREDENTIALS, use
from tests.transports.http_proxy import HttpProxy

TRANSPORTS = ["websocket", "http", "sse", "poll"]


@pytest.fixture
def resolved_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which names this machine is asked for, and know no name of a server."""
    asked: list[str] = []
    resolve = address_resolution.resolve

    async def recording(host: str, port: int, family: int = socket.AF_UNSPEC) -> list[object]:
        asked.append(host)
        return list(await resolve(host, port, family))

    monkeypatch.setattr(address_resolution, "resolve", recording)
    return asked


@contextlib.asynccontextmanager
async def refusing_upgrades(port: int) -> AsyncIterator[int]:
    async with FaultProxy("127.0.0.1", port) as fault:
        fault.refuses_upgrades = True
        yield fault.port


@contextlib.asynccontextmanager
async def reached_by(transport: str, port: int) -> AsyncIterator[int]:
    """Give the port at which only this transport gets through to the server."""
    if transport not in {"sse", "poll"}:
        yield port
        return
    async with refusing_upgrades(port) as behind:
        yield behind


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("credentials", [None, CREDENTIALS])
async def test_each_transport_goes_through_and_the_proxy_resolves_the_name(
    tmp_path: Path, transport: str, credentials: str | None, resolved_here: list[str]
) -> None:
    settings = ServerSettings(port=0, data_dir=tmp_path, allowed_hosts=("server.invalid",))
    async with (
        Server(settings) as server,
        reached_by(transport, server.port) as port,
        HttpProxy(credentials) as proxy,
    ):
        proxy.hosts["server.invalid"] = "127.0.0.1"
        await use(transport, f"ws://server.invalid:{port}/graphql", proxy=proxy.url(credentials))
        tunnels = [line for line in proxy.requests if line.startswith("CONNECT")]
        posts = [line for line in proxy.requests if line.startswith("POST")]
        assert all(line == f"CONNECT server.invalid:{port} HTTP/1.1" for line in tunnels)
        assert all(line.startswith(f"POST http://server.invalid:{port}/graphql") for line in posts)
        assert bool(tunnels) == (transport != "http")
        assert bool(posts) == (transport != "websocket")
        assert set(resolved_here) <= {"127.0.0.1"}  # the proxy's; "server.invalid" has no address


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
@pytest.mark.parametrize("transport", ["websocket", "http"])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_tls_is_inside_of_the_tunnel_on_both_event_loops(
    tmp_path: Path, transport: str, scheme: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def run() -> None:
        authority = Authority()
        certificate, key = authority.write(tmp_path)
        tls = {"tls_cert": certificate, "tls_key": key} if scheme == "wss" else {}
        settings = ServerSettings(port=0, data_dir=tmp_path, **tls)  # type: ignore[arg-type]
        async with Server(settings) as server, HttpProxy(CREDENTIALS) as proxy:
            await use(
                transport,
                f"{scheme}://localhost:{server.port}/graphql",
                proxy=proxy.url(CREDENTIALS),
                ssl=authority.context(),
            )
            through_a_tunnel = scheme == "wss" or transport == "websocket"
            assert proxy.requests[0].startswith("CONNECT " if through_a_tunnel else "POST http://")

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_the_certificate_must_be_that_of_the_server(tmp_path: Path, transport: str) -> None:
    authority = Authority()
    certificate, key = authority.write(tmp_path)
    settings = ServerSettings(
        port=0, data_dir=tmp_path, tls_cert=certificate, tls_key=key, allowed_hosts=("server.invalid",)
    )
    async with Server(settings) as server, HttpProxy() as proxy:
        proxy.hosts["server.invalid"] = "127.0.0.1"
        with pytest.raises(ConnectionFailed, match="certificate was refused"):
            await use(
                transport,
                f"wss://server.invalid:{server.port}/graphql",
                proxy=proxy.url(),
                ssl=authority.context(),
            )


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_the_environment_is_followed_unless_it_is_not_trusted_or_excepts_the_host(
    tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server, HttpProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        await use(transport, server.url)
        assert len(proxy.heads) == 1
        await use(transport, server.url, trust_env=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        await use(transport, server.url)
        assert len(proxy.heads) == 1


def test_a_client_refuses_a_proxy_of_another_kind_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="only http://"):
        Client("ws://localhost", proxy="socks5://proxy:1080")
    with pytest.raises(UsageError, match="trust_env must be of type bool"):
        Client("ws://localhost", trust_env=1)  # type: ignore[arg-type]  # that is the point
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy:1080")
    Client("ws://localhost")
    Client("wss://localhost", trust_env=False)
    with pytest.raises(UsageError, match="HTTPS_PROXY of the environment"):
        Client(["ws://localhost", "wss://localhost"])


def test_the_builder_takes_a_proxy() -> None:
    client = Client.builder().base_url("ws://localhost").proxy("http://p:1").trust_env(False).build()
    assert client.url == "ws://localhost"
    with pytest.raises(UsageError, match="only http://"):
        Client.builder().base_url("ws://localhost").proxy("socks5://p:1").build()


async def test_the_command_line_follows_the_environment(tmp_path: Path) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server, HttpProxy(CREDENTIALS) as proxy:
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "circuit_breaker_sdk.cli", "query", "{ health }", "--url", server.url),
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"HTTP_PROXY": proxy.url(CREDENTIALS)},
        )
        printed, _ = await command.communicate()
        assert printed == b'{"health":"ok"}\n'
        assert proxy.requests == [f"POST {server.url} HTTP/1.1"]


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_after_a_cut_a_stream_goes_on_through_the_proxy_with_nothing_lost(
    tmp_path: Path, scheme: str
) -> None:
    authority = Authority()
    certificate, key = authority.write(tmp_path)
    tls = {"tls_cert": certificate, "tls_key": key} if scheme == "wss" else {}
    settings = ServerSettings(port=0, data_dir=tmp_path / "data", **tls)  # type: ignore[arg-type]
    context = authority.context()
    async with Server(settings) as server, HttpProxy(CREDENTIALS) as proxy:
        url = f"{scheme}://localhost:{server.port}/graphql"
        async with (
            Client(url, ssl=context) as direct,
            Client(
                url,
                ssl=context,
                proxy=proxy.url(CREDENTIALS),
                recovery=ErrorRecoveryPolicy(base_delay=0.01, max_delay=0.05),
            ) as client,
        ):
            workflow = (await create_review_workflow(direct)).id
            updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
            seen: list[object] = []
            for n in range(9):
                if n % 3 == 2:
                    await proxy.cut()
                await direct.workflows.create_resource(workflow_id=workflow, data={"n": n})
            async with asyncio.timeout(20):
                while len(seen) < 9:
                    seen.append(number_of(await anext(updates)))
            assert seen == list(range(9))
            assert updates.continuity is Continuity.OK
            assert len(proxy.heads) >= 2
