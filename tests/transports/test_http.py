"""Queries and mutations over HTTP: what a good server gets, and what a user reads about every bad one."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
import trustme

from circuit_breaker_sdk.config import MessageLimits, Timeouts
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    HandshakeFailed,
    OperationTimeoutError,
    RateLimitExceeded,
    TransportError,
    UsageError,
)
from circuit_breaker_sdk.transports.http import HttpTransport
from tests.transports.peers import Peer, serve

REQUEST = b'{"query":"{ health }"}'
DATA = b'{"data":{"health":"ok"}}'
ERRORS = b'{"errors":[{"message":"no such field"}]}'


@asynccontextmanager
async def open_transport(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    timeouts: Timeouts | None = None,
    limits: MessageLimits | None = None,
) -> AsyncIterator[HttpTransport]:
    async def current_headers() -> Mapping[str, str]:
        return headers or {}

    transport = HttpTransport(
        url, headers=current_headers, ssl=tls, timeouts=timeouts or Timeouts(), limits=limits
    )
    try:
        yield transport
    finally:
        await transport.aclose()


async def read_request(peer: Peer) -> tuple[str, bytes]:
    head = await peer.read_head()
    length = next(
        int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length")
    )
    return head, await peer.read(length)


def answer(
    status: str, body: bytes = b"", headers: str = "Content-Type: application/json\r\n"
) -> Callable[[Peer], Awaitable[None]]:
    async def script(peer: Peer) -> None:
        await read_request(peer)
        peer.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)
        await peer.read_to_end()

    return script


async def failure(
    script: Callable[[Peer], Awaitable[None]], *, limits: MessageLimits | None = None
) -> TransportError:
    """Return what executing against ``script`` raises; check what holds for every failure."""
    async with (
        serve(script) as port,
        open_transport(f"http://127.0.0.1:{port}/graphql?key=secret", limits=limits) as transport,
    ):
        with pytest.raises(TransportError) as caught:
            await transport.execute(REQUEST)
        assert isinstance(caught.value, RateLimitExceeded) or f"127.0.0.1:{port}/graphql" in str(caught.value)
    assert "secret" not in str(caught.value)
    return caught.value


# A good server ---------------------------------------------------------------------------------------------


async def test_requests_are_json_posts_over_one_kept_alive_connection_with_fresh_headers() -> None:
    seen: list[tuple[str, bytes]] = []
    tokens = iter(["first", "second"])

    async def script(peer: Peer) -> None:
        for _ in range(2):
            seen.append(await read_request(peer))
            peer.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nSet-Cookie: a=b\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(DATA), DATA)
            )
        await peer.read_to_end()

    async def headers() -> Mapping[str, str]:
        return {"Authorization": f"Bearer {next(tokens)}"}

    async with serve(script) as port:
        transport = HttpTransport(f"ws://127.0.0.1:{port}/graphql?x=1", headers=headers, timeouts=Timeouts())
        assert await transport.execute(REQUEST) == DATA
        assert await transport.execute(REQUEST) == DATA
        await transport.aclose()
    for (head, body), token in zip(seen, ["first", "second"], strict=True):
        lines = head.split("\r\n")
        assert lines[0] == "POST /graphql?x=1 HTTP/1.1"
        assert "Content-Type: application/json" in lines
        assert "Accept: application/graphql-response+json, application/json;q=0.9" in lines
        assert f"Authorization: Bearer {token}" in lines
        assert "cookie" not in head.lower()
        assert body == REQUEST


@pytest.mark.parametrize(
    "status", ["200 OK", "400 Bad Request", "422 Unprocessable", "500 Internal Server Error"]
)
@pytest.mark.parametrize(
    "body", [ERRORS, b'{"data":null,"errors":[{"message":"x"}]}', DATA, b'{"data":null}']
)
async def test_a_graphql_response_is_returned_whatever_its_status(status: str, body: bytes) -> None:
    async with (
        serve(answer(status, body, "Content-Type: application/graphql-response+json\r\n")) as port,
        open_transport(f"http://127.0.0.1:{port}") as transport,
    ):
        assert await transport.execute(REQUEST) == body


async def test_a_compressed_answer_is_read() -> None:
    script = answer("200 OK", gzip.compress(DATA), "Content-Encoding: gzip\r\n")
    async with serve(script) as port, open_transport(f"http://127.0.0.1:{port}") as transport:
        assert await transport.execute(REQUEST) == DATA


async def test_requests_may_run_side_by_side() -> None:
    async with (
        serve(answer("200 OK", DATA)) as port,
        open_transport(f"http://127.0.0.1:{port}") as transport,
    ):
        assert await asyncio.gather(*(transport.execute(REQUEST) for _ in range(8))) == [DATA] * 8


# Not connected ---------------------------------------------------------------------------------------------


async def test_a_refused_port_is_said_to_be_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with open_transport(f"http://127.0.0.1:{port}") as transport:
        with pytest.raises(ConnectionFailed, match=f"127.0.0.1:{port}/graphql: .*refused"):
            await transport.execute(REQUEST)


async def test_an_unknown_host_name_is_named() -> None:
    async with open_transport("http://no.such.host.invalid") as transport:
        with pytest.raises(ConnectionFailed, match=r"'no\.such\.host\.invalid' is not known"):
            await transport.execute(REQUEST)


async def test_a_server_that_never_answers_is_a_timeout_and_its_connection_is_dropped() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_to_end()
        gone.set()

    timeouts = Timeouts(execute_seconds=0.05)
    async with (
        serve(script) as port,
        open_transport(f"http://127.0.0.1:{port}", timeouts=timeouts) as transport,
    ):
        with pytest.raises(OperationTimeoutError, match=rf"127\.0\.0\.1:{port}.*within 0\.05 s"):
            await transport.execute(REQUEST)
        await asyncio.wait_for(gone.wait(), 10)


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"])
async def test_a_connection_lost_before_the_answer_says_that_the_outcome_is_unknown(words: bytes) -> None:
    requests = 0

    async def script(peer: Peer) -> None:
        nonlocal requests
        await read_request(peer)
        requests += 1
        peer.send(words)

    error = await failure(script)
    assert type(error) is ConnectionFailed
    assert "not known" in str(error)
    assert requests == 1, "a mutation must never be sent twice"


async def test_a_reset_is_a_failed_connection() -> None:
    async def script(peer: Peer) -> None:
        await read_request(peer)
        peer.vanish()

    assert type(await failure(script)) is ConnectionFailed


# Not a GraphQL server --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rubbish", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x00\x01\x02\r\n\r\n"])
async def test_a_peer_that_is_not_an_http_server_is_named_so(rubbish: bytes) -> None:
    async def script(peer: Peer) -> None:
        await read_request(peer)
        peer.send(rubbish)
        await peer.read_to_end()

    error = await failure(script)
    assert isinstance(error, ConnectionFailed)
    assert "not HTTP" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"",
        b"[]",
        b"{}",
        b'"data"',
        b'{"detail":"x"}',
        b'{"errors":"x"}',
        b'{"errors":[]}',
        b'{"data":1',
        b"\xff",
        b'{"data":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
)
async def test_an_answer_that_is_not_a_graphql_response_says_so(body: bytes) -> None:
    error = await failure(answer("200 OK", body, "Content-Type: text/html\r\n"))
    assert type(error) is ConnectionFailed
    assert "HTTP 200, text/html" in str(error)
    assert "not a GraphQL response" in str(error)


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "415 Unsupported Media Type"])
async def test_a_path_without_graphql_says_so(status: str) -> None:
    error = await failure(answer(status, b'{"detail":"Not Found"}'))
    assert isinstance(error, HandshakeFailed)
    assert error.status == int(status[:3])
    assert "does not answer GraphQL over HTTP at this path" in str(error)


@pytest.mark.parametrize("body", [b"", b"nope", ERRORS, b'{"errors":[1]}'])
@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_refused_credentials_are_an_authentication_failure(status: str, body: bytes) -> None:
    error = await failure(answer(status, body))
    assert isinstance(error, AuthenticationFailed)
    assert ("the server says: no such field" in str(error)) == (body == ERRORS)


async def test_too_many_requests_say_when_to_come_back() -> None:
    error = await failure(answer("429 Too Many Requests", ERRORS, "Retry-After: 3\r\n"))
    assert isinstance(error, RateLimitExceeded)
    assert error.retry_after == 3.0


@pytest.mark.parametrize("status", ["301 Moved", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_a_redirect_is_reported_and_not_followed(status: str) -> None:
    error = await failure(answer(status, DATA, "Location: https://other.example/api?key=secret\r\n"))
    assert isinstance(error, HandshakeFailed)
    assert "redirects to https://other.example/api (" in str(error)


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable"])
async def test_a_server_in_trouble_may_be_tried_again(status: str) -> None:
    error = await failure(answer(status, b"<html>"))
    assert type(error) is ConnectionFailed
    assert error.retryable


@pytest.mark.parametrize("compressed", [True, False])
async def test_an_answer_over_the_limit_is_not_read_to_its_end(compressed: bool) -> None:
    body = b'{"data":"' + b"x" * 1_000_000 + b'"}'
    script = (
        answer("200 OK", gzip.compress(body), "Content-Encoding: gzip\r\n")
        if compressed
        else answer("200 OK", body)
    )
    error = await failure(script, limits=MessageLimits(max_message_bytes=100_000))
    assert "max_message_bytes" in str(error)


# TLS -------------------------------------------------------------------------------------------------------

AUTHORITY = trustme.CA()


def server_context(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(name).configure_cert(context)
    return context


def trusting_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def test_tls_works_with_a_trusted_authority() -> None:
    async with (
        serve(answer("200 OK", DATA), tls=server_context("localhost")) as port,
        open_transport(f"wss://localhost:{port}", tls=trusting_context()) as transport,
    ):
        assert await transport.execute(REQUEST) == DATA


@pytest.mark.parametrize("name", ["localhost", "other.example"])
async def test_an_untrusted_certificate_or_one_for_another_host_is_refused(name: str) -> None:
    tls = trusting_context() if name != "localhost" else None
    async with (
        serve(answer("200 OK", DATA), tls=server_context(name)) as port,
        open_transport(f"https://localhost:{port}", tls=tls) as transport,
    ):
        with pytest.raises(ConnectionFailed, match="certificate was refused"):
            await transport.execute(REQUEST)


async def test_tls_to_a_plain_port_says_so() -> None:
    async def script(peer: Peer) -> None:
        await peer.read(1)
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serve(script) as port, open_transport(f"https://127.0.0.1:{port}") as transport:
        with pytest.raises(ConnectionFailed, match="use ws:// or http://"):
            await transport.execute(REQUEST)


async def test_a_plain_request_to_a_tls_port_is_a_failed_connection() -> None:
    async with (
        serve(answer("200 OK", DATA), tls=server_context("localhost")) as port,
        open_transport(f"http://127.0.0.1:{port}") as transport,
    ):
        with pytest.raises(ConnectionFailed):
            await transport.execute(REQUEST)


# Life ------------------------------------------------------------------------------------------------------


async def test_a_closed_transport_refuses_and_closing_twice_is_fine() -> None:
    async with open_transport("http://127.0.0.1:1") as transport:
        await transport.aclose()
        await transport.aclose()
        with pytest.raises(UsageError, match="closed"):
            await transport.execute(REQUEST)


async def test_a_header_that_would_break_the_request_is_refused() -> None:
    for headers in ({"X-A": "1\r\nX-B: 2"}, {"Content-Type": "text/plain"}):
        async with open_transport("http://127.0.0.1:1", headers=headers) as transport:
            with pytest.raises(UsageError, match="header"):
                await transport.execute(REQUEST)


async def test_cancelling_ends_the_request_and_the_transport_lives_on() -> None:
    asked = asyncio.Event()
    cancelled = asyncio.Event()

    async def script(peer: Peer) -> None:
        await read_request(peer)
        if not asked.is_set():
            asked.set()
            await peer.read_to_end()
            cancelled.set()
            return
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(DATA), DATA))
        await peer.read_to_end()

    async with serve(script) as port, open_transport(f"http://127.0.0.1:{port}") as transport:
        task = asyncio.create_task(transport.execute(REQUEST))
        await asyncio.wait_for(asked.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(cancelled.wait(), 10)
        assert await transport.execute(REQUEST) == DATA
