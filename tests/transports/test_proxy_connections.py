"""Each transport through a real proxy of this test: it works, it says what is wrong, it shows no secret."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from circuit_breaker_sdk import (
    CircuitBreakerPolicy,
    Client,
    ConnectionFailed,
    ConnectionState,
    Continuity,
    ErrorRecoveryPolicy,
    TransportError,
    UsageError,
)
from circuit_breaker_sdk.config import Timeouts
from circuit_breaker_sdk.errors import CircuitBreakerError
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_sdk.transports import address_resolution
from circuit_breaker_server import Server, ServerSettings
from tests.integration.workflows import create_review_workflow, number_of
from tests.server.certificates import Authority
from tests.transports.http_proxy import HttpProxy
from tests.waiting import until

TRANSPORTS = ["websocket", "http", "polling"]
SECRET = "hunter2-secret"
CREDENTIALS = f"some-user:{SECRET}"
# What a proxy, a header or an error could show of them.
SECRETS = (SECRET, "some-user", "c29tZS11c2VyOmh1bnRlcjItc2VjcmV0")


async def use(transport: str, url: str, **settings: object) -> None:
    """Do over one transport what it is there for, and see that it works."""
    settings.setdefault("circuit_breaker", CircuitBreakerPolicy(failure_threshold=1, open_seconds=0.05))
    async with Client(url, **settings) as client:  # type: ignore[arg-type]
        match transport:
            case "http":
                assert await client.server_health()
            case "websocket":
                await client.subscriptions.resource_updates().subscribe()
                assert client.state is ConnectionState.CONNECTED
            case _:
                updates = await client.subscriptions.resource_updates().critical().subscribe()
                assert updates.is_polled


def everything_told(error: BaseException) -> str:
    """Return the texts of an error and of all that it is chained to, whichever way."""
    told: list[str] = []
    todo: list[BaseException | None] = [error]
    while todo:
        link = todo.pop()
        if link is None:
            continue
        told += (str(link), repr(link), repr(link.args), repr(vars(link)))
        todo += (link.__cause__, link.__context__)
        if isinstance(link, BaseExceptionGroup):
            todo += link.exceptions
    return "\n".join(told)


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
    if transport != "polling":
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


# What goes wrong -------------------------------------------------------------------------------------------

REFUSALS = {
    "407": (b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n", r"HTTP 407.*credentials"),
    "403": (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", r"HTTP 403.*ask who runs it"),
    "502": (b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n", r"HTTP 502"),
    "closed": (b"", "closed the connection before it answered"),
    "rubbish": (f"SSH {CREDENTIALS} {SECRETS[2]}\r\n\r\n".encode(), "not HTTP"),
    "endless": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "not HTTP"),
}


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize("credentials", [None, CREDENTIALS])
@pytest.mark.parametrize(
    ("transport", "scheme"), [("websocket", "ws"), ("websocket", "wss"), ("http", "wss")]
)
async def test_a_proxy_that_gives_no_tunnel_is_named_with_what_to_do_and_without_secrets(
    transport: str, scheme: str, kind: str, credentials: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer, told = REFUSALS[kind]
    async with HttpProxy() as proxy:
        proxy.answer = answer
        with pytest.raises(ConnectionFailed, match=told) as raised:
            await use(transport, f"{scheme}://server.invalid/graphql", proxy=proxy.url(credentials))
        error = raised.value
        assert f"the proxy {proxy.place}" in str(error)
        assert error.retryable
        assert error.not_sent
        assert len(proxy.heads) == 1
        assert proxy.requests[0].startswith("CONNECT server.invalid:")
    logged = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    shown = everything_told(error) + logged
    # What the proxy itself makes up is no secret of ours.
    assert credentials is None or not [secret for secret in SECRETS if secret in shown]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("407", r"HTTP 407.*credentials"),
        ("403", r"HTTP 403.*the proxy [\d.:]+ that says so"),
        ("502", r"HTTP 502.*the proxy [\d.:]+ that says so"),
        ("closed", r"lost.*through the proxy [\d.:]+"),
        ("rubbish", r"(?s)not HTTP.*through the proxy [\d.:]+"),
    ],
)
async def test_a_proxy_that_sends_no_plain_request_on_is_named_too(
    kind: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with HttpProxy() as proxy:
        proxy.answer = REFUSALS[kind][0]
        with pytest.raises(TransportError, match=told) as raised:
            await use("http", "ws://server.invalid/graphql", proxy=proxy.url(CREDENTIALS))
        assert proxy.place in str(raised.value)
    shown = everything_told(raised.value) + "\n".join(str(vars(record)) for record in caplog.records)
    assert not [secret for secret in SECRETS if secret in shown]


@pytest.mark.parametrize(
    ("transport", "scheme"), [("websocket", "ws"), ("websocket", "wss"), ("http", "wss"), ("http", "ws")]
)
async def test_a_proxy_that_hangs_is_given_up_in_time(transport: str, scheme: str) -> None:
    async with HttpProxy() as proxy:
        proxy.hangs = True
        timeouts = Timeouts(connect_seconds=0.2, execute_seconds=20.0 if scheme == "wss" else 0.2)
        async with asyncio.timeout(10):
            with pytest.raises(TransportError, match=f"the proxy {proxy.place}.*within") as raised:
                await use(
                    transport, f"{scheme}://server.invalid/", proxy=proxy.url(CREDENTIALS), timeouts=timeouts
                )
        assert raised.value.retryable
        assert not [secret for secret in SECRETS if secret in everything_told(raised.value)]


@pytest.mark.parametrize("transport", ["websocket", "http"])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("host", ["127.0.0.1", "proxy.invalid"])
async def test_a_proxy_that_is_not_there_is_told_from_a_server_that_is_not_there(
    transport: str, scheme: str, host: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"{host}:{free.getsockname()[1]}"
        with pytest.raises(ConnectionFailed, match=f"the proxy {place} cannot be reached") as raised:
            await use(transport, f"{scheme}://server.invalid/", proxy=f"http://{CREDENTIALS}@{place}")
    assert raised.value.not_sent
    assert not [secret for secret in SECRETS if secret in everything_told(raised.value)]


async def test_a_proxy_that_comes_to_want_credentials_is_asked_with_growing_delays(tmp_path: Path) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server, HttpProxy() as proxy:
        recovery = ErrorRecoveryPolicy(base_delay=0.05, max_delay=0.2)
        async with Client(server.url, proxy=proxy.url(), recovery=recovery) as client:
            reasons: list[CircuitBreakerError | None] = []
            client.on_connection_state(lambda change: reasons.append(change.reason))
            updates = await client.subscriptions.resource_updates().subscribe()
            proxy.answer = REFUSALS["407"][0]
            await proxy.cut()
            await until(lambda: len(proxy.heads) >= 3)
            await asyncio.sleep(0.5)
            assert len(proxy.heads) < 30
            assert any("HTTP 407" in str(reason) for reason in reasons)
            proxy.answer = None
            await until(lambda: client.state is ConnectionState.CONNECTED)
            assert not updates.is_polled


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
