"""A proxy that gives no connection is named, with what to do; its credentials are shown nowhere."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from circuit_breaker_sdk import (
    Client,
    ConnectionFailed,
    ConnectionState,
    ErrorRecoveryPolicy,
    TransportError,
)
from circuit_breaker_sdk.config import Timeouts
from circuit_breaker_sdk.errors import CircuitBreakerError
from circuit_breaker_sdk.transports.http import HttpTransport
from circuit_breaker_sdk.transports.proxies import Proxy
from circuit_breaker_sdk.transports.websocket import connect
from circuit_breaker_server import Server, ServerSettings
from tests.transports.each_transport import CREDENTIALS, SECRETS, everything_told, use
from tests.transports.http_proxy import HttpProxy
from tests.transports.peers import LIMITS, RecordingSink
from tests.waiting import until

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


@pytest.mark.parametrize("kind", ["407", "403", "502", "closed", "endless"])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_no_transport_needs_the_redaction_to_keep_the_credentials_of_a_proxy(
    kind: str, scheme: str
) -> None:
    async def no_headers() -> Mapping[str, str]:
        return {}

    url = f"{scheme}://server.invalid/"
    async with HttpProxy() as given:
        given.answer = REFUSALS[kind][0]
        proxy = Proxy(given.url(CREDENTIALS))
        with pytest.raises(ConnectionFailed) as raised:
            await connect(
                url, RecordingSink(), subprotocols=["x"], limits=LIMITS, timeouts=Timeouts(), proxy=proxy
            )
        told = everything_told(raised.value)
        if scheme == "wss":  # a plain request's own errors hold its headers, those of the server as well
            transport = HttpTransport(url, headers=no_headers, timeouts=Timeouts(), proxy=proxy)
            with pytest.raises(ConnectionFailed) as raised:
                await transport.execute(b"{}")
            await transport.aclose()
            told += everything_told(raised.value)
    assert not [secret for secret in SECRETS if secret in told]


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


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
@pytest.mark.parametrize(("transport", "scheme"), [("websocket", "wss"), ("http", "wss")])
def test_a_caller_that_gives_up_leaves_no_connection_to_the_proxy(
    transport: str, scheme: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def run() -> None:
        async with HttpProxy() as proxy:
            proxy.hangs = True
            calling = asyncio.create_task(
                use(transport, f"{scheme}://server.invalid/", proxy=proxy.url(CREDENTIALS))
            )
            await until(lambda: proxy.heads)
            calling.cancel()
            await asyncio.wait([calling])
            assert calling.cancelled()
            await until(lambda: proxy.hung_up)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


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
