"""Opening a WebSocket: what a good peer gets, and what a user reads about every bad one."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable

import pytest
import trustme

from circuit_breaker_sdk.config import MessageLimits, Timeouts
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    CircuitBreakerError,
    ConnectionFailed,
    HandshakeFailed,
    OperationTimeoutError,
    RateLimitExceeded,
    UsageError,
)
from circuit_breaker_sdk.transports.websocket import WebSocket, connect
from tests.ports import free_port
from tests.transports.peers import (
    CLOSE,
    SUBPROTOCOL,
    TEXT,
    Peer,
    RecordingSink,
    frame,
    handshake_answer,
    serve,
)


async def open_socket(
    url: str,
    *,
    sink: RecordingSink | None = None,
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    timeouts: Timeouts | None = None,
) -> WebSocket:
    return await connect(
        url,
        sink or RecordingSink(),
        subprotocols=[SUBPROTOCOL],
        headers=headers,
        ssl=tls,
        limits=MessageLimits(),
        timeouts=timeouts or Timeouts(),
    )


async def failure(
    script: Callable[[Peer], Awaitable[None]], *, tls: ssl.SSLContext | None = None, scheme: str = "ws"
) -> CircuitBreakerError:
    """Return what connecting to a peer that runs ``script`` raises; check what holds for every failure."""
    sink = RecordingSink()
    async with serve(script, tls=tls) as port:
        with pytest.raises(CircuitBreakerError) as caught:
            await open_socket(f"{scheme}://127.0.0.1:{port}/graphql?key=secret", sink=sink)
        assert isinstance(caught.value, RateLimitExceeded) or f"127.0.0.1:{port}/graphql" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert (sink.messages, sink.closed) == ([], [])
    return caught.value


def answer(status: str, headers: str = "", body: str = "") -> Callable[[Peer], Awaitable[None]]:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n{body}".encode())
        await peer.read_to_end()

    return script


# A good peer -----------------------------------------------------------------------------------------------


async def test_the_request_says_where_to_what_is_offered_and_who_asks() -> None:
    heads: list[str] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.accept(subprotocol="second"))
        await peer.read_to_end()

    async with serve(script) as port:
        opened = await connect(
            f"http://127.0.0.1:{port}/a%20path?x=1&y=%C3%BC",
            RecordingSink(),
            subprotocols=["first", "second"],
            headers={"Authorization": "Bearer token", "X-Tab": "a\tb"},
            limits=MessageLimits(),
            timeouts=Timeouts(),
        )
        assert opened.subprotocol == "second"
        assert opened.url == f"ws://127.0.0.1:{port}/a%20path"
        opened.abort()
        await opened.wait_closed()
    lines = heads[0].split("\r\n")
    assert lines[0] == "GET /a%20path?x=1&y=%C3%BC HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}" in lines
    assert "Sec-WebSocket-Protocol: first, second" in lines
    assert "Authorization: Bearer token" in lines
    assert not any(line.lower().startswith("sec-websocket-extensions") for line in lines)


async def test_what_the_peer_sends_right_behind_its_answer_is_delivered() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(
            behind=frame(TEXT, b'"early"', masked=False) + frame(CLOSE, b"\x03\xe9", masked=False)
        )
        await peer.read_to_end()

    sink = RecordingSink()
    async with serve(script) as port:
        opened = await open_socket(f"ws://127.0.0.1:{port}", sink=sink)
        await opened.wait_closed()
    assert sink.messages == [b'"early"']
    assert sink.closed == [(1001, "")]
    assert opened.is_closing


async def test_an_answer_in_pieces_is_understood() -> None:
    async def script(peer: Peer) -> None:
        for byte in handshake_answer(await peer.read_head()):
            peer.send(bytes([byte]))
            await peer.writer.drain()
            await asyncio.sleep(0)
        await peer.read_to_end()

    async with serve(script) as port:
        opened = await open_socket(f"ws://127.0.0.1:{port}")
        opened.abort()
        await opened.wait_closed()


# No connection ---------------------------------------------------------------------------------------------


async def test_a_refused_port_is_said_to_be_refused() -> None:
    port = free_port()
    with pytest.raises(ConnectionFailed, match=f"127.0.0.1:{port}/graphql: .*refused.*is the server running"):
        await open_socket(f"ws://127.0.0.1:{port}")


async def test_an_unknown_host_name_is_named() -> None:
    with pytest.raises(ConnectionFailed, match=r"'no\.such\.host\.invalid' is not known.*check the URL"):
        await open_socket("ws://no.such.host.invalid:4000")


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_peer_that_accepts_and_never_answers_is_a_timeout(scheme: str) -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_to_end()
        gone.set()

    # Long enough to be connected by then, on a busy machine too.
    timeouts = Timeouts(connect_seconds=0.5)
    async with serve(script) as port:
        with pytest.raises(OperationTimeoutError, match=rf"127\.0\.0\.1:{port}.*within 0\.5 s") as caught:
            await open_socket(f"{scheme}://127.0.0.1:{port}", timeouts=timeouts)
        assert caught.value.retryable
        assert caught.value.seconds == 0.5
        # The socket is not left open behind the error.
        await asyncio.wait_for(gone.wait(), 10)


async def test_cancelling_drops_the_connection() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        asked.set()
        await peer.read_to_end()
        gone.set()

    async with serve(script) as port:
        task = asyncio.create_task(open_socket(f"ws://127.0.0.1:{port}"))
        await asyncio.wait_for(asked.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(gone.wait(), 10)


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 101 Swi"])
async def test_a_peer_that_hangs_up_without_an_answer_is_a_failed_connection(words: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.send(words)

    error = await failure(script)
    assert type(error) is ConnectionFailed
    assert "closed the connection during the WebSocket handshake" in str(error)


async def test_a_peer_that_resets_is_a_failed_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.vanish()

    assert type(await failure(script)) is ConnectionFailed


# Not a WebSocket server ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status", ["404 Not Found", "405 Method Not Allowed", "426 Upgrade Required", "400 Bad Request"]
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_path_without_websocket_says_so(status: str, version: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.send(f"HTTP/{version} {status}\r\nContent-Type: text/html\r\n\r\n<html></html>".encode())

    error = await failure(script)
    assert isinstance(error, HandshakeFailed)
    assert error.status == int(status[:3])
    assert not error.retryable
    assert f"does not accept WebSocket upgrades at this path (HTTP {status[:3]})" in str(error)


async def test_a_page_instead_of_an_upgrade_says_so() -> None:
    error = await failure(answer("200 OK", "Content-Type: text/html\r\n", "<html>"))
    assert isinstance(error, HandshakeFailed)
    assert error.status == 200


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_refused_credentials_are_an_authentication_failure(status: str) -> None:
    error = await failure(answer(status))
    assert isinstance(error, AuthenticationFailed)
    assert "check the token" in str(error)


@pytest.mark.parametrize(("header", "seconds"), [("Retry-After: 7\r\n", 7.0), ("", None)])
async def test_too_many_requests_say_when_to_come_back(header: str, seconds: float | None) -> None:
    error = await failure(answer("429 Too Many Requests", header))
    assert isinstance(error, RateLimitExceeded)
    assert error.retry_after == seconds


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect"])
async def test_a_redirect_is_reported_and_not_followed(status: str) -> None:
    error = await failure(answer(status, "Location: wss://user:pw@other.example/api?key=secret\r\n"))
    assert isinstance(error, HandshakeFailed)
    assert "redirects to wss://other.example/api (" in str(error)
    assert "pw" not in str(error)


@pytest.mark.parametrize(
    "status", ["500 Internal Server Error", "502 Bad Gateway", "503 Unavailable", "520 Odd"]
)
async def test_a_server_in_trouble_may_be_tried_again(status: str) -> None:
    error = await failure(answer(status))
    assert type(error) is ConnectionFailed
    assert error.retryable
    assert f"HTTP {status[:3]}" in str(error)


@pytest.mark.parametrize(
    "rubbish", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x00\x01\x02", b"HTTP", b"HTTP/2 200\r\n\r\n"]
)
async def test_a_peer_that_is_not_an_http_server_is_named_so(rubbish: bytes) -> None:
    async def script(peer: Peer) -> None:
        peer.send(rubbish)
        if len(rubbish) > 4:
            await peer.read_to_end()
        else:
            await peer.read_head()

    error = await failure(script)
    if rubbish.startswith(b"HTTP") and len(rubbish) < 7:
        assert type(error) is ConnectionFailed
    elif len(rubbish) < 4:
        assert isinstance(error, HandshakeFailed)
    else:
        assert isinstance(error, HandshakeFailed)
        assert repr(rubbish[:6])[2:-1] in str(error)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 -\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000,
    ],
)
async def test_an_answer_that_is_no_handshake_is_refused(head: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.send(head)
        await peer.read_to_end()

    assert isinstance(await failure(script), HandshakeFailed)


@pytest.mark.parametrize(
    ("subprotocol", "more", "told"),
    [
        (None, "", "answered none"),
        ("graphql-ws", "", "answered 'graphql-ws'"),
        (SUBPROTOCOL, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n", f"'{SUBPROTOCOL}', '{SUBPROTOCOL}'"),
    ],
)
async def test_a_wrong_or_missing_subprotocol_names_what_was_offered_and_answered(
    subprotocol: str | None, more: str, told: str
) -> None:
    async def script(peer: Peer) -> None:
        close = frame(CLOSE, b"\x11\x36not acceptable", masked=False)
        await peer.accept(subprotocol=subprotocol, more=more, behind=close)
        await peer.read_to_end()

    error = await failure(script)
    assert isinstance(error, HandshakeFailed)
    assert f"offered '{SUBPROTOCOL}'" in str(error)
    assert told in str(error)


async def test_an_extension_that_was_not_offered_is_refused() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(more="Sec-WebSocket-Extensions: permessage-deflate\r\n")
        await peer.read_to_end()

    error = await failure(script)
    assert isinstance(error, HandshakeFailed)
    assert "extension" in str(error)


# TLS -------------------------------------------------------------------------------------------------------

AUTHORITY = trustme.CA()


def server_context(*names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*names).configure_cert(context)
    return context


def trusting_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def accept_and_wait(peer: Peer) -> None:
    await peer.accept()
    await peer.read_to_end()


@pytest.mark.parametrize("scheme", ["wss", "https"])
async def test_tls_works_with_a_trusted_authority(scheme: str) -> None:
    sink = RecordingSink()

    async def script(peer: Peer) -> None:
        await peer.accept(behind=frame(TEXT, b"x" * 100_000, masked=False))
        assert (await peer.read_frame()).payload == b"y" * 100_000
        close = await peer.read_frame()
        peer.send(frame(CLOSE, close.payload, masked=False))
        await peer.read_to_end()

    async with serve(script, tls=server_context("localhost")) as port:
        opened = await open_socket(f"{scheme}://localhost:{port}", sink=sink, tls=trusting_context())
        await sink.wait_until(lambda: sink.messages)
        opened.send_message(b"y" * 100_000)
        opened.close(1000)
        await opened.wait_closed()
    assert sink.messages == [b"x" * 100_000]
    assert sink.closed == [(1000, "")]


async def test_an_untrusted_certificate_is_refused_and_says_what_to_do() -> None:
    async with serve(accept_and_wait, tls=server_context("localhost")) as port:
        with pytest.raises(ConnectionFailed, match=r"certificate was refused.*ssl\.SSLContext that trusts"):
            await open_socket(f"wss://localhost:{port}")


async def test_a_certificate_for_another_host_is_refused() -> None:
    async with serve(accept_and_wait, tls=server_context("other.example")) as port:
        with pytest.raises(ConnectionFailed, match=r"certificate was refused.*name that is in"):
            await open_socket(f"wss://localhost:{port}", tls=trusting_context())


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 50, b""])
async def test_tls_to_a_plain_port_says_so(words: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.read(1)
        peer.send(words)

    async with serve(script) as port:
        with pytest.raises(ConnectionFailed, match=rf"wss://127\.0\.0\.1:{port}/graphql: .*use ws://"):
            await open_socket(f"wss://127.0.0.1:{port}")


async def test_a_plain_request_to_a_tls_port_says_so() -> None:
    async with serve(accept_and_wait, tls=server_context("localhost")) as port:
        with pytest.raises(ConnectionFailed, match=r"TLS.*use wss://"):
            await open_socket(f"ws://127.0.0.1:{port}")


# The caller's mistakes, and what stays secret --------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "1\r\nX-B: 2"},
        {"X-A": "nul\0"},
        {"X-A": "é"},
        {"bad name": "1"},
        {"": "1"},
        {"X\r\nY": "1"},
        {"Sec-WebSocket-Key": "1"},
        {"upgrade": "1"},
        {"Sec-WebSocket-Protocol": "1"},
    ],
)
async def test_a_header_that_would_break_the_request_is_refused_before_anything_is_sent(
    headers: dict[str, str],
) -> None:
    with pytest.raises(UsageError) as caught:
        await open_socket("ws://127.0.0.1:1", headers=headers)
    assert "nul" not in str(caught.value)


async def test_a_url_that_cannot_be_connected_to_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match="ws://"):
        await open_socket("localhost:4000")


async def test_no_credentials_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(1)
    async with serve(accept_and_wait) as port:
        opened = await open_socket(
            f"ws://127.0.0.1:{port}/graphql?key=hunter2", headers={"Authorization": "Bearer hunter2"}
        )
        opened.abort()
        await opened.wait_closed()
    assert "hunter2" not in caplog.text
    assert all(record.levelno <= logging.DEBUG for record in caplog.records)
